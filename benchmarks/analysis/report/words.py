"""What columns and figures are called on the page."""

from __future__ import annotations

from benchmarks.analysis.comparable import METRICS
from benchmarks.tasks import all_tasks

_MEASURED = {
    f"{key}_cls": f"{name}, class token" for key, name in (("knn_top1", "k-NN"), ("linear_top1", "linear probe"))
}
_MEASURED |= METRICS | {metric.name: metric.title for task in all_tasks() for metric in task.metrics}
_COLUMNS = {
    "config_hash": "config",
    "schedule": "outer iterations",
    "images_seen": "images seen (stage I)",
    "labelled_seen": "labelled images seen (II, III)",
    "wall_clock_s": "wall-clock (s)",
    "cpu_s": "processor (s)",
    "pretraining_images_seen": "images seen (pretraining)",
    "pretraining_cpu_s": "processor (s), pretraining",
    "transfer_cpu_s": "processor (s), transfer",
    "feedback_accuracy": "feedback accuracy (%)",
    "feedback_chance": "feedback, chance (%)",
    "reference": "against",
    "finished_at": "run",
    "seconds": "wall-clock (s)",
    "cpu_seconds": "processor (s)",
    "seconds_to_authors": "wall-clock / authors'",
    "cpu_seconds_to_authors": "processor / authors'",
    "seconds_to_mae": "wall-clock / MAE",
    "peak_mib": "peak memory (MiB)",
    "gflop": "GFLOP",
    "gflop_per_s": "GFLOP/s",
    "share_of_matmul": "share of matmul's rate",
    "matmul_square": "matmul (GFLOP/s)",
    "compile_s": "compilation (s)",
    "pretrain_epochs": "pretraining epochs",
}
_COMPARED = {"_vs_mae": "vs MAE", "_vs_random": "vs random initialisation", "_share": "share of headroom"}
_POINTS = ("differences",)  # tables whose metrics are differences
_FIGURES = {
    "levels": "The three levels of an outer iteration, and the gradients between them",
    "bilevel": "Two levels against three",
    "mask_ratio": "Accuracy against the mask ratio",
    "loss_curves": "Losses of the three levels in training",
    "cost": "k-NN accuracy against the cost of pretraining",
    "cost_linear": "Linear probe against the cost of pretraining",
    "masks": "What is removed from the same images",
}


def column_words(column: str, table: str) -> str:
    """The title of a column of a table's CSV."""
    for suffix, words in _COMPARED.items():
        if column.endswith(suffix):
            return f"{_MEASURED.get(column.removesuffix(suffix), column)}, {words}"
    if column in _MEASURED:
        return f"{_MEASURED[column]} ({'points' if table in _POINTS else '%'})"
    return _COLUMNS.get(column, column.replace("_", " "))


def figure_words(name: str) -> str:
    """The title of a figure by the name of its file: its own, or that of its family with what it is of."""
    family = max((known for known in _FIGURES if name == known or name.startswith(f"{known}_")), key=len, default="")
    left = name.removeprefix(family).strip("_").replace("_", " ")
    return ": ".join(words for words in (_FIGURES.get(family, ""), left) if words)


def figure_order(name: str) -> tuple[int, str]:
    """Sorts figures: those known by name first, in the order of the list."""
    known = list(_FIGURES)
    return known.index(name) if name in known else len(known), name
