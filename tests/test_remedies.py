"""What a message tells a user to do works when it is done: each case is refused, and then follows the remedy."""

from pathlib import Path
from typing import Any, NamedTuple

import cls_runs
import det_runs
import pytest
import seg_runs
import tiny
from run_samples import one_line

from mlomae.backbones.training import TransferStep
from mlomae.common.checkpoint import checkpoint_path
from mlomae.common.errors import MlomaeError, TrainingError
from mlomae.pretraining.run import run_pretraining
from mlomae.pretraining.step import PretrainStep

LEARNED = {"type": "learned", "ratio": 0.75, "hidden": 16}
SEGMENTATION = {"type": "segmentation"}


class Case(NamedTuple):
    """Changes that are refused, a part of what is said (the remedy), and the changes that it asks for."""

    wrong: dict[str, Any]
    said: str
    remedy: dict[str, Any]


PRETRAINING = [
    Case(
        {"levels__mask_pooling": True, "feedback": {"type": "linear", "pooling": "cls"}},
        "set feedback.pooling='avg'",
        {"feedback": {"type": "linear", "pooling": "avg"}},
    ),
    Case({"levels__solver": "explicit"}, "needs levels.mask_pooling=True", {"levels__mask_pooling": True}),
    Case(
        {"levels__solver": "finite_difference", "levels__mask_pooling": True},
        "choose one_step",
        {"levels__solver": "one_step"},
    ),
    Case(
        {"levels__solver": "explicit", "levels__mask_pooling": True, "levels__v_momentum": 0.5},
        "set it to 0 or choose one_step, neumann or cg",
        {"levels__solver": "cg"},
    ),
    Case(
        {"levels__mask_pooling": True, "feedback": SEGMENTATION},
        "set levels.mask_pooling=False",
        {"levels__mask_pooling": False},
    ),
    Case({"train__cuda_graphs": True}, "set train.compile=True", {"train__compile": True, "train__cuda_graphs": False}),
    Case({"train__compile": True, "mask": {"type": "hpm"}}, "set train.compile=False", {"train__compile": False}),
    Case(
        {"train__compile": True, "mask": {"type": "random_ratio"}},
        "set train.compile=False",
        {"train__compile": False},
    ),
    Case(
        {"mask": {**LEARNED, "sampling": "random", "weighting": "gradient"}},
        "set sampling='gumbel_topk' or weighting='value'",
        {"mask": {**LEARNED, "sampling": "random", "weighting": "value"}},
    ),
    Case({**tiny.RANDOM, "data__shuffle_labels": 0}, "remove it", {"data__shuffle_labels": None}),
    Case({"optim__phi": {"clip_grad": 1.0}}, "only theta is clipped; remove it", {"optim__phi": {}}),
    Case({"levels__warmup": 2}, r"inside \[0, train.outer_iterations\)", {"levels__warmup": 1}),
    Case({"levels__warmup_margin": 90.0}, "lower the margin", {"levels__warmup_margin": 20.0}),
    Case({"model__patch_size": 5}, "choose a patch size that divides it", {"model__patch_size": 8}),
    Case({"model__num_heads": 3}, "change one of them", {"model__num_heads": 4}),
    Case({"mask": {"ratio": 0.5}}, "'mask.type' is missing; choose one", {"mask": {"type": "block", "ratio": 0.5}}),
    Case({"feedback": {"type": "linaer"}}, "choose one of .*linear", {"feedback": {"type": "linear"}}),
    Case({"train__acumulate": 2}, "did you mean 'accumulate'", {"train": {**tiny.values()["train"], "accumulate": 2}}),
    Case({"train__accumulate": 3}, "train.accumulate=3 .*; choose another", {"train__accumulate": 4}),
    Case(
        {"feedback": {"type": "ridge"}, "data__feedback_batch_size": 1},
        "raise data.feedback_batch_size",
        {"data__feedback_batch_size": 2},
    ),
    Case({"data__val_fraction": 1.0}, r"inside \(0, 1\)", {"data__val_fraction": 0.5}),
]


def trained(*given: Any) -> None:
    raise AssertionError("trained")


@pytest.mark.parametrize("case", PRETRAINING, ids=lambda case: case.said)
def test_remedies_of_a_pretraining(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"train__outer_iterations": 2, "data__eval": None}
    with pytest.raises(MlomaeError, match=case.said) as error:
        run_pretraining(tiny.config(**short | case.wrong), tmp_path / "wrong")
    one_line(error.value)
    monkeypatch.setattr(PretrainStep, "__call__", trained)
    with pytest.raises(AssertionError, match="trained"):
        run_pretraining(tiny.config(**short | case.wrong | case.remedy), tmp_path / "right")


SLIDE = {"mode": "slide"}
TRANSFERS: list[tuple[Any, Case]] = [
    (cls_runs, Case({"backbone__weights": None}, "or 'random' as the floor", {"backbone__weights": "random"})),
    (
        cls_runs,
        Case({"backbone__model": None}, "give model=dict", {"backbone__model": {"size": "tiny", "patch_size": 8}}),
    ),
    (
        cls_runs,
        Case({"backbone__img_size": 18}, "choose a patch size that divides it", {"backbone__model__patch_size": 6}),
    ),
    (cls_runs, Case({"data__batch_size": 97}, "lower it to at most that", {"data__batch_size": 96})),
    (
        cls_runs,
        Case({"protocol": "linear", "data__batch_size": 1}, "give each process 2 images", {"data__batch_size": 2}),
    ),
    (
        cls_runs,
        Case(
            {"data__mix": {"mixup": 0.8}, "data__batch_size": 15},
            "even batch size a process, or mixup 0 and cutmix 0",
            {"data__mix": {"mixup": 0.0, "cutmix": 0.0}},
        ),
    ),
    (
        cls_runs,
        Case(
            {"protocol": "linear", "data__augment": None, "data__mix": {"mixup": 0.8}},
            "without data.augment trains on features; set one of them",
            {"data__mix": None},
        ),
    ),
    (
        cls_runs,
        Case(
            {"data__mix": {"label_smoothing": 0.1}},
            "set train.label_smoothing",
            {"data__mix": {}, "train__label_smoothing": 0.1},
        ),
    ),
    (
        cls_runs,
        Case(
            {"data__augment": {"type": "rand_augment", "color_jitter": 0.4}},
            "set one of them to None",
            {"data__augment": {"type": "rand_augment", "color_jitter": 0.4, "auto_augment": None}},
        ),
    ),
    (cls_runs, Case({"optim__min_lr": 1.0}, "at most optim.lr", {"optim__min_lr": 1e-3})),
    (
        seg_runs,
        Case(
            {"model__test_cfg": SLIDE},
            "needs crop_size and stride",
            {"model__test_cfg": {**SLIDE, "crop_size": [16, 16], "stride": [8, 8]}},
        ),
    ),
    (seg_runs, Case({"data__batch_size": 1}, "raise data.batch_size", {"data__batch_size": 2})),
    (seg_runs, Case({"backbone__rel_pos": True}, "go with a window_size; set it", {"backbone__window_size": 2})),
    (seg_runs, Case({"backbone__out_indices": [0, 1, 2, 9]}, "from 0 to 3", {"backbone__out_indices": [0, 1, 2, 3]})),
    (seg_runs, Case({"model__pretrained": "x"}, "leave it out", {"model": seg_runs.MODEL})),
    (
        det_runs,
        Case(
            {"model__rpn_head__anchor_generator__strides": [4, 8, 16, 32]},
            r"have strides \[2, 4, 8, 16\]; set it to those",
            {"model__rpn_head__anchor_generator__strides": [2, 4, 8, 16]},
        ),
    ),
    (det_runs, Case({"model__neck__scales": [3.0]}, "scales 4, 2, 1 and 0.5", {"model__neck__scales": [2, 1, 0.5]})),
]


@pytest.mark.parametrize(("runs", "case"), TRANSFERS, ids=lambda value: getattr(value, "said", ""))
def test_remedies_of_a_transfer(
    runs: Any, case: Case, data: dict[Any, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MlomaeError, match=case.said) as error:
        runs.run_transfer(runs.config(*data[runs], **case.wrong), tmp_path / "wrong")
    one_line(error.value)
    monkeypatch.setattr(TransferStep, "__call__", trained)
    with pytest.raises(AssertionError, match="trained"):
        runs.run_transfer(runs.config(*data[runs], **case.wrong | case.remedy), tmp_path / "right")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, list[Path]]:
    """What the configurations of each task need to be made."""
    folders = {runs: tmp_path_factory.mktemp("data") / "images" for runs in (seg_runs, det_runs)}
    return {cls_runs: [], **{runs: [runs.write_data(folder)] for runs, folder in folders.items()}}


def test_a_diverged_run_is_begun_again_as_it_says(tmp_path: Path) -> None:
    """Not resumed: the weights of its last checkpoint are finite, and past help."""
    changes = {**tiny.RANDOM, "data__eval": None, "train__outer_iterations": 3, "train__checkpoint_interval": 1}
    optim = {"theta": {"lr": 1e15, "warmup": 0.0}}
    with pytest.raises(
        TrainingError, match=r"start again in another --work-dir with a lower optim\.theta\.lr"
    ) as error:
        run_pretraining(tiny.config(**changes, optim=optim), tmp_path / "wrong")
    assert "or from weights that are sound by init_from=iter_N.pth" in one_line(error.value)
    lower = tiny.config(**changes)
    run_pretraining(lower, tmp_path / "right")
    sound = str(checkpoint_path(tmp_path / "right", 2))
    run_pretraining(tiny.config(**changes, init_from=sound), tmp_path / "further")
    with pytest.raises(TrainingError, match=r"start again in another --work-dir with a lower optim\.lr"):
        cls_runs.run_transfer(
            cls_runs.config(optim={"lr": 1e15, "warmup": 0.0}, train__checkpoint_interval=1), tmp_path / "cls"
        )
    cls_runs.run_transfer(cls_runs.config(optim={"lr": 1e-3}, train__epochs=1), tmp_path / "lower")
