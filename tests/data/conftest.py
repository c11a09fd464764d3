"""Small data sets written to disk in the published layouts, and a server for archives of them."""

import functools
import http.server
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteCifar = Callable[..., Path]
WriteTree = Callable[..., Path]


@pytest.fixture
def write_cifar() -> WriteCifar:
    """Write a CIFAR-10 folder of ``count`` random images per batch and return its parent."""

    def write(root: Path, batches: int = 5, count: int = 12, seed: int = 0, protocol: int = 2) -> Path:
        folder = root / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for name in [f"data_batch_{i + 1}" for i in range(batches)] + ["test_batch"]:
            pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
            content = {b"data": pixels, b"labels": [i % 10 for i in range(count)], b"batch_label": name.encode()}
            (folder / name).write_bytes(pickle.dumps(content, protocol))
        names = [f"name {i}" for i in range(10)]
        (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol))
        return root

    return write


@pytest.fixture
def write_tree() -> WriteTree:
    """Write ``root/split/<class>/*.png`` with random images of ``size`` (height, width) and return ``root``."""

    def write(
        root: Path, split: str = "train", count: int = 6, size: tuple[int, int] = (20, 24), seed: int = 0
    ) -> Path:
        rng = np.random.default_rng(seed)
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        return root

    return write


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
