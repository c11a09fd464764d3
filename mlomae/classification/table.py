"""Predictions as a table with the names of files: what spreadsheets and scikit-learn read.

Columns: ``file``; ``label``, the name of the true class, where it is known; then ``predicted`` and ``probability`` of
the best class, ``predicted_2`` and ``probability_2`` of the second, and so on, as many as `PerImage` keeps.

    table = pandas.read_csv("predictions.csv", dtype={"label": str, "predicted": str}, keep_default_na=False)
    sklearn.metrics.accuracy_score(table["label"], table["predicted"])             # top1 / 100
    sklearn.metrics.balanced_accuracy_score(table["label"], table["predicted"])    # mean_per_class / 100
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlomae.classification.per_image import PerImage
from mlomae.common.atomic import replacing

FILE = "predictions.csv"


def predictions_table(
    images: PerImage, files: Sequence[str], class_names: Sequence[str], labelled: bool = True
) -> pd.DataFrame:
    """A row for each of ``images``, whose ``index`` is into ``files``."""
    names = np.array(list(class_names), dtype=object)
    columns: dict[str, Any] = {"file": [files[i] for i in images.index]}
    if labelled:
        columns["label"] = names[images.label]
    for k in range(images.top_classes.shape[1]):
        suffix = f"_{k + 1}" if k else ""
        columns[f"predicted{suffix}"] = names[images.top_classes[:, k]]
        columns[f"probability{suffix}"] = np.exp(images.top_log_probs[:, k].astype(np.float64))
    return pd.DataFrame(columns)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """As CSV, probabilities with six digits."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
