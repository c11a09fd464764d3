"""Keeps evaluation images out of training: finds shared folders, equal pixels, near copies (resized, mirrored, ...).

Equal pixels are found by a digest of what the reader makes of a file, so that links, other formats and other metadata
hide nothing. Near copies are found by a perceptual hash of 256 bits (`imagehash.phash`: the low frequencies of the
image's cosine transform, against their median). No two images of the training and test parts of CUB, Tiny-ImageNet,
Imagenette (subsets; 1,743 test images), CamVid and the embedded textures are closer than 56 bits. In images of 64
pixels or more, JPEG of quality 30, half or twice the size, brightness and conversion to grey change at most 30 bits; in
images of 32 pixels at most 48, or 64 at three quarters of the size and quality 50, where 99 % are still found. Mirrored
copies are found because evaluation images are hashed both ways. Not found: crops, which change 45 bits or more, and
other pictures of the same scene.

Shape suffixes: N images, E evaluation images, T training images, W bits of a hash.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from mlomae.common.atomic import replacing
from mlomae.common.console import stage
from mlomae.common.errors import CheckpointError, DataError, counted, first_names, reason_of
from mlomae.data.images import EMBEDDED, ImageFiles, Images, digest_pixels
from mlomae.data.reader import in_threads, open_file
from mlomae.data.registry import PUBLISHED

FILE = "images.npz"
"""In the folder of a run or of an export, or after the name of an exported file: the digests of the images that its
weights were trained on."""

TOLERATED_SHARE = 0.01
"""Share of the evaluation images that may occur in training: CIFAR and others were published with a few duplicates."""

NEAR_BITS = 52
"""Most bits in which the hashes of near copies differ."""

_SIDE = 16  # a hash has 16² bits
_WIDTHS = (16, _SIDE**2 // 8, _SIDE**2 // 8)  # bytes of a row of each array
_BLOCK = 1024  # evaluation images compared at a time


@dataclass(frozen=True)
class Digests:
    """What identifies N images.

    Attributes:
        pixels: (N, 16) uint8, blake2b of shape and pixels.
        hashes: (N, W / 8) uint8, the bits of the perceptual hash.
        mirrored: (N, W / 8) uint8, those of the images mirrored.
    """

    pixels: NDArray[np.uint8]
    hashes: NDArray[np.uint8]
    mirrored: NDArray[np.uint8]


@dataclass(frozen=True)
class Copies:
    """Evaluation images that occur in training, with the index of the image there: of equal pixels, and near copies
    that are not equal. ``compared``: how many were looked for."""

    compared: int
    equal: dict[int, int]
    near: dict[int, int]

    def counts(self) -> dict[str, int]:
        """As records keep them."""
        return {"compared": self.compared, "equal": len(self.equal), "near": len(self.near)}


def check_disjoint(training: Images, evaluation: Images, allow_near: bool = False) -> Copies:
    """Refuse an evaluation set whose images would reach training or feedback; returns the copies that are tolerated.

    Raises DataError naming both data sets if

    - they read the same place (resolved paths, symlinks followed) or one reads a folder inside the other's, or they
      are embedded images of the same seed and split;
    - more evaluation images than `TOLERATED_SHARE` have the pixels of a training image;
    - more than that, or than the share that is published of the set, are near copies, unless ``allow_near``; one, which
      may be a false alarm, is tolerated.

    All images are compared, except embedded images with each other.
    """
    found = compare_images(training, evaluation)
    refuse_copies(found, evaluation, training, f"; {_pair(training, evaluation)}", allow_near)
    return found


def _pair(training: Images, evaluation: Images) -> str:
    return f"training on {training.describe()}, evaluation on {evaluation.describe()}"


def compare_images(training: Images, evaluation: Images) -> Copies:
    """All evaluation images with all training images; embedded images of two seeds or splits have nothing in common.

    Raises DataError if both read the same place.
    """
    shared = _shared_place(training.locations, evaluation.locations)
    if shared is not None:
        said = f"evaluation images would reach training: both read {shared} ({_pair(training, evaluation)})"
        raise DataError(f"{said}; evaluate on a held-out split")
    if training.root == evaluation.root == EMBEDDED:
        return Copies(len(evaluation), {}, {})
    return find_copies(digests_of(training), digests_of(evaluation))


def check_trained_on(
    weights: Path, evaluation: Images | None, where: str, allow_near: bool = False
) -> tuple[Digests | None, dict[str, int] | None]:
    """The digests of the images that ``weights`` were trained on, and the counts of their copies in ``evaluation``.

    None where they are unknown, the counts also without ``evaluation``. Raises DataError, saying ``where``, as
    `refuse_copies`.
    """
    known = load_digests(weights)
    if known is None or evaluation is None:
        return known, None
    found = find_copies(known, digests_of(evaluation))
    refuse_copies(found, evaluation, None, where, allow_near)
    return known, found.counts()


def refuse_copies(
    found: Copies, evaluation: Images, training: Images | None, where: str = "", allow_near: bool = False
) -> None:
    """Raise DataError, saying ``where``, if more evaluation images were found than `check_disjoint` tolerates.

    ``training`` gives the images found their names; None where only the digests are known.
    """
    published = PUBLISHED.get(evaluation.name)
    near_share = max(TOLERATED_SHARE, published.near_copies if published else 0.0)
    for kind, copies, tolerated, remedy in (
        (
            "are",
            found.equal,
            TOLERATED_SHARE * found.compared,
            "remove them from one of the two" if training else "evaluate on other images",
        ),
        (
            "have near copies",
            found.near,
            found.compared if allow_near else max(1, near_share * found.compared),  # one may be a false alarm
            "remove them, or set data.allow_near_copies=True",
        ),
    ):
        if len(copies) > tolerated:
            count = f"{len(copies):,} of {found.compared:,} evaluation images {kind} in training"
            names = describe_copies(copies, evaluation, training)
            raise DataError(f"evaluation images would reach training: {count} ({names}{where}); {remedy}")


def describe_copies(copies: dict[int, int], evaluation: Images, training: Images | None) -> str:
    """The first pairs, e.g. ``val/cat/a.jpg = train/cat/b.png and 4 more``."""
    pairs = copies.items()
    return first_names(_file(evaluation, i) + (f" = {_file(training, j)}" if training else "") for i, j in pairs)


def _file(images: Images, i: int) -> str:
    """The path of image ``i`` below the root that `Images.describe` names."""
    if isinstance(images, ImageFiles) and (path := Path(images.path(i))).is_relative_to(images.root):
        return path.relative_to(images.root).as_posix()
    return images.relative_path(i)


def _shared_place(ours: Iterable[str], theirs: Iterable[str]) -> str | None:
    """The inner of two nested (or equal) places, or None."""
    for pair in itertools.product(ours, theirs):
        outer, inner = sorted(pair, key=len)
        if PurePath(inner).is_relative_to(outer):
            return inner
    return None


def digests_of(images: Images) -> Digests:
    """`digest_images`, once for each data set that was opened."""
    found: Digests | None = vars(images).get("_digests")
    if found is None:
        found = vars(images)["_digests"] = digest_images(images)
    return found


def save_digests(folder: Path, sources: Iterable[Images], earlier: Digests | None = None) -> None:
    """Keep the digests of ``sources``, and ``earlier`` ones, with the weights of the run in ``folder``.

    Embedded images are told apart by seed and split and need none.
    """
    none = Digests(*(np.empty((0, width), dtype=np.uint8) for width in _WIDTHS))
    parts = [none, *(digests_of(source) for source in sources if source.root != EMBEDDED), earlier or none]
    pixels, hashes, mirrored = (np.concatenate([vars(part)[name] for part in parts]) for name in vars(none))
    with replacing(folder / FILE) as temporary, open(temporary, "wb") as file:
        np.savez(file, pixels=pixels, hashes=hashes, mirrored=mirrored)


def digests_path(weights: Path) -> Path | None:
    """The file of digests that belongs to a checkpoint or an export, None if there is none."""
    folder = weights.parents[1] if weights.parent.name == "checkpoints" else weights.parent
    return next((path for path in (weights.with_suffix(f".{FILE}"), folder / FILE) if path.exists()), None)


def load_digests(weights: Path) -> Digests | None:
    """The digests of the images that ``weights`` were trained on, None if unknown.

    Raises CheckpointError for a damaged file.
    """
    path = digests_path(weights)
    if path is None:
        return None
    try:
        with open_file(path) as content, np.load(content, allow_pickle=False) as file:
            found = Digests(file["pixels"], file["hashes"], file["mirrored"])
    except Exception as error:  # zipfile and numpy raise many kinds
        raise CheckpointError(f"'{path}' is damaged ({reason_of(error)}); remove it") from error
    for (name, rows), width in zip(vars(found).items(), _WIDTHS, strict=True):
        if rows.dtype != np.uint8 or rows.shape != (len(found.pixels), width):
            shape = f"{rows.dtype} of shape {rows.shape}, not uint8 ({len(found.pixels)}, {width})"
            raise CheckpointError(f"'{path}' is damaged ('{name}' is {shape}); remove it")
    return found


def digest_images(images: Images) -> Digests:
    """Decode all ``images`` once each. Raises DataError for those that cannot be decoded, naming the first."""

    def rows_of(i: int) -> tuple[bytes, NDArray[np.uint8], NDArray[np.uint8]] | DataError:
        try:
            image_CHW = images.image(i)
        except DataError as error:
            return error
        grey = Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).convert("L")
        return digest_pixels(image_CHW), _hash(grey), _hash(ImageOps.mirror(grey))

    with stage("reading images", len(images)) as bar:
        found = []
        for row in in_threads(rows_of, range(len(images))):
            found.append(row)
            bar.advance()
    rows = [row for row in found if not isinstance(row, DataError)]
    faults = [row for row in found if isinstance(row, DataError)]
    if len(faults) == 1:
        raise faults[0]
    if faults:
        names = [str(fault).split(" ", 2)[2].partition(" (")[0] for fault in faults]  # "cannot decode NAME (REASON)"
        said = f"{len(faults):,} of {counted(len(images), 'image')} of {images.describe()} cannot be decoded"
        raise DataError(f"{said} ({first_names(names)}); replace or delete these files")
    pixels, hashes, mirrored = zip(*rows, strict=True)
    return Digests(np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, 16), np.array(hashes), np.array(mirrored))


def _hash(grey: Image.Image) -> NDArray[np.uint8]:
    import imagehash  # with scipy

    return np.packbits(imagehash.phash(grey, hash_size=_SIDE).hash)


def find_copies(training: Digests, evaluation: Digests) -> Copies:
    """Where the evaluation images occur in training."""
    if not len(training.pixels):
        return Copies(len(evaluation.pixels), {}, {})
    index = {row.tobytes(): i for i, row in enumerate(training.pixels)}
    equal = {i: at for i, row in enumerate(evaluation.pixels) if (at := index.get(row.tobytes())) is not None}
    near: dict[int, int] = {}
    for hashes in (evaluation.mirrored, evaluation.hashes):
        near |= {i: at for i, at, bits in _nearest(hashes, training.hashes) if bits <= NEAR_BITS and i not in equal}
    return Copies(len(evaluation.pixels), equal, dict(sorted(near.items())))


def _nearest(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """(row of ``ours``, nearest row of ``theirs``, bits between them), by the product of hashes as ±1."""
    theirs_TW = _signs(theirs)
    for start in range(0, len(ours), _BLOCK):
        agreement_ET = _signs(ours[start : start + _BLOCK]) @ theirs_TW.T  # equal bits minus different ones
        most_E, at_E = agreement_ET.max(dim=1)
        bits_E = (theirs_TW.shape[1] - most_E) / 2
        yield from zip(range(start, start + len(at_E)), at_E.tolist(), bits_E.int().tolist(), strict=True)


def _signs(hashes: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.unpackbits(hashes, axis=1).astype(np.float32)) * 2 - 1
