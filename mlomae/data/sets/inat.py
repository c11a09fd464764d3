"""iNaturalist 2019 (the competition at FGVC6): 1,010 species, 265,213 training and 3,030 validation images.

Source: github.com/visipedia/inat_comp, 2019. The labels of its test part are not public: ``val`` is evaluated on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlomae.common.errors import DataError
from mlomae.data.paths import data_folder, existing_file, first_names
from mlomae.data.published import PUBLISHED, Part, PublishedSource, check_split
from mlomae.data.sources import register_source

IMAGES = "train_val2019"
REMEDY = "unpack train_val2019.tar.gz, train2019.json.tar.gz and val2019.json.tar.gz again"


def _read(path: Path) -> tuple[dict[int, str], list[str], list[int]]:
    """Categories by id; files (below train_val2019/) and category ids of the images, in the file's order."""
    existing_file(path, "inat2019", REMEDY)
    try:
        content: Any = json.loads(path.read_bytes())
        categories = {int(row["id"]): str(row["name"]) for row in content["categories"]}
        files = {int(row["id"]): str(row["file_name"]).removeprefix(f"{IMAGES}/") for row in content["images"]}
        pairs = [(int(row["image_id"]), int(row["category_id"])) for row in content["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError(f"inat2019: cannot read {path} ({reason}); {REMEDY}") from error
    of_image = dict(pairs)
    odd = sorted(files.keys() ^ of_image.keys())
    if odd or len(pairs) != len(files) or len(content["images"]) != len(files):
        which = f" (image {first_names(odd)})" if odd else ""
        raise DataError(f"inat2019: {path} does not annotate each image once{which}; {REMEDY}")
    unknown = sorted(set(of_image.values()) - categories.keys())
    if unknown:
        raise DataError(f"inat2019: {path} has images of category {first_names(unknown)}, which it lacks; {REMEDY}")
    return categories, list(files.values()), [of_image[image] for image in files]


@register_source("inat2019")
class INat2019(PublishedSource):
    """iNaturalist 2019 as published, decoded on each access.

    Args:
        root: the folder with train2019.json, val2019.json and train_val2019/.
        split: ``train`` or ``val``.
        subset: accept a consistent part of the set.

    Raises ConfigError for an unknown split, DataError for files that are missing or contradict each other.
    """

    def __init__(self, root: str, split: str = "train", subset: bool = False) -> None:
        check_split("inat2019", split)
        base = data_folder(root, "inat2019", [], [])
        found = {part: _read(base / f"{part}2019.json") for part in PUBLISHED["inat2019"].counts}
        categories = found["train"][0]
        if found["val"][0] != categories:
            odd = sorted(dict(categories.items() ^ found["val"][0].items()))
            raise DataError(
                f"inat2019: train2019.json and val2019.json differ in category {first_names(odd)}; {REMEDY}"
            )
        index = {number: i for i, number in enumerate(sorted(categories))}
        folder = (base / IMAGES).resolve()
        parts = {part: Part(folder, files, [index[i] for i in ids]) for part, (_, files, ids) in found.items()}
        names = [categories[number] for number in sorted(categories)]
        super().__init__("inat2019", split, [split], base, names, parts, subset, REMEDY)
