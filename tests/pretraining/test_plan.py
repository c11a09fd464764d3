"""`mlomae plan`: its arithmetic, every shipped config, and that loading holds no more memory than it says."""

import multiprocessing
import re
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
from mlomae.masking.strategies.random import RandomMasking
from mlomae.pretraining.plan import plan, plan_loading

CONFIG = "configs/pretrain/mlomae_vit-base_imagenet.py"
SMALL = "configs/pretrain/mae_vit-w128-d4_textures.py"
LARGE = [CONFIG, "configs/pretrain/mae_vit-base_imagenet.py"]
OTHERS = sorted(str(path) for path in Path("configs/pretrain").glob("*.py") if str(path) not in LARGE)
INTERPRETER = 60e6  # what a forked worker copies of its parent, as it counts references


def test_the_numbers_of_the_imagenet_config_on_eight_gpus() -> None:
    found = plan_loading(load_config(CONFIG), processes=8)
    assert found.images == {"lower": 1024, "head": 128, "upper": 128}
    assert found.batches == 1280 * 3 * 224 * 224 * 4
    assert found.piece == 55 * 3 * 224 * 224
    with pytest.raises(ConfigError, match="batch_size 4096 is not a multiple of 3"):
        plan(CONFIG, [], 3)
    with pytest.raises(ConfigError, match="processes"):
        plan(CONFIG, [], 0)


@pytest.mark.parametrize("path", OTHERS)
def test_every_config_can_be_planned_without_its_data(path: str) -> None:
    text, status = plan(path, [], 1, "a100")
    assert (status, "not known" in text, "the share is assumed" in text) == (0, False, True)
    assert len(text.splitlines()) <= 15
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("path", LARGE)
def test_headers_of_the_large_configs_say_what_the_plan_says(path: str) -> None:
    text, _ = plan(path, [], 8, "h100")
    header = Path(path).read_text(encoding="utf-8").split('"""')[1]
    planned, said = (" ".join(t.split()) for t in (text, header))
    for unit, pattern in {"GB": r"at most ([\d.]+) GB at once", "GB in all": r", ([\d.]+) GB in all"}.items():
        assert number(pattern, said) == pytest.approx(number(pattern, planned), rel=0.05), unit
    hours = {"min": 1 / 60, "h": 1}
    times = [re.search(r"([\d.]+) (h|min) at 40% of the peak", t) for t in (planned, said)]
    found = [float(match[1]) * hours[match[2]] for match in times if match]
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert number(r"([\d,]+) images/s", said) == pytest.approx(number(r"([\d,]+) images/s", planned), rel=0.05)


def number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in: {text}"
    return float(match[1].replace(",", ""))


def test_the_device_decides_precision_time_and_room() -> None:
    small = ["model.embed_dim=16", "model.num_heads=2", "model.depth=1", "data.batch_size=16"]
    auto = [*small, "train.amp=auto"]
    texts = {name: plan(SMALL, auto, 1, name)[0] for name in ("h100", "a100")}
    assert all("bfloat16" in text for text in texts.values())
    assert "float32" in plan(SMALL, [*small, "train.amp=none"], 1, "a100")[0].splitlines()[0]
    assert "989 TFLOP/s" in texts["h100"]
    assert "312 TFLOP/s" in texts["a100"]
    assert number(r"([\d,]+) images/s", texts["h100"]) > 3 * number(r"([\d,]+) images/s", texts["a100"])
    full = number(r"([\d,]+) images/s", plan(SMALL, auto, 1, "a100", 0.8)[0])
    assert full == pytest.approx(2 * number(r"([\d,]+) images/s", texts["a100"]), rel=1e-3)
    assert "measured now" in plan(SMALL, small)[0]
    room = "more than the 80.00 GB of an A100 SXM: raise train.accumulate"
    assert room in plan(SMALL, ["data.batch_size=100000"], 1, "a100")[0]
    assert room not in plan(SMALL, ["data.batch_size=100000", "train.accumulate=2"], 1, "a100")[0]
    for wrong, said in {"v100": "--device must be one of cpu, h100, a100", "h100": "--share"}.items():
        with pytest.raises(ConfigError, match=said):
            plan(SMALL, small, 1, wrong, 1.5 if wrong == "h100" else None)


def test_a_step_that_reads_a_value_is_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = RandomMasking.ranking
    monkeypatch.setattr(RandomMasking, "ranking", lambda *given: ranking(*given) * ranking(*given).mean().item())
    text, status = plan(SMALL, [], 1, "a100")
    assert status == 0
    assert "memory, operations and time: not known; a step of this configuration cannot be taken without" in text
    assert "parameters" not in text


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
