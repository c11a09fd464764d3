"""A trained segmenter or detector as mmseg's and mmdet's own tools take it: a folder with a config and weights.

import mlomae.mm
from mmdet.apis import inference_detector, init_detector
model = init_detector("FOLDER/config.py", "FOLDER/weights.pth", device="cpu")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.transfer.dense import as_tuples, palette
from mlomae.backbones.config import FeatureBackboneConfig
from mlomae.backbones.load import LoadedTransfer
from mlomae.common.atomic import replacing, write_text
from mlomae.common.errors import counted
from mlomae.config.text import config_text
from mlomae.models.architecture import section_of


def backbone_section(section: FeatureBackboneConfig, vit: Any) -> dict[str, Any]:
    """The backbone in a config of mmseg or mmdet: that of the run, whose weights are the file's."""
    own = {**vars(section), "weights": "random", "model": section_of(vit), "img_size": list(section.height_width)}
    return {"type": "mlomae.FeatureViT", **own}


def write_folder(
    loaded: LoadedTransfer,
    model: Any,
    section: dict[str, Any],
    steps: Sequence[dict[str, Any]],
    imports: Sequence[str],
    dataset: str,
    out: Path,
) -> str:
    """Write ``out``/config.py and ``out``/weights.pth; the report.

    ``section``: of the model without its backbone. ``steps``: transforms of an image, with the packing. ``imports``:
    modules that register what the config names. ``dataset``: type of a data set, for its names of classes.
    """
    classes, colours = loaded.classes, palette(len(loaded.classes))[: len(loaded.classes)].tolist()
    meta = {"classes": tuple(classes), "palette": [tuple(colour) for colour in colours]}
    scope = dataset.partition(".")[0]
    pipeline = [{"type": "mlomae.LoadImage"}, *(as_tuples(step) for step in steps)]
    data = {"type": dataset, "metainfo": meta, "ann_file": "", "pipeline": pipeline}
    values = {
        "default_scope": scope,
        "custom_imports": {"imports": ["mlomae.mm", *imports]},
        "model": {**section, "backbone": backbone_section(loaded.config.backbone, model.backbone.vit)},  # type: ignore[arg-type]
        "test_pipeline": pipeline,
        "test_dataloader": {"batch_size": 1, "dataset": data},
    }
    content = {"state_dict": {k: v.cpu() for k, v in model.state_dict().items()}, "meta": {"dataset_meta": meta}}
    with replacing(out / "weights.pth") as temporary:
        torch.save(content, temporary)
    about = f"The model of '{loaded.path}' for {scope}, whose apis take it with weights.pth."
    write_text(out / "config.py", config_text(values, about))
    api = "init_detector" if scope == "mmdet" else "init_model"
    return (
        f"{out}: config.py, weights.pth ({counted(len(content['state_dict']), 'tensor')})\n"
        f'{scope}.apis.{api}("{out / "config.py"}", "{out / "weights.pth"}"), after `import mlomae.mm`'
    )
