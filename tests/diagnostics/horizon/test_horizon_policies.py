"""Policies: zero sum over the removed patches, fixed at the checkpoint, functions of seed and name."""

from typing import Any

import numpy as np
import pytest
import tiny
import torch

from mlomae.diagnostics.horizon.effects import Policies, policy_names, standardise_removed
from mlomae.masking.sampling import object_patches
from mlomae.pretraining.losses import patch_errors
from mlomae.pretraining.pretrainer import Pretrainer

NAMES = ("object", "error", "contrast", "random_1", "random_2")


@pytest.fixture
def subject() -> tuple[Pretrainer, dict[str, Any]]:
    model, data = tiny.trainer(tiny.config(feedback={"type": "nca"}, data__eval=None, **tiny.RANDOM))
    return model, model.freeze_mask(data.batches.lower.batch(0, 16))


def test_names() -> None:
    assert policy_names(5, True) == ["object", "error", "contrast", "random_1", "random_2"]
    assert policy_names(3, False) == ["error", "contrast", "random_1"]
    assert policy_names(1, True) == ["object"]


def test_every_policy_moves_weight_between_removed_patches(subject: tuple[Pretrainer, dict[str, Any]]) -> None:
    model, batch = subject
    mask_BL = batch["mask"]["mask"]
    policies = Policies(model, seed=0)
    for name in NAMES:
        s_BL = policies(name, batch)
        assert (s_BL[mask_BL == 0] == 0).all()
        for s_L, mask_L in zip(s_BL, mask_BL, strict=True):
            removed = s_L[mask_L > 0].double().numpy()
            assert abs(removed.mean()) < 1e-5
            assert abs(removed.std() - 1) < 1e-4 or not removed.any()


def test_what_the_named_policies_look_at(subject: tuple[Pretrainer, dict[str, Any]]) -> None:
    model, batch = subject
    removed = batch["mask"]["mask"] > 0
    policies = Policies(model, seed=0)
    for name, values in (
        ("object", object_patches(batch["object"], (4, 4))),
        ("error", patch_errors(model, batch).detach()),
        ("contrast", batch["image"].unfold(2, 4, 4).unfold(3, 4, 4).transpose(1, 3).flatten(3).std(-1).mT.flatten(1)),
    ):
        for s, value in zip(policies(name, batch)[removed].split(12), values[removed].split(12), strict=True):
            if s.any():
                assert np.corrcoef(s, value)[0, 1] > 0.9999, name


def test_scorers_depend_on_seed_and_name_alone(subject: tuple[Pretrainer, dict[str, Any]]) -> None:
    model, batch = subject
    before = torch.get_rng_state()
    one, again, other = Policies(model, 0), Policies(model, 0), Policies(model, 1)
    assert torch.equal(one("random_1", batch), again("random_1", batch))
    assert not torch.equal(one("random_1", batch), one("random_2", batch))
    assert not torch.equal(one("random_1", batch), other("random_1", batch))
    assert torch.equal(before, torch.get_rng_state())


def test_training_on_does_not_move_the_policies(subject: tuple[Pretrainer, dict[str, Any]]) -> None:
    model, batch = subject
    policies = Policies(model, seed=0)
    before = [policies(name, batch) for name in NAMES]
    with torch.no_grad():
        for p in model.mae.parameters():
            p.add_(torch.randn_like(p))
    assert all(torch.equal(policies(name, batch), s) for name, s in zip(NAMES, before, strict=True))


def test_the_limit_keeps_weights_from_0_to_2(subject: tuple[Pretrainer, dict[str, Any]]) -> None:
    model, batch = subject
    s_BL = Policies(model, seed=0, limit=2.0)("contrast", batch)
    assert s_BL.abs().max() <= 2.0
    assert Policies(model, seed=0)("contrast", batch).abs().max() > 2.0


def test_equal_values_say_nothing() -> None:
    mask_BL = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 0]])
    values_BL = torch.tensor([[0.1, 0.1, 0.1, 5.0], [1.0, 2.0, 3.0, 5.0]])
    s_BL = standardise_removed(values_BL, mask_BL)
    assert (s_BL[0] == 0).all()
    assert s_BL[1].tolist() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5, 0.0])
