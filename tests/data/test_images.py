"""Fingerprints of existing data sets are in records: they must never change."""

from pathlib import Path

import numpy as np
import torch

from mlomae.data import MemorySource, build_source


def test_fingerprints_and_digests_are_those_of_earlier_records(tmp_path: Path) -> None:
    for name, count in (("cat", 2), ("dog", 1)):
        folder = tmp_path / "train" / name / "deep"
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{i}.jpg").write_bytes(b"x" * (10 * i + 3))
    source = build_source({"type": "imagefolder", "root": str(tmp_path)})
    assert source.fingerprint() == "7ea19760f139c976e41c28485cdcff6d5b100450ae5c99028691a2adfd67609f"
    assert source.fingerprint([2, 0]) == "f1e5b876d99a0746be1e1f62073f48610b32561c1e4a93c27970c1460d7a437e"
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    memory = MemorySource("memory", "train", "/m", ["a", "b"], pixels, np.array([1, 0]), ["/m"])
    assert memory.fingerprint() == "f7d1974cfa7a5d56b94c60991c011bdf845e289ef45a5050682d62a743ee4b0e"
    assert memory.pixel_digest(1).hex() == "1c402458972a0749e91ced58fbde7250"
