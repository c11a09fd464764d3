"""Results for the page: made-up records, one of them named to break HTML, figures and sheets of masks."""

import io
import json
from pathlib import Path
from typing import Any

from comparison_samples import PRETRAININGS, TRANSFERS, pretraining, write
from PIL import Image

from benchmarks.analysis.report.__main__ import build_report

ODD = "<b>\"A\" & 'B'</b></script><!--"  # a method
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 100"><path d="M0 0L200 100" stroke="red"/></svg>'
ODD_RUN = pretraining(ODD, 0, 61.0)
RECORDS = [*PRETRAININGS, ODD_RUN, *TRANSFERS]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "grey").save(buffer, format="PNG")
    return buffer.getvalue()


def masks_of(run: dict[str, Any]) -> dict[str, Any]:
    """What the page reads of a file of masks: which run a row is of, here not of the seed that drew the images."""
    row = {"label": run["method"], "config_hash": run["config_hash"], "seed": run["seed"]}
    return {"seed": run["seed"] + 1, "rows": [row]}


def write_figures(results: Path, sources: dict[str, Any]) -> None:
    (results / "figures").mkdir(exist_ok=True)
    (results / "figures" / "sources.json").write_text(json.dumps(sources))
    for name in sources:
        (results / "figures" / f"{name}.svg").write_text(SVG)


def write_masks(results: Path, name: str, run: dict[str, Any]) -> None:
    (results / "masks").mkdir(exist_ok=True)
    (results / "masks" / f"{name}.json").write_text(json.dumps(masks_of(run)))
    (results / "masks" / f"{name}.png").write_bytes(png())


def write_results(results: Path) -> Path:
    """Records, two figures, one of them of the first sheet of masks, and two sheets; the folder of records."""
    runs = write(results / "runs", RECORDS)
    write_masks(results, "drawn", PRETRAININGS[4])
    write_masks(results, "only_sheet", ODD_RUN)
    write_figures(results, {"levels": [], "cost": ["000.json", "004.json"], "masks_drawn": ["masks/drawn.json"]})
    return runs


def page_of(results: Path) -> str:
    return build_report(write_results(results), results / "report.html").read_text(encoding="utf-8")
