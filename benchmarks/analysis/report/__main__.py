"""`python -m benchmarks.analysis.report [--records results/runs] [--out results/report.html]`

Writes one page: comparison, figures, masks and the tables of the tasks, in one file that needs no other and no server.
The same results give the same bytes: nothing on the page depends on when or where it was made.
"""

import argparse
import sys
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.report.markup import links
from benchmarks.analysis.report.pictures import picture_sections
from benchmarks.analysis.report.provenance import Provenance
from benchmarks.analysis.report.tables import comparison_section, published_section, table_section
from benchmarks.analysis.tables.build import TABLES, read_results
from mlomae.common.atomic import write_text
from mlomae.common.errors import exit_status

TITLE = "Learned against random masks: results"
LEAD = (
    "Written by <code>make report</code>. What holds, and how certain it is, is in <code>results/README.md</code>.",
)


def build_report(records: Path, out: Path, title: str = TITLE, lead: Sequence[str] = LEAD) -> Path:
    """Write the page of the results around ``records``, with the figures and masks that exist; returns ``out``.

    ``lead``: paragraphs of HTML beneath the title.

    Raises what `read_results`, the tables and `picture_sections` raise, before anything is written.
    """
    page = render_report(read_results(records), records.parent, title, lead)
    write_text(out, page)
    return out


def render_report(evidence: Evidence, results: Path, title: str = TITLE, lead: Sequence[str] = LEAD) -> str:
    """The page. ``results``: the folder of `figures/` and `masks/`. Errors as `build_report`."""
    provenance = Provenance(evidence)
    frames = {name: table.build(evidence)[0] for name, table in TABLES.items()}
    compared = frames.pop("comparison")
    sections = [comparison_section(compared, provenance)] if len(compared) else []
    sections += picture_sections(results, evidence, provenance)
    sections += [table_section(n, TABLES[n], frame, provenance) for n, frame in frames.items() if len(frame)]
    sections += [published_section(evidence.published)] if evidence.published else []
    count = len(evidence.records)
    said = f"made from {count} run record{'s' if count != 1 else ''}" if count else "without any run record"
    none = "<p>There is no record yet: run <code>make suite</code>, then <code>make report</code>.</p>\n"
    paragraphs = "\n".join(f"<p>{text}</p>" for text in lead)
    style, script = ((files(__package__) / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    body = "\n".join(section.html() for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{paragraphs}
<p>The page is {said}. Click a number with a dotted underline for the records behind it, and the heading of a
column to sort by it.</p>
{none if not count else ""}</header>
<nav aria-label="Contents">{links(sections)}</nav>
<main>
{body}
</main>
<dialog id="sources" aria-labelledby="sources-title">
<form method="dialog"><button>Close</button></form><h2 id="sources-title"></h2><div></div></dialog>
<dialog id="full-size" aria-label="Picture in full size">
<form method="dialog"><button>Close</button></form><div></div></dialog>
<script type="application/json" id="provenance">{provenance.as_json()}</script>
<script>
{script}</script>
</body>
</html>
"""


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis.report", description="All results on one page."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--out", type=Path, default=Path("results/report.html"), help="the page")
    arguments = parser.parse_args(argv)
    print(build_report(arguments.records, arguments.out))


if __name__ == "__main__":
    sys.exit(main())
