"""Images are normalised as timm's weights know them, or the run is refused by key; `embed` does so by itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cls_runs
import det_runs
import pytest
import seg_runs
import torch
from backbone_samples import write_checkpoint
from run_samples import one_line

import mlomae
from benchmarks.tasks.detection.model import build_detector
from benchmarks.tasks.segmentation.model import build_segmentor
from mlomae.backbones.export import export
from mlomae.classification.run import build_model
from mlomae.common.errors import ConfigError
from mlomae.data import IMAGENET_MEAN

OWN: dict[str, Any] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.25]}
NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of timm whose weights want another normalisation than ImageNet's."""
    root = tmp_path_factory.mktemp("weights")
    write_checkpoint(root / "iter_7.pth", depth=4)
    export(root / "iter_7.pth", root / "timm", "timm")
    config = json.loads((root / "timm" / "config.json").read_text())
    config["pretrained_cfg"] |= OWN
    (root / "timm" / "config.json").write_text(json.dumps(config))
    return f"timm:local-dir:{root / 'timm'}:pretrained"


def classifier(spec: str, **given: Any) -> None:
    sections = {f"data__{key}__{name}": value for key in ("evaluate", "augment") for name, value in given.items()}
    build_model(cls_runs.config(backbone__weights=spec, backbone__model=None, **sections), 4)


def dense(runs: Any, build: Any, spec: str, **given: Any) -> None:
    sections = {f"data__{name}": value for name, value in given.items()}
    model = build(runs.config(NOWHERE, backbone__weights=spec, backbone__model=None, **sections), runs.CLASSES)[0]
    for name, value in given.items():
        assert getattr(model.data_preprocessor, name).flatten().tolist() == pytest.approx([255 * v for v in value])


TASKS: dict[str, Callable[..., Any]] = {
    "data.evaluate": classifier,
    "data": lambda spec, **given: dense(seg_runs, build_segmentor, spec, **given),
    "data.": lambda spec, **given: dense(det_runs, build_detector, spec, **given),
}


@pytest.mark.parametrize("section", TASKS)
def test_another_normalisation_than_the_weights_is_refused_and_the_remedy_works(section: str, spec: str) -> None:
    with pytest.raises(ConfigError) as error:
        TASKS[section](spec)
    assert one_line(error.value) == (
        f"{section.rstrip('.')}.mean is [0.485, 0.456, 0.406], and the weights were trained with [0.5, 0.5, 0.5]; "
        "set it to that"
    )
    with pytest.raises(ConfigError, match=r"std is .* trained with \[0.5, 0.5, 0.25\]"):
        TASKS[section](spec, mean=OWN["mean"])
    TASKS[section](spec, **OWN)
    TASKS[section](f"random:{spec.removesuffix(':pretrained')}")  # fresh weights know no images


def test_embed_normalises_as_the_weights_know_and_refuses_another(spec: str) -> None:
    images_NCHW = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    features = mlomae.embed(spec, images_NCHW, img_size=16)
    assert torch.equal(features, mlomae.embed(spec, images_NCHW, img_size=16, **OWN))
    own = (images_NCHW / 255 - torch.tensor(OWN["mean"])[:, None, None]) / torch.tensor(OWN["std"])[:, None, None]
    torch.testing.assert_close(features, mlomae.embed(spec, own, img_size=16), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match=r"embed.mean is \[0.485, .*trained with \[0.5, 0.5, 0.5\]; set it to that"):
        mlomae.embed(spec, images_NCHW, img_size=16, mean=IMAGENET_MEAN)
