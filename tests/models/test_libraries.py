"""Weights that the real library has written, where it is installed: features within 1e-5 of its own.

None but torchvision is needed by anything else; `tests/models/test_layouts.py` has files in the same layouts.
"""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_layouts import mmpretrain_vit
from torch import Tensor, nn

from mlomae.backbones.create import create_backbone
from mlomae.models import MAE, create_encoder
from mlomae.models.loading import load_pretrained

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
DIM, DEPTH, HEADS = 32, 2, 2


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    module.eval()  # of mmpretrain's it returns nothing
    return module


def features(spec: str, heads: int | None = HEADS) -> Tensor:
    model = {"num_heads": heads} if heads else None
    vit, _ = create_backbone(spec, num_classes=0, img_size=16, global_pool="token", model=model)
    with torch.no_grad():
        return vit.eval().forward_features(IMAGES)


def close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["folder", "file", "state dict"])
@pytest.mark.parametrize(
    "name", ["ViTMAEForPreTraining", "ViTModel", "ViTForImageClassification", "DeiTModel", "Dinov2Model"]
)
def test_transformers(name: str, how: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape: dict[str, Any] = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    shape |= {"intermediate_size": 64, "image_size": 16, "patch_size": 4}
    mae = name == "ViTMAEForPreTraining"
    if mae:
        shape |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
        shape |= {"decoder_intermediate_size": 64, "mask_ratio": 0.0}
    kind = {"ViTMAEForPreTraining": "ViTMAE", "ViTForImageClassification": "ViT"}.get(name, name.removesuffix("Model"))
    model = randomised(getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**shape)))
    model.save_pretrained(tmp_path / "m")
    torch.save(model.state_dict(), tmp_path / "state.pth")
    specs = {
        "folder": tmp_path / "m",
        "file": tmp_path / "m" / "model.safetensors",
        "state dict": tmp_path / "state.pth",
    }
    spec = str(specs[how])
    inner = getattr(model, "vit", model)
    ordered = {"noise": torch.arange(16.0).expand(2, -1)} if mae else {}  # it shuffles patches even if it removes none
    with torch.no_grad():
        wanted = inner(IMAGES, **ordered).last_hidden_state
    close(features(spec, None if how != "state dict" else HEADS), wanted)


def test_transformers_mae_is_continued(tmp_path: Path) -> None:
    """The decoder too: the prediction for every patch."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=DIM,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        image_size=16,
        patch_size=4,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        mask_ratio=0.5,
        layer_norm_eps=1e-6,
    )
    model: Any = randomised(transformers.ViTMAEForPreTraining(config))
    model.save_pretrained(tmp_path)
    mae = MAE(create_encoder("tiny", 16, 4, DIM, DEPTH, HEADS), 16, 2, 2).eval()
    report = load_pretrained(mae, tmp_path)
    assert not report.missing
    assert not report.unexpected
    with torch.no_grad():
        out = model(IMAGES, noise=torch.arange(16.0).expand(2, -1))
        latents = mae.encoder.encode(mae.encoder.embed(IMAGES)[:, :8])
        close(mae.decoder(latents, out.ids_restore), out.logits)


def _lightly(module: types.ModuleType) -> tuple[nn.Module, Callable[[], Tensor]]:
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=0)

    class Method(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = module.MaskedVisionTransformerTIMM(vit=vit)
            self.decoder = module.MAEDecoderTIMM(
                num_patches=16,
                patch_size=4,
                embed_dim=DIM,
                decoder_embed_dim=16,
                decoder_depth=1,
                decoder_num_heads=2,
            )

    method = randomised(Method())
    return method, lambda: method.backbone.encode(IMAGES)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lightly(tmp_path: Path) -> None:
    modules = pytest.importorskip("lightly.models.modules")
    method, encode = _lightly(modules)
    with torch.no_grad():
        wanted = encode()
    torch.save({"state_dict": method.state_dict(), "pytorch-lightning_version": "2.6"}, tmp_path / "last.ckpt")
    close(features(str(tmp_path / "last.ckpt")), wanted)
    mae = MAE(create_encoder("tiny", 16, 4, DIM, DEPTH, HEADS), 16, 1, 2)
    report = load_pretrained(mae, tmp_path / "last.ckpt")
    assert torch.equal(mae.decoder.mask_token, method.decoder.mask_token)
    assert not report.missing


def test_lightning_itself(tmp_path: Path) -> None:
    """A checkpoint as its trainer writes it, with the options that it saves."""
    lightning = pytest.importorskip("pytorch_lightning")
    from timm.models.vision_transformer import VisionTransformer

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, out: Path, lr: float = 1e-3) -> None:
            super().__init__()
            self.save_hyperparameters()
            shape: dict[str, Any] = {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0}
            self.model = VisionTransformer(img_size=16, patch_size=4, **shape)

        def training_step(self, batch: Any, number: int) -> Tensor:
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES), batch_size=2)
    module = Module(tmp_path)
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(module, loader)
    path = next(tmp_path.rglob("*.ckpt"))
    with torch.no_grad():
        close(features(str(path)), module.model.eval().forward_features(IMAGES))


@pytest.mark.parametrize("pooled", [False, True])
def test_mmpretrain(pooled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mmpretrain.version")
    arch = {"embed_dims": DIM, "num_layers": DEPTH, "num_heads": HEADS, "feedforward_channels": 64}
    more = {"out_type": "avg_featmap", "final_norm": False} if pooled else {"out_type": "raw"}
    scale = {"layer_scale_init_value": 0.1} if not pooled else {}
    model = randomised(mmpretrain_vit(monkeypatch)(arch=arch, img_size=16, patch_size=4, **more, **scale))
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pth")
    with torch.no_grad():
        wanted = model(IMAGES)[-1]
        if not pooled:
            return close(features(str(tmp_path / "w.pth")), wanted)
        vit, _ = create_backbone(str(tmp_path / "w.pth"), num_classes=0, img_size=16, model={"num_heads": HEADS})
        close(vit.eval()(IMAGES), wanted)


def test_torchvision(tmp_path: Path) -> None:
    from torchvision.models import VisionTransformer

    model: Any = randomised(
        VisionTransformer(image_size=16, patch_size=4, num_layers=DEPTH, num_heads=HEADS, hidden_dim=DIM, mlp_dim=64)
    )
    torch.save(model.state_dict(), tmp_path / "w.pth")
    with torch.no_grad():
        tokens = model._process_input(IMAGES)
        wanted = model.encoder(torch.cat([model.class_token.expand(2, -1, -1), tokens], 1))
    close(features(str(tmp_path / "w.pth")), wanted)
