"""The comparison as the project's README shows it: methods whose backbones were transferred, a number a task.

It stands between two marks, in any file that has them, and is written and checked like the tables.
"""

import pandas as pd

from benchmarks.analysis.comparable import BASELINE
from benchmarks.analysis.tables.comparison_table import (
    Row,
    columns_of,
    cost_row,
    marked,
    methods_of,
    metric_title,
    sections,
    spread,
)
from benchmarks.analysis.tables.table import markdown_table
from mlomae.common.errors import DataError

BEGIN, END = "<!-- comparison: written by `make tables` -->", "<!-- end of the comparison -->"
_LEGEND = (
    "Percent, mean ± sample standard deviation over seeds (their number). † differs from MAE of as many images, "
    "p < 0.05 after Holm's correction, two seeds or more. Cost: processor time of the pretraining, relative to MAE's."
)


def readme_table(frame: pd.DataFrame) -> str:
    """Markdown of every setting with transferred backbones, from the frame of the comparison; "" without any."""
    parts = []
    for rows in sections(frame.to_dict("records")):
        if rows[0]["pretraining_dataset"] and any(row["task"] != "pretrain" for row in rows):
            parts += [f"Pretrained on {rows[0]['pretraining_dataset']}:", "", *_table(rows), ""]
    return "\n".join([*parts, _LEGEND, ""]) if parts else ""


def _table(rows: list[Row]) -> list[str]:
    columns = [by_method for _, by_method in columns_of(rows)]
    lines = []
    for key, of_method in methods_of(rows).items():
        found = [by_method.get(key) for by_method in columns]
        if any(row is not None and row["task"] != "pretrain" for row in found):
            lines.append([key[0], _cost(of_method, rows), *(_cell(row) for row in found)])
    kept = [i for i in range(len(columns)) if sum(bool(line[2 + i]) for line in lines) > 1]
    titles = ["method", "cost", *(_title(next(iter(columns[i].values()))) for i in kept)]
    return markdown_table(titles, [[*line[:2], *(line[2 + i] for i in kept)] for line in lines])


def _title(row: Row) -> str:
    return "<br>".join([row["dataset"], *([row["protocol"]] if row["protocol"] else []), metric_title(row)])


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{spread(row)}{' †' if marked(row) else ''}"


def _cost(of_method: list[Row], rows: list[Row]) -> str:
    """Processor time of the method's pretraining over that of MAE, whose first configuration stands for it."""
    (method, _), first = next(iter(methods_of(rows).items()))
    own, mae = (cost_row(found, "cpu_s")["pretraining_cpu_s"] for found in (of_method, first))
    known = own and mae and method == BASELINE
    return f"{float(own) / float(mae):.1f}" if known else ""


def filled(text: str, table: str, name: str) -> str:
    """``text`` with ``table`` between its marks. Raises DataError, naming the file, unless it has both, once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"'{name}' must hold the lines '{BEGIN}' and '{END}', once and in this order; put them in")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table}{END}{rest.split(END)[1]}"
