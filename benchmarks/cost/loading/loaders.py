"""The loaders that are compared, each in a process of its own: ``python loaders.py NAME ROOT SIDE BATCH``.

All give batches (B, 3, S, S) float32, normalised: a random crop of 20 to 100 % of the image, bicubic, half of them
mirrored. This file imports nothing of the project but `mlomae.data`, so that the process can run an older checkout.

Protocol: for every line N on standard input the process loads N batches and answers with the processor seconds as JSON.
The line ``worker`` asks for one worker process instead: its peak memory, and the bytes of an image that it sends.
"""

import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

Batches = tuple[Generator[Tensor, None, None], Callable[[], Any]]
Loader = Callable[[str, int, int, int], Batches]
"""(root, side, batch, workers) -> batches without end, and a function that makes what a worker sends for a batch."""

SCALE, MEAN, STD = (0.2, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ENDLESS = 10**6
_QUALITY = 90
CROP = {"type": "RandomResizedCropFlip", "scale": SCALE}


def mlomae(root: str, side: int, batch: int, workers: int) -> Batches:
    """The stream of the checkout that the process runs."""
    return _stream(root, side, batch, workers, {"cache": False})


def mlomae_memory(root: str, side: int, batch: int, workers: int) -> Batches:
    return _stream(root, side, batch, workers, {"cache": True})


def stream_of(root: str, side: int, **options: Any) -> Any:
    """The augmented images of a folder, as a `mlomae.data.Stream` of the checkout."""
    from mlomae.data import Stream, build_augment, build_source

    source = build_source({"type": "imagefolder", "root": root, "split": "train", **options})
    return Stream(source, None, build_augment({**CROP, "size": side}), 0, "lower")


def _stream(root: str, side: int, batch: int, workers: int, options: dict[str, Any]) -> Batches:
    from mlomae.data import OuterBatches

    stream = stream_of(root, side, **options)
    outer = OuterBatches(stream, batch_size=batch)
    if not hasattr(outer, "load"):  # commit 1913902: an item of a worker is an outer iteration
        items: Any = DataLoader(outer, batch_size=None, sampler=range(ENDLESS), num_workers=workers)
        return (item["lower"][0]["image"] for item in items), lambda: outer[0]
    pieces = lambda: [stream.read(*cut) for cut in stream.cuts(0, batch)]  # noqa: E731
    return (item["lower"][0]["image"] for item in outer.load(0, ENDLESS, workers)), pieces


def torchvision_pillow(root: str, side: int, batch: int, workers: int) -> Batches:
    from torchvision.datasets.folder import pil_loader
    from torchvision.transforms import v2

    return _torchvision(root, side, batch, workers, pil_loader, [v2.PILToTensor()])


def torchvision_own(root: str, side: int, batch: int, workers: int) -> Batches:
    from torchvision.io import ImageReadMode, decode_image, read_file

    return _torchvision(root, side, batch, workers, lambda path: decode_image(read_file(path), ImageReadMode.RGB), [])


def _torchvision(
    root: str, side: int, batch: int, workers: int, load: Callable[[str], Any], first: list[Any]
) -> Batches:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import InterpolationMode, v2

    crop = v2.RandomResizedCrop(side, SCALE, interpolation=InterpolationMode.BICUBIC, antialias=True)
    last = [v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    images = ImageFolder(f"{root}/train", v2.Compose([*first, crop, *last]), loader=load)
    loader = DataLoader(images, batch, shuffle=True, drop_last=True, num_workers=workers)
    return _images(loader), lambda: next(iter(loader))


def timm_loader(root: str, side: int, batch: int, workers: int) -> Batches:
    """Its workers send uint8, as ours do, and its prefetcher normalises on the training device."""
    from timm.data import create_dataset, create_loader

    loader = create_loader(
        create_dataset("", f"{root}/train", is_training=True),
        (3, side, side),
        batch,
        is_training=True,
        scale=SCALE,
        interpolation="bicubic",
        color_jitter=0.0,
        num_workers=workers,
        persistent_workers=workers > 0,
        device=torch.device("cpu"),
    )
    return _images(loader), lambda: next(iter(getattr(loader, "loader", loader)))


def lightly(root: str, side: int, batch: int, workers: int) -> Batches:
    """Its transform for MAE, on Pillow's images."""
    from lightly.data import LightlyDataset
    from lightly.transforms import MAETransform

    images = LightlyDataset(f"{root}/train", transform=MAETransform(side, SCALE[0]))
    loader = DataLoader(
        images, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    batches = (views[0] for _ in range(ENDLESS) for views, _, _ in loader)
    return batches, lambda: next(iter(loader))


def _images(loader: Any) -> Generator[Tensor, None, None]:
    while True:
        for images, _ in loader:
            yield images


def write_jpegs(folder: Path, side: int, count: int) -> None:
    """Embedded textures as ``folder/train/<class>/*.jpg``."""
    from mlomae.data import Textures

    source = Textures(count=count, size=side)
    for name in source.classes:
        (folder / "train" / name).mkdir(parents=True)
    for i, label in enumerate(source.labels):
        image = Image.fromarray(source.image(i).permute(1, 2, 0).numpy())
        image.save(folder / "train" / source.classes[label] / f"{i:05d}.jpg", quality=_QUALITY)


LOADERS: dict[str, Loader] = {
    "mlomae": mlomae,
    "mlomae_1913902": mlomae,
    "torchvision_own": torchvision_own,
    "torchvision_pillow": torchvision_pillow,
    "timm": timm_loader,
    "mlomae_memory": mlomae_memory,
    "lightly": lightly,
}


def tensor_bytes(value: Any) -> int:
    """Of all tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(tensor_bytes(part) for part in parts)


def measure_worker(loader: Loader, root: str, side: int, batch: int) -> dict[str, float]:
    """MiB that one worker takes at its peak (`own_bytes`), and bytes an image that it sends."""
    _, send = loader(root, side, batch, 0)
    sent = tensor_bytes(send()) / batch
    sizes: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            sizes.extend(own_bytes(child.pid) for child in multiprocessing.active_children())

    thread = threading.Thread(target=watch)
    thread.start()
    batches, _ = loader(root, side, batch, 1)
    for _ in range(8):
        next(batches)
    done.set()
    thread.join()
    batches.close()
    return {"bytes_per_image": sent, "worker_mib": max(sizes, default=0) / 2**20}


def own_bytes(pid: int | None) -> int:
    """Memory of a process that it shares with no other, and its part of what is in queues; 0 but on Linux."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Pss_Shmem:")))


def main(name: str, root: str, side: str, batch: str) -> None:
    torch.set_num_threads(1)
    loader, sizes = LOADERS[name], (int(side), int(batch))
    batches, _ = loader(root, *sizes, 0)
    shape = (sizes[1], 3, sizes[0], sizes[0])
    for line in sys.stdin:
        if line.strip() == "worker":
            answer = measure_worker(loader, root, *sizes)
        else:
            started = time.process_time()
            for _ in range(int(line)):
                images = next(batches)
            answer = {"cpu_s": time.process_time() - started}
            if tuple(images.shape) != shape or images.dtype != torch.float32:
                raise AssertionError(f"{name} gives {tuple(images.shape)} {images.dtype}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
