"""What the health hook logs about objects, and that training has the same bits without it."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from sklearn.metrics import roc_auc_score

from mlomae.common.checkpoint import list_checkpoints, load_checkpoint
from mlomae.masking.sampling import object_patches
from mlomae.pretraining import health
from mlomae.pretraining.health import separate
from mlomae.pretraining.influence import model_influence
from mlomae.pretraining.run import run_pretraining

OBJECT_SCALARS = {"sigma_object_auroc", "influence_object_auroc", "influence_object_gap"}


def rows(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def losses(work: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k.startswith("loss") or k == "step"} for row in rows(work)]


@pytest.mark.parametrize(
    "changes",
    [
        {"levels__v_momentum": 0.9},
        {"feedback": {"type": "nca"}, "levels__warmup": 3, "train__amp": "bf16", "train__accumulate": 2},
    ],
    ids=["linear", "nca"],
)
def test_training_has_the_same_bits_without_the_hook(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes |= {"data__eval": None, "train__log_interval": 1, "train__outer_iterations": 6}
    kind = changes.get("feedback", {"type": "linear"})["type"]
    run_pretraining(tiny.config(name=f"watched_{kind}", **changes), tmp_path / "watched")
    monkeypatch.setattr(health.MaskHealth, "__call__", lambda *args: None)
    run_pretraining(tiny.config(name=f"alone_{kind}", **changes), tmp_path / "alone")

    assert rows(tmp_path / "watched")[-1].keys() >= OBJECT_SCALARS
    assert not rows(tmp_path / "alone")[-1].keys() & OBJECT_SCALARS
    assert losses(tmp_path / "watched") == losses(tmp_path / "alone")
    watched, alone = (load_checkpoint(list_checkpoints(tmp_path / run)[-1]) for run in ("watched", "alone"))
    for part in ("modules", "optimizers", "rng"):
        assert tiny.differences(watched[part], alone[part]) == [], part
    if kind == "linear":
        assert int(watched["modules"]["average"]["steps"]) == 6


def test_random_masks_log_nothing_about_objects(mae_checkpoint: Path) -> None:
    assert not rows(mae_checkpoint.parents[1])[-1].keys() & OBJECT_SCALARS


def test_a_learned_mask_logs_them_at_every_interval(linear_checkpoint: Path) -> None:
    found = [row for row in rows(linear_checkpoint.parents[1]) if row.keys() & OBJECT_SCALARS]
    assert [row["step"] for row in found] == [2, 4]
    for row in found:
        assert row.keys() >= OBJECT_SCALARS
        assert 0.0 <= row["sigma_object_auroc"] <= 1.0
        assert 0.0 <= row["influence_object_auroc"] <= 1.0


def test_values_are_those_of_the_diagnostics() -> None:
    model, data = tiny.trainer(tiny.config(data__eval=None))
    item = data.batches[0]
    batches = item["lower"][-1], item["head"], item["upper"]
    found = health.object_influence(model, *batches)
    direct = model_influence(model, *batches)
    expected = separate(direct.influence, object_patches(batches[0]["object"], (4, 4)), direct.mask)
    assert expected is not None
    assert found == {"influence_object_auroc": expected.auroc, "influence_object_gap": expected.gap}

    with torch.no_grad():
        sigma = model.mask.scores(model.mae.encoder.embed(data.probe["image"]), None)
    objects = object_patches(data.probe["object"], (4, 4))
    scores = health.object_scores(sigma, data.probe["object"], (4, 4))
    assert scores["sigma_object_auroc"] == pytest.approx(roc_auc_score(objects.flatten(), sigma.flatten()), abs=1e-9)


def test_a_batch_without_objects_logs_no_number() -> None:
    model, data = tiny.trainer(tiny.config(data__eval=None))
    item = data.batches[0]
    lower = {**item["lower"][-1], "object": torch.zeros(8, 16, 16, dtype=torch.bool)}
    assert health.object_influence(model, lower, item["head"], item["upper"]) == {}
    assert health.object_scores(torch.rand(8, 16), lower["object"], (4, 4)) == {}
