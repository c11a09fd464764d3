"""CUB-200-2011: 200 species of birds, 5,994 training and 5,794 test images, one folder with lists in text files.

Source: Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001; data.caltech.edu/records/65de6-vp158.
"""

from pathlib import Path

from mlomae.data.paths import LabelledFiles, existing_file, first_names
from mlomae.data.published import PublishedSource
from mlomae.data.registry import Download, Published, register_dataset

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"


@register_dataset(
    "cub200",
    Published({"train": 5_994, "test": 5_794}, 200),
    Download("CUB_200_2011", {URL: "97eceeb196236b17998738112f37df78"}),
)
class Cub200(PublishedSource):
    """CUB-200-2011 as published.

    ``root`` is ``CUB_200_2011`` or the folder that holds it: images/, images.txt, image_class_labels.txt,
    train_test_split.txt and classes.txt. ``split`` is ``train`` or ``test``. Other arguments and errors as in
    PublishedSource.
    """

    remedy = "unpack CUB_200_2011.tgz again"
    inner = ("CUB_200_2011",)
    markers = ("images.txt",)

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, LabelledFiles]]:
        images, names = (self._table(base / file) for file in ("images.txt", "classes.txt"))
        class_of = self._numbers(base / "image_class_labels.txt", images, {str(n) for n in names})
        in_train = self._numbers(base / "train_test_split.txt", images, {"0", "1"})
        for image, file in images.items():
            name = names[class_of[image]]
            if file.rpartition("/")[0] != name:
                raise self.fault(f"image_class_labels.txt in {base} puts {file} into class '{name}', not its folder's")
        index = {number: i for i, number in enumerate(sorted(names))}
        chosen = {"train": [i for i in images if in_train[i]], "test": [i for i in images if not in_train[i]]}
        folder = (base / "images").resolve()
        parts = {
            part: LabelledFiles(folder, [images[i] for i in ids], [index[class_of[i]] for i in ids])
            for part, ids in chosen.items()
        }
        return [names[n] for n in index], parts

    def _table(self, path: Path) -> dict[int, str]:
        """Lines ``<number> <rest>`` by number. Raises DataError naming a line that is not one or repeats a number."""
        existing_file(path, "cub200", self.remedy)
        table: dict[int, str] = {}
        for line_number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
            if not line.strip():
                continue
            number, _, rest = line.strip().partition(" ")
            if not number.isdecimal() or not rest.strip() or int(number) in table:
                raise self.fault(f"{path}, line {line_number}: expected a new number and a value")
            table[int(number)] = rest.strip()
        return table

    def _numbers(self, path: Path, images: dict[int, str], allowed: set[str]) -> dict[int, int]:
        """A table with one row per image of ``images.txt``, a number of those ``allowed``."""
        table = self._table(path)
        if odd := sorted(images.keys() ^ table.keys()):
            raise self.fault(f"{path} and images.txt differ in image {first_names(odd)}")
        for image, text in table.items():
            if text not in allowed:
                raise self.fault(f"{path} gives image {image} the invalid value '{text}'")
        return {image: int(text) for image, text in table.items()}
