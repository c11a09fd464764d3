"""Features that collapse: rank and spread of features that are known, and a run that ends by name."""

from pathlib import Path

import pytest
import tiny
import torch

from mlomae.common.errors import TrainingError
from mlomae.pretraining import run as running
from mlomae.pretraining.collapse import COLLAPSED, feature_health


def health(features: torch.Tensor) -> tuple[float, float]:
    found = feature_health(features)
    return float(found["feature_rank"]), float(found["feature_spread"])


def test_rank_and_spread_of_known_features() -> None:
    basis = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0))).Q
    for k in (1, 4, 32):
        rank, _ = health(basis[:k].repeat(32 // k, 1))
        assert rank == pytest.approx(k, rel=1e-4), "k directions of equal size"
    same = torch.ones(16, 1) @ basis[:1]
    assert health(same)[1] == pytest.approx(0.0, abs=1e-7)
    assert health(basis)[1] == pytest.approx((1 - 1 / 32) ** 0.5, rel=1e-5), "orthogonal: the mean has length 1/√N"
    assert health(7.0 * basis) == pytest.approx(health(basis)), "lengths do not matter"
    slightly = same + 1e-4 * torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    assert health(slightly)[1] < COLLAPSED


def test_a_run_that_collapses_ends_by_name_and_a_sound_one_records_its_health(tmp_path: Path, monkeypatch) -> None:
    record = running.run_pretraining(tiny.config(**tiny.RANDOM), tmp_path / "sound")
    assert 1.0 < record["metrics"]["feature_rank"] <= 16
    assert record["metrics"]["feature_spread"] > 10 * COLLAPSED

    def collapsed(cfg, classes):
        model = built(cfg, classes)
        torch.nn.init.zeros_(model.mae.encoder.norm.weight)  # every token becomes the norm's bias
        model.mae.encoder.norm.weight.requires_grad_(False)
        return model

    built = running.Pretrainer
    monkeypatch.setattr(running, "Pretrainer", collapsed)
    with pytest.raises(TrainingError, match="the features have collapsed: at outer iteration 2") as error:
        running.run_pretraining(tiny.config(**tiny.RANDOM), tmp_path / "collapsed")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "collapsed" / "record.json").exists()
