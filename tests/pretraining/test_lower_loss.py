"""The lower loss against a loop over images and patches written from the formula, and its additivity over parts."""

import pytest
import tiny
import torch
from torch import Tensor

from mlomae.pretraining.losses import level_problem, lower, lower_terms
from mlomae.pretraining.pretrainer import Pretrainer


@pytest.fixture(params=["mask", "weight"])
def case(request: pytest.FixtureRequest) -> tuple[Pretrainer, dict, str]:
    model, data = tiny.trainer(tiny.config(mask__normalize=request.param))
    batch = data.batches[0]["lower"][0]
    model.double()
    batch["image"] = batch["image"].double()
    with torch.no_grad():
        for p in model.mask.parameters():  # spread the scores, so that the two normalisations differ
            p.add_(torch.randn_like(p))
    fixed = level_problem(model).fix({}, {}, batch)
    return model, fixed, request.param


def brute_force(model: Pretrainer, batch: dict, normalize: str) -> float:
    """sum m s rec / sum m, or the mean over images of sum m s rec / sum m s."""
    mae, image = model.mae, batch["image"]
    p, (rows, columns) = mae.encoder.patch_size, mae.encoder.grid
    tokens = mae.encoder.embed(image)
    mask = model.choose_mask(tokens, batch)
    pred = mae(tokens, mask)
    sigma = model.mask.scores(tokens, None)
    numerator, denominator, per_image = 0.0, 0.0, []
    for b in range(len(image)):
        top, bottom = 0.0, 0.0
        for row in range(rows):
            for column in range(columns):
                at = row * columns + column
                if not float(batch["mask"]["mask"][b, at]):
                    continue
                patch = image[b, :, row * p : (row + 1) * p, column * p : (column + 1) * p]
                values = [float(patch[c, i, j]) for i in range(p) for j in range(p) for c in range(3)]
                mean = sum(values) / len(values)
                var = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
                target = [(v - mean) / (var + 1e-6) ** 0.5 for v in values]
                rec = sum((float(a) - t) ** 2 for a, t in zip(pred[b, at], target, strict=True)) / len(target)
                s = float(sigma[b, at])
                top += s * rec
                bottom += s
                denominator += 1
        numerator += top
        per_image.append(top / bottom)
    return numerator / denominator if normalize == "mask" else sum(per_image) / len(per_image)


@torch.no_grad()
def test_lower_loss_is_the_formula(case: tuple[Pretrainer, dict, str]) -> None:
    model, batch, normalize = case
    expected = brute_force(model, batch, normalize)
    assert float(lower(model, batch)) == pytest.approx(expected, rel=1e-10)
    other = {"mask": "weight", "weight": "mask"}[normalize]
    assert abs(brute_force(model, batch, other) - expected) > 1e-3, "the case cannot tell the normalisations apart"


@torch.no_grad()
def test_the_given_mask_is_kept(case: tuple[Pretrainer, dict, str]) -> None:
    model, batch, _ = case
    before = float(lower(model, batch))
    batch["key"] = batch["key"] + 1  # other noise, same fixed set
    assert float(lower(model, batch)) == before
    del batch["mask"]
    assert float(lower(model, batch)) != before


def part(batch: dict, rows: slice) -> dict:
    return {k: part(v, rows) if isinstance(v, dict) else v[rows] for k, v in batch.items()}


def gradient(model: Pretrainer, batch: dict) -> list[Tensor]:
    parameters = [p for p in model.mae.parameters() if p.requires_grad]
    return list(torch.autograd.grad(lower(model, batch), parameters))


def test_the_loss_of_a_batch_is_the_mean_over_its_parts(case: tuple[Pretrainer, dict, str]) -> None:
    model, batch, _ = case
    parts = [part(batch, slice(0, 4)), part(batch, slice(4, 8))]
    losses = [lower(model, each).item() for each in parts]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert lower(model, batch).item() == pytest.approx(sum(losses) / 2, rel=1e-12)
    for whole, a, b in zip(gradient(model, batch), *(gradient(model, each) for each in parts), strict=True):
        assert torch.allclose(whole, (a + b) / 2, rtol=1e-9, atol=1e-12)


def test_only_the_weight_carries_the_mask_gradient(case: tuple[Pretrainer, dict, str]) -> None:
    model, batch, normalize = case
    tokens = model.mae.encoder.embed(batch["image"])
    phi = list(model.mask.parameters())
    found = torch.autograd.grad(lower(model, batch), phi)
    mask = model.choose_mask(tokens, batch)
    rec = model.mae.patch_error(model.mae(tokens, mask), batch["image"]).detach()
    m, sigma = mask.mask.detach(), model.mask.scores(tokens, None)
    by_mask = (m * sigma * rec).sum() / m.sum()
    by_weight = ((m * sigma * rec).sum(1) / (m * sigma).sum(1)).mean()
    expected = torch.autograd.grad(by_mask if normalize == "mask" else by_weight, phi)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-14)


@torch.no_grad()
def test_the_reconstruction_error_weighs_nothing(case: tuple[Pretrainer, dict, str]) -> None:
    """By it a weighted run and a plain one of the same autoencoder compare; the objective differs."""
    model, batch, normalize = case
    plain, _ = tiny.trainer(tiny.config(**tiny.RANDOM))
    plain.double().mae.load_state_dict(model.mae.state_dict())
    weighted, unweighted = lower_terms(model, batch), lower_terms(plain, batch)
    assert weighted.error == unweighted.error == unweighted.loss
    if normalize == "mask":  # a weighted mean of the errors may lie close to the plain one
        assert abs(weighted.loss - unweighted.loss) > 0.1


def test_the_reconstruction_error_of_a_run_is_that_of_its_steps() -> None:
    model, data = tiny.trainer(tiny.config(**tiny.RANDOM, train__accumulate=2))
    losses = tiny.step_of(model)(data.batches[0], 0)
    assert float(losses["reconstruction_error"]) == pytest.approx(float(losses["loss_lower"]), rel=1e-6)
    assert not losses["reconstruction_error"].requires_grad
