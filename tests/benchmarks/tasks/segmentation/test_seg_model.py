"""The segmentor: mmseg's own on the same weights, inference by plain torch, what is built, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import seg_runs
import torch
import torch.nn.functional as F
from backbone_samples import write_checkpoint
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from run_samples import changed, differences, one_line
from torch import Tensor, nn

from benchmarks.tasks.segmentation import model as module
from benchmarks.tasks.segmentation.model import build_segmentor
from benchmarks.transfer import dense
from mlomae.backbones.feature_vit import FeatureViT
from mlomae.common.errors import ConfigError
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD

NAMES = {
    "backbone.vit.patch_embed.proj": "backbone.patch_embed.projection",
    "backbone.vit.blocks.": "backbone.layers.",
    "backbone.vit.": "backbone.",
    ".norm1.": ".ln1.",
    ".norm2.": ".ln2.",
    ".attn.qkv.": ".attn.attn.in_proj_",
    ".attn.proj.": ".attn.attn.out_proj.",
    ".mlp.fc1.": ".ffn.layers.0.0.",
    ".mlp.fc2.": ".ffn.layers.1.",
}


def build(scenes: Path, **changes: Any) -> Any:
    return build_segmentor(seg_runs.config(scenes, **changes), seg_runs.CLASSES)[0]


@pytest.fixture
def ours(scenes: Path) -> Any:
    """With weights that are all random: fresh ones have zero biases, unit norms and the sin-cos table."""
    segmentor = build(scenes)
    generator = torch.Generator().manual_seed(1)
    for parameter in segmentor.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return segmentor


def mmsegs(ours: Any, **backbone: Any) -> Any:
    """mmseg's EncoderDecoder with its plain ViT, our weights under its names."""
    vit = {"type": "VisionTransformer", "img_size": 16, "patch_size": 4, "embed_dims": 16, "num_layers": 4}
    vit |= {"num_heads": 2, "out_indices": (0, 1, 2, 3), "patch_bias": True, "final_norm": False}
    vit |= {"norm_cfg": {"type": "LN", "eps": 1e-6}, **backbone}
    model = changed(seg_runs.MODEL, {"type": "EncoderDecoder", "backbone": vit, "neck__embed_dim": 16})
    model |= {"test_cfg": {"mode": "whole"}}
    for head, width in (("decode_head", [16] * 4), ("auxiliary_head", 16)):
        model[head] |= {"in_channels": width, "num_classes": seg_runs.CLASSES}
    with DefaultScope.overwrite_default_scope("mmseg"):
        theirs = MODELS.build(ConfigDict(model))
    state = {}
    for name, value in ours.state_dict().items():
        renamed = name
        for a, b in NAMES.items():
            renamed = renamed.replace(a, b)
        state[renamed] = value.clone()
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert set(missing) <= {"backbone.ln1.weight", "backbone.ln1.bias"}, "a final norm, which ours has not"
    assert not unexpected
    return theirs


def batch(size: tuple[int, int] = (16, 16)) -> tuple[Tensor, list[SegDataSample]]:
    """Three images as the heads' losses take them, a seventh of the pixels not labelled."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 3, *size, generator=generator)
    labels = torch.randint(0, seg_runs.CLASSES, (3, 1, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 1 / 7] = 255
    samples = []
    for truth in labels:
        sample = SegDataSample(metainfo={"img_shape": size, "ori_shape": size})
        sample.gt_sem_seg = PixelData(data=truth)
        samples.append(sample)
    return images, samples


def compared(ours: Any, theirs: Any) -> float:
    """Largest difference of maps, logits and losses, of evaluation and of training."""
    images, samples = batch()
    apart = []
    for mode in (False, True):
        found = []
        for segmentor in (ours, theirs):
            segmentor.train(mode)
            torch.manual_seed(3)  # dropout of the heads
            with torch.no_grad():
                logits = segmentor._forward(images)
                losses = segmentor.loss(images, samples)
            assert {"decode.loss_ce", "aux.loss_ce"} < losses.keys()
            found.append(torch.cat([logits.flatten(), *(value.flatten() for value in losses.values())]))
        apart.append(float((found[0] - found[1]).abs().max()))
    return max(apart)


def test_logits_and_losses_are_those_of_mmsegs_plain_vit(ours: Any) -> None:
    assert compared(ours, mmsegs(ours)) < 1e-5


def test_predictions_are_those_of_mmsegs_plain_vit(ours: Any) -> None:
    images, samples = batch()
    found = [segmentor.eval().predict(images, [s.clone() for s in samples]) for segmentor in (ours, mmsegs(ours))]
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine.seg_logits.data, other.seg_logits.data, atol=1e-5, rtol=0)
        assert torch.equal(mine.pred_sem_seg.data, other.pred_sem_seg.data)


def swapped(ours: Any, theirs: Any, patch: pytest.MonkeyPatch) -> None:
    forward = FeatureViT.forward
    patch.setattr(FeatureViT, "forward", lambda self, images: [forward(self, images)[i] for i in (0, 2, 1, 3)])


def other_epsilon(ours: Any, theirs: Any, patch: pytest.MonkeyPatch) -> None:
    for m in ours.backbone.modules():
        if isinstance(m, nn.LayerNorm):
            m.eps = 1e-2


def other_class_token(ours: Any, theirs: Any, patch: pytest.MonkeyPatch) -> None:
    ours.backbone.vit.cls_token.data.neg_()


@pytest.mark.parametrize("mutation", [swapped, other_epsilon, other_class_token])
def test_mutations_are_noticed(mutation: Any, ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = mmsegs(ours)
    mutation(ours, theirs, monkeypatch)
    assert compared(ours, theirs) > 1e-3


def test_a_final_norm_would_be_noticed(ours: Any) -> None:
    assert compared(ours, mmsegs(ours, final_norm=True)) > 1e-3


# --- inference --------------------------------------------------------------------------------------------------------


def plain_logits(segmentor: Any, images: Tensor) -> Tensor:
    """Backbone, neck, head, then bilinear to the size of the image."""
    logits = segmentor.decode_head(segmentor.neck(segmentor.backbone(images)))
    return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


def slid_logits(segmentor: Any, images: Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Mean over the windows that cover a pixel; the last one of a row or column ends at the border."""
    total, count = torch.zeros(len(images), seg_runs.CLASSES, *images.shape[2:]), torch.zeros(images.shape[2:])
    starts = [
        sorted({min(k, max(side - window, 0)) for k in range(0, side, step)})
        for side, window, step in zip(images.shape[2:], crop, stride, strict=True)
    ]
    for top in starts[0]:
        for left in starts[1]:
            place = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
            total[place] += plain_logits(segmentor, images[place])
            count[place] += 1
    assert count.min() >= 1
    return total / count


def slide(crop: tuple[int, int], stride: tuple[int, int]) -> dict[str, Any]:
    return {"model__test_cfg": {"mode": "slide", "crop_size": crop, "stride": stride}}


def logits_of(segmentor: Any, images: Tensor) -> Tensor:
    size = tuple(images.shape[2:])
    logits: Tensor = segmentor.inference(images, [{"ori_shape": size, "img_shape": size}])
    return logits


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (12, 16), (10, 7)], ids=str)
def test_both_modes_agree_on_images_that_fit_the_window(size: tuple[int, int], scenes: Path) -> None:
    whole, sliding = build(scenes).eval(), build(scenes, **slide((16, 16), (11, 11))).eval()
    images = torch.randn(1, 3, *size)
    assert torch.equal(logits_of(whole, images), logits_of(sliding, images))
    torch.testing.assert_close(logits_of(whole, images), plain_logits(whole, images), atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 27), (17, 16), (16, 60)], ids=str)
@pytest.mark.parametrize(("crop", "stride"), [((16, 16), (11, 11)), ((12, 16), (12, 5))])
def test_sliding_is_the_mean_over_windows(
    size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int], scenes: Path
) -> None:
    segmentor = build(scenes, **slide(crop, stride)).eval()
    images = torch.randn(1, 3, *size)
    found = logits_of(segmentor, images)
    torch.testing.assert_close(found, slid_logits(segmentor, images, crop, stride), atol=1e-6, rtol=0)
    assert float((found - plain_logits(segmentor, images)).abs().max()) > 1e-3, "not what the whole image gives"
    other = slid_logits(segmentor, images, crop, (stride[0] - 1, stride[1] - 1))
    assert size == (17, 16) or float((found - other).abs().max()) > 1e-4, "the stride matters"


@torch.no_grad()
def test_the_model_takes_bytes_in_bgr_and_predicts_at_the_size_of_the_file(scenes: Path) -> None:
    """Colours in the order and scale of pretraining; logits brought to the file's size before the largest wins."""
    segmentor = build(scenes).eval()
    rgb = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8)
    sample = SegDataSample(metainfo={"ori_shape": (30, 41), "img_shape": (12, 16)})
    (found,) = segmentor.test_step({"inputs": [rgb.flip(0)], "data_samples": [sample]})
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    logits = plain_logits(segmentor, ((rgb / 255 - mean) / std)[None])
    expected = F.interpolate(logits, (30, 41), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.seg_logits.data, expected[0], atol=1e-4, rtol=0)
    assert (found.pred_sem_seg.data[0] == expected[0].argmax(0)).float().mean() > 0.999


# --- what is built ----------------------------------------------------------------------------------------------------


def test_the_bits_depend_on_the_configuration_alone(scenes: Path) -> None:
    a = build(scenes).state_dict()
    torch.manual_seed(99)
    b, c = build(scenes).state_dict(), build(scenes, seed=1).state_dict()
    assert differences(a, b) == []
    changed_keys = set(differences(a, c))
    for name in ("backbone.vit.blocks.0.attn.qkv.weight", "neck.upsample_2x.0.weight", "decode_head.conv_seg.weight"):
        assert f".{name}" in changed_keys


def test_the_pretrained_weights_are_there_and_the_heads_fit_them(scenes: Path, tmp_path: Path) -> None:
    encoder = write_checkpoint(tmp_path / "iter_7.pth", depth=4)
    weights = {"backbone__weights": str(tmp_path / "iter_7.pth"), "backbone__model": None}
    segmentor, report = build_segmentor(seg_runs.config(scenes, **weights), 7)
    state = encoder.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in segmentor.backbone.vit.state_dict().items())
    assert report.startswith("matched 52, missing 0")
    assert segmentor.decode_head.in_channels == [24] * 4
    assert segmentor.auxiliary_head.in_channels == 24
    assert segmentor.decode_head.conv_seg.weight.shape[0] == segmentor.num_classes == 7


def test_synchronised_norms_become_plain_ones_without_gpus(scenes: Path) -> None:
    sync = {"type": "SyncBN", "requires_grad": True}
    changes = {f"model__{part}__norm_cfg": sync for part in ("neck", "decode_head", "auxiliary_head")}
    plain, sync_built = build(scenes), build(scenes, **changes)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in sync_built.modules())
    assert sum(type(m).__name__.startswith(("BatchNorm", "_BatchNormX")) for m in sync_built.modules()) == sum(
        isinstance(m, nn.BatchNorm2d) for m in plain.modules()
    )
    images, _ = batch()
    assert torch.equal(plain.eval()._forward(images), sync_built.eval()._forward(images))


def test_a_page_for_every_parameter_is_not_logged(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(scenes)
    captured = capsys.readouterr()
    assert "init_weights" not in captured.out + captured.err


@pytest.mark.parametrize("scope", ["mmengine", "mmdet"])
def test_whatever_scope_an_earlier_run_left(scope: str, scenes: Path) -> None:
    expected = build(scenes).state_dict()
    with DefaultScope.overwrite_default_scope(scope):
        assert differences(build(scenes).state_dict(), expected) == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no head": ({"model": {}}, r"'model\.decode_head' is missing"),
    "name for a head": ({"model__decode_head": "UPerHead"}, "has 'UPerHead' for a head; give a dict"),
    "list of names": ({"model__auxiliary_head": ["FCNHead"]}, "has 'FCNHead' for a head; give a dict"),
    "unknown head": ({"model__decode_head__type": "UperHead"}, "'model' is refused by mmseg .*UperHead"),
    "option of a head": ({"model__decode_head__chanels": 8}, "'model' is refused by mmseg .*chanels"),
    "index of a head": ({"model__decode_head__in_index": [0, 1, 2, 4]}, "does not fit the backbone's maps .*index"),
    "width of a head": ({"model__auxiliary_head__in_channels": 8}, "does not fit the backbone's maps .*channels"),
    "weights of classes": (
        {"model__decode_head__loss_decode": {"type": "CrossEntropyLoss", "class_weight": [1.0, 2.0]}},
        "does not fit the backbone's maps .*weight",
    ),
    "three maps": ({"backbone__out_indices": [0, 1, 2]}, "does not fit the backbone's maps"),
    "other classes": ({"model__auxiliary_head__num_classes": 9}, "a head for 9 classes, data has 5"),
    "unknown neck": ({"model__neck__type": "FPM"}, "'model' is refused by mmseg .*FPM"),
    "unknown norm": (
        {"model__neck__norm_cfg": {"type": "BM"}},
        "'model' is refused by mmseg .*'BM' is not in a registry",
    ),
    "unknown loss": ({"model__decode_head__loss_decode": {"type": "Entropy"}}, "'model' is refused by mmseg .*Entropy"),
    "unknown key": ({"model__decoder": {}}, "'model' is refused by mmseg .*decoder"),
    "mode": ({"model__test_cfg": {"mode": "slides"}}, r"'model\.test_cfg\.mode' must be one of whole, slide"),
    "no mode": ({"model__test_cfg": {}}, r"'model\.test_cfg\.mode' must be one of whole, slide"),
    "no dict": ({"model__test_cfg": "slide"}, r"'model\.test_cfg' must be a dict"),
    "no stride": ({"model__test_cfg": {"mode": "slide", "crop_size": (8, 8)}}, "needs crop_size and stride"),
    "wide stride": (slide((8, 8), (8, 9)), "the stride not above the crop"),
    "no step": (slide((8, 8), (0, 8)), "needs crop_size and stride"),
    "half a pixel": (slide((8.5, 8), (4, 4)), "needs crop_size and stride"),  # type: ignore[arg-type]
    "one image": ({"data__batch_size": 1}, "BatchNorm needs 2 images a process"),
    "no weights": ({"backbone__weights": None}, "no backbone was named"),
    "text for a number": (
        {"backbone__model": {**seg_runs.SHAPE, "depth": "4"}},
        "backbone model: depth must be int; got '4'",
    ),
    "blocks": ({"backbone__out_indices": [0, 1, 2, 4]}, r"out_indices \(0, 1, 2, 4\) must be rising"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_models_are_one_line(case: str, scenes: Path) -> None:
    changes, said = WRONG[case]
    with pytest.raises(ConfigError, match=said) as error:
        build(scenes, **changes)
    one_line(error.value)


class Marks:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("section", ["model__decode_head__loss_decode", "model__neck", "model__auxiliary_head__x"])
def test_nothing_that_a_configuration_names_is_run(section: str, scenes: Path, tmp_path: Path) -> None:
    marker, weights = tmp_path / "marker", tmp_path / "weights.pth"
    torch.save({"state_dict": Marks(marker)}, weights)
    for harmful in (
        {"type": "os.mkdir", "path": str(marker)},
        {"type": os.mkdir, "path": str(marker)},
        {"type": "ReLU", "init_cfg": [{"type": "Pretrained", "checkpoint": str(weights)}]},
    ):
        with pytest.raises(ConfigError, match="'model' is refused by mmseg") as error:
            build(scenes, **{section: harmful})
        one_line(error.value)
    with pytest.raises(ConfigError, match="Weights only load failed"), dense._building(MODELS, "model", {}):
        torch.load(weights, weights_only=False)  # as constructors of mmseg and mmdet do
    assert not marker.exists()
    torch.load(weights, weights_only=False)
    assert marker.exists(), "the file is harmless, the test proves nothing"


def test_a_batch_norm_of_one_image_is_refused_because_torch_would(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check, or with a norm that has no need of it."""
    images, samples = batch()
    monkeypatch.setattr(module, "_check_statistics", lambda *given: None)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        build(scenes, data__batch_size=1).loss(images[:1], samples[:1])
    norm = {"type": "GN", "num_groups": 2}
    heads = {f"model__{part}__norm_cfg": norm for part in ("neck", "decode_head", "auxiliary_head")}
    monkeypatch.undo()
    assert torch.isfinite(build(scenes, data__batch_size=1, **heads).loss(images[:1], samples[:1])["decode.loss_ce"])


def test_other_necks_and_single_maps_get_their_widths(scenes: Path) -> None:
    """A linear head on the last map alone, and a neck that is told its widths as mmseg wants them."""
    head = {**seg_runs.HEAD, "type": "FCNHead", "num_convs": 0, "channels": 16, "concat_input": False}
    linear = build(scenes, model={"decode_head": {**head, "in_index": 3}})
    assert linear._forward(batch()[0]).shape == (3, seg_runs.CLASSES, 4, 4)
    neck = {"type": "MultiLevelNeck", "in_channels": [16] * 4, "out_channels": 16, "scales": [4, 2, 1, 0.5]}
    assert build(scenes, model__neck=neck)._forward(batch()[0]).shape == (3, seg_runs.CLASSES, 16, 16)
