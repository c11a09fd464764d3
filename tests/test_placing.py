"""A run whose record could not be kept is refused before its first step; one that has placed it may be resumed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cls_runs
import pytest
import tiny
from record_samples import make_record

from mlomae.common.checkpoint import list_checkpoints
from mlomae.common.errors import ConfigError, DataError
from mlomae.config.schema import load_config
from mlomae.config.strict import check_name, overrides, read_config
from mlomae.placing import check_writable, keep_record, place_record, same_run
from mlomae.pretraining.run import run_pretraining
from mlomae.records import read_record, sealed, strip_paths, validate_record, write_record

SHORT = {**tiny.RANDOM, "train__outer_iterations": 2, "train__checkpoint_interval": 2}


def pretrain(work: Path, resume: bool = False, **changes: Any) -> dict[str, Any]:
    config = tiny.config(**{**SHORT, **changes})
    return run_pretraining(config, work, resume, work.parent / "records")


def transfer(work: Path, resume: bool = False, **changes: Any) -> dict[str, Any]:
    config = cls_runs.config(**{"train__epochs": 1, **changes})
    return cls_runs.run_transfer(config, work, resume, work.parent / "records")


RUNS = pytest.mark.parametrize("run", [pretrain, transfer])


@RUNS
def test_a_run_that_has_placed_its_record_is_resumed_and_keeps_it(
    tmp_path: Path, run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "work")
    (placed,) = (tmp_path / "records").glob("*.json")
    own, before = tmp_path / "work" / "record.json", placed.read_bytes()
    assert own.read_bytes() == before
    later = json.loads(before) | {"finished_at": "2020-01-01T00:00:00+00:00", "wall_clock_s": 9e9, "git_commit": "a1"}
    later.pop("digest")
    placed.unlink()
    run(tmp_path / "work", resume=True)  # killed between its own record and the placed one
    assert placed.read_bytes() == own.read_bytes() == before
    own.unlink()
    write_record(later, own)
    found = run(tmp_path / "work", resume=True)  # killed after both; the clock went on
    assert "has the record of this run already: kept" in capsys.readouterr().out
    assert placed.read_bytes() == before
    assert found["wall_clock_s"] == 9e9
    own.unlink()
    with pytest.raises(ConfigError, match="of this configuration and seed, by another run,"):
        run(tmp_path / "work", resume=True)


@RUNS
def test_another_record_at_its_place_is_refused_before_the_run(tmp_path: Path, run: Callable[..., Any]) -> None:
    run(tmp_path / "first")
    (placed,) = (tmp_path / "records").glob("*.json")
    before = placed.read_bytes()
    with pytest.raises(ConfigError, match=r"of this configuration and seed, by another run, is in .* give this run"):
        run(tmp_path / "second")
    with pytest.raises(ConfigError, match="of another configuration or seed is in"):
        run(tmp_path / "second", data__batch_size=12)
    assert not (tmp_path / "second").exists()
    assert placed.read_bytes() == before
    run(tmp_path / "second", name="elsewhere")  # as the error says


@RUNS
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: folder.write_text(""), "Not a directory"),
        (lambda folder: folder.symlink_to("nothing"), "No such file"),
    ],
)
def test_a_folder_of_records_that_cannot_be_is_refused_before_the_run(
    tmp_path: Path, run: Callable[..., Any], spoil: Callable[[Path], Any], said: str
) -> None:
    spoil(tmp_path / "records")
    with pytest.raises(ConfigError, match=rf"records folder '.*records' cannot be written \({said}.*--records"):
        run(tmp_path / "work")
    assert not list_checkpoints(tmp_path / "work")
    assert not (tmp_path / "work" / "record.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "a\nb"}, "'method' must be one line"),
        ({"method": "/home/me/mae"}, "'config.method' holds an absolute path|'method' holds an absolute path"),
        ({"method": "half \ud800"}, "half of a letter"),
        ({"method": ""}, "'method' must be one line"),
        ({"name": "../x"}, "'name' is a part of file names"),
    ],
)
def test_what_no_record_can_hold_is_refused_before_the_run(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said) as error:
        pretrain(tmp_path / "work", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "work").exists()


def test_the_record_of_a_folder_that_a_teacher_is_read_from_names_its_last_part(tmp_path: Path) -> None:
    config = {"mask": {"teacher": "timm:local-dir:/models/me/vit_tiny"}, "a": "see C:\\data\\x", "b": "and/or 1 / 2"}
    portable = strip_paths(config)
    assert portable == {"mask": {"teacher": "timm:local-dir:vit_tiny"}, "a": "see x", "b": "and/or 1 / 2"}
    assert strip_paths(portable) == portable
    validate_record(make_record(config=config), "a")


@pytest.mark.parametrize("field", sorted(make_record()))
def test_only_the_end_of_a_run_may_differ(field: str) -> None:
    record = sealed(make_record(), "a")
    other = copy.deepcopy(record)
    other[field] = "other"
    ends = {"finished_at", "wall_clock_s", "cpu_s", "git_commit", "git_dirty", "versions", "hardware"}
    assert same_run(record, other) == (field in ends)
    assert not same_run(record, {**record, "curves": {}})


def test_results_that_differ_replace_the_runs_own_record_and_never_the_placed_one(tmp_path: Path) -> None:
    first, second = make_record(), make_record(metrics={"knn_top1_cls": 41.0})
    place = tmp_path / "records" / "a.json"
    own = tmp_path / "work" / "record.json"
    place_record(keep_record(first, tmp_path / "work", place), place)
    with pytest.raises(DataError, match="exists and differs"):
        keep_record(second, tmp_path / "work", place)
    assert read_record(own, "own") == read_record(place, "placed") == sealed(first, "a")
    keep_record(second, tmp_path / "work", None)
    assert read_record(own, "own") == sealed(second, "a")
    own.write_text("{")
    assert keep_record(second, tmp_path / "work", None) == read_record(own, "own")


def test_a_file_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written .File name too long"):
        check_writable(tmp_path / "records", f"{'m' * 250}.json")


# --- names and keys ---------------------------------------------------------------------------------------------------

GOOD = ["mae_vit-w128-d4", "a b", "é", "v1.5", "con_x", "x" * 120]
BAD = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/a",
    "a\\b",
    "C:a",
    "a\0",
    "a\n",
    "\ud800",
    ".a",
    "@a",
    "a.",
    " a",
    "CON",
    "nul.x",
]


def test_names_stay_in_their_folder() -> None:
    for name in GOOD:
        check_name(name)
    for name in [*BAD, "x" * 121]:
        with pytest.raises(ConfigError, match="'name' is a part of file names") as error:
            check_name(name)
        assert "\n" not in str(error.value)


def test_a_configuration_with_such_a_name_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = str(tiny.write_config(tmp_path / "a.py"))
    with pytest.raises(ConfigError, match="'name' is a part of file names"):
        read_config(path, {"name": "../x"}, "")


@pytest.mark.parametrize("key", ["_x", "_seed", "_base_", "_delete_", "train._x", "optim.theta._lr", "levels._scope_"])
def test_keys_that_begin_with_an_underscore_are_unknown(tmp_path: Path, key: str) -> None:
    path = tiny.write_config(tmp_path / "a.py")
    with pytest.raises(ConfigError, match=f"unknown config key '{key}'"):
        load_config(path, overrides([f"{key}=1"]))


def test_underscores_that_mean_something_stay(tmp_path: Path) -> None:
    tiny.write_config(tmp_path / "a.py")
    own = tmp_path / "b.py"
    own.write_text("_base_ = 'a.py'\n_ratio = 0.5\nmask = dict(_delete_=True, type='random', ratio=_ratio)\n")
    assert load_config(own).mask == {"type": "random", "ratio": 0.5}
    values = tmp_path / "c.json"
    values.write_text(json.dumps({**tiny.values(), "_ratio": 0.5}))
    with pytest.raises(ConfigError, match="unknown config key '_ratio'"):
        load_config(values)
