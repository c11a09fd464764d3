"""The first part of the demo: three pretrainings, the second of them as long as the third takes."""

import json
from pathlib import Path

import pytest

from mlomae.pretraining.demo import pretrain_demo


@pytest.mark.slow
def test_pretraining_for_the_same_wall_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = pretrain_demo(tmp_path, iterations=2)
    folders = [path.parent.parent for path in checkpoints]
    records = [json.loads((folder / "record.json").read_text()) for folder in folders]
    assert [folder.name.split("_")[0] for folder in folders] == ["mae", "mae", "mlo-mae"]
    assert records[1]["method"] == "MAE, same wall-clock"
    assert records[1]["outer_iterations"] == int(folders[1].name.rsplit("_", 1)[1])
    assert all(record["demo"] for record in records)
    rows = capsys.readouterr().out.splitlines()[-3:]
    assert [row.split()[-1] for row in rows] == [f"{r['metrics']['linear_top1_avg']:.1f}" for r in records]
