"""The default of `make bench-cls`: k-NN, linear probe and fine-tuning, with few labels, on the embedded textures.

python -m benchmarks.tasks.classification.embedded [--runs work_dirs] [--jobs 2]
"""

from __future__ import annotations

import sys

from benchmarks.tasks.classification.config import ClassificationConfig
from benchmarks.transfer.embedded import Bench, embedded_main
from mlomae.records import Record

CLASSES = 8  # of the textures


def _explain(record: Record) -> list[str]:
    train, test = (record[key].split(", ")[-1] for key in ("train_source", "eval_source"))
    return [
        f"Top-1 on {test} that no pretraining saw, with the labels of {train}; chance {100 / CLASSES:.1f} %.",
        "One run a row: it shows that the transfer works, not which method is better. A pretraining with feedback",
        "has used the labels of its whole training set, more than are used here; MAE has used none.",
    ]


BENCH = Bench(
    task="classification",
    load_config=ClassificationConfig.load,
    recipes={"fine-tuning": "finetune_textures", "linear": "linear_textures", "k-NN": "knn_textures"},
    columns={"k-NN": ("k-NN", "top1"), "linear": ("linear", "top1"), "fine-tuning": ("fine-tuning", "top1")},
    seconds=85,  # AMD EPYC, backbone of width 128 and depth 4
    explain=_explain,
    outputs=[
        "OUT/confusion.png      which classes are taken for which",
        "OUT/predictions.npz    every test image; two runs on the same images:",
        "    python -m benchmarks.tasks.classification.compare A/predictions.npz B/predictions.npz",
    ],
)


def main(argv: list[str] | None = None) -> int:
    """Command line of `benchmarks.transfer.embedded`."""
    return embedded_main(BENCH, __doc__.splitlines()[0], "work_dirs/bench-cls", argv)


if __name__ == "__main__":
    sys.exit(main())
