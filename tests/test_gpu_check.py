"""`make gpu-check`: its summary, and what it says where there is nothing to check."""

from pathlib import Path

import pytest
import torch
from run_samples import one_line

from tests import gpu_check

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"/><testcase classname="tests.a" name="two"><failure message="no"/></testcase>
<testcase classname="tests.b" name="three"><skipped message="needs two devices"/></testcase>
</testsuite></testsuites>"""


def test_the_summary_counts_and_names_what_failed_or_was_skipped(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)
    assert gpu_check.summary(gpu_check.outcomes(tmp_path / "report.xml")) == [
        "tests.a: 1 passed, 1 failed",
        "tests.b: 1 skipped",
        "failed: tests.a::two",
        "skipped: needs two devices: tests.b::three",
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main() == 2
    assert "finds no CUDA device" in one_line(capsys.readouterr().err)
