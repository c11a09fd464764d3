"""From predicted and real effects to correlations, a JSON-able result and a table.

The mirror −s of a policy is a policy as good, with effect −D and prediction −p. Agreement must not depend on which of
the two was drawn, so correlations are taken over the policies and their mirrors: the linear one is then the cosine of p
and D, the rank one the cosine of their signed ranks (Spearman's on the mirrored set).

Shape legend: J policies, R repeats, n batches, F sign flips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common import random_keys as counter
from mlomae.diagnostics.horizon.rollout import Measured
from mlomae.pretraining.separation import spread

FLIPS = 12  # policies up to which all signs are enumerated; 2**FLIPS random ones for more
Vector = NDArray[np.float64]


def mean_se(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its standard error; the error is None for one value."""
    found = spread(values)
    return {"mean": found.mean, "se": None if found.sd is None else found.sd / math.sqrt(found.batches)}


def effect(
    pairs: Sequence[tuple[Sequence[Measured], Sequence[Measured]]], horizons: Sequence[int], strength: float
) -> list[dict[str, Any]]:
    """D of L_III and of the accuracy (points) at every horizon, from one pair of roll-outs (+ε, −ε) a repeat."""
    rows = []
    for i, horizon in enumerate(horizons):
        row: dict[str, Any] = {"horizon": horizon}
        for key in Measured._fields:
            differences = [getattr(up[i], key) - getattr(down[i], key) for up, down in pairs]
            row[key] = mean_se([d / (2.0 * strength) for d in differences])
            row[f"{key}_up"] = mean_se([getattr(up[i], key) for up, _ in pairs])["mean"]
            row[f"{key}_down"] = mean_se([getattr(down[i], key) for _, down in pairs])["mean"]
        rows.append(row)
    return rows


def cosine(a_J: Vector, b_J: Vector) -> float | None:
    """None where one of the two vanishes."""
    size = float(np.linalg.norm(a_J) * np.linalg.norm(b_J))
    return float(a_J @ b_J) / size if size > 0 else None


def signed_ranks(x_J: Vector) -> Vector:
    """Centred ranks of x among x and −x: sign(x)·(rank of |x| − ½), ties by their mean rank."""
    _, place, ties = np.unique(np.abs(x_J), return_inverse=True, return_counts=True)
    rank = (np.cumsum(ties) - (ties - 1) / 2)[place]
    return np.sign(x_J) * (rank - 0.5)


def chance_level(a_J: Vector, b_J: Vector) -> float | None:
    """The 95th percentile of |cosine| if every policy agreed or disagreed in sign as by the toss of a coin."""
    terms_J, size = a_J * b_J, float(np.linalg.norm(a_J) * np.linalg.norm(b_J))
    n = len(terms_J)
    if not size > 0:
        return None
    if n <= FLIPS:
        flips_FJ = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1
    else:
        keys = counter.fold(counter.root_key("horizon/flips"), torch.arange(1 << FLIPS))
        flips_FJ = (counter.uniform(keys, n) > 0.5).numpy()
    return float(np.quantile(np.abs((2.0 * flips_FJ - 1.0) @ terms_J), 0.95)) / size


def agreement(predicted: Sequence[float], real: Sequence[float]) -> dict[str, float | int | None]:
    """``linear``, ``rank`` and ``chance`` as above, None below 3 policies; ``same_sign``, a number of policies."""
    p_J, d_J = np.asarray(predicted, dtype=np.float64), np.asarray(real, dtype=np.float64)
    enough = len(p_J) >= 3
    return {
        "linear": cosine(p_J, d_J) if enough else None,
        "rank": cosine(signed_ranks(p_J), signed_ranks(d_J)) if enough else None,
        "chance": chance_level(p_J, d_J) if enough else None,
        "same_sign": int((p_J * d_J > 0).sum()),
    }


def agreements(policies: Sequence[dict[str, Any]], horizons: Sequence[int]) -> list[dict[str, Any]]:
    """For every horizon: ``agreement`` of the influence and of the influence in AdamW's scale with the real effect."""
    rows = []
    for i, horizon in enumerate(horizons):
        real = [policy["real"][i]["loss"]["mean"] for policy in policies]
        row: dict[str, Any] = {"horizon": horizon}
        for key in ("predicted", "predicted_adam"):
            row[key] = agreement([policy[key]["mean"] for policy in policies], real)
        rows.append(row)
    return rows


def table(result: dict[str, Any]) -> str:
    """The result as text: a row a policy, a column a horizon, then the correlations."""
    horizons, start = result["horizons"], result["start"]
    width = max(len(policy["name"]) for policy in result["policies"])
    name = max(width, len("linear, Adam scale"))
    last = f"accuracy at {horizons[-1]}"
    lines = [
        f"{result['name']}, iteration {result['iteration']}: feedback '{result['feedback']}', loss III "
        f"{start['loss']:.4f}, accuracy {start['accuracy']:.1f} %; weights 1 ± {result['strength']:g} s, rate "
        f"{result['lr']:.3g}",
        "effect a unit of s on loss III; negative: weight where the policy is high lowers it",
        f"{'policy':{name}s} {'predicted ± se':>22s}"
        + "".join(f"{f'real at {h}':>14s}" for h in horizons)
        + f"{last:>19s}",
    ]
    for policy in result["policies"]:
        predicted = policy["predicted"]
        error = "" if predicted["se"] is None else f" ± {predicted['se']:.1e}"
        real = "".join(f"{row['loss']['mean']:+14.2e}" for row in policy["real"])
        points = f"{policy['real'][-1]['accuracy']['mean']:+.2f} points"
        lines.append(f"{policy['name']:{name}s} {predicted['mean']:+12.2e}{error:10s}{real}{points:>19s}")
    for label, key, entry in (
        ("linear correlation", "predicted", "linear"),
        ("rank correlation", "predicted", "rank"),
        ("linear, Adam scale", "predicted_adam", "linear"),
        ("95 % by chance", "predicted", "chance"),
    ):
        cells = (_cell(row[key][entry], label.startswith("95")) for row in result["agreement"])
        lines.append(f"{label:{name}s} {'':22s}" + "".join(f"{cell:>14s}" for cell in cells))
    count = len(result["policies"])
    signs = "".join(f"{row['predicted']['same_sign']:>9d} of {count:<2d}" for row in result["agreement"])
    lines.append(f"{'same sign':{name}s} {'':22s}{signs}")
    return "\n".join(lines)


def _cell(value: float | None, bound: bool = False) -> str:
    if value is None:
        return "-"
    return f"±{value:.2f}" if bound else f"{value:+.2f}"
