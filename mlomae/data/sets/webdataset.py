"""Images in tar files as WebDataset writes them (github.com/webdataset/webdataset), for sets too large for folders.

The members of a sample follow one another and differ in their endings: ``KEY.jpg`` with ``KEY.cls``, the number of its
class as text, or ``KEY.json`` with that number as ``label``. Tar files are indexed once, when the set is opened, and
then read at any place, so that a stream of samples is shuffled, shared among workers and resumed as one of folders.
"""

import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from torch import Tensor

from mlomae.common.errors import reason_of
from mlomae.common.files import is_hidden
from mlomae.data.images import Source, digest_bytes
from mlomae.data.paths import existing_folder, kind_of, list_images, split_folder, subfolders, text_of
from mlomae.data.reader import IMAGE_ENDINGS, decode_bytes, header_size, read_bytes
from mlomae.data.registry import register_dataset

_LABELS = (".cls", ".json")
_TARS = (".tar",)


@register_dataset("webdataset")
class WebDataset(Source):
    """``ROOT/SPLIT/*.tar``; the classes have the names in ``ROOT/classes.txt``, a line each, or else their numbers.

    Raises DataError for a folder without tar files, a damaged one, an image without a label, or a label that is no
    number of a class.
    """

    named_by_folder = True
    layout = "train/*.tar"
    remedy = "write the tar files again"
    left_out: Counter[str]

    def __init__(self, root: str, split: str = "train") -> None:
        base = existing_folder(root, self.name)
        folder = split_folder(base, split, self.name)
        self.split, self.root, self.folder = split, str(base), folder
        self._tars, self.left_out = list_images(folder, _TARS)
        if not self._tars:
            raise self.fault(f"{folder} holds no .tar file", "choose another split; compressed tar files are not read")
        self.locations = frozenset(os.path.realpath(folder / name) for name in self._tars)
        samples = [(t, *sample) for t, name in enumerate(self._tars) for sample in self._index(name)]
        if not samples:
            raise self.fault(f"{folder} holds no image")
        tars, keys, starts, sizes, labels = zip(*samples, strict=True)
        # arrays, which workers share; they would copy lists, because their reference counts change
        self._keys, self._tar = np.array([os.fsencode(key) for key in keys]), np.array(tars, dtype=np.int32)
        self._start, self._size = np.array(starts, dtype=np.int64), np.array(sizes, dtype=np.int64)
        self.labels = np.array(labels, dtype=np.int64)
        names, low, high = base / "classes.txt", int(self.labels.min()), int(self.labels.max())
        lines = text_of(names).splitlines() if names.is_file() else map(str, range(high + 1))
        self.classes = [line.strip() for line in lines if line.strip()]
        if low < 0 or high >= len(self.classes):
            wrong = low if low < 0 else high
            raise self.fault(f"label {wrong} in {folder} is none of the {len(self.classes)} classes", f"mend {names}")

    @classmethod
    def list_splits(cls, base: Path) -> list[str]:
        return [name for name in subfolders(base) if list_images(base / name, _TARS).files]

    def _index(self, name: str) -> list[tuple[str, int, int, int]]:
        """Name, start, size and label of each image in a tar file, in its order."""
        images: dict[str, tuple[str, int, int]] = {}
        labels: dict[str, int] = {}
        try:
            with tarfile.open(self.folder / name, "r:") as tar:
                for member in tar:
                    folder, _, file = member.name.rpartition("/")
                    key, dot, ending = file.partition(".")
                    key = f"{folder}/{key}"
                    if not member.isreg() or is_hidden(file):
                        self.left_out["hidden"] += member.isreg()
                    elif f"{dot}{ending}" in _LABELS and (content := tar.extractfile(member)):
                        labels[key] = self._label(content.read(), f"{name}: {member.name}")
                    elif f".{ending.lower()}" in IMAGE_ENDINGS:  # not KEY.mask.png
                        images[key] = (member.name, member.offset_data, member.size)
                    else:
                        self.left_out[kind_of(file)] += 1
            if os.path.getsize(self.folder / name) < max(
                (start + size for _, start, size in images.values()), default=0
            ):
                raise tarfile.ReadError("unexpected end of data")
        except (OSError, tarfile.TarError) as error:
            raise self.fault(f"cannot read {self.folder / name} ({reason_of(error)})") from error
        if missing := [images[key][0] for key in images if key not in labels]:
            raise self.fault(f"{name}: {missing[0]} has no label ({' or '.join(_LABELS)})")
        return [(*image, labels[key]) for key, image in images.items()]

    def _label(self, content: bytes, where: str) -> int:
        try:
            value = json.loads(content)
            label = value["label"] if isinstance(value, dict) else value
            if isinstance(label, int) and abs(label) < 2**31:
                return label
        except (ValueError, KeyError, RecursionError):
            pass
        raise self.fault(f"{where} does not give the number of a class")

    def relative_path(self, i: int) -> str:
        return f"{self._tars[self._tar[i]]}/{os.fsdecode(self._keys[i])}"

    def _bytes(self, i: int) -> bytes:
        path = os.path.join(self.folder, self._tars[self._tar[i]])
        return read_bytes(path, int(self._size[i]), int(self._start[i]))

    def image(self, i: int) -> Tensor:
        return self.reduced_image(i, 1)

    def content_digest(self, i: int) -> bytes:
        return digest_bytes(self._bytes(i))

    def reduced_image(self, i: int, factor: int) -> Tensor:
        return decode_bytes(self._bytes(i), self.relative_path(i), factor=factor)

    def image_size(self, i: int) -> tuple[int, int]:
        return header_size(self._bytes(i)) or super().image_size(i)

    def _fingerprint_item(self, i: int) -> bytes:
        return b"%s %d\n" % (self._keys[i], self._size[i])
