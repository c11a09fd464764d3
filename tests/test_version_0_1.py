"""Checkpoints and records that version 0.1 wrote: continued to the bits that it would have reached, and read by all.

``fixtures/version_0_1`` holds, of each kind of run, the checkpoint after half of it (commit 1913902), the record of the
whole run, and in ``final.json`` the hashes of the weights and predictions that the old code ended with. The runs are
programs of `traces`, the dense ones with smaller heads.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import tiny
import torch
from safetensors.torch import load_file
from traces import adapter, drawn, programs, record

from mlomae.cli import main
from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.models.places import sha256
from mlomae.pretraining.run import run_pretraining
from mlomae.records import read_record

FOLDER = Path(__file__).parent / "fixtures" / "version_0_1"
FINAL: dict[str, Any] = json.loads((FOLDER / "final.json").read_text())
PRETRAINED = FOLDER / "pretraining" / "iter_10.pth"

_SGD = {"optim": {"type": "sgd", "lr": 0.05, "layer_decay": 0.75, "warmup": 0.1, "min_lr": 0.0}}
_DETECTION = programs.merged(programs.DETECTION, _SGD)
_DETECTION["backbone"] |= {"model": {**programs.SHAPE, "depth": 2}, "global_blocks": [1], "out_indices": [1]}
_DETECTION["model"]["roi_head"]["bbox_head"]["fc_out_channels"] = 8
_SEGMENTATION = programs.merged(programs.SEGMENTATION, _SGD)
PROGRAMS: dict[str, programs.Program] = {
    "pretraining": programs.PROGRAMS["pretrain_mlomae_linear"],
    "classification_finetune": programs.PROGRAMS["classification_finetune"],
    "classification_linear": programs.PROGRAMS["classification_linear"],
    "segmentation": programs.transfer("segmentation", _SEGMENTATION, drawn.write_scenes, ("training", "validation")),
    "detection": programs.transfer("detection", _DETECTION, drawn.write_objects, ("train", "val")),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the checkpoints were written."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_run_is_continued_to_the_same_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half of the run is the checkpoint's; paths in it are relative, as they were."""
    monkeypatch.chdir(tmp_path)
    for function in ("run_pretraining", "run_transfer"):
        train = getattr(adapter, function)

        def half(*args: Any, train: Any = train, stop_after: int | None = None, **options: Any) -> Any:
            if stop_after is None:
                return train(*args, **options)
            Path("run/checkpoints").mkdir(parents=True)
            return shutil.copy(FOLDER / name / "iter_10.pth", "run/checkpoints")

        monkeypatch.setattr(adapter, function, half)
    monkeypatch.setattr(adapter, "_read_log", lambda work_dir: ({}, {}))  # which has the second half alone
    values = json.loads(json.dumps(next(iter(PROGRAMS[name](Path("")).values()))))
    expected, exact = FINAL[name], record.is_exact(FINAL, {"environment": record.environment()})
    for part, found in {**values["weights"], "predictions": values.get("predictions")}.items():
        wanted = expected["weights"][part] if part != "predictions" else expected.get("predictions")
        if exact or wanted is None:
            assert found == wanted, part
        elif part != "predictions":  # other processors round differently, and twenty steps carry that on
            assert found["projection"] == pytest.approx(wanted["projection"], abs=0.5), part
    old = json.loads((FOLDER / name / "record.json").read_text())
    new = json.loads(Path("run/record.json").read_text())
    assert new["config_hash"] == old["config_hash"]
    assert new["images_seen"] == old["images_seen"]
    if exact:
        assert {key: new["metrics"][key] for key in old["metrics"]} == old["metrics"]
        assert {key: new.get("curves", {}).get(key) for key in old.get("curves", {})} == old.get("curves", {})


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_record_is_read(name: str) -> None:
    entry = read_record(FOLDER / name / "record.json", name)
    assert entry["task"] == {"pretraining": "pretrain"}.get(name, name.partition("_")[0])


def test_a_checkpoint_is_evaluated_exported_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_checkpoint(PRETRAINED)
    assert main(["evaluate", str(PRETRAINED)]) == 0
    printed = capsys.readouterr().out
    assert "linear_top1_avg" in printed
    assert main(["export", str(PRETRAINED), str(tmp_path / "encoder.safetensors")]) == 0
    exported, own = load_file(tmp_path / "encoder.safetensors"), state["modules"]["mae"]
    shared = [name for name in exported if f"encoder.{name}" in own]
    assert len(shared) == sum(name.startswith("encoder.") for name in own)
    assert all(torch.equal(exported[name].reshape(-1), own[f"encoder.{name}"].reshape(-1)) for name in shared)
    assert main(["masks", "--checkpoints", str(PRETRAINED), "--out", str(tmp_path / "masks.png")]) == 0
    assert (tmp_path / "masks.png").stat().st_size > 0


def test_pretraining_starts_from_a_checkpoint(tmp_path: Path) -> None:
    changes = {"init_from": str(PRETRAINED), "data__eval": None, "train__outer_iterations": 1}
    run_pretraining(tiny.config(**changes, optim__theta={"lr": 0.0, "weight_decay": 0.0}), tmp_path)
    weights = [load_checkpoint(path)["modules"]["mae"] for path in (PRETRAINED, checkpoint_path(tmp_path, 1))]
    assert tiny.differences(*weights) == []


@pytest.mark.parametrize("name", ["pretraining", "classification_finetune"])
def test_a_checkpoint_is_the_backbone_of_a_transfer(name: str, tmp_path: Path) -> None:
    weights = FOLDER / name / "iter_10.pth"
    textures = {"type": "textures", "size": 16, "classes": 8}
    sources = {f"data__{part}": {**textures, "split": part, "count": 80} for part in ("train", "test")}
    config = cls_runs.config(protocol="knn", backbone={"weights": str(weights), "img_size": 16}, **sources)
    assert cls_runs.run_transfer(config, tmp_path)["pretrained"]["sha256"] == sha256(weights)
