"""`mlomae compare --data FOLDER`: whether a learned mask pays on one's own labelled images, by a suite of five rows.

    MAE; MAE of the learned mask's processor time; the learned mask; MAE trained with the labels; random weights

All see the same images in the same order, by the recipe of `mlomae.pretraining.recipe` (a fifth of the training images
is held back for the upper level of the learned mask, and from the others as well), and are judged by the same frozen
protocols on the images that are held out. The suite and its configs are written into the folder of the comparison.
"""

import argparse
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.analysis.comparable import BASELINE, SAME_TIME
from benchmarks.analysis.report.__main__ import build_report
from mlomae.classification.classify import look_for_classes
from mlomae.common.atomic import write_text
from mlomae.common.errors import ConfigError, counted
from mlomae.common.system import usable_cores
from mlomae.config.schema import config_from_dict
from mlomae.config.strict import merged
from mlomae.config.text import config_text
from mlomae.data.found import Found
from mlomae.pretraining.dry_run import timed_steps
from mlomae.pretraining.log import duration
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.recipe import METHODS, choose_recipe
from mlomae.pretraining.run import build_data, open_sources
from mlomae.records import RANDOM

LEARNED = METHODS["learned"]
JOINT = "MAE (joint classification)"
_EVALUATION = 30.0  # processor seconds of k-NN, probes and transfers of a backbone, about
MOST = 150_000  # images that a run sees on a CPU: a comparison of 1,000 images of 64 pixels takes an hour on two cores


def recipes(found: Found, gpu: bool, changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name -> values of a config: three pretrainings and two frozen protocols."""
    learned = merged(choose_recipe(found, "learned", gpu).values, changes)
    if not gpu and "train.outer_iterations" not in changes:
        most = MOST // (2 * learned["data"]["batch_size"])
        learned["train"]["outer_iterations"] = min(most, learned["train"]["outer_iterations"])
    name, model = learned["name"].removesuffix("_learned"), learned["model"]
    without = {key: value for key, value in learned.items() if key != "feedback"}
    mae = {
        **without,
        "name": f"{name}_mae",
        "method": BASELINE,
        "mask": {"type": "random", "ratio": learned["mask"]["ratio"]},
        "levels": {"lower_steps": learned["levels"]["lower_steps"]},
        "optim": {"theta": learned["optim"]["theta"]},
    }
    joint = {**mae, "name": f"{name}_joint", "method": JOINT, "auxiliary": {"type": "classification", "weight": 0.1}}
    count = len(found.classes) * 2
    batch = 2 ** max(3, min(8, (max(found.total, count) // 8).bit_length() - 1))
    pixels = {key: value for key, value in learned["data"]["augment"].items() if key in ("mean", "std")}
    frozen = {
        "backbone": {"img_size": model["img_size"]},
        "data": {
            "train": found.train,
            "test": found.held_out,
            "evaluate": {"crop_pct": 1.0, **pixels},
            "batch_size": batch,
        },
    }
    if learned["data"].get("allow_near_copies"):
        frozen["data"]["allow_near_copies"] = True
    linear = {
        **frozen,
        "name": f"{name}_linear",
        "protocol": "linear",
        "optim": {"type": "sgd", "lr": batch / 200, "weight_decay": 0.0, "warmup": 0.1, "min_lr": 0.0},
        "train": {"epochs": 50, "keep_checkpoints": 1},
    }
    knn = {**frozen, "name": f"{name}_knn", "protocol": "knn"}
    return {"mae": mae, "learned": learned, "joint": joint, "linear": linear, "knn": knn}


def suite_values(name: str, seeds: list[int]) -> dict[str, Any]:
    """The values of the suite's file, which lies beside the configs."""
    return {
        "name": name,
        "seeds": seeds,
        "methods": [{"config": f"{file}.py"} for file in ("mae", "learned", "joint")],
        "same_time": LEARNED,
        "floor": True,
        "tasks": [{"recipe": f"{file}.py", "task": "classification"} for file in ("linear", "knn")],
    }


def estimate(values: dict[str, dict[str, Any]], seeds: int, jobs: int) -> float:
    """Seconds that the comparison will take, measured on a few steps of each pretraining with one thread.

    Raises what the pretrainings would raise before their first step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        each = []
        configs = {file: config_from_dict(values[file]) for file in ("mae", "learned", "joint")}
        opened = open_sources(configs["learned"])  # the images of all three: read, and compared with each other, once
        for config in configs.values():
            data = build_data(config, opened)
            seconds = timed_steps(config, data, Pretrainer(config, data.num_classes))[0]
            each.append(seconds * config.train.outer_iterations)
    finally:
        torch.set_num_threads(threads)
    mae, learned, joint = each
    pretraining = mae + learned + joint + max(mae, learned)  # the last: MAE of the learned mask's time
    return seeds * (pretraining + 5 * _EVALUATION) / jobs


def compare(args: argparse.Namespace, run: Callable[[list[str]], int], say: Callable[[str], None] = print) -> int:
    """Run the subcommand; the exit status of the suite, which ``run`` runs, given its file and options.

    Raises DataError for a folder without two classes, ConfigError for options that do not fit, before anything is
    written."""
    found = look_for_classes(args.data)
    gpu = torch.cuda.is_available()
    values = recipes(found, gpu, args.changes)
    name = values["mae"]["name"].removesuffix("_mae")
    out = Path(args.work_dir or f"work_dirs/{name}_compared")
    jobs = args.jobs or max(1, 1 if gpu else usable_cores())
    if len(args.seeds) < 2:
        raise ConfigError("one seed says nothing about a difference; give two or more, three are the default")
    say(f"found: {found.describe()}")
    rows = [BASELINE, SAME_TIME, LEARNED, JOINT, "random weights"]
    say(f"compared, with {counted(len(args.seeds), 'seed')}: {', '.join(rows)}")
    seconds = estimate(values, len(args.seeds), jobs)
    say(f"time: about {duration(seconds)}, {counted(jobs, 'run')} at a time; a run that is killed is resumed")
    say(f"page: {out / 'report.html'}, when all has run; configs: {out}/*.py")
    if args.dry_run:
        return 0
    about = f"What `mlomae compare` has chosen for {found.root}: {found.describe()}."
    texts = {f"{file}.py": config_text(content, about) for file, content in values.items()}
    for file, text in texts.items():
        if (out / file).exists() and (out / file).read_text(encoding="utf-8") != text:
            raise ConfigError(f"'{out / file}' is of another comparison; name another folder with --work-dir")
    texts["suite.py"] = config_text(suite_values(name, args.seeds), about)  # seeds may be added
    for file, text in texts.items():
        write_text(out / file, text)
    options = ["--records", str(out / "runs"), "--work-dir", str(out / "work"), "--jobs", str(jobs)]
    status = run([str(out / "suite.py"), *options])
    if status:  # some rows are missing, or all: the tables would speak of others
        say(f"nothing is concluded: runs have failed, see above and {out / 'work'}; the same command goes on from here")
        return status
    lines = conclusion(out)
    about = f"{found.describe()}. Written by `mlomae compare`, whose configs lie beside this page."
    build_report(
        out / "runs",
        out / "report.html",
        f"Does a learned mask pay on {found.title}?",
        [escape(text) for text in (about, *lines)],
    )
    for line in ["", *lines]:
        say(line)
    say(f"open {out / 'report.html'}")
    return status


def conclusion(results: Path) -> list[str]:
    """What the tables in ``results`` say: the means of the five rows by each frozen protocol, and the differences of
    the learned mask, paired by seed, with intervals of 95 %."""
    compared, differences = (pd.read_csv(results / f"{name}.csv") for name in ("comparison", "differences"))
    lines = []
    for protocol, title in (("knn", "k-NN"), ("linear", "linear classifier")):
        rows = compared[(compared["task"] == "classification") & (compared["protocol"] == protocol)]
        means = {row["method"]: row["mean"] for row in rows.to_dict("records")}
        shown = [f"{name} {means[name]:.1f}" for name in (LEARNED, BASELINE, SAME_TIME, JOINT, RANDOM) if name in means]
        lines.append(f"{title}, % of held-out images: {'; '.join(shown)}")
    learned = differences[differences["method"] == LEARNED]
    for metric, title in (("knn_top1_avg", "k-NN"), ("linear_top1_avg", "linear probe")):
        for row in learned.to_dict("records"):
            value, low, high = (row[f"{metric}{part}"] for part in ("", "_low", "_high"))
            if not pd.isna(value):
                lines.append(f"{title}, learned mask minus {row['reference']}: {_verdict(value, low, high)}")
    costs = {row["method"]: row["pretraining_cpu_s"] for row in compared.to_dict("records")}
    if SAME_TIME in costs and SAME_TIME not in set(learned["reference"]):
        took = costs[SAME_TIME] / costs[LEARNED]
        lines.append(
            f"{SAME_TIME}: took {took:.2f} of the learned mask's time, too far apart to be called the same, as where "
            "other programs use the cores; its accuracies are above"
        )
    return lines


def _verdict(difference: float, low: float, high: float) -> str:
    if pd.isna(low):
        return f"{difference:+.1f} points, without an interval"
    word = "no difference is shown" if low <= 0 <= high else "it is better" if low > 0 else "it is worse"
    return f"{difference:+.1f} points [{low:+.1f}, {high:+.1f}]: {word}"
