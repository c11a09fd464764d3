"""Compare two runs of any task on the same test images: which is better, and could the difference be chance?

    python -m benchmarks.analysis.paired A.npz B.npz

The files are those that runs leave: predictions.npz, pixel_counts.npz, image_shares.npz. Test images are resampled, the
same ones for both runs. The question is whether *these two trained models* differ on images like these: a claim about
two methods needs runs over seeds (`make tables`) as well. Of two classifiers `mlomae.classification.compare` says more.
"""

import argparse
import math
import sys
from pathlib import Path

from benchmarks.analysis.statistics import bootstrap_interval
from benchmarks.tasks import all_tasks
from mlomae.backbones.task import TestedRun, check_same_test
from mlomae.common.errors import DataError, exit_status


def read_any(path: Path) -> TestedRun:
    """The file of whichever task it is. Raises DataError for one that is not usable, or of no task."""
    said = ""
    for task in all_tasks():
        try:
            if (found := task.read_predictions(path)) is not None:
                return found
        except DataError as error:
            said = said if "its format is" in str(error) and said else str(error)
    raise DataError(said)


def describe(a: TestedRun, b: TestedRun) -> str:
    """Three lines: both runs, and their difference. Raises DataError unless they were tested on the same images."""
    if a.metric != b.metric:
        raise DataError(f"'{a.file}' holds {a.metric} and '{b.file}' {b.metric}; compare runs of one task")
    check_same_test(a, b, "compare runs tested on the same images")
    found = bootstrap_interval([(a.sums, b.sums)], "|".join([a.metric, a.config_hash, b.config_hash]))
    lines = [
        f"{name}  {run.run} ({run.config_hash}): {run.metric} {run.sums.whole():.2f}"
        for name, run in zip("AB", (a, b), strict=True)
    ]
    spread = f"95 % interval [{found.low:+.2f}, {found.high:+.2f}], p = {found.p:.2g}"
    said = "no interval: they agree on every image" if math.isnan(found.low) else spread
    lines.append(
        f"A - B: {found.mean:+.2f} points, {said}, over {len(a.index)} images, paired; other seeds are not in it"
    )
    return "\n".join(lines)


@exit_status
def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analysis.paired", description="Compare two runs on the same test images."
    )
    parser.add_argument("a", metavar="A.npz", type=Path, help="what a run left of every test image")
    parser.add_argument("b", metavar="B.npz", type=Path, help="that of the run it is compared with")
    arguments = parser.parse_args(argv)
    print(describe(read_any(arguments.a), read_any(arguments.b)))


if __name__ == "__main__":
    sys.exit(main())
