"""Linear segmentation: only the head learns, a killed run ends with the same bits, and every table has its records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seg_runs
import torch
from killed_transfers import in_iteration, killed
from run_samples import differences, one_line

from benchmarks.analysis.report.__main__ import build_report
from benchmarks.analysis.tables.build import build_tables, check_tables
from benchmarks.suite.file import load_suite
from benchmarks.tasks import get_task
from benchmarks.tasks.linear_segmentation.config import LinearSegmentationConfig
from benchmarks.tasks.linear_segmentation.run import LinearSegmentationSteps
from mlomae import cli
from mlomae.backbones.feature_vit import build_feature_vit
from mlomae.backbones.run import run_transfer
from mlomae.common.checkpoint import TRANSFER_FORMAT, checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError

ROOT = Path(__file__).parents[4]
TASK = get_task("linear_segmentation")
LAST = 6


def config(scenes: Path, **changes: Any) -> LinearSegmentationConfig:
    given = seg_runs.values(scenes, model={}, backbone__out_indices=[3], **changes)
    return LinearSegmentationConfig.from_dict(given)


def steps(settings: LinearSegmentationConfig) -> tuple[LinearSegmentationSteps, Any]:
    opened = LinearSegmentationSteps(settings)
    opened.train, opened.test = opened.open_data()
    return opened, opened.build_model()[0]


def final(work: Path) -> dict[str, Any]:
    state = load_checkpoint(checkpoint_path(work, LAST), TRANSFER_FORMAT)
    with np.load(work / "pixel_counts.npz", allow_pickle=False) as file:
        counts = {name: file[name] for name in file.files}
    return {k: v for k, v in state.items() if k != "clock"} | {"counts": counts}


@pytest.fixture(scope="module")
def straight(one_thread: None, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, with drop path in the backbone, which must have no effect."""
    work = tmp_path_factory.mktemp("straight")
    run_transfer(TASK, config(scenes, backbone__drop_path=0.5), work, records_dir=work / "results" / "runs")
    return work


def test_a_killed_run_ends_with_the_same_bits(straight: Path, scenes: Path, tmp_path: Path) -> None:
    settings = config(scenes, backbone__drop_path=0.5)
    run = lambda: run_transfer(TASK, settings, tmp_path, resume=True)  # noqa: E731
    assert killed(tmp_path, lambda: in_iteration(3), run) == ["iter_2.pth"]
    run()
    assert differences(final(tmp_path), final(straight)) == []


def test_checkpoints_hold_the_head_alone_and_it_has_learned(straight: Path, scenes: Path) -> None:
    modules = final(straight)["modules"]
    assert modules.keys() == {"head"}
    _, model = steps(config(scenes))
    assert differences(dict(model.decode_head.state_dict()), modules["head"])
    assert final(straight)["modules"]["head"]["norm.num_batches_tracked"] == LAST


def test_the_features_are_those_of_the_frozen_backbone_in_training_too(scenes: Path) -> None:
    settings = config(scenes, backbone__drop_path=0.5)
    _, model = steps(settings)
    model.train()
    backbone = build_feature_vit(settings.backbone, settings.seed).eval()
    images = torch.randn(2, 3, 16, 16)
    for _ in range(2):
        (found,) = model.extract_feat(images)
        assert torch.equal(found, backbone(images)[-1])
        assert not found.requires_grad


def test_a_step_is_one_of_a_linear_classifier_of_patches(scenes: Path, tmp_path: Path) -> None:
    """One iteration of SGD, by hand: normalised features, one linear layer, logits resized, mean cross entropy."""
    changes = {"optim__type": "sgd", "optim__lr": 0.1, "optim__momentum": 0.0, "optim__weight_decay": 0.0}
    changes |= {"optim__warmup": 0.0, "optim__min_lr": 0.1, "train__iterations": 1, "data__batch_size": 4}
    settings = config(scenes, **changes)
    record = run_transfer(TASK, settings, tmp_path)
    after = load_checkpoint(checkpoint_path(tmp_path, 1), TRANSFER_FORMAT)["modules"]["head"]

    opened, model = steps(settings)
    data = model.data_preprocessor(next(iter(seg_runs.train_loader(settings, opened.train))), training=True)
    with torch.no_grad():
        features = model.backbone.eval()(data["inputs"])[-1]
    mean, var = features.mean((0, 2, 3), keepdim=True), features.var((0, 2, 3), unbiased=False, keepdim=True)
    linear = model.decode_head.conv_seg
    logits = torch.nn.functional.conv2d((features - mean) / (var + 1e-6).sqrt(), linear.weight, linear.bias)
    logits = torch.nn.functional.interpolate(logits, size=data["inputs"].shape[-2:], mode="bilinear")
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data["data_samples"]])
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / labels.numel()
    loss.backward()
    assert record["metrics"]["loss"] == pytest.approx(float(loss), rel=1e-5)
    for name in ("weight", "bias"):
        own = getattr(linear, name)
        torch.testing.assert_close(after[f"conv_seg.{name}"], own.data - 0.1 * own.grad, rtol=1e-4, atol=1e-6)


def test_it_is_in_every_table_the_report_and_the_suites(straight: Path, tmp_path: Path) -> None:
    runs = straight / "results" / "runs"
    build_tables(runs, tmp_path)
    check_tables(runs, tmp_path)
    (line,) = (tmp_path / "linear_segmentation.csv").read_text().splitlines()[1:]
    record = json.loads((straight / "record.json").read_text())
    assert f"{record['metrics']['mIoU']:.2f}" in line
    assert ",linear_segmentation,scenes,tiny," in (tmp_path / "comparison.csv").read_text()
    assert TASK.title in build_report(runs, tmp_path / "report.html").read_text()
    suite = tmp_path / "suite.py"
    text = 'name = "s"\nmethods = [dict(config="configs/pretrain/mae_vit-w128-d4_cifar10.py")]\n'
    suite.write_text(text + 'tasks = [dict(recipe="configs/linear_segmentation/linear_camvid_small.py")]\n')
    assert load_suite(suite).tasks[0].task == TASK.name


def test_the_command_writes_what_it_says(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = seg_runs.values(scenes, model={}, backbone__out_indices=[3], train__iterations=2)
    path = tmp_path / "config.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values.items()))
    assert cli.main(["bench", TASK.name, str(path), "--work-dir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "mIoU " in printed
    assert printed.splitlines()[-1] == f"{TASK.outputs}: {tmp_path / 'run'}"
    assert {"record.json", "pixel_counts.npz", "overlays"} <= {file.name for file in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "linear_segmentation").glob("*.py")))
def test_the_recipes_that_ship_are_valid(path: Path) -> None:
    assert TASK.load_config(path).backbone.out_indices == (3,)


def test_the_model_is_not_to_be_chosen(scenes: Path) -> None:
    given = seg_runs.values(scenes, model={"decode_head": {"type": "FCNHead"}})
    with pytest.raises(ConfigError, match=r"'model\.decode_head' is made from the other sections") as error:
        LinearSegmentationConfig.from_dict(given)
    one_line(error.value)
