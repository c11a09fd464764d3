"""The first act of the demo: two pretrainings at a time, a table with random weights, a picture of the masks."""

import json
from pathlib import Path

import pytest

from mlomae.commands import demo
from mlomae.commands.demo import pretrain_demo
from mlomae.common.errors import TrainingError


@pytest.mark.slow
def test_a_table_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the second time, the runs are there
        checkpoints = pretrain_demo(tmp_path, lengths={"mae": 2, "mlomae-pooled": 3})
        folders = [path.parent.parent for path in checkpoints]
        records = [json.loads((folder / "record.json").read_text()) for folder in folders]
        assert [(folder.name, r["outer_iterations"]) for folder, r in zip(folders, records, strict=True)] == [
            ("mae", 2),
            ("mlomae-pooled", 3),
        ]
        assert all(record["demo"] and record["hardware"]["threads"] == 1 for record in records)
        printed = capsys.readouterr().out
        rows = [line for line in printed.splitlines() if "initialisation" in line or line.strip().startswith("ML")]
        rows += [line for line in printed.splitlines() if line.strip().startswith("MAE ") and "." in line]
        assert len(rows) == 3
        for record in records:
            assert any(f"{record['metrics']['linear_top1_avg']:.1f}" in row for row in rows)
        assert "masks.png: what each one removes" in printed
        assert (tmp_path / "masks.png").is_file()


def test_a_run_that_fails_is_shown_with_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str], log: Path, **_: object) -> int:
        log.write_text("a page of log\nerror: no memory\n")
        return 3

    monkeypatch.setattr(demo, "start", fails)
    monkeypatch.setattr(demo, "_random_weights", lambda config: {})
    with pytest.raises(TrainingError, match=r"MAE ended with status 3; '.*mae/log.txt' ends with\n.*\n.*no memory"):
        pretrain_demo(tmp_path)
