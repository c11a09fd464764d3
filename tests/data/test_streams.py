"""Streams: a sample depends on (seed, name, epoch, index) alone, in any process, worker or rank."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mlomae.common import random_keys
from mlomae.common.errors import ConfigError, DataError
from mlomae.data import OuterBatches, Stream, Textures, build_source
from mlomae.data.augment import Plain, RandomResizedCropFlip
from mlomae.pretraining.log import ReadingShare


@pytest.fixture(scope="module")
def source() -> Textures:
    return Textures(count=40, size=16)


def outer(source: Textures, rank: int = 0, world_size: int = 1, **more: Any) -> OuterBatches:
    lower = Stream(source, range(25), RandomResizedCropFlip(16), 7, "lower")
    head = Stream(source, range(25), RandomResizedCropFlip(16), 7, "head")
    upper = Stream(source, range(25, 40), Plain(16), 7, "upper")
    more = {"batch_size": 8, "feedback_batch_size": 4, "steps_per_outer": 2, **more}
    return OuterBatches(lower, head, upper, rank=rank, world_size=world_size, **more)


def flat(item: dict[str, Any]) -> dict[str, torch.Tensor]:
    levels = {f"lower{k}": batch for k, batch in enumerate(item["lower"])}
    levels |= {level: item[level] for level in ("head", "upper") if level in item}
    return {f"{level}.{key}": value for level, batch in levels.items() for key, value in batch.items()}


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    a, b = flat(ours), flat(theirs)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_batch_has_the_promised_shapes(source):
    batch = Stream(source, None, RandomResizedCropFlip(12), 0, "s").batch(3, 5)
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes["image"] == ((5, 3, 12, 12), torch.float32)
    assert shapes["object"] == ((5, 12, 12), torch.bool)
    for name in ("label", "key", "index", "epoch"):
        assert shapes[name] == ((5,), torch.int64)
    assert batch["label"].tolist() == [source.labels[i] for i in batch["index"].tolist()]


def test_object_is_absent_without_masks(source):
    class Bare(Textures):
        has_objects = False

    assert "object" not in Stream(Bare(count=4, size=16), None, Plain(16), 0, "s").batch(0, 2)


def test_the_control_has_other_images_objects_each_once_and_the_same_pixels(source):
    indices = range(5, 40)
    own, other = (Stream(source, indices, Plain(16), 0, "s", other_objects=other) for other in (False, True))
    first, control = own.batch(0, 35), other.batch(0, 35)
    assert torch.equal(first["image"], control["image"])
    owners = [[i for i in indices if torch.equal(source.object_mask(i), mask_SS)] for mask_SS in control["object"]]
    assert all(len(found) == 1 for found in owners), "too alike to tell"
    assert sorted(found[0] for found in owners) == list(indices)
    assert all(found[0] != i for found, i in zip(owners, control["index"].tolist(), strict=True))
    order = {i: found[0] for found, i in zip(owners, control["index"].tolist(), strict=True)}
    later = other.batch(35, 35)
    for i, mask_SS in zip(later["index"].tolist(), later["object"], strict=True):
        assert torch.equal(mask_SS, source.object_mask(order[i])), "in every epoch the same"


def test_an_object_of_an_image_of_another_size_keeps_its_place():
    class Mixed(Textures):
        def object_mask(self, i):
            return torch.zeros(8, 32, dtype=torch.bool).index_fill(1, torch.arange(16), True)  # the left half

    objects = Stream(Mixed(count=4, size=16), None, Plain(16), 0, "s", other_objects=True).batch(0, 4)["object"]
    assert torch.equal(objects, (torch.arange(16) < 8).expand(4, 16, 16))


def test_every_epoch_visits_each_index_once_in_a_new_order(source):
    stream = Stream(source, range(5, 30), Plain(16), 0, "s")
    _, index = stream.locate(0, 100)
    epochs = index.view(4, 25)
    assert all(sorted(epoch.tolist()) == list(range(5, 30)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


def test_key_and_crop_differ_between_epochs_and_streams(source):
    stream = Stream(source, None, RandomResizedCropFlip(16), 0, "s")
    first, second = stream.batch(0, 40), stream.batch(40, 40)
    one, two = (batch["index"].argsort() for batch in (first, second))
    assert (first["key"][one] != second["key"][two]).all()
    assert (first["image"][one] != second["image"][two]).flatten(1).any(dim=1).all()
    for other in (Stream(source, None, stream.augment, 0, "t"), Stream(source, None, stream.augment, 1, "s")):
        assert not torch.isin(other.batch(0, 40)["key"], first["key"]).any()


def test_sample_depends_on_seed_name_epoch_and_index_alone(source):
    """The same image in the same epoch gets the same key and pixels wherever the order or the batch puts it."""
    stream = Stream(source, range(25), RandomResizedCropFlip(16), 7, "s")
    whole = stream.batch(25, 25)
    for p in (0, 13, 24):
        alone = Stream(source, range(25), RandomResizedCropFlip(16), 7, "s").batch(25 + p, 1)
        assert torch.equal(alone["image"][0], whole["image"][p])
        index = int(whole["index"][p])
        expected = random_keys.fold(random_keys.fold(random_keys.root_key(7, "s"), 1), index)
        assert whole["key"][p] == alone["key"][0] == expected


def test_batch_may_span_many_epochs(source):
    stream = Stream(source, [3, 9, 11], Plain(16), 0, "s")
    batch = stream.batch(1, 20)
    assert batch["epoch"].tolist() == [p // 3 for p in range(1, 21)]
    again = Stream(source, [3, 9, 11], Plain(16), 0, "s")
    assert [int(again.batch(p, 1)["index"]) for p in range(1, 21)] == batch["index"].tolist()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("piece", [2**23, 9 * 16**2])
def test_what_is_loaded_are_the_items_whatever_the_workers_and_their_pieces(
    source: Textures, workers: int, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lower images from files, which workers read; labelled ones in memory, which are cropped here."""
    monkeypatch.setattr("mlomae.data.streams.PIECE", piece)
    for i in range(25):
        (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.image(i).permute(1, 2, 0).numpy()).save(tmp_path / "train" / "a" / f"{i:02d}.png")
    files = build_source({"type": "imagefolder", "root": str(tmp_path), "split": "train"})
    items = outer(source, needed=lambda t: ["head"] if t % 2 else ["head", "upper"])
    items.lower = Stream(files, range(25), RandomResizedCropFlip(16), 7, "lower")
    assert not items.lower.in_memory
    loaded = list(items.load(1, 5, workers))
    assert len(loaded) == 4
    for t, item in enumerate(loaded, 1):
        assert_equal(item, items[t])
        assert "upper" not in item or t % 2 == 0


def test_what_a_worker_sends_is_a_quarter_of_the_batch(source: Textures, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(source, None, Plain(64), 0, "s")
    assert "image" not in stream.read(0, 8)  # in memory: nothing but keys and boxes
    monkeypatch.setattr(Stream, "in_memory", False)
    sent, batch = stream.read(0, 8), Stream(source, None, Plain(64), 0, "s").batch(0, 8)
    assert sent["image"].dtype == torch.uint8
    assert sum(v.nbytes for name, v in sent.items() if name != "object") <= 0.26 * batch["image"].nbytes


def test_large_photographs_are_decoded_at_a_reduced_scale_where_their_crops_stay_twice_as_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves = (127 + 120 * torch.sin(torch.arange(720) / 60)[:, None] * torch.cos(torch.arange(960) / 45)).to(torch.uint8)
    sizes = {"a": 1.0, "b": 0.5, "c": 0.1}
    for name, scale in sizes.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        picture = Image.fromarray(waves.numpy()).resize((int(960 * scale), int(720 * scale)))
        picture.save(tmp_path / "train" / name / "1.jpg", quality=95)
    files = build_source({"type": "imagefolder", "root": str(tmp_path), "split": "train"})
    whole = Stream(files, None, RandomResizedCropFlip(48, scale=(0.2, 1.0)), 0, "s").batch(0, 48)
    decoded = []
    full = type(files).reduced_image

    def reduced_image(self: Any, i: int, factor: int) -> torch.Tensor:
        decoded.append((i, factor))
        return full(self, i, factor)

    monkeypatch.setattr(type(files), "reduced_image", reduced_image)
    stream = Stream(files, None, RandomResizedCropFlip(48, scale=(0.2, 1.0), reduced_decoding=True), 0, "s")
    reduced = stream.batch(0, 48)
    assert torch.equal(reduced["index"], whole["index"])
    assert (reduced["image"] - whole["image"]).abs().mean() < 0.03  # of a standard deviation
    assert {factor for i, factor in decoded if i == 2} == {1}
    assert {factor for i, factor in decoded if i == 0} == {2, 4}
    epoch, index = stream.locate(0, 48)
    key = random_keys.fold(random_keys.fold(random_keys.root_key(0, "s"), epoch), index)
    crops = stream.augment.crops(key, *(torch.tensor([files.image_size(i) for i in index.tolist()]).unbind(dim=1)))
    by_index = dict.fromkeys(range(3), 0)
    for (i, factor), height, width in zip(decoded, crops.height.tolist(), crops.width.tolist(), strict=True):
        assert factor in (1, 2, 4, 8)
        assert min(height, width) >= 96 * factor or factor == 1
        assert min(height, width) < 96 * 2 * factor or factor == 8
        by_index[i] += 1
    assert all(by_index.values())


def test_of_large_images_few_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    for i in range(6):
        noise = torch.randint(0, 256, (40 + i, 50 - i, 3), generator=torch.Generator().manual_seed(i)).byte()
        Image.fromarray(noise.numpy()).save(tmp_path / "train" / "a" / f"{i}.png")
    files = build_source({"type": "imagefolder", "root": str(tmp_path), "split": "train"})
    stream = Stream(files, None, RandomResizedCropFlip(16), 0, "s")
    whole = stream.batch(2, 9)
    held = []
    cut = RandomResizedCropFlip.cut
    monkeypatch.setattr(RandomResizedCropFlip, "cut", lambda self, i, c: held.append(len(i)) or cut(self, i, c))
    monkeypatch.setattr("mlomae.data.streams.DECODED", 2 * 3 * 40 * 50)
    again = stream.batch(2, 9)
    assert max(held) == 2
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_the_time_of_reading_is_counted_over_workers(source: Textures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "in_memory", False)
    monkeypatch.setattr(Textures, "image", lambda self, i: time.sleep(0.002) or self.images_NCHW[i])
    items = outer(source)
    assert len(list(items.load(0, 2, workers=2))) == 2
    assert items.seconds >= 2 * (2 * 8 + 4 + 4) * 0.002
    share = ReadingShare(items, 2)
    share.since -= 1.0
    values: dict[str, float] = {}
    share(1, None, {}, values)
    assert 0.5 * items.seconds / 1.1 < values["reading_share"] <= 0.5 * items.seconds


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_gpu_gives_the_same_batch_within_one_grey_level(
    source: Textures, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(Stream, "in_memory", False)
    stream = Stream(source, None, RandomResizedCropFlip(24, std=(1 / 255,) * 3), 0, "s")  # in grey levels
    here, there = stream.batch(3, 300), stream.batch(3, 300, "cuda")
    assert there["image"].device.type == "cuda"
    assert (there["image"].cpu() - here["image"]).abs().max() <= 1
    assert all(torch.equal(there[name].cpu(), value) for name, value in here.items() if name != "image")


def test_fresh_object_resumes_in_the_middle(source):
    straight = outer(source)
    before = [straight[t] for t in range(8)]
    fresh = outer(source)
    for t in (5, 6, 7):
        assert_equal(fresh[t], before[t])


def test_lower_batches_follow_one_another_without_gap(source):
    items = outer(source)
    seen = torch.cat([batch["index"] for t in range(3) for batch in items[t]["lower"]])
    assert torch.equal(seen, items.lower.locate(0, 48)[1])
    assert len(items[0]["lower"]) == 2
    assert torch.equal(items[2]["upper"]["index"], items.upper.locate(8, 4)[1])


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_concatenate_to_the_single_process_batch(source, world_size):
    ranks = [flat(outer(source, rank, world_size)[3]) for rank in range(world_size)]
    for name, value in flat(outer(source)[3]).items():
        assert torch.equal(torch.cat([part[name] for part in ranks]), value), name


def test_levels_can_be_absent(source):
    stream = Stream(source, None, Plain(16), 0, "s")
    assert OuterBatches(stream, batch_size=4)[0].keys() == {"lower"}


@pytest.mark.parametrize("name", ["batch_size", "feedback_batch_size"])
def test_indivisible_batch_is_refused(source, name):
    with pytest.raises(ConfigError, match=f"^{name} 10 "):
        outer(source, world_size=4, **{name: 10})


def test_other_values_out_of_range_are_refused(source):
    with pytest.raises(ConfigError, match="rank 2"):
        outer(source, rank=2, world_size=2)
    with pytest.raises(ConfigError, match="steps_per_outer"):
        outer(source, steps_per_outer=0)
    with pytest.raises(DataError, match="no sample"):
        Stream(source, [], Plain(16), 0, "s")
    with pytest.raises(DataError, match=r"outside 0\.\.39"):
        Stream(source, [40], Plain(16), 0, "s")
