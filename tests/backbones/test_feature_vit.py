"""Maps of a pretrained ViT's blocks: those of the core encoder, by every name, at every size of image."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmdet.registry
import mmseg.registry
import pytest
import torch
import torch.nn.functional as F
from backbone_samples import write_checkpoint, write_official
from mmengine.registry import Registry
from run_samples import one_line
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mlomae.backbones import feature_vit
from mlomae.backbones.export import export
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.models import ViT

ROOT = Path(__file__).parents[2]
REGISTRIES: dict[str, Registry] = {"mmseg": mmseg.registry.MODELS, "mmdet": mmdet.registry.MODELS}
SIZES = [(224, 224), (512, 512), (160, 256)]
OUT = (0, 2, 3)
SMALL = {"out_indices": (0, 1), "model": {"num_heads": 2}, "img_size": 16}  # for the files of backbone_samples


@pytest.fixture
def only_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmdet looks up a name only after importing its detectors, which want mmcv's compiled operations."""
    monkeypatch.setattr(mmdet.registry.MODELS, "_imported", True)


@pytest.fixture(scope="module")
def pretrained(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ViT]:
    """A checkpoint of 224 pixels and patch 16, and its encoder."""
    path = tmp_path_factory.mktemp("weights") / "iter_7.pth"
    return path, write_checkpoint(path, img_size=224, patch_size=16, embed_dim=16, depth=4)


def image(size: Sequence[int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(3))


def positions(encoder: ViT, grid: tuple[int, int]) -> Tensor:
    """The encoder's table at another grid, by torch alone."""
    table = encoder.pos_embed[:, 1:].transpose(1, 2).unflatten(2, encoder.grid)
    at_grid = F.interpolate(table, grid, mode="bicubic", antialias=True) if grid != encoder.grid else table
    return torch.cat([encoder.pos_embed[:, :1], at_grid.flatten(2).transpose(1, 2)], dim=1)


@torch.no_grad()
def maps_of(encoder: ViT, images: Tensor, out: Sequence[int]) -> list[Tensor]:
    """What the encoder's blocks give, without its patch embedding's insistence on one size."""
    patches = encoder.patch_embed.proj(images)
    grid = (patches.shape[2], patches.shape[3])
    tokens = torch.cat([encoder.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + positions(encoder, grid)
    maps = []
    for i, block in enumerate(encoder.blocks):
        tokens = block(tokens)
        if i in out:
            maps.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
    return maps


@torch.no_grad()
def maps_by_timm(encoder: ViT, images: Tensor, out: Sequence[int]) -> list[Tensor]:
    """timm's own intermediate features, of its model with the exported weights."""
    shape = {"embed_dim": encoder.embed_dim, "depth": encoder.depth, "num_heads": encoder.num_heads}
    side = encoder.img_size
    model = VisionTransformer(
        side, encoder.patch_size, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True, **shape
    )
    model.load_state_dict(encoder.state_dict())
    found: list[Tensor] = model.eval().forward_intermediates(images, indices=list(out), intermediates_only=True)
    return found


def build(registry: str, weights: str | Path, **options: Any) -> FeatureViT:
    module: FeatureViT = REGISTRIES[registry].build({"type": "mlomae.FeatureViT", "weights": str(weights), **options})
    return module.eval()


@torch.no_grad()
def maps(module: FeatureViT, images: Tensor) -> list[Tensor]:
    return list(module(images))


@pytest.mark.usefixtures("only_registry")
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_core_encoder_timm_mmseg_and_mmdet_agree(size: tuple[int, int], pretrained: tuple[Path, ViT]) -> None:
    path, encoder = pretrained
    expected = maps_of(encoder, image(size), OUT)
    assert [tuple(m.shape) for m in expected] == [(1, 16, size[0] // 16, size[1] // 16)] * 3
    assert min(float(m.std()) for m in expected) > 0.1
    torch.testing.assert_close(maps_by_timm(encoder, image(size), OUT), expected, atol=1e-5, rtol=0)
    if size == (224, 224):  # the encoder's own way, up to its final norm
        whole = maps_of(encoder, image(size), [3])[0].flatten(2).transpose(1, 2)
        with torch.no_grad():
            torch.testing.assert_close(encoder.norm(whole), encoder(image(size))[:, 1:], atol=1e-5, rtol=0)
    for registry in REGISTRIES:
        module = build(registry, path, out_indices=OUT)
        assert type(module) is FeatureViT
        torch.testing.assert_close(maps(module, image(size)), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_mmdet_with_its_detectors_imported(pretrained: tuple[Path, ViT], tmp_path: Path) -> None:
    """In a process of its own, where a stand-in for the compiled operations lets mmdet import all it has."""
    program = f"""
import importlib.machinery, sys, types
class Operations(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None
sys.modules["mmcv._ext"] = Operations("mmcv._ext")
sys.modules["mmcv._ext"].__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
import torch
from mmdet.registry import MODELS
import mlomae.backbones.feature_vit
module = MODELS.build(dict(type="mlomae.FeatureViT", weights={str(pretrained[0])!r}, out_indices={OUT})).eval()
assert MODELS.get("MaskRCNN") is not None
torch.save([m.detach() for m in module(torch.load("image.pt"))], "maps.pt")
"""
    torch.save(image((160, 256)), tmp_path / "image.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=120)
    found = torch.load(tmp_path / "maps.pt")
    torch.testing.assert_close(found, maps_of(pretrained[1], image((160, 256)), OUT), atol=1e-5, rtol=0)


def test_registries_and_the_module_import_without_compiled_operations() -> None:
    names = ", ".join(f"{name}.registry" for name in REGISTRIES)
    program = f"import sys, {names}, mlomae.backbones.feature_vit; assert 'mmcv.ops' not in sys.modules"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)


@pytest.mark.parametrize("size", [(223, 224), (150, 250), (17, 31), (5, 7)], ids=str)
def test_sides_that_are_no_multiples_of_the_patch_are_padded(
    size: tuple[int, int], pretrained: tuple[Path, ViT]
) -> None:
    path, encoder = pretrained
    height, width = (-(-side // 16) * 16 for side in size)
    padded = torch.zeros(2, 3, height, width)
    padded[:, :, : size[0], : size[1]] = image(size, 2)
    found = maps(build("mmseg", path, out_indices=OUT), image(size, 2))
    assert found[0].shape[2:] == (height // 16, width // 16)
    torch.testing.assert_close(found, maps_of(encoder, padded, OUT), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, maps_by_timm(encoder, image(size, 2), OUT), atol=1e-5, rtol=0)


def test_positions_are_kept_at_the_grid_of_img_size_and_follow_the_image(pretrained: tuple[Path, ViT]) -> None:
    """Interpolated once when the weights are loaded, as a training crop needs them, then for every other image."""
    path, encoder = pretrained
    module = build("mmseg", path, out_indices=(3,), img_size=[128, 192])
    torch.testing.assert_close(module.vit.pos_embed, positions(encoder, (8, 12)), atol=1e-6, rtol=0)
    assert any("grid 14x14 interpolated to 8x12" in note for note in module.report.notes)
    images = image((128, 192))
    torch.testing.assert_close(maps(module, images), maps_of(encoder, images, [3]), atol=1e-5, rtol=0)
    cropped = maps(module, images[:, :, :64, :64])[0]
    module.vit.pos_embed.data.mul_(0)
    assert float((maps(module, images[:, :, :64, :64])[0] - cropped).abs().max()) > 0.1, "positions matter"


def test_all_weights_are_used_and_the_report_tells_what_was_dropped(pretrained: tuple[Path, ViT]) -> None:
    path, encoder = pretrained
    module = build("mmseg", path, out_indices=(0, 2))
    own, theirs = module.vit.state_dict(), encoder.state_dict()
    dropped = {k for k in theirs if k.startswith(("norm.", "blocks.3."))}
    assert own.keys() == theirs.keys() - dropped
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    report = module.report
    assert (set(report.matched), report.missing, report.mismatched) == (set(own), [], [])
    assert {key for key in report.unexpected if not key.startswith("decoder.")} == dropped
    assert report.notes == ["norm: dropped; the last 1 blocks too"]
    assert build("mmseg", path, out_indices=OUT).report.notes == ["norm: dropped"]
    module.init_weights()  # MMEngine calls it, on all modules
    assert all(torch.equal(value, theirs[key]) for key, value in module.vit.state_dict().items())


def test_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mae.pth"
    write_official(path)
    content = torch.load(path, weights_only=True)
    edits: dict[str, Any] = {
        r"lack blocks\.0\.": lambda s: {k: v for k, v in s.items() if not k.startswith("blocks.0.")},
        r"lack blocks\.1\.mlp\.fc2\.bias": lambda s: {k: v for k, v in s.items() if k != "blocks.1.mlp.fc2.bias"},
        "unknown to the model: extra": lambda s: {**s, "extra": torch.zeros(1)},
        r"not finite: blocks\.1\.norm1\.bias": lambda s: {**s, "blocks.1.norm1.bias": torch.full((24,), torch.nan)},
    }
    for said, edit in edits.items():
        torch.save({"model": edit(content["model"])}, path)
        with pytest.raises(CheckpointError, match=said) as error:
            FeatureViT(str(path), **SMALL)
        assert "mae.pth" in one_line(error.value)


def test_every_layout_of_weights_gives_the_same_maps(tmp_path: Path) -> None:
    """Our checkpoint and its exports, official MAE weights, a timm folder by timm's own name for it."""
    encoder = write_checkpoint(tmp_path / "iter_7.pth")
    write_official(tmp_path / "mae.pth")
    for fmt, name in {"safetensors": "e.safetensors", "timm": "folder", "mmseg": "seg.pth", "mmdet": "det.pth"}.items():
        export(tmp_path / "iter_7.pth", tmp_path / name, fmt)
    expected = maps_of(encoder, image((16, 24)), (0, 1))
    specs = [str(path) for path in sorted(tmp_path.iterdir())]
    assert len(specs) == 6
    for spec in [*specs, f"timm:local-dir:{tmp_path / 'folder'}:pretrained"]:
        options = {**SMALL, "model": SMALL["model"] if spec.endswith("mae.pth") else None}
        module = FeatureViT(spec, **options).eval()
        torch.testing.assert_close(maps(module, image((16, 24))), expected, atol=1e-5, rtol=0, msg=spec)
    named = FeatureViT("timm:vit_tiny_patch16_224", img_size=32, out_indices=(5, 11)).eval()
    assert [tuple(m.shape) for m in maps(named, image((32, 48)))] == [(1, 192, 2, 3)] * 2
    other = FeatureViT(f"random:{tmp_path / 'mae.pth'}", **SMALL).eval()
    assert all(not torch.allclose(a, b, atol=0.1) for a, b in zip(maps(other, image((16, 24))), expected, strict=True))


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_recomputing_activations_changes_no_gradient(
    drop_path: float, pretrained: tuple[Path, ViT], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    checkpoint = feature_vit.checkpoint
    monkeypatch.setattr(feature_vit, "checkpoint", lambda *a, **k: calls.append(1) or checkpoint(*a, **k))
    gradients = []
    for with_cp in (False, True):
        module = build("mmseg", pretrained[0], out_indices=OUT, with_cp=with_cp, drop_path=drop_path).train()
        torch.manual_seed(5)
        sum((i + 1) * m.square().mean() for i, m in enumerate(module(image((48, 64), 12)))).backward()
        gradients.append([p.grad for p in module.parameters()])
        assert all(g is not None and g.abs().max() > 0 for g in gradients[-1])
    assert len(calls) == 4
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)
    module.eval()(image((16, 16)))
    assert len(calls) == 4, "nothing to save where no gradient is wanted"


@pytest.mark.parametrize("given", [(), (4,), (-1,), (1, 0), (1, 1), (0, 4)])
def test_wrong_blocks_are_one_line(given: tuple[int, ...], pretrained: tuple[Path, ViT]) -> None:
    with pytest.raises(ConfigError, match=r"out_indices .* must be rising block numbers from 0 to 3") as error:
        FeatureViT(str(pretrained[0]), out_indices=given)
    one_line(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": "nowhere.pth"}, "'nowhere.pth' does not exist"),
        ({"img_size": 100}, "image size 100 is not divisible by patch size 16"),
        ({"img_size": 0}, "image size 0 must be"),
        ({"drop_path": 1.0}, "drop_path must be"),
        ({"model": {"depth": 5}}, "holds a ViT of depth=4, not 5"),
    ],
)
def test_other_wrong_options_are_one_line(options: dict[str, Any], said: str, pretrained: tuple[Path, ViT]) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=said) as error:
        FeatureViT(**{"weights": str(pretrained[0]), "out_indices": OUT, **options})
    one_line(error.value)


def test_random_weights_follow_the_seed() -> None:
    options = {"weights": "random", "img_size": 16, "out_indices": (1,)}
    model = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    a, b, c = (FeatureViT(**options, model=model, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.vit.blocks[0].attn.qkv.weight, b.vit.blocks[0].attn.qkv.weight)
    assert not torch.equal(a.vit.blocks[0].attn.qkv.weight, c.vit.blocks[0].attn.qkv.weight)
