"""``mlomae horizon`` from the command line, on tiny runs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mlomae.cli import main
from mlomae.common.checkpoint import list_checkpoints, load_checkpoint
from mlomae.data import build_source
from mlomae.diagnostics.diagnose import load_for_diagnosis
from mlomae.diagnostics.horizon.run import fresh_optimizer, horizon
from mlomae.pretraining import run as pretrain
from mlomae.pretraining.run import run_pretraining

SMALL = ("--steps", "3", "--policies", "4", "--batches", "2")


@pytest.fixture(scope="module")
def midway(mae_checkpoint: Path) -> Path:
    """Before the end of the run, where the rate of a schedule is 0."""
    return list_checkpoints(mae_checkpoint.parents[1])[0]


def run(capsys: pytest.CaptureFixture[str], checkpoint: Path, out: Path, *more: str) -> tuple[dict[str, Any], str]:
    """The JSON that the command wrote, and what it printed."""
    capsys.readouterr()
    assert main(["horizon", str(checkpoint), "--out", str(out), *SMALL, *more]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert sorted(path.name for path in out.iterdir()) == ["horizon.json", "horizon.png"], "nothing temporary"
    return json.loads((out / "horizon.json").read_text()), printed.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["horizon", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_end_to_end_twice(midway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(midway)
    found, printed = run(capsys, midway, tmp_path / "a")
    assert [policy["name"] for policy in found["policies"]] == ["object", "error", "contrast", "random_1"]
    assert (found["iteration"], found["feedback"], found["horizons"]) == (2, "nca", [1, 3])
    assert found["lr"] == load_checkpoint(midway)["optimizers"]["theta"]["param_groups"][0]["lr"]
    assert found["prediction"] == {"batches": 2, "images": 20}
    assert found["measured"] == {"head": 76, "upper": 20, "type": "RandomResizedCropFlip"}
    for policy in found["policies"]:
        assert policy["predicted"]["se"] > 0
        assert policy["predicted"]["mean"] != policy["predicted_adam"]["mean"]
        assert [row["horizon"] for row in policy["real"]] == [1, 3]
        assert all(row["loss"]["mean"] != 0 and row["loss"]["se"] is None for row in policy["real"])
        assert 0 <= policy["clipped"] < 0.5
    assert [row["horizon"] for row in found["agreement"]] == [1, 3]
    assert all(-1 <= row["predicted"]["linear"] <= 1 for row in found["agreement"])
    for words in ("one roll-out: ", "7 more", "object", "random_1", "real at 3", "rank correlation", "horizon.png"):
        assert words in printed

    torch.manual_seed(5)
    run(capsys, midway, tmp_path / "b")
    for file in ("horizon.json", "horizon.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert digest(midway) == before


def test_repeats_keep_the_first_batches_and_add_errors(
    midway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--steps", "1", "--policies", "2", "--batches", "1")
    one, _ = run(capsys, midway, tmp_path / "1", *few)
    two, printed = run(capsys, midway, tmp_path / "2", *few, "--repeats", "2")
    assert "7 more" in printed
    for a, b in zip(one["policies"], two["policies"], strict=True):
        assert a["predicted"] == b["predicted"]
        assert a["predicted"]["se"] is None
        mean, second = a["real"][0]["loss"]["mean"], b["real"][0]["loss"]
        assert second["se"] == pytest.approx(abs(second["mean"] - mean), rel=1e-9)
        assert second["se"] > 0
    assert one["agreement"][0]["predicted"]["linear"] is None, "two policies"


def test_the_optimizer_goes_on_where_the_run_stopped(midway: Path) -> None:
    state = load_checkpoint(midway)
    run = load_for_diagnosis(midway, None)
    first, second = (fresh_optimizer(run, run.model, 0.5) for _ in range(2))
    assert {group["lr"] for group in first.param_groups} == {0.5}
    saved = state["optimizers"]["theta"]["state"]
    parameters = [p for group in first.param_groups for p in group["params"]]
    assert len(parameters) == len(saved)
    for i, p in enumerate(parameters):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(first.state[p][key].cpu(), saved[i][key])
    for p in parameters:
        p.grad = torch.ones_like(p)
    first.step()
    p = parameters[0]
    assert not torch.equal(first.state[p]["exp_avg"], second.state[p]["exp_avg"]), "each has a copy of its own"


def test_a_learned_mask_with_a_head_is_studied_by_soft_neighbours(
    linear_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--steps", "1", "--policies", "1", "--batches", "1", "--lr", "1e-3")
    found, _ = run(capsys, linear_checkpoint, tmp_path / "nca", *few)
    assert (found["feedback"], found["lr"]) == ("nca", 1e-3)
    ridge, _ = run(capsys, linear_checkpoint, tmp_path / "ridge", *few, "--feedback", "ridge", "--strength", "1")
    assert ridge["feedback"] == "ridge"
    assert ridge["policies"][0]["clipped"] > 0.1, "numbers of deviation 1, clipped to ±1"
    assert ridge["start"] != found["start"]


def test_evaluation_images_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_pretraining(tiny.config(name="horizon_eval", train__outer_iterations=2, **tiny.RANDOM), tmp_path)
    opened: list[Any] = []
    for name in ("build_source", "build_training_source"):
        monkeypatch.setattr(pretrain, name, lambda cfg: opened.append(cfg) or build_source(cfg))
    _, folder = horizon(list_checkpoints(tmp_path)[-1], steps=1, policies=1, batches=1, lr=1e-3)
    assert [cfg["split"] for cfg in opened] == ["train"]
    assert folder == tmp_path / "horizon", "by default in the run's folder"


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--policies", "0"), ["--policies must be at least 1; got 0"]),
        (("--steps", "0"), ["--steps must be at least 1; got 0"]),
        (("--repeats", "0"), ["--repeats must be at least 1; got 0"]),
        (("--batches", "-1"), ["--batches must be at least 1; got -1"]),
        (("--strength", "0"), ["--strength must be inside (0, 1]; got 0.0"]),
        (("--strength", "nan"), ["--strength must be inside (0, 1]; got nan"]),
        (("--lr", "0"), ["--lr must be positive; got 0.0"]),
        (("--feedback", "linear"), ["feedback 'linear' has a head", "use --feedback nca or ridge"]),
        (("--feedback", "svm"), ["unknown feedback 'svm'", "linear, nca, ridge"]),
        (("--data", "nowhere"), ["'textures'", "'root'"]),
    ],
)
def test_wrong_options(
    arguments: tuple[str, ...], words: list[str], midway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, midway, "--out", tmp_path / "out", *arguments)
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


def test_a_rate_that_has_decayed_to_nothing(mae_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one, e.g. --lr 0.001" in refused(capsys, mae_checkpoint)


def test_a_rate_far_too_high_diverges_in_one_line(
    midway: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, midway, *SMALL, "--lr", "1e30", "--out", tmp_path / "out")
    assert "not finite" in line
    assert "--lr" in line


def test_not_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in refused(capsys, tmp_path / "gone.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    assert "damaged or holds code" in refused(capsys, tmp_path / "text.pth")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pth")
    assert "not a training checkpoint" in refused(capsys, tmp_path / "other.pth")
