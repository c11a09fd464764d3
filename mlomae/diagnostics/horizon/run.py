"""``mlomae horizon``: does the one-step influence predict the effect of many real steps?

From a checkpoint, with its optimizer's state and a constant rate, train on under weights 1 + ε s and 1 − ε s for a few
policies s, and compare the difference in the feedback loss, at growing horizons, with what the influence says. Masks
are uniform. The feedback loss is measured on fixed images of the training set, the head's and the upper split, under
the run's ``feedback_augment`` with fixed keys; evaluation images are not opened.

Common random numbers remove most of the noise, not all: with one set of batches the difference at a long horizon is
still that of these batches. ``repeats`` trains again on others and gives standard errors, at its multiple of the cost:
2 · policies · steps · repeats lower steps.

Shape legend: J policies, n batches of the prediction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mlomae.common.errors import ConfigError
from mlomae.diagnostics.horizon.figure import horizon_figure
from mlomae.diagnostics.horizon.policies import Policies, policy_names
from mlomae.diagnostics.horizon.prediction import predict
from mlomae.diagnostics.horizon.report import agreements, effect, mean_se
from mlomae.diagnostics.horizon.rollout import Measured, RollOut, measure_feedback
from mlomae.diagnostics.horizon.setup import Batch, Setup, set_up
from mlomae.diagnostics.pictures import save_figure
from mlomae.diagnostics.report import write_json
from mlomae.multilevel import AdamPreconditioner
from mlomae.pretraining.influence import freeze_mask

FORMAT = "mlomae-horizon/1"
HORIZONS = (1, 5, 20, 50, 100, 200)
LEVELS = ("lower", "head", "upper")
PREDICTION_IMAGES = 256  # of each level, in one batch of the prediction
MEASURED_IMAGES = 512  # of the head's and of the upper split, on which the real effect is measured

Pair: TypeAlias = tuple[list[Measured], list[Measured]]  # under +ε and −ε, one entry a horizon


def horizon(
    checkpoint: Path,
    steps: int = 200,
    policies: int = 8,
    strength: float = 0.5,
    feedback: str | None = None,
    data_root: str | None = None,
    out: Path | None = None,
    *,
    lr: float | None = None,
    repeats: int = 1,
    batches: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], Path]:
    """Run the study, write horizon.png and horizon.json; returns what the JSON holds and the folder.

    Args:
        steps: lower steps of a roll-out; measured at those of `HORIZONS` below it, and at ``steps``.
        policies: how many, in the order of `policy_names`.
        strength: ε, above 0 and at most 1. s is clipped to ±1/ε in predictions and roll-outs alike, so that weights
            are at least 0 and +s and −s stay mirror images; the JSON says which share of the patches that touches.
        feedback: one without a head; by default the run's own if it is such a one, else "nca".
        data_root: replaces ``data.train.root`` of the run.
        out: by default the folder ``horizon`` of the run.
        lr: rate of θ; by default the one that the checkpoint's optimizer had.
        repeats: sets of batches of the roll-outs.
        batches: n of the prediction, over which its standard error is taken.
        say: takes a line of progress.

    Raises ConfigError for a wrong option, a feedback with a head or a rate that has decayed to nothing, CheckpointError
    for a file that is no checkpoint, DataError for missing data, TrainingError if a number is not finite.
    """
    _check(steps, policies, strength, lr, repeats, batches)
    setup = set_up(checkpoint, feedback, data_root, lr)
    names = policy_names(policies, setup.data.train.has_objects)
    scores = Policies(setup.model, setup.config.seed, limit=1.0 / strength)
    horizons = sorted({h for h in HORIZONS if h < steps} | {steps})

    streams = [setup.stream(level, "prediction") for level in LEVELS]
    images = min(PREDICTION_IMAGES, *map(len, streams))
    levels = [setup.numbered(stream, images) for stream in streams]
    predicted_nJ, adam_nJ = predict(
        setup.model,
        scores,
        names,
        ((levels[0](t), levels[1](t), levels[2](t)) for t in range(batches)),
        AdamPreconditioner(setup.optimizer(), setup.model.level_parameters()["theta"]),
        chunks=math.gcd(setup.config.train.accumulate, images),
    )
    lower = freeze_mask(setup.model, levels[0](0))
    clipped = [_clipped(scores, name, lower) for name in names]

    head, upper = (_measured_images(setup, level) for level in ("head", "upper"))
    start = measure_feedback(setup.model, head, upper)
    roll_out = RollOut(
        setup.model,
        setup.optimizer,
        lambda model: measure_feedback(model, head, upper),
        setup.config.optim["theta"].clip_grad,
    )
    pairs = _roll_outs(setup, roll_out, scores, names, strength, horizons, repeats, say)

    result: dict[str, Any] = {
        "format": FORMAT,
        "checkpoint": checkpoint.name,
        "name": setup.config.name,
        "iteration": setup.iteration,
        "feedback": setup.config.feedback["type"],
        "horizons": horizons,
        "strength": strength,
        "lr": setup.lr,
        "repeats": repeats,
        "batch_size": setup.config.data.batch_size,
        "prediction": {"batches": batches, "images": images},
        "measured": {"head": len(head["label"]), "upper": len(upper["label"]), **setup.config.data.feedback_augment},
        "start": start._asdict(),
        "policies": [
            {
                "name": name,
                "clipped": clipped[j],
                "predicted": mean_se(predicted_nJ[:, j].tolist()),
                "predicted_adam": mean_se(adam_nJ[:, j].tolist()),
                "real": effect(pairs[name], horizons, strength),
            }
            for j, name in enumerate(names)
        ],
    }
    result["agreement"] = agreements(result["policies"], horizons)
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    out = out or run / "horizon"
    save_figure(horizon_figure(result), out / "horizon.png")
    write_json(result, out / "horizon.json")
    return result, out


def _check(steps: int, policies: int, strength: float, lr: float | None, repeats: int, batches: int) -> None:
    for option, value in {"steps": steps, "policies": policies, "repeats": repeats, "batches": batches}.items():
        if value < 1:
            raise ConfigError(f"--{option} {value} must be at least 1")
    if not 0.0 < strength <= 1.0:
        raise ConfigError(f"--strength {strength} must be above 0 and at most 1; 0.5 gives weights from 0 to 2")
    if lr is not None and not 0.0 < lr < math.inf:
        raise ConfigError(f"--lr {lr} must be a finite number above 0")


def _clipped(scores: Policies, name: str, lower: Batch) -> float:
    """The share of the removed patches whose s is at its limit."""
    at_limit_BL = scores(name, lower).abs() >= scores.limit
    return float(at_limit_BL.sum() / lower["mask"]["mask"].sum())


def _measured_images(setup: Setup, level: str) -> Batch:
    """Fixed images of a level with fixed crops: all, or the first of a fixed order."""
    stream = setup.stream(level, "measured")
    return setup.numbered(stream, min(MEASURED_IMAGES, len(stream)))(0)


def _roll_outs(
    setup: Setup,
    roll_out: RollOut,
    scores: Policies,
    names: Sequence[str],
    strength: float,
    horizons: Sequence[int],
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, list[Pair]]:
    """For every policy one pair of roll-outs a repeat; all policies of a repeat see the same batches."""
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    left, clock = 2 * len(names) * repeats, time.perf_counter()
    for repeat in range(repeats):
        batch = setup.numbered(setup.stream("lower", f"roll-out {repeat}"), setup.config.data.batch_size)
        for name in names:
            up = roll_out(batch, lambda b, name=name: 1.0 + strength * scores(name, b), horizons)  # type: ignore[misc]
            if not pairs[name] and name == names[0]:
                seconds = time.perf_counter() - clock
                say(f"one roll-out: {seconds:.1f} s; {left - 1} more: about {(left - 1) * seconds / 60:.1f} minutes")
            down = roll_out(batch, lambda b, name=name: 1.0 - strength * scores(name, b), horizons)  # type: ignore[misc]
            pairs[name].append((up, down))
    return pairs
