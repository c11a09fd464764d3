"""Published numbers: the file as it ships, every way it can be wrong, and what may stand beside a measured number."""

from pathlib import Path
from typing import Any

import pytest
from prediction_samples import transfer_record
from record_samples import make_record

from benchmarks.analysis.published import RECIPES, PublishedNumber, lines_up, read_published
from mlomae.common.errors import DataError
from mlomae.data import PUBLISHED

ROOT = Path(__file__).parents[4]
HEAD = "method,backbone,pretrain_epochs,task,dataset,metric,value,evidence,source,note\n"
LINE = "MAE,vit_base,1600,classification,imagenet1k,finetune_top1,83.66,primary,somebody,"


def test_the_file_that_ships() -> None:
    numbers = read_published(ROOT / "results" / "published.csv")
    assert len(numbers) == 62
    first = numbers[0]
    assert (first.line, first.method, first.pretrain_epochs, first.value) == (
        2,
        "none (trained from scratch)",
        None,
        "56.4",
    )
    assert first.source == "MLO-MAE paper, top-1 fine-tuning table"
    assert {n.evidence for n in numbers} == {"primary", "secondary"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "must have the columns method, backbone"),
        ("", "must have the columns"),
        (HEAD + LINE.replace("primary", "hearsay"), "line 2: evidence 'hearsay' must be primary or secondary"),
        (HEAD + LINE + "\n" + LINE.replace("83.66", "83,66"), "line 3 does not have 10 cells"),
        (HEAD + LINE.replace("83.66", "inf"), "value 'inf' is not a finite number"),
        (HEAD + LINE.replace("83.66", "high"), "value 'high' is not a finite number"),
        (HEAD + LINE.replace("83.66", ""), "line 2 has no value"),
        (HEAD + LINE.replace("somebody", ""), "line 2 has no source"),
        (HEAD + LINE.replace("1600", "many"), "pretrain_epochs 'many' must be a positive integer"),
        (HEAD + LINE.replace("1600", "0"), "pretrain_epochs '0' must be"),
        (HEAD + "MAE,vit_base\n", "line 2 does not have 10 cells"),
        (HEAD + LINE.replace("somebody", '"some'), "is not a table"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_published(path)
    assert "\n" not in str(error.value)
    assert "'published.csv'" in str(error.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a table in UTF-8"):
        read_published(path)
    assert read_published(tmp_path / "none.csv") == []


NUMBER = PublishedNumber(2, "MAE", "vit_base", 1600, "", "imagenet1k", "finetune_top1", "83.6", "primary", "they", "")
MODEL = {"size": "base", "img_size": 224, "patch_size": 16, "depth": None, "decoder_depth": 8}
SOURCES = {
    "train_source": "imagenet train at imagenet, 1281167 images",
    "eval_source": "imagenet val at imagenet, 9 images",
}


def pretrained(**changes: Any) -> dict[str, Any]:
    config = {"model": {**MODEL, **changes.pop("model", {})}}
    return make_record(**{"dataset": "imagenet", "config": config, **SOURCES, **changes})


def finetuned(**changes: Any) -> dict[str, Any]:
    record = transfer_record("MAE", 0, {"top1": 83.0}, name="finetune_imagenet", dataset="imagenet")
    return {**record, **SOURCES, **changes}


def test_the_same_method_backbone_data_metric_and_protocol_line_up() -> None:
    assert lines_up(NUMBER, finetuned(), pretrained(), "top1")
    assert NUMBER.phrase == "83.6 (1600 epochs)"


SUBSET = "imagenet train at imagenet (subset: 12,000 of 1,281,167 images, 10 of 1,000 classes), 12000 images"


@pytest.mark.parametrize(
    ("record", "pretraining", "metric"),
    [
        (finetuned(method="MLO-MAE"), pretrained(), "top1"),
        (finetuned(name="finetune_imagenet_short"), pretrained(), "top1"),
        (finetuned(name="linear_imagenet"), pretrained(), "top1"),
        (finetuned(train_source=SUBSET), pretrained(), "top1"),
        (finetuned(eval_source=SUBSET), pretrained(), "top1"),
        (finetuned(), pretrained(train_source=SUBSET), "top1"),
        (finetuned(), pretrained(dataset="cifar10"), "top1"),
        (finetuned(), pretrained(model={"size": "large"}), "top1"),
        (finetuned(), pretrained(model={"img_size": 32}), "top1"),
        (finetuned(), pretrained(model={"depth": 4}), "top1"),
        (finetuned(), None, "top1"),
        (finetuned(), pretrained(), "top5"),
    ],
)
def test_what_differs_does_not_line_up(record: dict[str, Any], pretraining: dict[str, Any] | None, metric: str) -> None:
    assert not lines_up(NUMBER, record, pretraining, metric)


def test_the_protocol_that_the_note_names_must_be_the_recipes() -> None:
    box = {"dataset": "coco", "metric": "box_ap"}
    short, long = (PublishedNumber(**{**vars(NUMBER), **box, "note": f"{n}-epoch fine-tuning"}) for n in (25, 100))
    record = finetuned(name="mask_rcnn_fpn_vit-base_25e_coco")
    assert lines_up(short, record, pretrained(), "box_AP")
    assert not lines_up(long, record, pretrained(), "box_AP")
    assert not lines_up(short, record, pretrained(), "mask_AP")


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_are_configs_of_whole_data_sets(name: str) -> None:
    (path,) = (p for p in (ROOT / "configs").rglob(f"{name}.py"))
    text = path.read_text(encoding="utf-8")
    assert f'name = "{name}"' in text
    assert "subset" not in text.split('"""')[2]
    dataset = RECIPES[name].dataset.removesuffix("1k")
    assert dataset in PUBLISHED
    assert f'type="{dataset}"' in text
