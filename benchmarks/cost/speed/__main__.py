"""Speed and memory of an outer iteration (`make bench-speed`).

Plain MAE, our `one_step`, the authors' scheme, their compiled forms, and the plain MAE of others, in both precisions
and with each tool's own loader, measured in turn on one machine, together with its rates of matrix products. Data are
random tensors made once, and loading is not timed, but in the rows from files. A ratio is the median over rounds of
the ratio within a round, with a 95 % interval of the median.
"""

import argparse
import datetime
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.tables import speed_table
from benchmarks.analysis.tables.table import aligned
from benchmarks.cost.loading.loaders import write_jpegs
from benchmarks.cost.median import median_interval
from benchmarks.cost.speed.measure import HALF, attempt, matmul_shapes, measure_once, prepare
from benchmarks.cost.speed.rows import MATMUL, ROWS
from benchmarks.cost.speed.setting import LOWER_STEPS, SETTINGS, Setting, get_setting
from mlomae import records
from mlomae.common import system
from mlomae.common.errors import ConfigError, exit_status
from mlomae.common.registry import check_choice, check_range

REFERENCES = ("authors", "mae", "mae_bf16", "files")  # rows that others are compared with
FILES = 64  # batches of images for the rows from files: enough that few epochs end while they are timed
Found = dict[str, dict[str, Any]]
"""Row -> its numbers, or {"skipped": reason}; "matmul" -> rates."""


def measure(setting: Setting, names: list[str], rounds: int, warmup: int, threads: int) -> Found:
    """Time the rows that can run, in turn. Raises ConfigError if one of them fails while it is timed."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        root = ""
        if any(ROWS[name].files for name in names):
            root = stack.enter_context(tempfile.TemporaryDirectory())
            write_jpegs(Path(root), setting.model["img_size"], FILES * setting.batch)
        processes = {n: stack.enter_context(ProcessPoolExecutor(1, context)) for n in (*names, MATMUL)}

        def ask(name: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
            try:
                return processes[name].submit(attempt, function, *arguments).result()
            except BrokenProcessPool:
                return {"skipped": "its process ended (out of memory?)"}

        # one after the other: parallel warm-ups would disturb each other and the measured memory
        ready = {name: ask(name, prepare, name, setting.name, threads, warmup, root) for name in processes}
        runnable = [name for name in ready if "skipped" not in ready[name]]
        times: dict[str, list[dict[str, Any]]] = {name: [] for name in runnable}
        for turn in range(rounds):
            first = turn % len(runnable)  # a row that always came after the same other one would inherit its caches
            for name in [*runnable[first:], *runnable[:first]]:
                times[name].append(ask(name, measure_once))
                if "skipped" in times[name][-1]:
                    raise ConfigError(f"row '{name}' failed while it was timed: {times[name][-1]['skipped']}")
    rates = times.pop(MATMUL)
    found: Found = {MATMUL: {k: statistics.median(r[k] for r in rates) for k in rates[0]}}
    for name in names:
        found[name] = _summary(name, setting, times, ready, rates) if name in times else ready[name]
    return found


def _summary(
    name: str, setting: Setting, times: dict[str, Any], ready: dict[str, Any], rates: list[dict[str, float]]
) -> dict[str, Any]:
    """Medians of one row and of its ratios within a round; keys as in a record's metrics."""
    own, first = times[name], ready[name]
    numbers: dict[str, Any] = {}
    for key in ("seconds", "cpu_seconds"):
        samples = {key: [t[key] for t in own]}
        if key == "seconds":
            samples["images_per_s"] = [LOWER_STEPS * setting.batch / t[key] for t in own]
        for other in [row for row in REFERENCES if row in times]:
            samples[f"{key}_to_{other}"] = [a[key] / b[key] for a, b in zip(own, times[other], strict=True)]
        for number, values in samples.items():
            numbers[number], numbers[f"{number}_low"], numbers[f"{number}_high"] = median_interval(values)
    numbers |= {key: first[key] for key in ("peak_mib", "peak_read", "amp")} | {"rounds": len(own)}
    parts = ROWS[name].iterations
    numbers |= {"wall_clock_s": parts * sum(t["seconds"] for t in own)}
    numbers |= {"cpu_s": parts * sum(t["cpu_seconds"] for t in own)}
    if ROWS[name].compiled:
        numbers["compile_s"] = max(0.0, first["first_s"] - numbers["seconds"])
    gflop = (ready.get(ROWS[name].flops_of or name) or {}).get("gflop")
    if gflop is not None:
        numbers |= {"gflop": gflop, "gflop_per_s": statistics.median(gflop / t["busy_seconds"] for t in own)}
        square = HALF if HALF in rates[0] and ready[name]["amp"] == "bf16" else "square"
        shares = (gflop / t["busy_seconds"] / rate[square] for t, rate in zip(own, rates, strict=True))
        numbers["share_of_matmul"] = statistics.median(shares)
    return numbers


# --- what is printed and written ------------------------------------------------------------------------------------


def table_lines(setting: Setting, found: Found, threads: int, measured: list[records.Record]) -> list[str]:
    """The table of the records ``measured``, aligned for a terminal, and the reasons of rows that were skipped."""
    frame, _ = speed_table.TABLE.build(Evidence({record["name"]: record for record in measured}))
    columns = [c for c in speed_table.TABLE.columns if c.spec and not c.name.endswith(("_low", "_high"))]
    rows = [[ROWS[row["row"]].title, *(c.cell(row) for c in columns)] for row in frame.to_dict("records")]
    skipped = [f"{ROWS[name].title}: skipped, {n['skipped']}" for name, n in found.items() if "skipped" in n]
    m = setting.model
    shapes = matmul_shapes(setting)
    shapes |= {HALF: shapes["square"]}
    rates = ", ".join(f"{k} {'x'.join(map(str, shapes[k]))}: {rate:.0f}" for k, rate in found[MATMUL].items())
    return [
        f"setting '{setting.name}': ViT {m['embed_dim']} wide, {m['depth']} deep, {m['img_size']} px in patches of "
        f"{m['patch_size']}; decoder {m['decoder_embed_dim']} wide, {m['decoder_depth']} deep; "
        f"batches of {setting.batch}; {setting.device}, {setting.amp if setting.amp != 'none' else 'float32'}, "
        f"{threads} thread(s)",
        "random tensors, loading not timed, but in the rows from files; one outer iteration is 2 steps on θ, and with "
        "levels one on ω and one on φ",
        f"GFLOP/s by {'processor seconds' if threads == 1 and setting.device == 'cpu' else 'the clock'}; "
        "[low, high] is a 95 % interval of the median of the ratios within a round; "
        "the seconds of a row do not include compilation",
        *aligned([["row", *(column.heading for column in columns)], *rows]),
        *skipped,
        f"matrix products, GFLOP/s (share is of the square's in the row's precision): {rates}",
    ]


def make_records(setting: Setting, found: Found, warmup: int, threads: int) -> list[records.Record]:
    """One record per row that ran; all rows have the same ``finished_at``, which is part of their names."""
    now = datetime.datetime.now(datetime.timezone.utc)
    git = system.git_state(Path(__file__).parent)
    hardware = system.hardware() | {"threads": threads} | ({"gpu": None} if setting.device == "cpu" else {})
    out = []
    for name, numbers in found.items():
        if name == MATMUL or "skipped" in numbers:
            continue
        metrics = {k: round(v, 6) for k, v in numbers.items() if isinstance(v, float)}
        metrics |= {f"matmul_{k.replace(', ', '_').replace(' ', '_')}": round(v, 3) for k, v in found[MATMUL].items()}
        clock = {"wall": metrics.pop("wall_clock_s"), "cpu": metrics.pop("cpu_s")}
        rounds, parts = numbers["rounds"], ROWS[name].iterations
        images = setting.batch * rounds * parts
        upper = setting.batch * rounds if ROWS[name].levels else 0
        measured = {key: numbers[key] for key in ("rounds", "peak_read", "amp")} | {"row": name, "warmup": warmup}
        data = "JPEG files" if ROWS[name].files else "random tensors"
        out.append(
            records.make_record(
                task="speed",
                name=f"speed_{setting.name}_{name}_{now:%Y%m%dT%H%M%SZ}",
                method=name,
                dataset=data,
                seed=0,
                config={"setting": asdict(setting), **measured, "threads": threads},
                images_seen={"lower": LOWER_STEPS * images, "head": upper, "upper": upper},
                outer_iterations=rounds * parts,
                clock=clock,
                train_source=data,
                eval_source="none",
                metrics=metrics,
                git=git,
                hardware=hardware,
                finished_at=now.isoformat(timespec="seconds"),
            )
        )
    return out


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    default = "gpu" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost.speed", description="Speed and memory of a step.")
    parser.add_argument("--setting", default=default, help=f"one of {', '.join(SETTINGS)} (default here: {default})")
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=9, help="timed iterations of every row, taken in turn")
    parser.add_argument("--warmup", type=int, default=2, help="untimed iterations after the first one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each process")
    parser.add_argument("--no-compile", action="store_true", help="leave out the rows under torch.compile")
    parser.add_argument("--records", type=Path, help="folder to write one record per row into")
    arguments = parser.parse_args(argv)
    setting, names = get_setting(arguments.setting), [name for name in arguments.rows.split(",") if name]
    for name in names:
        check_choice("", ROWS, rows=name)
    if len(set(names)) != len(names):
        raise ConfigError("a row is named twice; name each once")
    check_range("", "[1, inf)", rounds=arguments.rounds, threads=arguments.threads)
    check_range("", "[0, inf)", warmup=arguments.warmup)
    names = [name for name in names if not (arguments.no_compile and ROWS[name].compiled)]
    found = measure(setting, names, arguments.rounds, arguments.warmup, arguments.threads)
    measured = make_records(setting, found, arguments.warmup, arguments.threads)
    print("\n".join(table_lines(setting, found, arguments.threads, measured)))
    if arguments.records:
        for record in measured:
            path = arguments.records / f"{record['name']}.json"
            records.write_record(record, path)
            print(path)


if __name__ == "__main__":
    sys.exit(main())
