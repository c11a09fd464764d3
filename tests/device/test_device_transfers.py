"""One step and the evaluation of every transfer, k-NN and the linear probe, as on a GPU.

Nothing is on the CPU, and in a step nothing is in float64 and the host waits for nothing but what `KNOWN` says. Losses
and metrics are those of the CPU. Evaluations bring their results to the host.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import cls_runs
import det_runs
import pytest
import seg_runs
import tiny
import torch
from devices import DEVICES, Device, opened, unexpected
from mmengine.structures import instance_data
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.tasks.detection.run import DetectionSteps
from benchmarks.tasks.linear_segmentation.config import LinearSegmentationConfig
from benchmarks.tasks.linear_segmentation.run import LinearSegmentationSteps
from benchmarks.tasks.segmentation.run import SegmentationSteps
from benchmarks.transfer import dense
from mlomae.backbones.run import Outcome, TransferSteps
from mlomae.backbones.training import evaluate
from mlomae.classification import run as classification
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.evaluation import PlainBatches
from mlomae.pretraining.evaluation import evaluate as evaluate_frozen
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import build_data

Build = Callable[[Path], TransferSteps]
every_device = pytest.mark.parametrize("name", DEVICES)


@dataclass
class OneStep:
    """Stands for a `TransferRun`: takes one step, and evaluates."""

    device: Device
    losses: dict[str, Any] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def train(self, step: Any, loader: Any, test_loader: Any, metric: Any, section: Any = None) -> Outcome:
        step.model.train()
        batch = to_device(next(iter(loader)), torch.device(self.device.name))
        with self.device.watch():
            self.losses = step(batch, 0)
            self.found = list(self.device.found)
        evaluate(step.model, test_loader, metric, 1)
        return Outcome({}, {})


def opened_steps(steps: TransferSteps) -> TransferSteps:
    steps.train, steps.test = steps.open_data()
    return steps


def classify(**changes: Any) -> Build:
    return lambda folder: classification.ClassificationSteps(cls_runs.config(**changes))


def segment(folder: Path) -> TransferSteps:
    return SegmentationSteps(seg_runs.config(seg_runs.write_data(folder)))


def segment_linearly(folder: Path) -> TransferSteps:
    values = seg_runs.values(seg_runs.write_data(folder), optim={"lr": 1e-2})
    values["backbone"]["out_indices"] = [3]
    return LinearSegmentationSteps(LinearSegmentationConfig.from_dict({**values, "model": {}}))


def detect(folder: Path) -> TransferSteps:
    return DetectionSteps(det_runs.config(det_runs.write_data(folder)))


TRANSFERS: dict[str, Build] = {
    "fine-tuning": classify(),
    "fine-tuning, all options": classify(data__mix={"mixup": 0.8, "cutmix": 1.0}, train__ema=0.9, optim__clip_grad=1.0),
    "fine-tuning in bf16": classify(train__amp="bf16"),
    "linear": classify(protocol="linear"),
    "linear on kept features": classify(protocol="linear", data__augment=None),
    "k-NN": classify(protocol="knn"),
    "UperNet": segment,
    "linear segmentation": segment_linearly,
    "Mask R-CNN": detect,
}


LABELLED = {"waits: mlomae/backbones/training.py __call__": "mmseg moves the labels itself and picks pixels by a mask"}
KNOWN: dict[str, dict[str, str]] = {
    "UperNet": LABELLED,
    "linear segmentation": LABELLED,
    "Mask R-CNN": {
        "waits: mlomae/backbones/training.py __call__": "mmdet assigns and samples boxes by their values",
        "waits: mlomae/backbones/mmcv_ext.py nms": "the boxes that are kept are counted",
        "waits: backward: aten.index_put": "the backward pass of sampled boxes",
    },
}
"""Of a transfer, what is known to wait: how entries begin, and why. It is all in mmseg and mmdet."""
RANDOM = {"fine-tuning, all options", "UperNet", "linear segmentation", "Mask R-CNN"}
"""They draw from torch's generators, and a GPU's gives other numbers."""


def numbers(outcome: Outcome) -> dict[str, float]:
    return {name: value for name, value in outcome.metrics.items() if not isinstance(value, dict)}


def outcome(device: Device, build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[OneStep, Any]:
    for module in (classification, dense):
        monkeypatch.setattr(module, "training_device", lambda: torch.device(device.name))
    steps = opened_steps(build(folder / device.name))
    run = OneStep(device)
    known = get_args(instance_data.IndexType)  # the tensors of mmengine are those of the CPU and of CUDA
    monkeypatch.setattr(instance_data, "get_args", lambda _: (*known, Tensor))
    model, _ = steps.build_model()
    return run, steps.train_and_test(model, run)


@every_device
@pytest.mark.parametrize("transfer", TRANSFERS)
def test_a_step_and_an_evaluation_of_every_transfer(
    name: str, transfer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        expected, metrics = outcome(Device("cpu"), TRANSFERS[transfer], tmp_path, monkeypatch)
        with opened(name) as device:
            run, found = outcome(device, TRANSFERS[transfer], tmp_path, monkeypatch)
            assert unexpected(run.found, KNOWN.get(transfer, {})) == []
            if name == "sim" or transfer not in RANDOM:
                device.close(run.losses, expected.losses, 1e-5)
                device.close(numbers(found), numbers(metrics), 1e-5)


@every_device
def test_knn_and_linear_probe(name: str) -> None:
    config = tiny.config()
    data = build_data(config)
    assert data.evaluation is not None
    batches = [PlainBatches(source, 16) for source in (data.train, data.evaluation)]

    def numbers_on(device: Device) -> dict[str, float]:
        torch.manual_seed(0)
        encoder = Pretrainer(config, tiny.CLASSES).mae.encoder.to(device.name)
        with device.watch():
            return evaluate_frozen(encoder, *batches, device.name)

    with sdpa_kernel(SDPBackend.MATH):
        expected = numbers_on(Device("cpu"))
        with opened(name) as device:
            found = numbers_on(device)
            device.close(found, expected, 1e-5)
            copies = {"waits: mlomae/pretraining/evaluation.py extract_features": "features are brought to the host"}
            assert unexpected(device.found, copies) == []
