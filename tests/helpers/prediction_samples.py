"""Records of transfers with predictions that belong to them."""

from pathlib import Path
from typing import Any

import numpy as np
from record_samples import make_record

from benchmarks.tasks.segmentation import pixel_counts
from benchmarks.tasks.segmentation.pixel_counts import PixelCounts, class_ious
from mlomae.classification import per_image
from mlomae.classification.per_image import PerImage, summarise
from mlomae.records import RANDOM, predictions_of, run_phrase, write_record

CLASSES = ("cat", "dog", "horse")
IMAGES = 60


def transfer_record(
    method: str, seed: int, metrics: dict[str, float], task: str = "classification", **changes: Any
) -> dict[str, Any]:
    """``pretraining``: hash of the backbone's configuration; ``images`` that it has seen, of ``pretrained_on``."""
    name, dataset = changes.pop("name", "linear_cub"), changes.pop("dataset", "cub200")
    digest, images = changes.pop("pretraining", "f" * 16), changes.pop("images", 64000)
    weights: dict[str, Any] = {"method": method, "config_hash": digest, "iteration": changes.pop("iteration", 500)}
    known: dict[str, Any] = {"images_seen": images, "clock": {"wall": 200.0, "cpu": 100.0}}
    known["dataset"] = changes.pop("pretrained_on", "cifar10")
    if method == RANDOM:
        weights, known = {"method": RANDOM}, {}
    config = {"name": name, "seed": seed, "backbone": {"weights": weights, "model": None, "img_size": 64}}
    config |= {"protocol": "linear"} if task == "classification" else {}
    sources = {"train_source": f"{dataset} train, 90 images", "eval_source": f"{dataset} test, {IMAGES} images"}
    record = make_record(method=method, seed=seed, name=name, task=task, dataset=dataset, config=config, **sources)
    return {**record, "metrics": metrics, "pretrained": known, **changes}


def says(label: np.ndarray, share: float, seed: int) -> PerImage:
    """Predictions that are right for about ``share`` of the images."""
    rng = np.random.default_rng(seed)
    guess = np.where(rng.random(len(label)) < share, label, (label + 1) % 3)
    ranked = np.stack([guess, (guess + 1) % 3, (guess + 2) % 3], axis=1)
    log_probs = np.log(np.tile(np.array([[0.5, 0.3, 0.2]], dtype=np.float32), (len(label), 1)))
    return PerImage(np.arange(len(label)), label, ranked, log_probs)


def write_classified(runs: Path, file: str, method: str, seed: int, share: float, **changes: Any) -> Path:
    """A record in ``runs`` and its predictions beside; the path of these."""
    images = says(np.arange(IMAGES) % 3, share, seed + 100 * len(method))
    record = transfer_record(method, seed, summarise(images, 3), **changes)
    write_record(record, runs / f"{file}.json")
    identity = {"run": run_phrase(method, record["name"], seed), "config_hash": record["config_hash"]}
    path = predictions_of(f"{file}.json", runs)
    per_image.FORMAT.save(path, images, class_names=CLASSES, test_set="f" * 64, **identity)
    return path


def some_counts(seed: int, images: int = 12) -> PixelCounts:
    rng = np.random.default_rng(seed)
    true = np.random.default_rng(0).integers(5, 50, (images, 3))
    predicted = rng.integers(5, 50, (images, 3))
    return PixelCounts(np.arange(images), rng.integers(0, np.minimum(true, predicted) + 1), predicted, true)


def write_segmented(runs: Path, file: str, method: str, seed: int, **changes: Any) -> Path:
    """A record of a segmentation in ``runs`` and its pixel counts beside; the path of these."""
    counts = some_counts(seed + 100 * len(method))
    metrics = {"mIoU": float(np.nanmean(class_ious(counts))), "mAcc": 50.0, "aAcc": 60.0, "n": 12}
    record = transfer_record(method, seed, metrics, "segmentation", name="upernet", dataset="camvid", **changes)
    write_record(record, runs / f"{file}.json")
    identity = {"run": run_phrase(method, "upernet", seed), "config_hash": record["config_hash"]}
    path = predictions_of(f"{file}.json", runs)
    pixel_counts.FORMAT.save(path, counts, class_names=CLASSES, test_set="e" * 64, **identity)
    return path
