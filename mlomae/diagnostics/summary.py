"""The numbers of ``mlomae diagnose`` over batches: for its JSON, as a table, and in one line over its picture.

Percentages are 0 to 100.
"""

from typing import Any

import numpy as np
import torch

from mlomae.diagnostics.class_token import knn_of_parts
from mlomae.diagnostics.rivals import RIVALS
from mlomae.pretraining import health
from mlomae.pretraining.health import spread


def summarise(measured: list[dict[str, Any]], chance: float) -> dict[str, Any]:
    """Plain values for JSON; a spread is {mean, sd, t, batches}, without t where there is no null value.

    ``chance`` is the percentage that a constant prediction gets right, which t of the accuracy is against.
    ``sigma_follows``: rank correlations of σ with properties of patches (`mlomae.diagnostics.rivals`), t against 0.
    ``class_token``: `mlomae.diagnostics.class_token`, t of a lift against 1, and of what it is needed for against 0.
    ``class_token_knn``: k-NN of the class token, ``all``, with t against chance, and what it gains, paired by batch, if
    it may read one part of the image alone; None where the labels are not of images.
    ``influence``: ``mean`` (with its t against 0), ``sd`` over patches, ``positive`` the percentage above 0.
    ``objects``: ``influence_gap`` and ``influence_auroc`` on removed patches, ``sigma_auroc`` on all; t of an AUROC is
    against 0.5. None where the data set has no object masks, or no batch could be compared.
    """

    def compared(name: str, number: str, null: float) -> dict[str, Any] | None:
        return _spread([getattr(m[name], number) for m in measured if m[name] is not None], null)

    influence = torch.cat([m["influence"] for m in measured])
    knn = knn_of_parts([m["parts"]["head"] for m in measured], [m["parts"]["upper"] for m in measured])
    gained = {k: np.subtract(v, knn["all"]).tolist() for k, v in knn.items() if k != "all"}
    sigma = [m["sigma"] for m in measured if m["sigma"] is not None]
    return {
        "feedback_accuracy": _spread([m["accuracy"] for m in measured], chance),
        "feedback_chance": chance,
        "loss_upper": _spread([m["loss_upper"] for m in measured]),
        "mask_overlap": _spread([m["overlap"] for m in measured]),
        "sigma": {k: float(v) for k, v in health.score_health(torch.cat(sigma)).items()} if sigma else None,
        "sigma_follows": _follows([m["follows"] for m in measured]) if sigma else None,
        "class_token": {
            name: _spread([m["class_token"][name] for m in measured if m["class_token"][name] is not None], null)
            for name, null in {"middle": 1.0, "objects": 1.0, "needed": 0.0}.items()
        },
        "class_token_knn": {"all": _spread(knn["all"], chance), **{k: _spread(v, 0.0) for k, v in gained.items()}}
        if knn
        else None,
        "influence": {
            "mean": _spread([float(m["influence"].mean()) for m in measured], null=0.0),
            "sd": float(influence.std(correction=0)),
            "positive": 100.0 * float((influence > 0).double().mean()),
        },
        "objects": {
            "influence_gap": compared("influence_objects", "gap", null=0.0),
            "influence_auroc": compared("influence_objects", "auroc", null=0.5),
            "sigma_auroc": compared("sigma_objects", "auroc", null=0.5),
        }
        if "influence_objects" in measured[0]
        else None,
    }


def _follows(measured: list[dict[str, float | None]]) -> dict[str, Any]:
    """A spread for each property, None where no batch could be compared."""
    known = {name: [m[name] for m in measured] for name in RIVALS}
    return {name: _spread([v for v in values if v is not None], null=0.0) for name, values in known.items()}


def _spread(values: list[float], null: float | None = None) -> dict[str, Any] | None:
    if not values:
        return None
    statistics = spread(values, null or 0.0)._asdict()
    return statistics if null is not None else {name: value for name, value in statistics.items() if name != "t"}


def table(result: dict[str, Any]) -> str:
    """The summary as text, one line per quantity."""
    influence, sigma, objects = result["influence"], result["sigma"], result["objects"]
    chance = f"%, chance {result['feedback_chance']:.1f}"
    rows = [
        ("feedback accuracy", _number(result["feedback_accuracy"], ".1f"), chance),
        ("loss III", _number(result["loss_upper"], ".4f"), ""),
        ("mask overlap", _number(result["mask_overlap"], ".3f"), "under new noise: 0 by chance, 1 the same set"),
    ]
    if sigma is None:
        rows.append(("sigma", "none: this strategy has no score", ""))
    else:
        rows.append(("sigma mean", f"{sigma['mean']:.3f}", f"entropy {sigma['entropy']:.3f} bit"))
        rows.append(("sigma saturated", f"{100 * sigma['saturated']:.1f} %", "outside [0.01, 0.99]"))
        over = f"over images, {sigma['var_positions']:.2g} over positions"
        rows.append(("sigma variance", f"{sigma['var_images']:.2g}", over))
        for name, follows in result["sigma_follows"].items():
            rows.append((f"sigma, {name}", _number(follows, "+.2f"), "rank correlation within an image"))
    read = result["class_token"]
    rows.append(("class token, middle", _number(read["middle"], ".2f"), "its attention over the area, 1 by chance"))
    if read["objects"] is not None:
        rows.append(("class token, objects", _number(read["objects"], ".2f"), "likewise"))
    rows.append(("class token, needed", _number(read["needed"], "+.2f"), "% more error with the mean of all images"))
    for name, knn in (result["class_token_knn"] or {}).items():
        if name == "all":
            rows.append(("class token, k-NN", _number(knn, ".1f"), chance))
        else:
            rows.append((f"- of the {name} alone", _number(knn, "+.1f"), "points, if it may read nothing else"))
    shape = f"sd {influence['sd']:.2g} over patches, {influence['positive']:.1f} % positive"
    rows.append(("influence mean", _number(influence["mean"], "+.2g"), shape))
    if objects is None:
        rows.append(("objects", "unknown: no masks or boxes of objects (--objects names a folder of masks)", ""))
    else:
        gap, auroc = objects["influence_gap"], objects["influence_auroc"]
        rows.append(("influence t", _t(gap), "object minus background; positive: weight on objects lowers loss III"))
        rows.append(("influence gap", _number(gap, "+.3f"), "standard deviations of the influence"))
        rows.append(("influence AUROC", _number(auroc, ".3f"), "removed patches, 0.5 by chance"))
        if sigma is not None:
            rows.append(("sigma AUROC", _number(objects["sigma_auroc"], ".3f"), "all patches, 0.5 by chance"))
    masks = "of the strategy" if result["mask"] == "own" else "drawn at random"
    title = (
        f"{result['name']}, iteration {result['iteration']}: mask '{result['mask_type']}', feedback "
        f"'{result['feedback']}'; {result['batches']} batches of {result['batch_size']} training images, masks {masks}"
    )
    return "\n".join([title, *(f"{name:20s} {value:22s} {remark}".rstrip() for name, value, remark in rows)])


def sheet_title(result: dict[str, Any]) -> str:
    objects = result["objects"] or {}
    gap, auroc = objects.get("influence_gap"), objects.get("influence_auroc")
    parts = [f"{result['name']}, iteration {result['iteration']}", f"feedback {result['feedback']}"]
    if gap is not None and auroc is not None:
        parts += [f"object minus background: t = {_t(gap)}", f"AUROC {auroc['mean']:.3f}"]
    known = {name: found["mean"] for name, found in (result["sigma_follows"] or {}).items() if found is not None}
    if known:
        strongest = max(known, key=lambda name: abs(known[name]))
        parts.append(f"sigma against {strongest}: {known[strongest]:+.2f}")
    return "   ·   ".join(parts)


def _number(statistics: dict[str, Any] | None, form: str) -> str:
    if statistics is None:
        return "no batch to compare"
    sd = "" if statistics["sd"] is None else f" ± {statistics['sd']:{form.lstrip('+')}}"
    return f"{statistics['mean']:{form}}{sd}"


def _t(statistics: dict[str, Any] | None) -> str:
    if statistics is None:
        return "no batch to compare"
    n = f"{statistics['batches']} batch{'es' if statistics['batches'] > 1 else ''}"
    return f"undefined over {n}" if statistics["t"] is None else f"{statistics['t']:+.2f} over {n}"
