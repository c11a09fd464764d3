"""Which runs a suite asks for, and that their hashes are those that runs write."""

from pathlib import Path

import pytest
from suite_files import write_suite

from benchmarks.suite.file import ROOT, MethodEntry, Suite, TaskEntry, load_suite
from benchmarks.suite.jobs import PRETRAIN, Planner
from mlomae.common.errors import ConfigError
from mlomae.records import grouped, read_records

MAE = MethodEntry("configs/pretrain/mae_vit-w128-d4_cifar10.py", "MAE")
LEARNED = MethodEntry("configs/pretrain/mlomae-pooled_vit-w128-d4_cifar10.py", "MLO-MAE (nca, mask pooling)")


def test_methods_tasks_data_sets_and_seeds_are_multiplied(tmp_path: Path) -> None:
    jobs = Planner(load_suite(write_suite(tmp_path, floor=True, same_time="MLO-MAE"))).jobs()
    assert [job.task for job in jobs[:4]] == [PRETRAIN] * 4, "pretrainings come first"
    found = {(job.title, job.method, job.seed) for job in jobs}
    methods = ("MAE", "MLO-MAE", "random initialisation")
    wanted = {(title, m, seed) for title in ("knn_a", "knn_b") for m in methods for seed in (0, 1)}
    wanted |= {(PRETRAIN, m, seed) for m in methods[:2] for seed in (0, 1)}
    assert found == wanted
    assert len(jobs) == len(found)
    for job in jobs:
        if job.task != PRETRAIN:
            assert job.after is not None
            assert job.after.seed == job.seed
            assert job.method in (job.after.method, "random initialisation")


def test_seeds_and_methods_can_be_fewer(tmp_path: Path) -> None:
    config, recipe = str(tmp_path / "tiny.py"), str(tmp_path / "classification" / "knn_a.py")
    methods = [
        {"method": "MAE", "config": config, "seeds": [0, 1, 2]},
        {"method": "other", "config": config, "transfer": False},
    ]
    suite = load_suite(write_suite(tmp_path, methods=methods, tasks=[{"recipe": recipe, "seeds": [2]}]))
    runs = [(job.title, job.method, job.seed) for job in Planner(suite).jobs()]
    pretrained = [(PRETRAIN, "MAE", s) for s in (0, 1, 2)] + [(PRETRAIN, "other", s) for s in (0, 1)]
    assert sorted(runs) == sorted([*pretrained, ("knn_a", "MAE", 2)])
    assert [job.seed for job in Planner(suite, seeds=[1]).jobs()] == [1, 1]
    with pytest.raises(ConfigError, match="no run with seeds"):
        Planner(suite, seeds=[9]).jobs()


def test_the_same_time_row_is_the_baseline_at_another_length(tmp_path: Path) -> None:
    planner = Planner(load_suite(write_suite(tmp_path, same_time="MLO-MAE")))
    jobs = planner.same_time(7, planner.jobs())
    assert [job.title for job in jobs] == [PRETRAIN] * 2 + ["knn_a"] * 2 + ["knn_b"] * 2
    assert {job.method for job in jobs} == {"MAE, same processor time"}
    assert jobs[0].config.train.outer_iterations == 7
    assert jobs[0].checkpoint.name == "iter_7.pth"
    assert jobs[0].label == "suite_mae-same-processor-time_seed0"


def test_data_lie_where_the_command_says(tmp_path: Path) -> None:
    planner = Planner(Suite("s", [MAE], [0]), roots={"cifar10": "/somewhere", "cub200": "/else"})
    job = planner.jobs()[0]
    assert job.config.data.train["root"] == job.config.data.eval["root"] == "/somewhere"
    command = job.command(keep_record=False)
    assert "data.train.root='/somewhere'" in command
    assert "--records" not in command
    assert job.hash == Planner(Suite("s", [MAE], [0])).jobs()[0].hash, "where data lie is no part of a run's identity"


def test_data_that_a_source_is_made_of_lie_where_the_command_says() -> None:
    on_scenes = MethodEntry("configs/pretrain/mae_vit-w128-d4_cifar10-on-scenes.py", "MAE")
    planner = Planner(Suite("s", [on_scenes], [0]), roots={"cifar10": "/objects", "tiny_imagenet": "/scenes"})
    job = planner.jobs()[0]
    for part in (job.config.data.train, job.config.data.eval):
        assert (part["objects"]["root"], part["scenes"]["root"]) == ("/objects", "/scenes")
    assert "data.eval.scenes.root='/scenes'" in job.command(keep_record=False)
    assert job.hash == Planner(Suite("s", [on_scenes], [0])).jobs()[0].hash


def test_two_runs_of_one_label_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "classification" / "knn_c.py"
    path = write_suite(tmp_path)
    recipe.write_text((tmp_path / "classification" / "knn_a.py").read_text())  # another file, the same name inside
    pattern = str(tmp_path / "classification" / "knn_{dataset}.py")
    suite = load_suite(write_suite(tmp_path, tasks=[{"recipe": pattern, "datasets": ["a", "c"]}]))
    assert path.is_file()
    with pytest.raises(ConfigError, match="would be two runs"):
        Planner(suite).jobs()


def test_hashes_are_those_of_the_records_that_runs_wrote() -> None:
    """Pretrainings, transfers and the floor of the shipped records, found from configurations alone."""
    tasks = [
        TaskEntry("configs/classification/linear_{dataset}_small.py", ["cub200", "stanford_cars"]),
        TaskEntry("configs/segmentation/upernet_camvid_small.py"),
        TaskEntry("configs/detection/mask_rcnn_coco_small.py"),
    ]
    planner = Planner(Suite("cifar10", [MAE, LEARNED], [0, 1], tasks, same_time=LEARNED.method, floor=True))
    jobs = planner.jobs()
    jobs += planner.same_time(1110, jobs)
    recorded = grouped(read_records(ROOT / "results" / "runs"), lambda r: (r["config_hash"], r["seed"]))
    found = [job for job in jobs if (job.hash, job.seed) in recorded]
    assert {(job.task, job.method) for job in found} >= {
        (PRETRAIN, "MAE"),
        (PRETRAIN, LEARNED.method),
        (PRETRAIN, "MAE, same processor time"),
        *((task, m) for task in ("classification", "segmentation", "detection") for m in ("MAE", LEARNED.method)),
        ("classification", "MAE, same processor time"),
        ("segmentation", "random initialisation"),
        ("detection", "random initialisation"),
    }
    for job in found:
        names = {(r["task"], r["method"], r["name"]) for r in recorded[job.hash, job.seed]}
        assert (job.task, job.method, job.config.name) in names


def test_strides_of_a_detector_are_those_of_the_backbone_that_a_pretraining_will_make() -> None:
    small = MethodEntry("configs/pretrain/mae_vit-w128-d4_tiny-imagenet.py", "MAE")
    task = TaskEntry("configs/detection/mask_rcnn_coco_small.py")
    for entry, strides in ((MAE, [4, 8, 16]), (small, [8, 16, 32])):
        for job in Planner(Suite("s", [entry], [0], [task], floor=True)).jobs():
            if job.task != PRETRAIN:  # of its backbone and of random weights of the same architecture
                assert job.portable["model"]["rpn_head"]["anchor_generator"]["strides"] == strides
