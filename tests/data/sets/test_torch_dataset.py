"""A torch Dataset and a folder of pictures as data sets: pixels, labels, and one line for what cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from mlomae.common.errors import DataError
from mlomae.data import build_source, check_disjoint, split_train
from mlomae.data.sets.own_images import TorchDataset, folder_config

PIXELS = torch.arange(4 * 3 * 5 * 6, dtype=torch.uint8).reshape(4, 3, 5, 6)


class Items(Dataset[Any]):
    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items, self.read = items, 0
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return self.items[i]


def picture(i: int) -> Image.Image:
    return Image.fromarray(PIXELS[i].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "images",
    [list(PIXELS), [picture(i) for i in range(4)], list(PIXELS.float() / 255), list(PIXELS.double() / 255)],
    ids=["uint8", "PIL", "float32", "float64"],
)
def test_images_of_every_kind_are_the_same_pixels(images: list[Any]) -> None:
    source = TorchDataset(Items([(image, i % 2) for i, image in enumerate(images)]), "train")
    assert torch.equal(torch.stack([source.image(i) for i in range(4)]), PIXELS)
    assert (source.name, source.split, source.classes, source.labels.tolist()) == (
        "Items",
        "train",
        ["0", "1"],
        [0, 1] * 2,
    )
    assert source.fingerprint() == TorchDataset(TensorDataset(PIXELS, torch.arange(4) % 2), "train").fingerprint()


def test_grey_images_become_rgb() -> None:
    source = TorchDataset(Items([(PIXELS[0, :1], 0), (picture(1).convert("L"), 1)]), "train")
    assert torch.equal(source.image(0), PIXELS[0, :1].expand(3, -1, -1))
    assert source.image(1).shape == (3, 5, 6)


def test_labels_are_taken_from_targets_without_reading_images() -> None:
    dataset = Items([(image, i % 2) for i, image in enumerate(PIXELS)], targets=[0, 1, 0, 1], classes=["cat", "dog"])
    source = TorchDataset(dataset, "train")
    assert dataset.read == 2, "the first image, twice"
    assert (source.labels.tolist(), source.classes) == ([0, 1, 0, 1], ["cat", "dog"])
    changed = Items(dataset.items, targets=[5, 5, 5, 5], target_transform=lambda label: 0)
    assert TorchDataset(changed, "train").labels.tolist() == [0, 1, 0, 1], "as the items have them"
    assert TorchDataset(Subset(dataset, [1, 3]), "train").labels.tolist() == [1, 1]
    assert TorchDataset(Items(list(PIXELS)), "train").labels.tolist() == [0, 0, 0, 0], "images alone"


def test_one_dataset_cannot_train_and_evaluate() -> None:
    dataset = TensorDataset(PIXELS, torch.arange(4) % 2)
    with pytest.raises(DataError, match="evaluation images would reach training"):
        check_disjoint(TorchDataset(dataset, "train"), TorchDataset(dataset, "test"))
    with pytest.raises(DataError, match="4 of 4 evaluation images"):
        check_disjoint(TorchDataset(dataset, "train"), TorchDataset(TensorDataset(*dataset.tensors), "test"))
    assert len(split_train(TorchDataset(dataset, "train"), 0.5).val_indices) == 2


class Random(Items):
    def __getitem__(self, i: int) -> Any:
        self.read += 1
        return self.items[i][0] + self.read, 0


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Items([]), "Items: the dataset is empty"),
        (Items([("image.png", 0)]), "item 0 is a str; give PIL images or tensors"),
        (Items([(torch.zeros(5, 6), 0)]), r"item 0 is a Tensor of shape \(5, 6\)"),
        (Items([(torch.zeros(4, 5, 6), 0)]), r"item 0 is a Tensor of shape \(4, 5, 6\)"),
        (Items([(torch.full((3, 5, 6), 2.0), 0)]), "not normalised"),
        (Items([(PIXELS[0].int(), 0)]), "not normalised"),
        (Items([(PIXELS[0], "cat")]), "labels must be integers from 0"),
        (Items([(PIXELS[0], -1)]), "labels must be integers from 0"),
        (Items([(PIXELS[0], 0.5)]), "labels must be integers from 0"),
        (Random([(PIXELS[0], 0)]), "differs between two accesses; remove random transforms"),
    ],
)
def test_what_cannot_be_used_is_one_line(dataset: Dataset[Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        TorchDataset(dataset, "train")
    assert "\n" not in str(error.value)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for i, name in enumerate(["b.png", "a.png", ".hidden.png", "notes.txt"]):
        (tmp_path / name).write_bytes(b"")
        if name.endswith("g"):
            picture(i).save(tmp_path / name)
    config = folder_config(tmp_path)
    assert config == {"type": "pictures", "root": str(tmp_path)}
    source = build_source(config)
    assert (len(source), source.classes, source.labels.tolist()) == (2, ["picture"], [0, 0])
    assert torch.equal(source.image(0), PIXELS[1]), "sorted by name"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        build_source({"type": "pictures", "root": str(tmp_path / "empty")})
    with pytest.raises(DataError, match="does not exist"):
        folder_config(tmp_path / "nowhere")


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for i, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        picture(i).save(tmp_path / name / "0.png")
    source = build_source(folder_config(tmp_path))
    assert (source.classes, source.labels.tolist()) == (["cat", "dog"], [0, 1])
    assert np.array_equal(source.image(1), PIXELS[1])
