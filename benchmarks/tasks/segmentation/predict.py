"""`mlomae predict` with a segmenter: the classes of all pixels of new images, and pictures of them.

Shape suffixes: H height, W width, C channels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmarks.tasks.segmentation.metric import as_png
from benchmarks.transfer.dense import overlay, palette
from benchmarks.transfer.predict import NewImages, output_names, predictions
from mlomae.backbones.load import LoadedTransfer
from mlomae.common.atomic import replacing
from mlomae.common.errors import counted
from mlomae.data import FileSource
from mlomae.diagnostics.pictures import save_figure

# isort: split
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

SHOWN = 16  # classes in a legend, those with most pixels
_META = ("index", "img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")


def predict(loaded: LoadedTransfer, images: FileSource, out: Path, threshold: float | None = None) -> str:
    """Write into ``out``, for each image, ``masks/NAME.png``, the classes of its pixels (1 for the first line of
    ``classes.txt``), and the picture ``pictures/NAME.png``; ``masks.csv`` says which file is which. The last line for
    the user."""
    model, config, classes = loaded.build_model(), loaded.config, loaded.classes
    steps: Any = config.data
    files = [images.relative_path(i) for i in range(len(images))]
    names = output_names(files)
    numbered = NewImages(TRANSFORMS, steps.evaluate, images, PackSegInputs(meta_keys=_META))
    rows = []
    for i, sample in enumerate(predictions(model, numbered)):
        labels_HW = sample.pred_sem_seg.data.squeeze(0).byte().cpu().numpy()
        with replacing(out / "masks" / f"{names[i]}.png") as file:
            file.write_bytes(as_png(labels_HW))
        image_HWC = images.image(i).permute(1, 2, 0).numpy()
        save_figure(picture(image_HWC, labels_HW, classes, Path(files[i]).name), out / "pictures" / f"{names[i]}.png")
        most = int(np.bincount(labels_HW.ravel(), minlength=len(classes)).argmax())
        rows.append((files[i], f"masks/{names[i]}.png", f"pictures/{names[i]}.png", classes[most]))
    with replacing(out / "masks.csv") as file:
        table = pd.DataFrame(rows, columns=["file", "mask", "picture", "most_pixels"])
        table.to_csv(file, index=False, lineterminator="\n")
    with replacing(out / "classes.txt") as file:
        file.write_text("\n".join(classes) + "\n", encoding="utf-8")
    return f"{out}: masks and pictures of {counted(len(files), 'image')}, masks.csv, classes.txt"


def picture(image_HWC: NDArray[Any], labels_HW: NDArray[Any], classes: Sequence[str], title: str) -> Figure:
    """The image, and the image in the colours of its classes, with a legend of their shares."""
    height, width = labels_HW.shape
    figure = Figure(figsize=(10, 1 + 4 * min(2.0, height / width)), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = palette(len(classes))
    for axes, shown, what in ((left, image_HWC, title), (right, overlay(image_HWC, labels_HW, colours), "predicted")):
        axes.imshow(shown, interpolation="nearest")
        axes.set_title(what.replace("$", r"\$"), fontsize=8)
        axes.set_axis_off()
    counts = np.bincount(labels_HW.ravel(), minlength=len(classes))
    order = [k for k in np.argsort(-counts, kind="stable")[:SHOWN] if counts[k]]
    texts = [f"{classes[k]} {100 * counts[k] / counts.sum():.0f} %".replace("$", r"\$") for k in order]
    patches = [Patch(color=colours[k] / 255, label=text) for k, text in zip(order, texts, strict=True)]
    figure.legend(handles=patches, loc="outside right upper", fontsize=7)
    return figure
