"""Records: complete, portable, written once."""

import copy
import errno
import json
import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from record_samples import CONFIG, make_record

from mlomae import records
from mlomae.common.errors import DataError
from mlomae.common.system import git_state, hardware, versions
from mlomae.records import config_hash, read_records, sealed, strip_paths, write_record
from mlomae.records.fields import FIELDS


def test_round_trip_is_atomic_and_stable(tmp_path: Path) -> None:
    record = make_record()
    write_record(record, tmp_path / "runs" / "a.json")
    assert read_records(tmp_path / "runs") == [sealed(record, "a")]
    first = (tmp_path / "runs" / "a.json").read_bytes()
    assert b"\r" not in first
    write_record(dict(reversed(record.items())), tmp_path / "runs" / "a.json")  # same content: nothing happens
    assert (tmp_path / "runs" / "a.json").read_bytes() == first
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a.json"]


def test_curves_are_optional_and_have_gaps(tmp_path: Path) -> None:
    curves = {"iteration": [2, 4, 5], "loss_lower": [1.5, 1.25, 1], "loss_upper": [None, None, 2.0]}
    write_record(make_record(curves=curves), tmp_path / "a.json")
    assert read_records(tmp_path)[0]["curves"] == curves
    odd = (tmp_path / "a.json").read_text().replace("1.25", "NaN")
    (tmp_path / "a.json").write_text(odd)
    with pytest.raises(DataError, match=r"'curves\.loss_lower\[1\]' holds nan"):
        read_records(tmp_path)


def test_another_record_is_never_overwritten(tmp_path: Path) -> None:
    write_record(make_record(), tmp_path / "a.json")
    before = (tmp_path / "a.json").read_bytes()
    with pytest.raises(DataError, match=r"'a.json' exists and differs"):
        write_record(make_record(cpu_s=21), tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("links", [True, False])
def test_of_writers_at_once_one_wins_and_the_others_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """All have looked before any has written: the moment of writing decides."""
    together, write_text = threading.Barrier(4), records.write_text

    def at_once(*given: Any, **options: Any) -> None:
        together.wait()
        write_text(*given, **options)

    def no_links(*names: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def write(seconds: int) -> int:
        try:
            write_record(make_record(cpu_s=seconds), tmp_path / "a.json")
        except DataError:
            return 0
        return seconds

    monkeypatch.setattr(records, "write_text", at_once)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "getpid", threading.get_ident)  # as processes, they have temporary files of their own
    with ThreadPoolExecutor(4) as pool:
        (winner,) = filter(None, pool.map(write, range(1, 5)))
    assert read_records(tmp_path)[0]["cpu_s"] == winner


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_is_required(tmp_path: Path, field: str) -> None:
    record = make_record()
    (tmp_path / "broken.json").write_text(json.dumps({k: v for k, v in record.items() if k != field}))
    with pytest.raises(DataError, match=f"'broken.json'.*'{field}'") as error:
        read_records(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"seed": "0"}, "'seed' has the wrong type"),
        ({"seed": True}, "'seed' has the wrong type"),
        ({"wall_clock_s": None}, "'wall_clock_s' has the wrong type"),
        ({"images_seen": {"lower": 1, "head": 0}}, "'images_seen.upper'"),
        ({"hardware": {"cpu": "x", "cores": 1, "threads": 1}}, "'hardware.gpu'"),
        ({"train_source": "cifar10 in /home/someone/data"}, "'train_source' holds an absolute path"),
        ({"eval_source": "~/data"}, "'eval_source' holds an absolute path"),
        ({"metrics": {"where": "C:\\data"}}, "'metrics.where' holds an absolute path"),
        ({"config_hash": "0" * 16}, "config_hash does not belong"),
        ({"metrics": {"knn_top1_cls": float("nan")}}, "finite"),
        ({"metrics": {"knn_top1_cls": {1, 2}}}, "finite"),
        ({"curves": [1, 2]}, "'curves' must hold lists"),
        ({"curves": {}}, "'curves' must hold lists"),
        ({"curves": {"loss_lower": [1.0]}}, "as long as its 'iteration'"),
        ({"curves": {"iteration": [1, 2], "loss_lower": [1.0]}}, "as long as its 'iteration'"),
        ({"curves": {"iteration": [1], "loss_lower": 1.0}}, "as long as its 'iteration'"),
        ({"curves": {"iteration": [2, 2], "loss_lower": [1.0, None]}}, "'curves.iteration' must hold increasing"),
        ({"curves": {"iteration": [0, 2], "loss_lower": [1.0, None]}}, "'curves.iteration' must hold increasing"),
        ({"curves": {"iteration": [1.0], "loss_lower": [1.0]}}, "'curves.iteration' must hold increasing"),
        ({"curves": {"iteration": [1], "loss_lower": ["1"]}}, "'curves.loss_lower' holds '1'"),
        ({"curves": {"iteration": [1], "loss_lower": [True]}}, "'curves.loss_lower' holds True"),
        ({"curves": {"iteration": [1], "loss_lower": [float("inf")]}}, "finite"),
    ],
)
def test_refused_records_leave_no_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        write_record(make_record(**changes), tmp_path / "a.json")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_ordinary_text_is_not_taken_for_a_path(tmp_path: Path) -> None:
    text = "images/s, and/or, 50 / 60, https://example.org/a, cifar10 train/val, 3:1"
    write_record(make_record(train_source=text), tmp_path / "a.json")


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    write_record(make_record(), tmp_path / "a.json")
    (tmp_path / "sub").mkdir()
    for content in (b'{"schema": 1,', b"\xff\xfe", b"[1]"):
        (tmp_path / "sub" / "b.json").write_bytes(content)
        with pytest.raises(DataError, match=r"'sub/b.json' is not") as error:
            read_records(tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="does not exist"):
        read_records(tmp_path / "none")


def test_folders_are_cut_to_their_last_part(tmp_path: Path) -> None:
    write_record({**make_record(), "config": CONFIG}, tmp_path / "a.json")
    config = read_records(tmp_path)[0]["config"]
    assert config["data"]["train"]["root"] == "cifar10"
    assert config["init_from"] == "mae.pth"
    assert "someone" not in (tmp_path / "a.json").read_text()
    assert strip_paths({"data_root": "../../up/x", "a": (1, Path("/b/c")), "w": "D:\\data\\y"}) == {
        "data_root": "x",
        "a": [1, "c"],
        "w": "y",
    }
    with pytest.raises(DataError, match="'f' is a function"):
        strip_paths({"f": lambda: 0})


def test_hash_tells_configurations_apart_and_seeds_not() -> None:
    def changed(path: str, value: object) -> str:
        config: dict[str, Any] = copy.deepcopy(CONFIG)
        *parents, last = path.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[last] = value
        return config_hash(config)

    base = config_hash(CONFIG)
    assert len(base) == 16
    assert int(base, 16) >= 0
    assert base == config_hash(dict(reversed(CONFIG.items()))) == config_hash(strip_paths(CONFIG))
    for path, value in (("seed", 3), ("name", "x"), ("data.train.root", "/mnt/y"), ("data.num_workers", 8)):
        assert changed(path, value) == base, path
    for path, value in (("model.depth", 3), ("data.val_fraction", 0.3), ("data.train.seed", 1), ("init_from", "z.pth")):
        assert changed(path, value) != base, path


def test_hash_is_the_same_in_another_process() -> None:
    code = "from mlomae.records import config_hash; print(config_hash({'b': [1, 2.5, None], 'a': {'x': True}}))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(records.__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {config_hash({"a": {"x": True}, "b": [1, 2.5, None]})}


def test_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert git_state(tmp_path / "missing") == (None, None)
    git("init")
    assert git_state(tmp_path) == (None, None)  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    commit, dirty = git_state(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == (commit, True)
    installed = tmp_path / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "module.py").touch()
    assert git_state(installed) == (None, None)  # inside the repository, but no part of it


def test_hardware_and_versions_fit_a_record_and_hide_the_host(tmp_path: Path) -> None:
    record = make_record(hardware=hardware(), versions=versions())
    write_record(record, tmp_path / "a.json")
    assert record["hardware"]["cores"] >= 1
    assert {"python", "torch", "timm", "mmengine"} <= set(record["versions"])
    assert platform.node() not in [*map(str, record["hardware"].values()), *record["versions"].values()]
