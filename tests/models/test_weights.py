"""Strict loading, public layouts, and files that must be refused."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mlomae.common.checkpoint import FORMAT
from mlomae.common.errors import CheckpointError
from mlomae.models import MAE, create_encoder
from mlomae.models.loading import create_timm, load_pretrained, load_strict
from mlomae.models.vit import sincos_positions
from mlomae.models.weights import read_weights

TINY = {"size": "tiny", "img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
DECODER = {"decoder_embed_dim": 12, "decoder_depth": 1, "decoder_num_heads": 2}


def make_mae(seed: int = 0, decoder: dict | None = None, **overrides: int) -> MAE:
    """A small MAE whose every parameter, zeros and ones included, is random."""
    torch.manual_seed(seed)
    mae = MAE(create_encoder(**{**TINY, **overrides}), **(decoder or DECODER))
    for name, parameter in mae.named_parameters():
        if not name.endswith("pos_embed"):
            torch.nn.init.normal_(parameter)
    return mae


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    return read_weights(path).encoder


def official_layout(mae: MAE) -> dict[str, torch.Tensor]:
    """The state dict as facebookresearch/mae names it (models_mae.py), written out independently of the code tested."""
    names = {}
    for key, value in mae.state_dict().items():
        part, rest = key.split(".", 1)
        if part == "encoder":
            names[rest] = value
        elif rest == "mask_token":
            names["mask_token"] = value
        else:
            names[f"decoder_{rest}"] = value
    assert {"mask_token", "decoder_pos_embed", "decoder_blocks.0.mlp.fc1.weight", "decoder_pred.bias"} <= set(names)
    return names


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_strict_report_lists_every_key() -> None:
    source, target = make_mae(0), make_mae(1)
    report = load_strict(target, source.state_dict())
    assert same(target.state_dict(), source.state_dict())
    assert report.matched == list(source.state_dict())
    assert [report.missing, report.unexpected, report.mismatched] == [[], [], []]
    assert all(key in str(report) for key in report.matched)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.norm.weight"), "lack encoder.norm.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown to the model: extra"),
        (
            lambda s: s.update({"encoder.norm.bias": torch.zeros(3)}),
            r"encoder.norm.bias \(file \(3,\), model \(16,\)\)",
        ),
        (lambda s: s["encoder.norm.bias"].fill_(float("nan")), "not finite: encoder.norm.bias"),
    ],
)
def test_strict_refuses_and_leaves_the_module_alone(change, message: str) -> None:
    target = make_mae(1)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    state = {k: v.clone() for k, v in make_mae(0).state_dict().items()}
    change(state)
    with pytest.raises(CheckpointError, match=message) as error:
        load_strict(target, state)
    one_line(error)
    assert same(before, target.state_dict())


def test_allow_lists_are_patterns_and_are_reported() -> None:
    state = {k: v for k, v in make_mae(0).state_dict().items() if k.startswith("encoder.")} | {"x.y": torch.zeros(1)}
    report = load_strict(make_mae(1), state, allow_missing=["decoder.*"], allow_unexpected=["x.*"])
    assert report.unexpected == ["x.y"]
    assert report.missing
    assert all(key.startswith("decoder.") for key in report.missing)
    with pytest.raises(CheckpointError, match="lack decoder"):
        load_strict(make_mae(1), state, allow_missing=["decoder.blocks.*"], allow_unexpected=["x.*"])


def test_official_checkpoint_loads_in_full(tmp_path: Path) -> None:
    source, target = make_mae(0), make_mae(1)
    content = {"model": official_layout(source), "args": argparse.Namespace(lr=0.1), "epoch": 3}
    torch.save(content, tmp_path / "mae_visualize.pth")
    report = load_pretrained(target, tmp_path / "mae_visualize.pth")
    assert same(target.state_dict(), source.state_dict())
    assert [report.missing, report.unexpected] == [[], []]


def test_official_encoder_only_and_timm_heads(tmp_path: Path) -> None:
    source, target = make_mae(0), make_mae(1)
    decoder_before = {k: v.clone() for k, v in target.decoder.state_dict().items()}
    state = source.encoder.state_dict() | {"head.weight": torch.zeros(5, 16), "head.bias": torch.zeros(5)}
    save_file(state, tmp_path / "timm.safetensors")
    report = load_pretrained(target, tmp_path / "timm.safetensors")
    assert same(target.encoder.state_dict(), source.encoder.state_dict())
    assert same(target.decoder.state_dict(), decoder_before)
    assert sorted(report.unexpected) == ["head.bias", "head.weight"]
    assert "no whole decoder" in str(report)


def test_timm_model_converts(tmp_path: Path) -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=3
    )
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    mae = make_mae()
    load_pretrained(mae, tmp_path / "timm.pth")
    mae.eval()
    model.eval()
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(mae.encoder(images), model.forward_features(images), atol=1e-5)


def test_unknown_extra_key_is_not_dropped(tmp_path: Path) -> None:
    torch.save({**make_mae(0).encoder.state_dict(), "reg_token": torch.zeros(1, 4, 16)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w.pth.*encoder.reg_token"):
        load_pretrained(make_mae(1), tmp_path / "w.pth")


def test_positions_of_another_grid_are_recomputed_and_said(tmp_path: Path) -> None:
    source, target = make_mae(0, img_size=24), make_mae(1)
    torch.save(official_layout(source), tmp_path / "w.pth")
    report = load_pretrained(target, tmp_path / "w.pth")
    assert torch.equal(target.encoder.pos_embed, sincos_positions(16, (4, 4)))
    assert torch.equal(target.decoder.pos_embed, sincos_positions(12, (4, 4)))
    assert torch.equal(target.encoder.cls_token, source.encoder.cls_token)
    assert len(report.notes) == 2
    assert "37 tokens in the file, 17 in the model" in str(report)
    assert "WARNING" not in str(report)

    state = source.encoder.state_dict()
    state["pos_embed"] = torch.randn_like(state["pos_embed"])
    torch.save(state, tmp_path / "learned.pth")
    assert "WARNING" in str(load_pretrained(target, tmp_path / "learned.pth"))


@pytest.mark.parametrize(
    ("overrides", "decoder", "message"),
    [
        ({"embed_dim": 32}, None, r"encoder of width 32, depth 2, patch 4, this model's is of width 16, depth 2"),
        ({"depth": 3}, None, r"encoder of width 16, depth 3"),
        ({"patch_size": 8}, None, r"patch 8, .* patch 4"),
        ({}, {**DECODER, "decoder_depth": 2}, r"decoder of width 12, depth 2, this model's is of width 12, depth 1"),
    ],
)
def test_another_architecture_names_both(tmp_path: Path, overrides: dict, decoder: dict | None, message: str) -> None:
    torch.save({"model": official_layout(make_mae(0, decoder, **overrides))}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        load_pretrained(make_mae(1), tmp_path / "w.pth")
    one_line(error)


def save_ours(mae: MAE, path: Path, **model: object) -> None:
    modules = {"mae": mae.state_dict(), "mask": {}, "feedback": {}}
    config = {"model": {**TINY, **DECODER, "norm_pix_loss": True, **model}}
    torch.save({"format": FORMAT, "iteration": 1, "config": config, "meta": {}, "modules": modules}, path)


def test_own_checkpoint(tmp_path: Path) -> None:
    source, target = make_mae(0), make_mae(1)
    save_ours(source, tmp_path / "iter_1.pth")
    load_pretrained(target, tmp_path / "iter_1.pth")
    assert same(target.state_dict(), source.state_dict())


def test_other_head_counts_are_refused(tmp_path: Path) -> None:
    """Equal shapes, other attention: would load without a word and compute something else."""
    save_ours(make_mae(0, num_heads=4), tmp_path / "iter_1.pth", num_heads=4)
    with pytest.raises(CheckpointError, match="num_heads=4, not 2"):
        load_pretrained(make_mae(1), tmp_path / "iter_1.pth")
    save_ours(make_mae(0), tmp_path / "iter_2.pth", decoder_num_heads=3)
    with pytest.raises(CheckpointError, match="decoder_num_heads=3, not 2"):
        load_pretrained(make_mae(1), tmp_path / "iter_2.pth")


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_unwrapping_and_prefixes(tmp_path: Path, wrapper: str) -> None:
    state = make_mae(0).encoder.state_dict()
    torch.save({wrapper: {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pt")
    torch.save({wrapper: {f"backbone.{k}": v for k, v in state.items()}, "meta": {"x": 1}}, tmp_path / "b.pth")
    assert same(read_state_dict(tmp_path / "a.pt"), state)
    assert same(read_state_dict(tmp_path / "b.pth"), state)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 5])
def test_malicious_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "executed"
    torch.save({"model": {"w": torch.zeros(1)}, "x": Bomb(marker)}, tmp_path / "zip.pth", pickle_protocol=protocol)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"x": Bomb(marker)}, protocol=protocol))
    for name in ("zip.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match="only tensors and plain values") as error:
            read_state_dict(tmp_path / name)
        one_line(error)
        assert not marker.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)
    assert marker.exists(), "the bomb is a dud: the test above proves nothing"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_missing_or_foreign_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    with pytest.raises(CheckpointError, match="do not exist"):
        read_state_dict(path)
    state = {k: v.contiguous() for k, v in make_mae(0).state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    for content in (path.read_bytes()[:-100], b"", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            read_state_dict(path)
        assert path.name in one_line(error)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(tmp_path / "list.pth")
    torch.save({"format": "mlomae-pretrain/99", "modules": {}}, tmp_path / "future.pth")
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        read_state_dict(tmp_path / "future.pth")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "hf-hub:nobody/nothing"])
def test_without_a_network_timm_does_not_try_for_a_minute(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    tried: list[str] = []
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: argparse.Namespace(head=refused))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", lambda name, **_: tried.append(name))
    with pytest.raises(CheckpointError, match=f"timm's '{name}' cannot be fetched: .* cannot be reached") as error:
        create_timm(name, pretrained=True)
    one_line(error)
    assert not tried
    create_timm("vit_tiny_patch16_224")  # needs no network
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: "cached")
    create_timm(name, pretrained=True)
    assert tried == ["vit_tiny_patch16_224", name]
