"""Runs under segmentation feedback: exact gradient, exact resume, scenes of their own, chance of pixels, refusals."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scene_layouts import camvid, scenes
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlomae.common.checkpoint import checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError, DataError
from mlomae.config.schema import load_config
from mlomae.data import IGNORE, SceneSource
from mlomae.diagnostics.diagnose import diagnose
from mlomae.multilevel import hypergradient
from mlomae.pretraining import losses as stages
from mlomae.pretraining.feedback_gate import chance_of, judge
from mlomae.pretraining.run import build_data, run_pretraining

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
SEGMENTATION: dict[str, Any] = {"feedback": {"type": "segmentation"}}


def of_scenes(root: Path) -> dict[str, Any]:
    """Changes that give the tiny run a feedback of five classes of pixels."""
    return {**SEGMENTATION, "data__feedback": {"type": "scene_folder", "root": str(root), "split": "training"}}


def test_only_the_feedbacks_streams_carry_labels_of_pixels() -> None:
    data = build_data(tiny.config(**SEGMENTATION))
    assert data.num_classes == tiny.CLASSES + 1
    item = data.batches[0]
    assert "pixel_label" not in item["lower"][0]
    assert "pixel_label" not in data.probe
    for level in ("head", "upper"):
        assert item[level]["pixel_label"].shape == (8, 16, 16)
    random = build_data(tiny.config(**tiny.RANDOM, **SEGMENTATION))
    assert random.batches.head is None


def test_the_hypergradient_is_double_backward_written_out() -> None:
    """v by hand from the loss of every pixel; then −(∂²L_I/∂φ∂θ) v."""
    config = tiny.config(**SEGMENTATION)
    torch.manual_seed(0)
    data = build_data(config)
    model = tiny.Pretrainer(config, data.num_classes).double()
    item = data.batches[0]
    lower, head, upper = ({**b, "image": b["image"].double()} for b in (item["lower"][0], item["head"], item["upper"]))
    levels, problem = model.level_parameters(), stages.level_problem(model)
    with torch.no_grad():
        model.feedback.fc.weight.add_(torch.randn_like(model.feedback.fc.weight))
    lower = problem.fix({}, {}, lower)
    assert not any((batch["pixel_label"] == IGNORE).any() for batch in (head, upper)), "the mean is over all pixels"

    def loss(batch: dict[str, Any]) -> torch.Tensor:
        z = model.feedback.norm(model.mae.encoder(batch["image"])[:, 1:])
        scores = (z @ model.feedback.fc.weight.T + model.feedback.fc.bias).mT.reshape(8, -1, 4, 4)
        pixels = scores.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return torch.nn.functional.cross_entropy(pixels, batch["pixel_label"].long())

    theta, omega, phi = (list(levels[name].values()) for name in ("theta", "omega", "phi"))
    found = hypergradient(problem, **levels, lower_batch=lower, head_batch=head, upper_batch=upper, solver="one_step")
    with sdpa_kernel(SDPBackend.MATH):
        top = loss(upper)
        direct = torch.autograd.grad(top, theta, retain_graph=True, materialize_grads=True)
        g_omega = torch.autograd.grad(top, omega)
        inner = torch.autograd.grad(loss(head), omega, create_graph=True)
        through = torch.autograd.grad(inner, theta, g_omega, materialize_grads=True)
        first = torch.autograd.grad(stages.lower(model, lower), theta, create_graph=True, materialize_grads=True)
        v = [b - a for a, b in zip(direct, through, strict=True)]
        expected = torch.autograd.grad(first, phi, v, materialize_grads=True)
    assert max(float(t.abs().max()) for t in expected) > 1e-8
    for a, b in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("source", ["textures", "scenes"])
def test_a_resumed_run_ends_with_the_same_bits(source: str, tmp_path: Path) -> None:
    changes = SEGMENTATION if source == "textures" else of_scenes(scenes(tmp_path / "data", training=12))
    config = tiny.config(**changes, train__outer_iterations=4, levels__warmup=1, name=f"segmentation_{source}")
    record = run_pretraining(config, tmp_path / "straight")
    assert {"loss_head", "loss_upper", "feedback_accuracy", "knn_top1_avg"} <= record["metrics"].keys()
    chance = chance_of(build_data(config).batches, 5).share
    assert 100 / 5 < record["metrics"]["feedback_chance"] == pytest.approx(100 * chance)
    target = checkpoint_path(tmp_path / "resumed", 2)
    target.parent.mkdir(parents=True)
    shutil.copy(checkpoint_path(tmp_path / "straight", 2), target)
    run_pretraining(config, tmp_path / "resumed", resume=True)
    states = [load_checkpoint(checkpoint_path(tmp_path / name, 4)) for name in ("straight", "resumed")]
    assert tiny.state_differences(*states) == []
    result, _ = diagnose(checkpoint_path(tmp_path / "straight", 4), batches=2, batch_size=2)
    assert 0 <= result["feedback_accuracy"]["mean"] <= 100


def test_the_feedback_learns_and_phi_moves() -> None:
    changes = {"optim__omega": {"lr": 0.02, "warmup": 0.0}, "levels__head_steps": 5, "levels__warmup": 5}
    model, data = tiny.trainer(tiny.config(**SEGMENTATION, **changes, train__outer_iterations=40))
    model = tiny.Pretrainer(model.config, data.num_classes)
    before = {k: p.detach().clone() for k, p in model.level_parameters()["phi"].items()}
    step = tiny.step_of(model)
    losses = [step(data.batches[t], t)["loss_head"] for t in range(40)]
    assert float(sum(losses[-5:])) < 0.9 * float(sum(losses[:5]))
    assert all(not torch.equal(p, before[k]) for k, p in model.level_parameters()["phi"].items())


# --- chance and accuracy ------------------------------------------------------------------------------------------


def test_chance_is_the_mean_share_of_the_most_frequent_class() -> None:
    data = build_data(tiny.config(**SEGMENTATION))
    chance = chance_of(data.batches, data.num_classes)
    shares = np.zeros(5)
    for i in data.split.val_indices:
        label = data.feedback.pixel_labels(int(i)).numpy()
        shares += np.bincount(label.ravel(), minlength=5) / label.size
    assert chance.share == pytest.approx(shares.max() / len(data.split.val_indices))
    assert chance.images == len(data.split.val_indices)


def test_a_probe_is_the_share_of_right_pixels_and_the_number_of_images() -> None:
    config = tiny.config(**SEGMENTATION)
    data = build_data(config)
    model = tiny.Pretrainer(config, data.num_classes)
    with torch.no_grad():
        model.feedback.fc.bias[0] = 50.0  # always background
    item = data.batches[0]
    label = item["upper"]["pixel_label"]
    label[0] = IGNORE  # an image without labels is not judged
    right, judged = judge(model, item)
    known = (label != IGNORE).flatten(1).sum(1)[1:]
    assert judged == 7
    assert right == pytest.approx(float(((label == 0).flatten(1).sum(1)[1:] / known).sum()))


# --- scenes and configurations ------------------------------------------------------------------------------------


def test_pretraining_on_scenes_alone(tmp_path: Path) -> None:
    """The shipped configuration of CamVid, on a set of its layout, in a smaller model."""
    camvid(tmp_path / "camvid")
    small = {"model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "model.decoder_embed_dim": 16}
    small |= {"data.batch_size": 2, "data.feedback_batch_size": 1, "data.num_workers": 0, "train.outer_iterations": 2}
    source = {"data.train.root": str(tmp_path / "camvid"), "data.train.subset": True}
    config = load_config(CONFIGS / "mlomae-segmentation_vit-w128-d4_camvid.py", {**small, **source, "name": "camvid"})
    record = run_pretraining(config, tmp_path / "run")
    assert (record["dataset"], record["eval_source"]) == ("camvid", "none")
    assert record["metrics"]["loss_upper"] == pytest.approx(np.log(11), rel=0.2)


def test_the_shipped_configuration_of_the_textures_has_a_class_for_the_background() -> None:
    config = load_config(
        CONFIGS / "mlomae-segmentation_vit-w128-d4_textures.py", {"data.train.count": 40, "data.eval": None}
    )
    data = build_data(config)
    assert data.num_classes == 9
    assert not isinstance(data.feedback, SceneSource)


def test_what_does_not_go_with_segmentation_is_refused_in_one_line(tmp_path: Path) -> None:
    root = scenes(tmp_path / "data", training=6)
    folder = {"type": "scene_folder", "root": str(root), "split": "training"}
    pooled = {"levels__mask_pooling": True, "levels__solver": "explicit"}
    images = {"type": "textures", "count": 96, "size": 16, "classes": 4, "split": "train"}
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({**SEGMENTATION, **pooled}, ConfigError, "set levels.mask_pooling=False"),
        ({"data__feedback": folder}, ConfigError, "set feedback.type='segmentation'"),
        ({**SEGMENTATION, "data__train": folder}, ConfigError, "need labels of images"),
        ({**SEGMENTATION, "data__shuffle_labels": 0}, ConfigError, "data.shuffle_labels permutes labels of images"),
        ({**SEGMENTATION, "auxiliary": {"type": "classification"}}, ConfigError, "auxiliary.type='classification'"),
        (
            {"feedback": {"type": "segmentation", "pooling": "avg"}},
            ConfigError,
            "'segmentation' has no option 'pooling'",
        ),
        ({**SEGMENTATION, "data__feedback": folder, "data__eval": images}, DataError, "evaluation images"),
    ]
    for changes, error, words in cases:
        with pytest.raises(error, match=words) as raised:
            tiny.trainer(tiny.config(**changes))
        assert "\n" not in str(raised.value)
