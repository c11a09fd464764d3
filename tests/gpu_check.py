"""``make gpu-check``: run the tests that need a CUDA device, and say what was checked. Status 2 without a device."""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import torch

ROOT = Path(__file__).parents[1]
RUNS = (["tests"], ["tests/device"])  # the second by itself, as its conftest says


def outcomes(report: Path) -> list[tuple[str, str, str]]:
    """(module, test, outcome) of pytest's XML: "passed", "failed", or why it was skipped."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped, wrong = case.find("skipped"), [case.find("failure"), case.find("error")]
        said = "passed" if skipped is None else f"skipped: {skipped.get('message')}"
        said = "failed" if any(part is not None for part in wrong) else said
        found.append((str(case.get("classname")), str(case.get("name")), said))
    return found


def summary(found: list[tuple[str, str, str]]) -> list[str]:
    """A line for every module, and one for each test that failed or was skipped."""
    counts: dict[str, Counter[str]] = {}
    for module, _, said in found:
        counts.setdefault(module, Counter())[said.partition(":")[0]] += 1
    lines = [f"{module}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}" for module, kinds in counts.items()]
    return lines + [f"{said}: {module}::{test}" for module, test, said in found if said != "passed"]


def main() -> int:
    if not torch.cuda.is_available():
        lack = f"error: torch {torch.__version__} finds no CUDA device; run make gpu-check on a machine with one"
        print(lack, file=sys.stderr)
        return 2
    found: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, paths in enumerate(RUNS):
            report = Path(folder) / f"{number}.xml"
            command = [sys.executable, "-m", "pytest", "-m", "gpu", f"--junitxml={report}", *sys.argv[1:], *paths]
            status = subprocess.run(command, cwd=ROOT).returncode
            if status not in (0, 1, 5):  # all passed, some failed, none was chosen
                return status
            found += outcomes(report)
    passed = sum(said == "passed" for *_, said in found)
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    print("\n".join(summary(found)))
    print(f"{passed} of {len(found)} tests passed")
    return int(not passed or any(said == "failed" for *_, said in found))


if __name__ == "__main__":
    sys.exit(main())
