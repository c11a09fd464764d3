"""What a suite's file may not say, in one line each."""

from pathlib import Path
from typing import Any

import pytest
from run_samples import one_line
from suite_files import write_suite

from benchmarks.suite.backbones import named_backbones
from benchmarks.suite.file import ROOT, load_suite
from benchmarks.suite.jobs import Planner
from mlomae.common.errors import ConfigError

SHIPPED = sorted((ROOT / "configs" / "suites").glob("*.py"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_suite_resolves(path: Path) -> None:
    suite = load_suite(path)
    jobs = Planner(suite, backbones=named_backbones(["random"]) if suite.demo else []).jobs()
    assert len({job.label for job in jobs}) == len(jobs)
    assert {job.seed for job in jobs} >= set(suite.seeds)


def test_a_row_is_called_as_its_configuration_says(tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path, methods=[{"config": str(tmp_path / "tiny.py")}]))
    assert [entry.method for entry in suite.methods] == ["tiny"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": []}, "must have methods, or be a demo"),
        ({"demo": True}, "must have methods, or be a demo"),
        ({"methods": [{"method": "MAE"}]}, r"methods\[0\].config' is missing"),
        ({"methods": [{"config": "none.py"}]}, "none.py' does not exist"),
        ({"methods": [{"config": "tiny.py", "metod": "x"}]}, "did you mean 'method'"),
        ({"seeds": [0, 0]}, "seeds must be distinct integers"),
        ({"seeds": [True]}, "seeds must be distinct integers"),
        ({"seeds": []}, "seeds must be distinct integers"),
        ({"same_time": "nothing"}, "needs a method 'nothing'"),
        (
            {"tasks": [{"recipe": "configs/pretrain/x.py"}]},
            "needs task='...', or a folder named so .unknown task 'pretrain'; choose",
        ),
        ({"tasks": [{"recipe": "configs/classification/x.py", "datasets": ["a"]}]}, "and only then"),
        ({"tasks": [{"recipe": "configs/classification/{dataset}.py"}]}, "and only then"),
        (
            {"tasks": [{"recipe": "configs/classification/x.py", "methods": ["none"]}]},
            "which is not one of its methods",
        ),
        ({"tasks": [{"recipe": "configs/classification/x.py"}] * 2}, "twice"),
        (
            {"tasks": [{"recipe": "configs/classification/{dataset}.py", "datasets": ["a", "b"], "name": "x"}]},
            "would name 2 recipes",
        ),
        ({"colour": "red"}, "unknown config key 'colour'"),
    ],
)
def test_wrong_suites(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_suite(write_suite(tmp_path, **changes))
    one_line(caught.value)


def test_names_that_differ_by_signs_alone_are_one_folder(tmp_path: Path) -> None:
    config = str(tmp_path / "tiny.py")
    with pytest.raises(ConfigError, match="twice"):
        load_suite(write_suite(tmp_path, methods=[{"method": m, "config": config} for m in ("MAE (a)", "MAE, a")]))


@pytest.mark.parametrize("name", ["MAE, same processor time", "random initialisation"])
def test_rows_that_suites_make_cannot_be_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is that of a row that suites add"):
        load_suite(write_suite(tmp_path, methods=[{"method": name, "config": str(tmp_path / "tiny.py")}]))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; see configs/suites/"):
        load_suite(tmp_path / "none.py")


@pytest.mark.parametrize("named", ["suite.py", "folder/suite.py"])
def test_paths_are_relative_to_the_file_or_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """The recipes may lie in any folder: the task is then named."""
    folder = (tmp_path / named).parent
    folder.mkdir(exist_ok=True)
    shipped = "configs/pretrain/mae_vit-w128-d4_textures.py"
    methods = [{"method": "a", "config": "tiny.py"}, {"method": "b", "config": shipped}]
    tasks = [{"recipe": "mine/knn_{dataset}.py", "datasets": ["a", "b"], "task": "classification"}]
    tasks += [{"recipe": "configs/classification/knn_textures.py"}]
    write_suite(folder, methods=methods, tasks=tasks)
    (folder / "classification").rename(folder / "mine")
    monkeypatch.chdir(tmp_path)
    suite = load_suite(Path(named))
    monkeypatch.chdir("/")
    jobs = Planner(suite, tmp_path / "work").jobs()
    own = {folder / "tiny.py", folder / "mine" / "knn_a.py", folder / "mine" / "knn_b.py"}
    assert {job.path for job in jobs} == own | {ROOT / shipped, ROOT / "configs/classification/knn_textures.py"}
    assert {job.task for job in jobs} == {"pretrain", "classification"}


def test_a_file_beside_the_suite_comes_before_the_checkouts(tmp_path: Path) -> None:
    own = tmp_path / "configs" / "pretrain" / "mae_vit-w128-d4_textures.py"
    own.parent.mkdir(parents=True)
    write_suite(tmp_path, tasks=[], methods=[{"config": str(own.relative_to(tmp_path))}])
    assert load_suite(tmp_path / "suite.py").methods[0].method == "MAE"
    own.write_text((tmp_path / "tiny.py").read_text())
    assert load_suite(tmp_path / "suite.py").methods[0].method == "tiny"
