"""``mlomae horizon``: does the one-step influence predict the effect of many real steps?

From a checkpoint, with its optimizer's state and a constant rate, continue training under weights 1 + ε s and 1 − ε s
for a few policies s, and compare the difference in the feedback loss, at growing horizons, with what the influence
predicts. Masks are uniform. The feedback loss is measured on fixed images of the training set, the head's and the upper
split, under the run's ``feedback_augment`` with fixed keys; evaluation images are not read.

Common random numbers remove most of the noise, not all: with one set of batches, the difference at a long horizon still
depends on these batches. ``repeats`` trains again on others and gives standard errors; the cost grows with it, 2 ·
policies · steps · repeats lower steps.

Shape legend: J policies, n batches of the prediction.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from mlomae.common.checkpoint import WRITTEN
from mlomae.common.errors import CheckpointError, ConfigError
from mlomae.common.registry import check_range
from mlomae.data import Stream
from mlomae.diagnostics.diagnose import LEVELS, choose_feedback, identify, load_for_diagnosis, write_result
from mlomae.diagnostics.horizon.effects import Measured, Policies, RollOut, measure_feedback, policy_names, predict
from mlomae.diagnostics.horizon.report import agreements, effect, horizon_figure, mean_se
from mlomae.multilevel import AdamPreconditioner
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.influence import Batch
from mlomae.pretraining.load import LoadedRun
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.restore import restore_optimizer

FORMAT = "mlomae-horizon/1"
HORIZONS = (1, 5, 20, 50, 100, 200)
PREDICTION_IMAGES = 256  # of each level, in one batch of the prediction
MEASURED_IMAGES = 512  # of the head's and of the upper split, on which the real effect is measured


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
        strength: ε, above 0 and at most 1. s is clipped to ±1/ε in both predictions and roll-outs, so that weights
            are at least 0 and +s and −s stay mirror images; the JSON says which share of the patches is clipped.
        feedback: one without a head; by default the run's own if it has none, else "nca".
        data_root: replaces ``data.train.root`` of the run.
        out: by default the folder ``horizon`` of the run.
        lr: rate of θ; by default the one that the checkpoint's optimizer had.
        repeats: sets of batches of the roll-outs.
        batches: n of the prediction, over which its standard error is taken.
        say: called with each line of progress.

    Raises ConfigError for a wrong option, a feedback with a head or a rate that has decayed to nothing, CheckpointError
    for a file that is no checkpoint, DataError for missing data, TrainingError if a number is not finite.
    """
    check_range("", "[1, inf)", steps=steps, policies=policies, repeats=repeats, batches=batches)
    check_range("", "(0, 1]", strength=strength)  # 0.5 gives weights from 0 to 2
    if lr is not None:
        check_range("", "(0, inf)", lr=lr)
    run = load_for_diagnosis(checkpoint, data_root)
    config = run.config
    config.mask = {"type": "random", "ratio": config.mask.get("ratio", 0.75)}
    choose_feedback(run, feedback, "every roll-out would have to train again")
    rate, peak = lr, config.optim["theta"].lr
    if not run.state["optimizers"].get("theta", {}).get("param_groups"):
        raise CheckpointError(f"checkpoint '{run.path}' lacks 'optimizers.theta'; {WRITTEN}")
    if rate is None:
        rate = float(run.state["optimizers"]["theta"]["param_groups"][0]["lr"])
        if not rate > 1e-3 * peak:
            raise ConfigError(
                f"the learning rate of '{run.path}' has decayed to {rate:.1e}; give one, e.g. --lr {peak:g}, the "
                "highest of the run, or take an earlier checkpoint"
            )
    model = run.build_model(run.data.num_classes)
    names = policy_names(policies, run.data.train.has_objects)
    scores = Policies(model, config.seed, limit=1.0 / strength)
    horizons = sorted({h for h in HORIZONS if h < steps} | {steps})

    streams = [run.stream(level, f"horizon/prediction/{level}") for level in LEVELS]
    images = min(PREDICTION_IMAGES, *map(len, streams))
    levels = [numbered(stream, images, model) for stream in streams]
    predicted_nJ, adam_nJ = predict(
        model,
        scores,
        names,
        ((levels[0](t), levels[1](t), levels[2](t)) for t in range(batches)),
        AdamPreconditioner(fresh_optimizer(run, model, rate), model.level_parameters()["theta"]),
        chunks=math.gcd(config.train.accumulate, images),
    )
    lower = model.freeze_mask(levels[0](0))
    clipped = [float((scores(n, lower).abs() >= scores.limit).sum() / lower["mask"]["mask"].sum()) for n in names]

    measured = [run.stream(level, f"horizon/measured/{level}") for level in ("head", "upper")]
    head, upper = (numbered(stream, min(MEASURED_IMAGES, len(stream)), model)(0) for stream in measured)
    start = measure_feedback(model, head, upper)
    clip_grad = config.optim["theta"].clip_grad
    roll_out = RollOut(model, lambda: fresh_optimizer(run, model, rate), head, upper, clip_grad)
    pairs: dict[str, list[tuple[list[Measured], list[Measured]]]] = {name: [] for name in names}
    left, clock = 2 * len(names) * repeats, time.perf_counter()
    for repeat, name in itertools.product(range(repeats), names):  # all policies of a repeat see the same batches
        stream = run.stream("lower", f"horizon/roll-out {repeat}/lower")
        batch, found = numbered(stream, run.data.batches.batch_size, model), []
        for sign in (1.0, -1.0):
            weight = lambda b, e=sign * strength, name=name: 1.0 + e * scores(name, b)  # noqa: E731
            found.append(roll_out(batch, weight, horizons))
            if not pairs[names[0]] and sign > 0:
                seconds = time.perf_counter() - clock
                say(f"one roll-out: {seconds:.1f} s; {left - 1} more: about {(left - 1) * seconds / 60:.1f} minutes")
        pairs[name].append((found[0], found[1]))

    result: dict[str, Any] = {
        **identify(run, FORMAT),
        "feedback": config.feedback["type"],
        "horizons": horizons,
        "strength": strength,
        "lr": rate,
        "repeats": repeats,
        "batch_size": run.data.batches.batch_size,
        "prediction": {"batches": batches, "images": images},
        "measured": {"head": len(head["label"]), "upper": len(upper["label"]), **config.data.feedback_augment},
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
    return result, write_result(result, horizon_figure(result), out or run.folder / "horizon", "horizon", "horizon")


def fresh_optimizer(run: LoadedRun, model: Pretrainer, lr: float) -> Optimizer:
    """A new AdamW of θ in the checkpoint's state, at the constant rate ``lr``."""
    optimizer = build_optimizers({"theta": model.level_parameters()["theta"]}, run.config)["theta"]
    try:  # a copy: torch would keep the checkpoint's own tensors and step on them
        restore_optimizer(optimizer, copy.deepcopy(run.state["optimizers"]["theta"]), "optimizers.theta")
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{run.path}' {error}; {WRITTEN}") from error
    for group in optimizer.param_groups:
        group["lr"] = lr
    return optimizer


def numbered(stream: Stream, size: int, model: Pretrainer) -> Callable[[int], Batch]:
    """Batch t of ``size`` images of ``stream``, on the model's device; made at each call, so that none is kept."""
    device = next(model.parameters()).device
    return lambda t: to_device(stream.batch(t * size, size), device)
