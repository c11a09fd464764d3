"""Features of images from any backbone that `create_backbone` takes.

Shape legend: N images, B of a batch, C channels, H W pixels, S side of the model's images, L patches, D width.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mlomae.backbones.create import create_backbone
from mlomae.common.atomic import replacing
from mlomae.common.errors import ConfigError, MlomaeError
from mlomae.common.installing import pip_command
from mlomae.common.registry import check_choice, check_range
from mlomae.data import IMAGENET_MEAN, IMAGENET_STD, Source, build_augment, build_source
from mlomae.data.given import given_images
from mlomae.data.sets.own_images import TorchDataset, folder_config
from mlomae.models.architecture import read_encoder
from mlomae.pretraining.devices import training_device
from mlomae.pretraining.evaluation import extract_features

POOLINGS = ("avg", "cls")


def embed(
    weights: str | os.PathLike[str],
    images: Tensor | Dataset[Any] | Source | str | os.PathLike[str],
    *,
    pooling: str = "avg",
    img_size: int | None = None,
    model: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Tensor:
    """Features (N, D), float32 on the CPU, of images by a frozen backbone; no gradient is kept.

    Args:
        weights, model: what `create_backbone` takes, e.g. a run's folder, an export, official MAE weights, timm:NAME.
        images: (N, 3, H, W) uint8, of any size; (N, 3, S, S) floats, which are used unchanged; a torch Dataset; a
            folder of pictures, or of folders of pictures, in the order of their names.
        pooling: "avg" for the mean of the patch tokens, "cls" for the class token, both after the final norm.
        img_size: S; by default that of the weights. All images but floats are centre-cropped to a square, resized
            and normalised by ``mean`` and ``std``, as in `evaluate`; by default those of the weights where they tell,
            as timm's and Hugging Face's do, else ImageNet's.
        device: by default the GPU if there is one.

    Raises ConfigError for a wrong option, what `create_backbone` raises for the weights, DataError for images that
    cannot be read, TrainingError if a feature is not finite.
    """
    check_choice("embed", POOLINGS, pooling=pooling)
    check_range("", "[1, inf)", batch_size=batch_size)
    spec = os.fspath(weights)
    size = img_size or _own_size(spec, model)
    vit, report = create_backbone(spec, num_classes=0, img_size=size, global_pool="token", model=model)
    mean = report.pixels.get("mean", IMAGENET_MEAN) if mean is None else mean
    std = report.pixels.get("std", IMAGENET_STD) if std is None else std
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        report.check_pixels("embed", mean, std)
    place = torch.device(device) if device else training_device()
    plain = {"type": "Plain", "size": size, "mean": mean, "std": std}
    features, _ = extract_features(vit.to(place), _batches(images, plain, batch_size), place)
    cls_ND, avg_ND = features.chunk(2, dim=1)
    return cls_ND if pooling == "cls" else avg_ND


def embed_files(weights: str, paths: Sequence[str | os.PathLike[str]], out: Path, **options: Any) -> tuple[int, int]:
    """Write the features of the images that ``paths`` name (`given_images`) with the names of their files; their number
    and width.

    ``out``: NAME.npz with the arrays ``features`` (N, D) float32 and ``files`` (N,) text, or NAME.parquet with a column
    ``file`` and the columns ``0`` to ``D - 1``. ``options``: of `embed`, which has the errors. ConfigError for another
    ending, or without pyarrow for Parquet.
    """
    if out.suffix not in (".npz", ".parquet"):
        raise ConfigError(f"--out '{out}' must end in .npz or .parquet")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(f"'{out}' needs pyarrow; install it ({pip_command()} pyarrow), or name an .npz file")
    images = given_images(paths)
    features_ND = embed(weights, images, **options).numpy()
    files = [images.relative_path(i) for i in range(len(images))]
    with replacing(out) as temporary:
        if out.suffix == ".npz":
            with temporary.open("wb") as file:  # given a name, numpy would append .npz
                np.savez(file, features=features_ND, files=np.array(files, dtype=np.str_))
        else:
            table = pd.DataFrame(features_ND, columns=[str(i) for i in range(features_ND.shape[1])])
            table.insert(0, "file", files)
            table.to_parquet(temporary, engine="pyarrow", index=False)
    return len(files), features_ND.shape[1]


def _own_size(spec: str, model: dict[str, Any] | None) -> int:
    """The side, in pixels, of the images that the weights were trained on; 224 where only timm knows it."""
    try:
        _, architecture, _ = read_encoder(spec.removeprefix("random:"), model)
    except MlomaeError:  # create_backbone says what is wrong, if anything is
        return 224
    return architecture.patch_size * architecture.grid[0] if architecture.grid else 224


def _batches(
    images: Tensor | Dataset[Any] | Source | str | os.PathLike[str], plain: dict[str, Any], size: int
) -> Iterator[dict[str, Any]]:
    if isinstance(images, Tensor) and images.is_floating_point():
        if tuple(images.shape[1:]) != (3, plain["size"], plain["size"]):
            raise ConfigError(
                f"images of shape {tuple(images.shape)} must be (N, 3, {plain['size']}, {plain['size']}); give uint8 "
                "ones to have them resized, or set img_size"
            )
        yield from ({"image": part, "label": torch.zeros(len(part))} for part in images.split(size))
        return
    if isinstance(images, str | os.PathLike):
        images = build_source(folder_config(images))
    elif isinstance(images, Dataset):
        images = TorchDataset(images, "all")
    augment = build_augment(plain)
    for start in range(0, len(images), size):
        numbers = range(start, min(start + size, len(images)))
        chosen = [images.image(i) if isinstance(images, Source) else images[i] for i in numbers]
        image_BCSS, _ = augment(chosen, torch.zeros(len(chosen), dtype=torch.int64))
        yield {"image": image_BCSS, "label": torch.zeros(len(chosen))}
