"""From numbers of every batch to the summary of ``mlomae diagnose``: a JSON file, a table, the title of the sheet.

Shape legend: B images, L patches, n batches. Percentages are 0 to 100.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlomae.common.atomic import write_text
from mlomae.pretraining.health import score_health
from mlomae.pretraining.separation import Separation, spread


@dataclass
class Measured:
    """Lists with one entry a batch: ``influence`` of the removed patches, flat; ``sigma`` (B, L), none if the strategy
    has no score; ``*_objects`` None in a batch that cannot be compared, and empty where objects are unknown."""

    accuracy: list[float] = field(default_factory=list)
    loss_upper: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    influence: list[Tensor] = field(default_factory=list)
    sigma: list[Tensor] = field(default_factory=list)
    influence_objects: list[Separation | None] = field(default_factory=list)
    sigma_objects: list[Separation | None] = field(default_factory=list)


def summarise(measured: Measured, chance: float) -> dict[str, Any]:
    """Plain values for JSON; a spread is {mean, sd, t, batches}, without t where there is nothing to test against.

    ``chance`` is the percentage that a constant prediction gets right, which t of the accuracy is against.
    ``influence``: ``mean`` (with its t against 0), ``sd`` over patches, ``positive`` the percentage above 0.
    ``objects``: ``influence_gap`` and ``influence_auroc`` on removed patches, ``sigma_auroc`` on all; t of an AUROC is
    against 0.5. None where the data set has no object masks, or no batch could be compared.
    """
    values = torch.cat(measured.influence)
    sigma = score_health(torch.cat(measured.sigma)) if measured.sigma else None
    return {
        "feedback_accuracy": _spread(measured.accuracy, null=chance),
        "feedback_chance": chance,
        "loss_upper": _spread(measured.loss_upper),
        "mask_overlap": _spread(measured.overlap),
        "sigma": None if sigma is None else {name: float(value) for name, value in sigma.items()},
        "influence": {
            "mean": _spread([float(batch.mean()) for batch in measured.influence], null=0.0),
            "sd": float(values.std(correction=0)),
            "positive": 100.0 * float((values > 0).double().mean()),
        },
        "objects": _objects(measured) if measured.influence_objects else None,
    }


def _objects(measured: Measured) -> dict[str, Any]:
    influence = [found for found in measured.influence_objects if found is not None]
    sigma = [found for found in measured.sigma_objects if found is not None]
    return {
        "influence_gap": _spread([found.gap for found in influence], null=0.0),
        "influence_auroc": _spread([found.auroc for found in influence], null=0.5),
        "sigma_auroc": _spread([found.auroc for found in sigma], null=0.5),
    }


def _spread(values: list[float], null: float | None = None) -> dict[str, Any] | None:
    if not values:
        return None
    found = spread(values, null or 0.0)._asdict()
    return found if null is not None else {name: value for name, value in found.items() if name != "t"}


def table(result: dict[str, Any]) -> str:
    """The summary as text, one line a question."""
    influence, sigma, objects = result["influence"], result["sigma"], result["objects"]
    lines = [
        f"{result['name']}, iteration {result['iteration']}: mask '{result['mask_type']}', feedback "
        f"'{result['feedback']}'; {result['batches']} batches of {result['batch_size']} training images, masks "
        f"{'of the strategy' if result['mask'] == 'own' else 'drawn at random'}",
        _line("feedback accuracy", _number(result["feedback_accuracy"], ".1f"), f"%, chance {_chance(result)}"),
        _line("loss III", _number(result["loss_upper"], ".4f")),
        _line("mask overlap", _number(result["mask_overlap"], ".3f"), "under new noise: 0 by chance, 1 the same set"),
    ]
    if sigma is None:
        lines.append(_line("sigma", "none: this strategy has no score"))
    else:
        lines.append(_line("sigma mean", f"{sigma['mean']:.3f}", f"entropy {sigma['entropy']:.3f} bit"))
        lines.append(_line("sigma saturated", f"{100 * sigma['saturated']:.1f} %", "outside [0.01, 0.99]"))
        over = f"over images, {sigma['var_positions']:.2g} over positions"
        lines.append(_line("sigma variance", f"{sigma['var_images']:.2g}", over))
    shape = f"sd {influence['sd']:.2g} over patches, {influence['positive']:.1f} % positive"
    lines.append(_line("influence mean", _number(influence["mean"], "+.2g"), shape))
    if objects is None:
        lines.append(_line("objects", "unknown: this data set has no object masks"))
        return "\n".join(lines)
    gap, auroc = objects["influence_gap"], objects["influence_auroc"]
    lines.append(_line("influence t", _t(gap), "object less background; positive: weight on objects lowers loss III"))
    lines.append(_line("influence gap", _number(gap, "+.3f"), "standard deviations of the influence"))
    lines.append(_line("influence AUROC", _number(auroc, ".3f"), "removed patches, 0.5 by chance"))
    if sigma is not None:
        lines.append(_line("sigma AUROC", _number(objects["sigma_auroc"], ".3f"), "all patches, 0.5 by chance"))
    return "\n".join(lines)


def sheet_title(result: dict[str, Any]) -> str:
    objects = result["objects"] or {}
    gap, auroc = objects.get("influence_gap"), objects.get("influence_auroc")
    parts = [f"{result['name']}, iteration {result['iteration']}", f"feedback {result['feedback']}"]
    if gap is not None and auroc is not None:
        parts += [f"object less background: t = {_t(gap)}", f"AUROC {auroc['mean']:.3f}"]
    return "   ·   ".join(parts)


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write under a temporary name and rename; the same result gives the same bytes."""
    write_text(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def _line(name: str, value: str, remark: str = "") -> str:
    return f"{name:18s} {value:22s} {remark}".rstrip()


def _chance(result: dict[str, Any]) -> str:
    return f"{result['feedback_chance']:.1f}"


def _number(found: dict[str, Any] | None, form: str) -> str:
    if found is None:
        return "no batch to compare"
    return f"{found['mean']:{form}}" + ("" if found["sd"] is None else f" ± {found['sd']:{form.lstrip('+')}}")


def _t(found: dict[str, Any] | None) -> str:
    if found is None:
        return "no batch to compare"
    n = f"{found['batches']} batch{'es' if found['batches'] > 1 else ''}"
    return f"undefined over {n}" if found["t"] is None else f"{found['t']:+.2f} over {n}"
