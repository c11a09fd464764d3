"""Controls of the learned mask: each differs from its reference in what its name says, and in nothing else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.suite.file import load_suite
from benchmarks.suite.jobs import Planner
from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError, DataError
from mlomae.config.schema import PretrainConfig, load_config
from mlomae.data import build_source, shuffle_labels, split_train
from mlomae.data.copies import FILE
from mlomae.multilevel import hypergradient
from mlomae.pretraining.continuing import flatten
from mlomae.pretraining.losses import level_problem, lower, patch_errors
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import build_data, run_pretraining

CONFIGS = Path(__file__).parents[2] / "configs"
POOLED, LEARNED, MAE = "mlomae-pooled", "mlomae", "mae"
CONTROLS: dict[str, tuple[str, set[str]]] = {
    "frozen": (POOLED, {"optim.phi.lr", "optim.phi.weight_decay"}),
    "shuffled-labels": (POOLED, {"data.shuffle_labels"}),
    "pooled-masks-only": (POOLED, {"mask.sampling", "mask.weighting"}),
    "masks-only": (LEARNED, {"mask.weighting"}),
    "weights-only": (LEARNED, {"mask.sampling"}),
    "blo-mae": (LEARNED, {"levels.solver_options.paths"}),
    "mae-joint-labels": (MAE, {"auxiliary.type", "auxiliary.weight"}),
    "umae": (MAE, {"auxiliary.type", "auxiliary.weight"}),
    "mlomae-continued": (POOLED, {"init_from"}),
}


def shipped(name: str) -> PretrainConfig:
    return load_config(CONFIGS / "pretrain" / f"{name}_vit-w128-d4_cifar10.py")


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_from_its_reference_in_what_it_controls_for_alone(name: str) -> None:
    reference, keys = CONTROLS[name]
    own, other = (flatten(shipped(each).to_dict()) for each in (name, reference))
    different = {key for key in own.keys() | other.keys() if own.get(key, "none") != other.get(key, "none")}
    empty = {"levels.solver_options", "auxiliary"}  # an empty section is a key of its own
    assert different - empty == keys | {"name", "method"}
    assert own["name"] == f"{name}_vit-w128-d4_cifar10"


def test_the_suite_of_controls_names_each_once_and_shares_its_records_with_the_other_suite() -> None:
    suite, first = (load_suite(CONFIGS / "suites" / f"{name}.py") for name in ("cifar10_controls", "cifar10"))
    paths = {Path(entry.config).name.removesuffix("_vit-w128-d4_cifar10.py") for entry in suite.methods}
    assert paths == (CONTROLS.keys() - {"mlomae-continued"}) | {POOLED, LEARNED, MAE}
    assert all(entry.method == shipped(Path(entry.config).name.split("_")[0]).method for entry in suite.methods)
    assert suite.same_time == first.same_time
    one, two = ({job.label: job.hash for job in Planner(each, seeds=[0]).jobs()} for each in (suite, first))
    assert two.items() <= one.items()
    assert len(two) == 3


# --- masks without weights ----------------------------------------------------------------------------------------


def wide(**changes: Any) -> tuple[Pretrainer, dict[str, Any]]:
    """The tiny model in float64 with spread scores, and its first batches, the mask of the last lower one frozen."""
    model, data = tiny.trainer(tiny.config(feedback={"type": "linear", "pooling": "avg"}, **changes))
    model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in (*model.mask.parameters(), *model.feedback.parameters()):
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    item = data.batches[0]
    batches = [item["lower"][-1], item["head"], item["upper"]]
    lower, head, upper = ({**b, "image": b["image"].double()} for b in batches)
    lower = level_problem(model).fix({}, {}, lower)
    return model, {"lower_batch": lower, "head_batch": head, "upper_batch": upper}


def written_out(model: Pretrainer, theta: dict, phi: dict, batch: dict, weighted: bool) -> Tensor:
    """L_I from the formula, of σ or of plain errors."""
    rec = functional_call(model, {**theta, **phi}, (patch_errors, batch))
    tokens = model.mae.encoder.embed(batch["image"]).detach()
    logits = functional_call(model.mask.net, {k.removeprefix("mask.net."): t for k, t in phi.items()}, (tokens,))
    logits = (logits - logits.mean(1, keepdim=True)) / (logits.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    weight = torch.sigmoid(logits) if weighted else torch.ones_like(rec)
    m = batch["mask"]["mask"]
    return (m * weight * rec).sum() / m.sum()


def brute_force(model: Pretrainer, batches: dict[str, Any], paths: str) -> list[Tensor]:
    """g_φ of the loss weighted by σ, by double backward, straight from the equations."""
    levels = model.level_parameters()
    theta, omega, phi = (levels[name] for name in ("theta", "omega", "phi"))
    inputs, problem = list(theta.values()), level_problem(model)
    head, upper = batches["head_batch"], batches["upper_batch"]
    with sdpa_kernel(SDPBackend.MATH):
        loss_upper = problem.head_loss(omega, problem.features(theta, upper), upper)
        v = torch.autograd.grad(loss_upper, inputs, retain_graph=True, materialize_grads=True)
        if paths == "both":
            g_omega = torch.autograd.grad(loss_upper, list(omega.values()))
            loss_head = problem.head_loss(omega, problem.features(theta, head), head)
            mixed = torch.autograd.grad(loss_head, list(omega.values()), create_graph=True)
            through = torch.autograd.grad(mixed, inputs, g_omega, materialize_grads=True)
            v = tuple(a - b for a, b in zip(v, through, strict=True))
        loss = written_out(model, theta, phi, batches["lower_batch"], weighted=True)
        first = torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)
        return list(torch.autograd.grad(first, list(phi.values()), [-t for t in v], materialize_grads=True))


def assert_close(found: dict[str, Tensor], expected: list[Tensor]) -> None:
    size = max(float(t.abs().max()) for t in expected)
    assert size > 1e-8, "a gradient of zero proves nothing"
    for a, b in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12 * size)


@pytest.mark.parametrize("paths", ["both", "direct"])
def test_masks_without_weights_have_the_hypergradient_of_sigma(paths: str) -> None:
    model, batches = wide(mask__weighting="gradient")
    levels = model.level_parameters()
    found = hypergradient(level_problem(model), **levels, **batches, solver="one_step", paths=paths)
    assert_close(found, brute_force(model, batches, paths))
    plain, _ = wide()
    same = hypergradient(level_problem(plain), **plain.level_parameters(), **batches, solver="one_step", paths=paths)
    assert_close(found, list(same.values()))


def test_masks_without_weights_leave_stage_one_unweighted() -> None:
    model, batches = wide(mask__weighting="gradient")
    levels, batch = model.level_parameters(), batches["lower_batch"]
    theta = list(levels["theta"].values())
    loss = lower(model, batch)
    expected = written_out(model, levels["theta"], levels["phi"], batch, weighted=False)
    assert float(loss) == pytest.approx(float(expected), rel=1e-12)
    for a, b in zip(torch.autograd.grad(loss, theta), torch.autograd.grad(expected, theta), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)
    weighted, _ = wide()
    assert float(lower(weighted, batch)) < 0.9 * float(loss), "the case cannot tell the two apart"


def test_finite_differences_of_masks_without_weights_are_those_of_sigma() -> None:
    """The published scheme differentiates in φ by autograd, so that it sees what is constant; along θ it does not,
    with weights or without."""
    found = []
    for changes in ({}, {"mask__weighting": "gradient"}):
        model, batches = wide(**changes)
        found.append(
            hypergradient(level_problem(model), **model.level_parameters(), **batches, solver="finite_difference")
        )
    assert_close(found[0], list(found[1].values()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask__sampling": "random"}, "the network changes nothing"),
        ({"mask__detach_mask_input": False}, "needs detach_mask_input=True"),
        ({"mask__weighting": "none"}, "weighting"),
    ],
)
def test_masks_without_weights_refuse_what_does_not_go_with_them(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        wide(**{"mask__weighting": "gradient", **options})
    assert "\n" not in str(error.value)


# --- two levels instead of three ----------------------------------------------------------------------------------


def test_two_levels_drop_the_second_term_of_the_response() -> None:
    model, batches = wide(levels__solver_options={"paths": "direct"})
    levels, options = model.level_parameters(), model.config.levels.solver_options
    found = hypergradient(level_problem(model), **levels, **batches, solver="one_step", **options)
    assert_close(found, brute_force(model, batches, "direct"))
    three = brute_force(model, batches, "both")
    change = max(float((a - b).abs().max()) for a, b in zip(found.values(), three, strict=True))
    assert change > 1e-3 * max(float(t.abs().max()) for t in three), "the case cannot tell two levels from three"


# --- shuffled labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_source", [False, True])
def test_shuffled_labels_change_nothing_but_the_feedbacks_labels(own_source: bool) -> None:
    changes: dict[str, Any] = {"data__feedback": tiny.values()["data"]["train"]} if own_source else {}
    true, control = (build_data(tiny.config(**changes, **c)) for c in ({}, {"data__shuffle_labels": 0}))
    assert control.split.hash == true.split.hash
    assert np.array_equal(control.train.labels, true.train.labels), "k-NN and linear probe read these"
    assert control.feedback is not control.train
    moved = 0
    for t in range(3):
        a, b = true.batches[t], control.batches[t]
        for level in ("head", "upper"):
            assert torch.equal(a[level]["image"], b[level]["image"])
            assert torch.equal(a[level]["index"], b[level]["index"])
            moved += int((a[level].pop("label") != b[level].pop("label")).sum())
        assert tiny.differences(a, b) == []
    assert moved > 3 * 16 / 2  # of 48 labels of 4 classes 36 differ, as by chance
    for part in (true.split.train_indices, true.split.val_indices):
        ours, theirs = control.feedback.labels[part], true.feedback.labels[part]
        assert not np.array_equal(ours, theirs)
        assert np.array_equal(np.bincount(ours), np.bincount(theirs))


def test_the_permutation_is_a_function_of_its_seed_and_ignores_classes() -> None:
    source = build_source({"type": "textures", "split": "train", "count": 4000, "size": 8, "classes": 4})
    split = split_train(source)
    one, again, other = (shuffle_labels(source, split, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.labels, other.labels)
    agreement = np.mean(one.labels == source.labels)
    assert abs(agreement - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert one.images_NCHW is source.images_NCHW
    assert one.fingerprint() != source.fingerprint()


def test_shuffled_labels_do_not_open_the_way_to_evaluation_images() -> None:
    train = tiny.values()["data"]["train"]
    with pytest.raises(DataError, match="evaluation images would reach training"):
        build_data(tiny.config(data__shuffle_labels=0, data__eval=train))


def test_shuffled_labels_that_nothing_reads_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.shuffle_labels has no effect: mask\.type='random'"):
        build_data(tiny.config(**tiny.RANDOM, data__shuffle_labels=0))
    with pytest.raises(ConfigError, match="shuffle_labels"):
        tiny.config(data__shuffle_labels="yes")


def test_the_hash_of_configurations_without_shuffled_labels_stays() -> None:
    assert "shuffle_labels" not in tiny.config().to_dict()["data"]
    assert tiny.config(data__shuffle_labels=3).to_dict()["data"]["shuffle_labels"] == 3


# --- whole runs ---------------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "shuffled": {"data__shuffle_labels": 0},
    "masks": {"mask__weighting": "gradient"},
    "two levels": {"levels__solver_options": {"paths": "direct"}},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    config = tiny.config(**RUNS[name], train__outer_iterations=4)
    record = run_pretraining(config, tmp_path / "straight")
    assert record["metrics"]["loss_upper"] > 0
    target = checkpoint_path(tmp_path / "resumed", 2)
    target.parent.mkdir(parents=True)
    shutil.copy(checkpoint_path(tmp_path / "straight", 2), target)
    run_pretraining(config, tmp_path / "resumed", resume=True)
    states = [load_checkpoint(checkpoint_path(tmp_path / each, 4)) for each in ("straight", "resumed")]
    assert tiny.state_differences(*states) == []


def test_continued_pretraining_starts_from_the_weights_of_mae(tmp_path: Path) -> None:
    mae = tiny.config(**tiny.RANDOM, train__outer_iterations=2, data__eval=None)
    run_pretraining(mae, tmp_path / "mae")
    start = checkpoint_path(tmp_path / "mae", 2)
    still = {"optim__theta": {"lr": 0.0, "weight_decay": 0.0}, "train__outer_iterations": 1}
    found = []
    for name in ("continued", "unknown"):
        record = run_pretraining(tiny.config(init_from=str(start), **still), tmp_path / name)
        found.append(record["copies"]["init_from"])
        (tmp_path / "mae" / FILE).unlink(missing_ok=True)
    assert found == [{"compared": 32, "equal": 0, "near": 0}, "unknown"]
    first, second = load_checkpoint(start), load_checkpoint(checkpoint_path(tmp_path / "continued", 1))
    assert tiny.differences(first["modules"]["mae"], second["modules"]["mae"]) == []


def test_copies_that_a_strategy_keeps_start_from_the_loaded_weights(tmp_path: Path) -> None:
    mae = tiny.config(**tiny.RANDOM, train__outer_iterations=2, data__eval=None)
    run_pretraining(mae, tmp_path / "mae")
    start = checkpoint_path(tmp_path / "mae", 2)
    still = {"optim__theta": {"lr": 0.0, "weight_decay": 0.0}, "train__outer_iterations": 1, "data__eval": None}
    taught = {"method": "attmask", "mask": {"type": "attmask", "ratio": 0.75, "decay": 0.9}}
    run_pretraining(tiny.config(**taught, init_from=str(start), **still), tmp_path / "taught")
    weights = load_checkpoint(start)["modules"]["mae"]
    copies = load_checkpoint(checkpoint_path(tmp_path / "taught", 1))["modules"]["mask"]
    assert copies
    for name, copy in copies.items():
        assert torch.equal(copy, weights[name.replace("teacher.model.", "encoder.")]), name
