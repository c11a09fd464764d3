"""Whole transfers to detection: what they write, that a killed one ends with the same bits, wrong input in one line."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import coco_layouts
import det_runs
import pytest
import torch
from coco_layouts import boxes_of
from det_runs import main, run_transfer
from killed_transfers import in_iteration, killed
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from run_samples import differences, one_line

from benchmarks.analysis.evidence import read_tested
from benchmarks.tasks.detection.config import DetectionConfig
from benchmarks.tasks.detection.data import CocoImages
from benchmarks.tasks.detection.metric import evaluate_detections
from benchmarks.tasks.detection.model import build_detector
from benchmarks.tasks.detection.run import DetectionSteps
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.common.checkpoint import TRANSFER_FORMAT, checkpoint_path, load_checkpoint
from mlomae.common.errors import ConfigError, DataError, MlomaeError
from mlomae.data import build_detections


@pytest.fixture(scope="module")
def straight(one_thread: None, coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("straight")
    run_transfer(det_runs.config(coco), work)
    return work


def test_a_run_leaves_a_record_detections_and_pictures(straight: Path, coco: Path) -> None:
    record = json.loads((straight / "record.json").read_text())
    assert (record["task"], record["dataset"], record["images_seen"]["lower"]) == ("detection", coco.name, 16)
    found = det_runs.detections(straight)
    assert record["metrics"]["detections"] == len(found)
    for kind in ("box", "mask"):
        numbers, _ = evaluate_detections(det_runs.truth(det_runs.annotation_file(coco, "val")), found, kind)
        assert record["metrics"][f"{kind}_AP"] == pytest.approx(numbers["AP"])
    pictures = sorted((straight / "overlays").glob("*.png"))
    assert [p.stem for p in pictures] == ["000000", "000003"]
    assert Image.open(pictures[0]).size[0] > 600


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("a/x.jpg", "b/x.jpg", "b/y.png"), ["a/x.png", "b/x.png", "b/y.png"]),
        (("x.jpg", "x.png", "x.jpg.bmp"), ["x.jpg.bmp.png", "x.jpg.png", "x.png.png"]),
    ],
)
def test_every_image_has_a_picture_of_its_own(files: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    root = coco_layouts.coco(tmp_path / "data", "val", len(files))
    content = coco_layouts.read(root, "val")
    for image, name in zip(content["images"], files, strict=True):
        (root / "val" / name).parent.mkdir(exist_ok=True)
        Image.open(root / "val" / image["file_name"]).save(root / "val" / name)
        image["file_name"] = name
    coco_layouts.write(root, content, "val")
    steps = object.__new__(DetectionSteps)
    steps.test = build_detections({"type": "coco_folder", "root": str(root), "split": "val"})
    steps.metric = SimpleNamespace(detections=[])  # type: ignore[assignment]
    steps.config = SimpleNamespace(overlays=len(files), overlay_score=0.3)  # type: ignore[assignment]
    identity = {"run": "a run", "config_hash": "0"}
    steps.save(SimpleNamespace(work_dir=tmp_path / "run", identity=lambda: identity))  # type: ignore[arg-type]
    overlays = tmp_path / "run" / "overlays"
    assert sorted(path.relative_to(overlays).as_posix() for path in overlays.rglob("*.png")) == expected


def test_the_shares_of_the_images_are_those_of_the_records_ap(straight: Path) -> None:
    record = json.loads((straight / "record.json").read_text())
    tested = read_tested(straight / "image_shares.npz", record)
    assert tested.sums.whole() == pytest.approx(record["metrics"]["box_AP"], abs=1e-6)
    assert len(tested.index) == record["metrics"]["n"]
    with pytest.raises(DataError, match="the record says"):
        read_tested(straight / "image_shares.npz", {**record, "metrics": {**record["metrics"], "box_AP": 99.0}})


def test_pycocotools_alone_gives_the_metrics_of_the_record(straight: Path) -> None:
    """From the files as they are. With a box in a mask's entry it would take the area of the box for the mask's."""
    metrics = json.loads((straight / "record.json").read_text())["metrics"]
    truth = COCO(str(straight / "annotations.json"))
    assert {image["file_name"] for image in truth.dataset["images"]} >= {"000000.png"}

    def numbers(results: Any, kind: str) -> dict[str, float]:
        evaluator = COCOeval(truth, truth.loadRes(results), iouType=kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        named = zip(det_runs.STATS, evaluator.stats.tolist(), strict=False)
        return {name: 100 * value for name, value in named if value > -1}

    for name, kind in (("box", "bbox"), ("mask", "segm")):
        found = numbers(str(straight / f"detections.{kind}.json"), kind)
        ours = {key: metrics[f"{name}_{key}"] for key in found if f"{name}_{key}" in metrics}
        assert len(ours) > 4
        assert ours == pytest.approx({key: found[key] for key in ours}, abs=1e-9)
    for kind, other in (("bbox", "segmentation"), ("segm", "bbox")):
        assert not any(other in line for line in json.loads((straight / f"detections.{kind}.json").read_text()))
    lines = json.loads((straight / "detections.segm.json").read_text())
    ids = sorted(truth.imgs)
    shifted = [{**line, "image_id": ids[ids.index(line["image_id"]) - 1]} for line in lines]  # mutation
    assert numbers(shifted, "segm")["AR100"] != pytest.approx(metrics["mask_AR100"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_with_the_same_bits(workers: int, straight: Path, coco: Path, tmp_path: Path) -> None:
    config = det_runs.config(coco, data__num_workers=workers)
    assert killed(tmp_path, lambda: in_iteration(3), lambda: run_transfer(config, tmp_path)) == ["iter_2.pth"]
    run_transfer(config, tmp_path, resume=True)
    states = [load_checkpoint(checkpoint_path(work, 4), TRANSFER_FORMAT) for work in (tmp_path, straight)]
    for state in states:
        state.pop("clock")
        state["config"]["data"].pop("num_workers")
    assert differences(*states) == []
    for name in ("detections.bbox.json", "detections.segm.json", "annotations.json"):
        assert (tmp_path / name).read_bytes() == (straight / name).read_bytes()


def test_an_image_is_a_function_of_seed_epoch_and_index(coco: Path) -> None:
    source = build_detections({"type": "coco_folder", "root": str(coco), "split": "train"})
    steps = [
        {"type": "RandomResize", "scale": [32, 32], "ratio_range": [0.5, 2.0], "keep_ratio": True},
        {"type": "RandomCrop", "crop_type": "absolute", "crop_size": [24, 24], "recompute_bbox": True},
        {"type": "RandomFlip", "prob": 0.5},
    ]
    images, again, other = (CocoImages(source, steps, train=True, seed=seed) for seed in (0, 0, 1))
    torch.manual_seed(1)
    first = [images[epoch, 3]["inputs"] for epoch in range(4)]
    torch.manual_seed(2)
    second = [again[epoch, 3]["inputs"] for epoch in reversed(range(4))][::-1]
    assert differences(first, second) == []
    assert differences(first, [first[0]] * 4), "an epoch changes nothing"
    assert differences(first, [other[epoch, 3]["inputs"] for epoch in range(4)])
    assert all(len(images[epoch, i]["data_samples"].gt_instances) for epoch in range(3) for i in range(len(images)))


def test_another_image_takes_the_place_of_one_that_loses_its_objects(coco: Path) -> None:
    source = build_detections({"type": "coco_folder", "root": str(coco), "split": "train"})
    widest = [max(float(size) for size in boxes_of(source, i)[:, 2:].min(axis=1)) for i in range(len(source))]
    least = min(range(len(source)), key=widest.__getitem__)
    limit = sorted(widest)[1] - 0.01 if widest.count(min(widest)) == 1 else min(widest) + 0.01
    keep = lambda size: [{"type": "FilterAnnotations", "min_gt_bbox_wh": [size, size]}]  # noqa: E731
    images, again = (CocoImages(source, keep(limit), train=True) for _ in range(2))
    drawn = [images[epoch, least]["data_samples"].img_id for epoch in range(6)]
    assert int(source.image_ids[least]) not in drawn
    assert len(set(drawn)) > 1
    assert drawn == [again[epoch, least]["data_samples"].img_id for epoch in range(6)]
    large = widest.index(max(widest))
    assert images[0, large]["data_samples"].img_id == source.image_ids[large]
    with pytest.raises(ConfigError, match=r"leave no object of .*, nor of 15 others; change data.augment"):
        CocoImages(source, keep(100.0), train=True)[0]


def test_boxes_enclose_their_masks_after_the_transforms(coco: Path) -> None:
    for batch in [
        next(
            iter(
                det_runs.train_loader(
                    det_runs.config(coco),
                    build_detections({"type": "coco_folder", "root": str(coco), "split": "train"}),
                )
            )
        )
    ]:
        for sample in batch["data_samples"]:
            for box, mask in zip(sample.gt_instances.bboxes.tensor, sample.gt_instances.masks.masks, strict=True):
                ys, xs = mask.nonzero()
                assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_every_parameter_has_its_layer(coco: Path) -> None:
    detector, report = build_detector(det_runs.config(coco), det_runs.CLASSES)
    assert "norm: dropped" in report
    groups = layer_decay_groups(detector, 1e-3, layer_decay=0.5)
    trained = sum(p.numel() for p in detector.parameters() if p.requires_grad)
    assert sum(p.numel() for group in groups for p in group["params"]) == trained
    layer = {name: g["layer"] for g in groups for name in g["param_names"]}
    assert {layer[name] for name in layer if not name.startswith("backbone.")} == {5}
    assert layer["backbone.vit.patch_embed.proj.weight"] == 0
    assert {layer[f"backbone.vit.blocks.{i}.mlp.fc1.weight"] - i for i in range(4)} == {1}


def test_bf16_is_the_backbones_alone(coco: Path) -> None:
    config = det_runs.config(coco, train__amp="bf16")
    detector, _ = build_detector(config, det_runs.CLASSES)
    step, seen = DetectionSteps(config).step(detector), {}
    hooks = [
        (detector.backbone.vit.blocks[0].mlp.fc1, "block"),
        (detector.neck.levels[0][0], "neck"),
        (detector.rpn_head.rpn_reg, "rpn"),
        (detector.roi_head.bbox_head.fc_cls, "boxes"),
    ]
    for module, name in hooks:
        module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out.dtype))
    source = build_detections({"type": "coco_folder", "root": str(coco), "split": "train"})
    losses = step(next(iter(det_runs.train_loader(config, source))), 0)
    assert seen == {"block": torch.bfloat16, "neck": torch.bfloat16, "rpn": torch.float32, "boxes": torch.float32}
    assert all(torch.isfinite(value).all() for value in losses.values())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model__neck": {"type": "NoSuchNeck"}}, "refused by mmdet"),
    ({"model__test_cfg__rcnn__nms": {"type": "print"}}, "'print' is not in a registry"),  # mmcv would evaluate it
    ({"model__neck__scales": [3.0]}, "scales 4, 2, 1 and 0.5"),
    ({"model__rpn_head": None}, "'model.rpn_head' is missing"),
    ({"model__roi_head": None}, "'model.roi_head' is missing"),
    ({"model__roi_head__bbox_head__num_classes": 3}, "for 3 classes, the data has 8"),
    ({"data__augment": [{"type": "NoSuchStep"}]}, "'data.augment' is refused by mmdet"),
    ({"data__evaluate": [{"type": "Resize", "scale": 3, "oops": 1}]}, "'data.evaluate' is refused by mmdet"),
    ({"data__batch_size": 99}, "batch_size 99 exceeds"),
    ({"data__test__split": "train"}, ""),
    ({"backbone__weights": None}, "no backbone was named"),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=lambda value: str(value)[:40])
def test_wrong_input_is_one_line_before_training(
    changes: dict[str, Any], said: str, coco: Path, tmp_path: Path
) -> None:
    with pytest.raises(MlomaeError, match=said) as error:
        run_transfer(det_runs.config(coco, **changes), tmp_path / "work")
    one_line(error.value)
    assert not list((tmp_path / "work").rglob("*.pth"))


def test_configurations_that_ship_build(coco: Path) -> None:
    for path in sorted((det_runs.ROOT / "configs" / "detection").glob("*.py")):
        text = path.read_text()
        assert "\nCommand:  " in text, path
        assert "\nHardware: " in text, path
        small = "small" in path.stem or "textures" in path.stem
        shape = {"patch_size": 4 if small else 16, "embed_dim": 16, "depth": 24 if "large" in path.stem else 12}
        options = {"backbone.weights": "random", "backbone.model": {**shape, "num_heads": 1}, "backbone.img_size": 256}
        config = DetectionConfig.load(path, options)
        if "fpn" in path.stem:
            config.model["neck"][1]["in_channels"] = [16] * 4
        detector, _ = build_detector(config, 80)
        assert detector.roi_head.mask_head.num_classes == 80


def test_the_command_line_says_what_is_wrong(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(det_runs.ROOT / "configs" / "detection" / "mask_rcnn_textures.py")
    assert main([recipe, "--weights", "nowhere.pth", "--data", str(coco), "--work-dir", str(tmp_path / "w")]) == 2
    assert "nowhere.pth" in one_line(capsys.readouterr().err.splitlines()[-1])
    with pytest.raises(ConfigError, match="evaluator"):
        det_runs.config(coco, evaluator="mine")
