"""Two processes with half of each batch do what one does with the whole: without mixup and drop path, in float64.

In float64 as AdamW's first steps are g/(|g| + 1e-8) and would turn the rounding of zero gradients into real steps.
"""

import json
from pathlib import Path
from typing import NamedTuple

import cls_runs
import cls_two_ranks
import numpy as np
import pytest
import torch
from on_two_ranks import on_two_ranks
from run_samples import differences

TOLERANCE = 1e-10
Weights = dict[str, torch.Tensor]


class Found(NamedTuple):
    """Weights by variant; where the runs' folders are."""

    first: dict[str, Weights]
    second: dict[str, Weights]
    alone: dict[str, Weights]
    together_dir: Path
    alone_dir: Path


@pytest.fixture(scope="module")
def found(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Found:
    out, alone = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    on_two_ranks(cls_two_ranks.__file__, str(out))
    first, second = (torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    return Found(first, second, cls_two_ranks.transfers(alone), out, alone)


def error(a: Weights, b: Weights) -> float:
    """Largest difference, relative to the largest weight."""
    assert a.keys() == b.keys()
    scale = max(float(t.abs().max()) for t in b.values())
    return max(float((a[k] - b[k]).abs().max()) / scale for k in b)


@pytest.mark.parametrize("variant", ["adamw", "clipped"])
def test_two_ranks_equal_one_process(variant: str, found: Found) -> None:
    assert differences(found.first[variant], found.second[variant]) == [], "the ranks drift apart"
    assert all(t.dtype == torch.float64 for t in found.alone[variant].values() if t.is_floating_point())
    assert ("ema.module.pos_embed" in found.alone[variant]) == (variant == "adamw")
    assert error(found.first[variant], found.alone[variant]) < TOLERANCE
    together, alone = (cls_runs.predictions(folder / variant) for folder in (found.together_dir, found.alone_dir))
    for name in ("index", "label", "top_classes"):
        np.testing.assert_array_equal(together[name], alone[name])
    np.testing.assert_allclose(together["top_log_probs"], alone["top_log_probs"], atol=1e-6)
    folders = (found.together_dir, found.alone_dir)
    ours, theirs = (json.loads((folder / variant / "record.json").read_text()) for folder in folders)
    for name in ("top1", "top5", "mean_per_class", "n"):
        assert ours["metrics"][name] == theirs["metrics"][name]
    assert ours["metrics"]["loss"] == pytest.approx(theirs["metrics"]["loss"], rel=1e-9), "the mean over the ranks"
    assert ours["images_seen"] == theirs["images_seen"]
    assert ours["config_hash"] == theirs["config_hash"]


@pytest.mark.parametrize(("mutation", "variant"), [("not averaged", "adamw"), ("clipped before averaging", "clipped")])
def test_mutations_break_the_equality(mutation: str, variant: str, found: Found) -> None:
    assert error(found.first[mutation], found.alone[variant]) > 1e-6
    drifted = differences(found.first[mutation], found.second[mutation])
    assert bool(drifted) == (mutation == "not averaged")
    assert differences(found.alone[mutation], found.alone[variant]) == [], "alone, nothing can be noticed"


def test_clipping_was_active(found: Found) -> None:
    assert error(found.alone["not clipped"], found.alone["clipped"]) > 1e-3


def test_ranks_agree_about_the_statistics_of_a_linear_head(found: Found) -> None:
    """Each standardises with its own batch, but what they evaluate and resume with is one."""
    assert differences(found.first["linear"], found.second["linear"]) == []
    apart = differences(found.first["linear, own statistics"], found.second["linear, own statistics"])
    assert sorted(apart) == [".head.0.running_mean", ".head.0.running_var"]


def test_votes_do_not_depend_on_the_ranks(found: Found) -> None:
    together, alone = (cls_runs.predictions(folder / "knn") for folder in (found.together_dir, found.alone_dir))
    np.testing.assert_array_equal(together["top_classes"][:, 0], alone["top_classes"][:, 0])
    np.testing.assert_allclose(together["top_log_probs"][:, 0], alone["top_log_probs"][:, 0], atol=1e-4)
