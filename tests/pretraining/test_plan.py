"""`mlomae plan`: its arithmetic, and that loading holds no more memory than it says."""

import multiprocessing
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.cost.loading.loaders import own_bytes
from mlomae.common.errors import ConfigError
from mlomae.config.schema import load_config
from mlomae.data import OuterBatches, Stream, build_augment, build_source
from mlomae.pretraining.plan import plan, plan_loading

CONFIG = "configs/pretrain/mlomae_vit-base_imagenet.py"
INTERPRETER = 60e6  # what a forked worker copies of its parent, as it counts references


def test_the_numbers_of_the_imagenet_config_on_eight_gpus() -> None:
    found = plan_loading(load_config(CONFIG), processes=8)
    assert found.images == {"lower": 1024, "head": 128, "upper": 128}
    assert found.batches == 1280 * 3 * 224 * 224 * 4
    assert found.piece == 55 * 3 * 224 * 224
    text, status = plan(CONFIG, [], 8)
    assert status == 0
    assert "770.7 MB in float32" in text
    assert "1.44 GB a process, 11.49 GB in all" in text
    with pytest.raises(ConfigError, match="batch_size 4096 is not a multiple of 3"):
        plan(CONFIG, [], 3)
    with pytest.raises(ConfigError, match="processes"):
        plan(CONFIG, [], 0)


def test_images_in_memory_need_no_workers() -> None:
    found = plan_loading(load_config("configs/pretrain/mae_vit-w128-d4_cifar10.py"))
    assert (found.workers, found.loading) == (0, 0)
    assert set(found.images) == {"lower"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
@pytest.mark.parametrize("bounded", [True, False])
def test_workers_hold_no_more_than_the_plan_says(
    bounded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unbounded, as when a piece was decoded before it was cut, they hold several times as much."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    for i in range(4):
        Image.fromarray(noise).resize((1000 + i, 750)).save(tmp_path / "train" / "a" / f"{i}.jpg")
    source = {"type": "imagefolder", "root": str(tmp_path), "split": "train"}
    options = {"data.train": source, "data.eval": None, "data.batch_size": 256, "data.num_workers": 2}
    config = load_config("configs/pretrain/mae_vit-w128-d4_cifar10.py", {**options, "model.img_size": 96})
    monkeypatch.setattr("mlomae.data.streams.DECODED", 2**26 if bounded else 2**40)
    stream = Stream(build_source(source), None, build_augment({"type": "RandomResizedCropFlip", "size": 96}), 0, "s")
    held, done, others = [0], threading.Event(), set(multiprocessing.active_children())

    def watch() -> None:
        while not done.wait(0.005):
            held.append(sum(own_bytes(child.pid) for child in set(multiprocessing.active_children()) - others))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert len(list(OuterBatches(stream, batch_size=256).load(0, 2, workers=2))) == 2
    finally:
        done.set()
        thread.join()
    assert (max(held) <= plan_loading(config).loading + 2 * INTERPRETER) == bounded, max(held)
