"""Floating-point operations of every pretraining in the records (`make flops`), counted from its configuration.

The file holds, for the hash of every pretraining's configuration and in FLOP (a multiply-add counts as two):

- ``total``: of the whole run, with its own batch sizes; the mean over its records where φ started at different times;
- ``lower_step``: one step on θ, and ``upper``: one outer iteration in which φ moves (0 where there is no φ), both with
  ``batch`` images in the batch of every level.

Numbers are integers of 4 significant digits. A hash that the file has is not counted again without ``--again``, except
for configurations with ``levels.warmup_margin``, whose mean changes with every record; those without a record are
removed.

The count is taken on a few synthetic images. An outer iteration of kind k costs  B a_k + U c_k  operations, B the lower
batch, U the feedback batch:

    total = Σ_k n_k (B a_k + U c_k) + U p · probes

The kinds are those of `mlomae.pretraining.feedback_gate`: masks are still random ("warm-up"), φ rests ("between") or
moves ("upper"). What is counted is `PretrainStep` itself, with all that the strategy does in it (teachers, second
decoders, adversaries, the hypergradient), and a probe of the feedback; not logs, pictures and evaluations. a_k and c_k
follow from two counts, of which the second has a lower batch twice as large.

- A schedule of the mask is taken at progress 0.5 of the run, whatever it is before and after.
- A ratio that is drawn for every batch is averaged over its distribution.
- Only matrix products and convolutions count (`mlomae.common.flops`): no optimizer, no norm, no eigenvectors, singular
  values or Cholesky factors, which some strategies take of small matrices.
- The count is that of the current code, also for records of older commits.
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.analysis.evidence import read_flops
from benchmarks.cost.speed.setting import random_batch
from mlomae.common.atomic import write_text
from mlomae.common.errors import DataError, MlomaeError, exit_status, reason_of, refuse
from mlomae.config.plugins import import_plugins
from mlomae.config.schema import PretrainConfig, config_from_dict
from mlomae.masking.teacher import PRETRAINED
from mlomae.pretraining.estimate import BEGIN, CountedStep, halfway, occurrences, ratios_of
from mlomae.pretraining.feedback_gate import judge
from mlomae.pretraining.optim import build_optimizers
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import images_seen, with_sizes
from mlomae.records import Record, grouped, read_records

BATCH = 8  # images of each level; the cost is linear in them

Costs = dict[str, tuple[float, float]]
"""Kind of an outer iteration, or "probe" -> its operations for each image of a lower and of a feedback batch."""


# --- what a record says ---------------------------------------------------------------------------------------------


def config_of(record: Record) -> PretrainConfig:
    """The configuration of a record, changed to read nothing from disk: the values of weights change no count.

    Raises ConfigError for one that this code does not know.
    """
    mask = record["config"].get("mask")
    if isinstance(mask, dict) and isinstance(mask.get("teacher"), str):
        mask = {**mask, "teacher": mask["teacher"].removesuffix(PRETRAINED)}
    config = config_from_dict({**record["config"], "mask": mask, "init_from": None})
    return with_sizes(config, record.get("lowered", {}))


def classes_of(record: Record) -> int:
    """Classes of the feedback, which matter to a head alone. Records of version 0.1 do not have them: 100 / chance of
    the feedback, or of the evaluation."""
    metrics = record["metrics"]
    inverse = 100.0 / metrics.get("feedback_chance", metrics.get("chance", 1.0))
    return max(2, record.get("classes", round(inverse)))


# --- counting -------------------------------------------------------------------------------------------------------


def count_costs(config: PretrainConfig, classes: int, batch: int) -> Costs:
    """Count every kind of outer iteration that a run of ``config`` can have; ``batch`` images of each level.

    Always on the CPU, in float32 and without compilation, which change no count. Raises what `Pretrainer` raises.
    """
    config = halfway(replace(config, train=replace(config.train, amp="none")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Pretrainer(config, classes).train()
        step, ratios = CountedStep(model, build_optimizers(model.level_parameters(), config)), ratios_of(model)

        def mean_count(lower: int, feedback: int) -> float:
            return step.mean_flops(partial(step, _data(model, lower, feedback), 1), ratios)

        if step.gate is None:
            return {"between": (mean_count(batch, batch) / batch, 0.0)}
        costs = {}
        for kind, begin in BEGIN.items():
            step.gate.begin = begin
            once, more = mean_count(batch, batch), mean_count(2 * batch, batch)
            costs[kind] = (more - once) / batch, (2 * once - more) / batch
        probe = step.mean_flops(partial(judge, model, _data(model, batch, batch)), [model.ratio])
        return costs | {"probe": (0.0, probe / batch)}


def _data(model: Pretrainer, lower: int, feedback: int) -> dict[str, Any]:
    """What `OuterBatches` gives for outer iteration 1 of 2, half of the run being done."""
    steps, side, classes = model.config.levels.lower_steps, model.config.model.img_size, model.num_classes

    def batch(size: int, number: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(classes, (size, side, side), generator=generator)
        images = random_batch(size, side, classes, number, generator)
        return {**images, "object": pixels == 0, "pixel_label": pixels.to(torch.uint8)}

    data: dict[str, Any] = {"lower": [batch(lower, number) for number in range(steps)]}
    if model.mask.trainable:
        data |= {"head": batch(feedback, steps), "upper": batch(feedback, steps + 1)}
    return data


def total_flops(config: PretrainConfig, costs: Costs, begin: int) -> float:
    """Operations of a whole run, with the batch sizes of ``config``."""
    lower, feedback = config.data.batch_size, config.data.feedback_batch_size
    number = occurrences(config, begin)
    return sum(number.get(kind, 0) * (a * lower + c * feedback) for kind, (a, c) in costs.items())


# --- the file -------------------------------------------------------------------------------------------------------


def rounded(value: float) -> int:
    """To 4 significant digits."""
    return int(float(f"{value:.4g}"))


def count_entry(runs: list[Record]) -> dict[str, int]:
    """The entry of one configuration from all its records. Raises DataError, naming the record, if that fails."""
    name = runs[0]["name"]
    try:
        config = config_of(runs[0])
        batch = config.train.accumulate * -(-BATCH // config.train.accumulate)  # divides into the chunks
        costs = count_costs(config, classes_of(runs[0]), batch)
        length, start, totals = config.train.outer_iterations, config.levels.warmup, []
        for record in runs:
            name = record["name"]
            begin = int(record["metrics"].get("phi_started", -1 if config.levels.warmup_margin else start))
            if record["outer_iterations"] != length or record["images_seen"] != images_seen(config, begin):
                raise DataError("images_seen and outer_iterations are not what its configuration gives; run it again")
            totals.append(total_flops(config, costs, begin))
    except Exception as error:  # options that only an older or newer code takes raise anything
        raise DataError(f"record '{name}' cannot be counted: {reason_of(error)}") from error
    return {
        "lower_step": rounded(costs["between"][0] * batch / config.levels.lower_steps),
        "upper": rounded(sum(costs.get("upper", (0.0, 0.0))) * batch),
        "total": rounded(sum(totals) / len(totals)),
        "batch": batch,
    }


def update_flops(records: list[Record], path: Path, again: bool = False) -> list[MlomaeError]:
    """Count what ``path`` lacks (all of it with ``again``), drop what has no record; returns errors."""
    before = {} if again else read_flops(path)
    entries, errors = {}, []
    runs = grouped((r for r in records if r["task"] == "pretrain"), lambda r: str(r["config_hash"]))
    for key, group in runs.items():
        levels = group[0]["config"].get("levels")
        starts_vary = isinstance(levels, dict) and levels.get("warmup_margin")
        if key in before and not starts_vary:
            entries[key] = before[key]
            continue
        try:
            entries[key] = count_entry(group)
        except MlomaeError as error:
            errors.append(error)
            continue
        print(f"{key}  {entries[key]['total']:.3e} FLOP  {group[0]['method']}, {group[0]['dataset']}")
    write_text(path, json.dumps(entries, indent=1, sort_keys=True) + "\n")
    return errors


@exit_status
def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0, 1 after a line for every configuration that cannot be counted, 2 for other bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost.flops", description="Count the operations of the pretrainings."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--out", type=Path, default=Path("results/flops.json"), help="file to bring up to date")
    parser.add_argument("--again", action="store_true", help="recount what the file already has")
    parser.add_argument("--custom-imports", nargs="+", default=[], metavar="MODULE", help="import plug-ins of the runs")
    arguments = parser.parse_args(argv)
    import_plugins(arguments.custom_imports)
    errors = update_flops(read_records(arguments.records), arguments.out, arguments.again)
    for each in errors:
        refuse(each)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
