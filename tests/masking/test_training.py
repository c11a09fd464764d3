"""A short run with every baseline that learns no mask, and what choosing its masks costs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
import tiny
import torch

from mlomae import masking
from mlomae.config.schema import load_config
from mlomae.data import build_augment, build_source
from mlomae.data.streams import Stream
from mlomae.pretraining.pretrainer import Pretrainer

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"
WITHOUT = {"learned", "oracle", "random"}  # the method, its bound and its floor have tests of their own
BASELINES = [name for name in masking.list_strategies() if name not in WITHOUT]
SHARES = {
    "adamae": 0.3,
    "adios": 0.3,
    "amt": 0.6,
    "attg": 0.7,
    "attmask": 0.6,
    "automae": 0.8,
    "cl_mae": 0.3,
    "hpm": 0.8,
    "self_guided": 0.7,
    "semmae": 0.6,
}
"""Of a training step, all in, that choosing the masks may take; the others a twentieth."""
LATE = ("amt", "self_guided")  # random masks until "start"
every_baseline = pytest.mark.parametrize("name", BASELINES)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(name: str, **overrides: object) -> Pretrainer:
    """The model of a shipped configuration, with other values where given ("model.depth": 1)."""
    torch.manual_seed(0)
    return Pretrainer(load_config(CONFIGS / f"{name}_vit-w128-d4_cifar10.py", overrides), num_classes=10)


def images(count: int) -> Stream:
    """Textures of 32 pixels without augmentation."""
    source = build_source({"type": "textures", "split": "train", "count": count, "size": 32})
    return Stream(source, None, build_augment({"type": "Plain", "size": 32}), 0, "lower")


@every_baseline
def test_the_loss_falls_within_fifty_steps(name: str) -> None:
    small = {"model.embed_dim": 32, "model.depth": 1, "model.decoder_embed_dim": 32, "optim.theta.warmup": 0.0}
    trained, stream = model(name, **small, **{"train.outer_iterations": 50}), images(64)
    step, losses = tiny.step_of(trained), []
    for t in range(50):
        losses.append(float(step({"lower": [stream.batch(32 * t, 32)]}, t)["loss_lower"]))
    assert mean(losses[-10:]) < 0.93 * mean(losses[:5])


def processor_time(work: Callable[[], Any], repeats: int) -> float:
    """Median in seconds, after three runs that do not count."""
    found = []
    for _ in range(repeats + 3):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return median(found[3:])


@pytest.mark.slow
@every_baseline
def test_choosing_the_masks_costs_no_more_than_its_share_of_a_step(name: str) -> None:
    start = {"mask.start": 0.0} if name in LATE else {}
    trained, batch = model(name, **start), images(64).batch(0, 64)
    step = tiny.step_of(trained)
    half = trained.config.train.outer_iterations // 2
    whole = processor_time(lambda: step({"lower": [batch]}, half), 10)
    tokens = trained.mae.encoder.embed(batch["image"]).detach()
    assert processor_time(lambda: trained.choose_mask(tokens, batch), 30) < SHARES.get(name, 0.05) * whole
