"""iNaturalist 2019 (the competition at FGVC6): 1,010 species, 265,213 training and 3,030 validation images.

Source: github.com/visipedia/inat_comp, 2019. The sum, 268,243, is the one its publishers state; the validation split
has three images per class. The test labels are not public: evaluation is on ``val``.
"""

import json
from pathlib import Path
from typing import Any

from mlomae.data.paths import LabelledFiles, existing_file, first_names
from mlomae.data.published import PublishedSource
from mlomae.data.registry import PUBLISHED, Published, register_dataset

IMAGES = "train_val2019"
URL = "https://ml-inat-competition-datasets.s3.amazonaws.com/2019"
BY_HAND = f"""\
iNaturalist 2019 is 75 GB and for non-commercial research; read the terms at
https://github.com/visipedia/inat_comp/tree/master/2019, then download and unpack into {{root}}
  {URL}/train_val2019.tar.gz (md5 c60a6e2962c9b8ccbd458d12c8582644) -> {{root}}/train_val2019/
  {URL}/train2019.json.tar.gz (md5 b06a6683537867c0d5c7a45f407a306d) -> {{root}}/train2019.json
  {URL}/val2019.json.tar.gz (md5 5cc5509b0fe495f1c8c1362612448497) -> {{root}}/val2019.json"""


@register_dataset("inat2019", Published({"train": 265_213, "val": 3_030}, 1010, evaluation="val"), BY_HAND)
class INat2019(PublishedSource):
    """iNaturalist 2019 as published.

    ``root`` is the folder with train2019.json, val2019.json and train_val2019/. ``split`` is ``train`` or ``val``.
    Other arguments and errors as in PublishedSource.
    """

    remedy = "unpack train_val2019.tar.gz, train2019.json.tar.gz and val2019.json.tar.gz again"

    def read_lists(self, base: Path, split: str) -> tuple[list[str], dict[str, LabelledFiles]]:
        found = {part: self._read(base / f"{part}2019.json") for part in PUBLISHED["inat2019"].counts}
        categories, other = found["train"][0], found["val"][0]
        if other != categories:
            odd = first_names(sorted(dict(categories.items() ^ other.items())))
            raise self.fault(f"train2019.json and val2019.json differ in category {odd}")
        index = {number: i for i, number in enumerate(sorted(categories))}
        folder = (base / IMAGES).resolve()
        parts = {part: LabelledFiles(folder, files, [index[i] for i in ids]) for part, (_, files, ids) in found.items()}
        return [categories[number] for number in index], parts

    def _read(self, path: Path) -> tuple[dict[int, str], list[str], list[int]]:
        """Categories by id; files (below train_val2019/) and category ids of the images, in the file's order."""
        existing_file(path, "inat2019", self.remedy)
        try:
            content: Any = json.loads(path.read_bytes())
            categories = {int(row["id"]): str(row["name"]) for row in content["categories"]}
            files = {int(row["id"]): str(row["file_name"]).removeprefix(f"{IMAGES}/") for row in content["images"]}
            pairs = [(int(row["image_id"]), int(row["category_id"])) for row in content["annotations"]]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise self.fault(f"cannot read {path} ({reason})") from error
        of_image = dict(pairs)
        odd = sorted(files.keys() ^ of_image.keys())
        if odd or len(pairs) != len(files) or len(content["images"]) != len(files):
            which = f" (image {first_names(odd)})" if odd else ""
            raise self.fault(f"{path} does not annotate each image once{which}")
        if unknown := sorted(set(of_image.values()) - categories.keys()):
            raise self.fault(f"{path} has images of category {first_names(unknown)}, which it lacks")
        return categories, list(files.values()), [of_image[image] for image in files]
