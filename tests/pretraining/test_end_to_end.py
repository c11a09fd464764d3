"""A whole run: what it writes, what it moves, and that it is a function of its configuration alone."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlomae.common.checkpoint import list_checkpoints, load_checkpoint
from mlomae.pretraining.load import evaluate_checkpoint
from mlomae.pretraining.pictures import MARGIN
from mlomae.pretraining.run import run_pretraining
from mlomae.records import validate_record

LEARNED_SCALARS = {
    "loss_lower",
    "reconstruction_error",
    "loss_head",
    "loss_upper",
    "mask_overlap",
    "sigma_mean",
    "sigma_entropy",
    "sigma_saturated",
    "sigma_var_images",
    "sigma_var_positions",
    "feedback_accuracy",
    "feedback_chance",
}


def final(work: Path) -> dict[str, Any]:
    return load_checkpoint(list_checkpoints(work)[-1])


def scalars(work: Path) -> dict[str, list[dict[str, float]]]:
    """Name to points, from the line-per-log JSON file."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in (work / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            found.setdefault(name, []).append({"step": row["step"], "value": value})
    return found


def test_checkpoints_are_written_at_the_interval_and_at_the_end(learned_run: Path) -> None:
    assert [p.name for p in list_checkpoints(learned_run)] == [f"iter_{i}.pth" for i in (2, 4, 6, 8, 10)]
    assert final(learned_run)["iteration"] == 10


@pytest.mark.parametrize("run", ["learned_run", "random_run"])
def test_pictures_show_eight_images_in_four_rows(run: str, request: pytest.FixtureRequest) -> None:
    pictures = sorted((request.getfixturevalue(run) / "pictures").glob("*"))
    assert [p.name for p in pictures] == ["iter_10.png", "iter_4.png", "iter_8.png"]
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert picture.size == (MARGIN + 8 * 66 + 2, 4 * 66 + 2)  # tiles of 64 pixels, 2 between and around
            for row in range(4):  # each has a title beside it
                box = (0, 2 + 66 * row, MARGIN, 66 * (row + 1))
                assert picture.convert("L").crop(box).getextrema() == (0, 255)
            assert len(picture.getcolors(1 << 20)) > 100, "an empty sheet"


def test_losses_and_health_of_a_learned_mask_are_logged(learned_run: Path) -> None:
    logged = scalars(learned_run)
    assert logged.keys() >= LEARNED_SCALARS
    for name in LEARNED_SCALARS:
        steps = [p["step"] for p in logged[name]]
        assert steps == ([4, 6, 8, 10] if name == "mask_overlap" else [2, 4, 6, 8, 10]), name
        assert all(math.isfinite(p["value"]) for p in logged[name])
    assert logged["feedback_chance"][0]["value"] == 25.0


def test_random_masks_log_the_lower_loss_and_no_upper_level(random_run: Path) -> None:
    logged = scalars(random_run)
    assert "loss_lower" in logged
    assert not {"loss_head", "loss_upper", "sigma_mean", "feedback_accuracy"} & logged.keys()


def test_tensorboard_file_holds_the_same_curves(learned_run: Path) -> None:
    (path,) = learned_run.glob("tensorboard/events.out.tfevents.*")
    events = EventAccumulator(str(path))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= LEARNED_SCALARS
    expected = [p["value"] for p in scalars(learned_run)["loss_upper"]]
    assert [e.value for e in events.Scalars("loss_upper")] == pytest.approx(expected, rel=1e-6)


def test_record_is_valid_and_counts_images(learned_run: Path, random_run: Path) -> None:
    learned = json.loads((learned_run / "record.json").read_text())
    random = json.loads((random_run / "record.json").read_text())
    for record in (learned, random):
        validate_record(record, "record.json")
        assert record["metrics"].keys() >= {"knn_top1_avg", "linear_top1_avg", "loss_lower", "chance"}
        assert record["train_source"] == "textures train, 96 images"
        assert record["eval_source"] == "textures test, 32 images"
        assert record["cpu_s"] > 0
        assert record["wall_clock_s"] > 0
    # 10 outer iterations of two lower batches of 8; feedback batches of 8
    assert learned["images_seen"] == {"lower": 160, "head": 80, "upper": 80}
    assert random["images_seen"] == {"lower": 160, "head": 0, "upper": 0}
    assert learned["split_hash"] == random["split_hash"] == final(learned_run)["meta"]["split_hash"]


def test_record_is_copied_under_name_and_seed(learned_run: Path) -> None:
    (copy,) = (learned_run / "records").iterdir()
    assert copy.name == "learned_seed0.json"
    assert copy.read_bytes() == (learned_run / "record.json").read_bytes()


@pytest.mark.parametrize("run", ["learned_run", "random_run"])
def test_mask_and_head_move_only_if_the_mask_is_learned(run: str, request: pytest.FixtureRequest) -> None:
    changes = tiny.RANDOM if run == "random_run" else {}
    start, _ = tiny.trainer(tiny.config(**changes))
    modules = final(request.getfixturevalue(run))["modules"]
    moved = {
        name: {k for k, v in getattr(start, name).state_dict().items() if not v.equal(modules[name][k])}
        for name in modules
    }
    constant = {"encoder.pos_embed", "decoder.pos_embed"}
    assert moved["mae"] == modules["mae"].keys() - constant
    if run == "learned_run":
        # standardised logits do not feel their common offset, so its gradient is 0 or rounding
        assert moved["mask"] >= modules["mask"].keys() - {"net.net.3.bias"}
        assert moved["feedback"] == modules["feedback"].keys()
    else:
        assert moved["mask"] == moved["feedback"] == set()


def test_same_seed_same_bits_another_seed_other_weights(learned_run: Path, tmp_path: Path) -> None:
    run_pretraining(tiny.config(name="again", data__eval=None), tmp_path / "again")
    run_pretraining(tiny.config(name="other", data__eval=None, seed=1), tmp_path / "other")
    modules, optimizers = final(learned_run)["modules"], final(learned_run)["optimizers"]
    again, other = final(tmp_path / "again"), final(tmp_path / "other")
    assert tiny.differences([modules, optimizers], [again["modules"], again["optimizers"]]) == []
    assert len(tiny.differences(modules, other["modules"])) > 50


def test_two_workers_give_the_bits_of_none(learned_run: Path, tmp_path: Path) -> None:
    run_pretraining(tiny.config(name="workers", data__eval=None, data__num_workers=2), tmp_path)
    assert tiny.differences(final(learned_run)["modules"], final(tmp_path)["modules"]) == []
    assert tiny.differences(final(learned_run)["optimizers"], final(tmp_path)["optimizers"]) == []


def test_evaluating_the_checkpoint_repeats_the_metrics_of_the_record(learned_run: Path) -> None:
    metrics = json.loads((learned_run / "record.json").read_text())["metrics"]
    found = evaluate_checkpoint(list_checkpoints(learned_run)[-1])
    assert found == {k: metrics[k] for k in found}
