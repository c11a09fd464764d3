"""`python -m benchmarks.analysis.figures [--records results/runs] [--out results/figures] [--only NAME]`

Draws all figures; `sources.json` says which records each was made from. What was drawn, and what was skipped and why,
is printed, one per line.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.analysis.evidence import FIGURE_SOURCES, Evidence, figure_of, read_evidence, read_figure_sources
from benchmarks.analysis.figures import bilevel, cost, forest, levels, loss_curves, mask_ratio, masks, shares, tuning
from benchmarks.analysis.figures.runs import Drawn, NothingToDrawError
from benchmarks.analysis.figures.style import look, rendered
from mlomae.common.atomic import replacing
from mlomae.common.errors import ConfigError, exit_status

FIGURES: dict[str, Callable[[Evidence], list[Drawn]]] = {
    "levels": levels.draw,
    "bilevel": bilevel.draw,
    "mask_ratio": mask_ratio.draw,
    "loss_curves": loss_curves.draw,
    "masks": masks.draw,
    "cost": cost.draw,
    "forest": forest.draw,
    "map": shares.draw,
    "tuning": tuning.draw,
}


def build_figures(
    records: Path, masks_folder: Path, out: Path, only: str | None = None
) -> tuple[list[Path], list[str]]:
    """Write the figures, or the one named ``only``; returns the files written and a line for every figure skipped.

    Nothing is written before all are drawn. Files of figures that can no longer be drawn are removed, but only those
    that `sources.json` lists.

    Raises ConfigError for an unknown name; DataError for a demo record, a record or file of masks that is damaged, a
    seed recorded twice, or a damaged `sources.json`.
    """
    if only is not None and only not in FIGURES:
        raise ConfigError(f"no figure is called '{only}'; there are {', '.join(FIGURES)}")
    evidence = replace(read_evidence(records), masks=masks_folder)
    before = read_figure_sources(out)
    files: dict[str, bytes] = {}
    sources: dict[str, list[str]] = {}
    skipped = []
    wanted = [only] if only else list(FIGURES)
    for name in wanted:
        try:
            with look():
                for drawn in FIGURES[name](evidence):
                    files |= {f"{drawn.name}.{kind}": content for kind, content in rendered(drawn.figure).items()}
                    sources[drawn.name] = drawn.sources
        except NothingToDrawError as reason:
            skipped.append(f"{name}: skipped, {reason}")
    kept = {k: v for k, v in before.items() if figure_of(k, FIGURES) not in wanted}
    stale = [f"{name}.{kind}" for name in before if name not in sources | kept for kind in ("png", "svg")]
    files[FIGURE_SOURCES] = (json.dumps(sources | kept, indent=1, sort_keys=True) + "\n").encode()
    for name, content in files.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(content)
    for name in stale:
        (out / name).unlink(missing_ok=True)
    return [out / name for name in files], skipped


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis.figures", description="Draw the figures from records."
    )
    parser.add_argument("--records", type=Path, default=Path("results/runs"), help="folder of run records")
    parser.add_argument("--masks", type=Path, default=Path("results/masks"), help="folder of what `mlomae masks` wrote")
    parser.add_argument("--out", type=Path, default=Path("results/figures"), help="folder of the figures")
    parser.add_argument("--only", metavar="NAME", help=f"one of {', '.join(FIGURES)}")
    a = parser.parse_args(argv)
    written, skipped = build_figures(a.records, a.masks, a.out, a.only)
    print(*written, *skipped, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
