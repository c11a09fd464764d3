"""CIFAR from Python batches and from image folders; batches that are damaged, partial or hostile."""

import os
import pickle

import numpy as np
import pytest
import torch

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import build_source


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_round_trip(tmp_path, write_cifar, protocol):
    root = write_cifar(tmp_path, protocol=protocol)
    raw = [pickle.loads((root / "cifar-10-batches-py" / f"data_batch_{i}").read_bytes()) for i in range(1, 6)]
    for given in (root, root / "cifar-10-batches-py"):
        source = build_source({"type": "cifar10", "root": str(given), "split": "train"})
        expected = np.concatenate([batch[b"data"] for batch in raw]).reshape(-1, 3, 32, 32)
        assert len(source) == 60
        assert all(torch.equal(source.image(i), torch.from_numpy(expected[i])) for i in range(60))
        assert source.labels.tolist() == [i % 10 for i in range(12)] * 5
        assert source.classes[3] == "name 3"
    test = build_source({"type": "cifar10", "root": str(root), "split": "test"})
    assert len(test) == 12
    assert not torch.equal(test.image(0), source.image(0))


def test_cifar100_uses_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    data = np.zeros((4, 3072), dtype=np.uint8)
    for name in ("train", "test"):
        batch = {b"data": data, b"fine_labels": [99, 1, 2, 3], b"coarse_labels": [0, 0, 0, 0]}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    source = build_source({"type": "cifar100", "root": str(tmp_path), "split": "test"})
    assert source.labels.tolist() == [99, 1, 2, 3]
    assert len(source.classes) == 100


def test_partial_batches_need_consent(tmp_path, write_cifar):
    root = str(write_cifar(tmp_path, batches=2))
    with pytest.raises(DataError) as error:
        build_source({"type": "cifar10", "root": root})
    assert "data_batch_3, data_batch_4, data_batch_5" in str(error.value)
    assert "partial=True" in str(error.value)
    assert "data_batch_2" not in str(error.value)
    assert len(build_source({"type": "cifar10", "root": root, "partial": True})) == 24
    assert len(build_source({"type": "cifar10", "root": root, "split": "test"})) == 12


def test_partial_does_not_accept_an_absent_split(tmp_path, write_cifar):
    root = write_cifar(tmp_path)
    (root / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(DataError, match="test_batch"):
        build_source({"type": "cifar10", "root": str(root), "split": "test", "partial": True})


class _Hostile:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("hidden", ["top", "data", "labels"])
def test_hostile_pickle_is_refused_and_not_run(tmp_path, write_cifar, hidden):
    root = write_cifar(tmp_path / "set")
    marker = tmp_path / "ran"
    bomb = _Hostile(os.mkdir, str(marker))
    content = bomb if hidden == "top" else {b"data": np.zeros((1, 3072), dtype=np.uint8), b"labels": [0]}
    if hidden != "top":
        content[hidden.encode()] = bomb
    payload = pickle.dumps(content)
    batch = root / "cifar-10-batches-py" / "data_batch_4"
    batch.write_bytes(payload)
    with pytest.raises(DataError) as error:
        build_source({"type": "cifar10", "root": str(root)})
    assert str(batch) in str(error.value)
    assert "mkdir" in str(error.value)
    assert not marker.exists()
    pickle.loads(payload)  # the payload is a working one: a plain unpickler runs it
    assert marker.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, np.load, np.frombuffer])
def test_only_containers_and_arrays_are_allowed(tmp_path, write_cifar, function):
    root = write_cifar(tmp_path)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(_Hostile(function, "1")))
    with pytest.raises(DataError, match="not an array or a plain container"):
        build_source({"type": "cifar10", "root": str(root), "split": "test"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({b"data": np.zeros((2, 3071), np.uint8), b"labels": [0, 1]}, "shape"),
        ({b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]}, "uint8"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "one label per image"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "not integers in 0..9"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, "x"]}, "not integers"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "labels"),
        ([1, 2], "not a dict"),
    ],
)
def test_malformed_batch_is_named(tmp_path, write_cifar, content, said):
    root = write_cifar(tmp_path)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError) as error:
        build_source({"type": "cifar10", "root": str(root), "split": "test"})
    assert said in str(error.value)
    assert "test_batch" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 20_000])
def test_truncated_batch_is_named(tmp_path, write_cifar, keep):
    root = write_cifar(tmp_path)
    batch = root / "cifar-10-batches-py" / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:keep])
    with pytest.raises(DataError, match="data_batch_2"):
        build_source({"type": "cifar10", "root": str(root)})


def test_image_folders(tmp_path, write_tree):
    root = write_tree(write_tree(tmp_path, "train", size=(32, 32)), "test", count=2, size=(32, 32), seed=1)
    source = build_source({"type": "cifar10", "root": str(root), "split": "train"})
    folder = build_source({"type": "imagefolder", "root": str(root), "split": "train"})
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == folder.labels.tolist()
    assert all(torch.equal(source.image(i), folder.image(i)) for i in range(len(folder)))
    assert len(build_source({"type": "cifar10", "root": str(root), "split": "test"})) == 4


def test_unknown_split_and_empty_folder(tmp_path, write_cifar):
    with pytest.raises(DataError, match="expected cifar-10-batches-py"):
        build_source({"type": "cifar10", "root": str(tmp_path)})
    with pytest.raises(ConfigError, match="valid splits: train, test"):
        build_source({"type": "cifar10", "root": str(write_cifar(tmp_path)), "split": "val"})
