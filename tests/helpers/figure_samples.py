"""Made-up runs to draw: 25 methods with seeds, ratios, curves; and a file of masks."""

import base64
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record_samples import CONFIG, make_record

from benchmarks.analysis.evidence import Evidence
from benchmarks.analysis.figures import cost
from benchmarks.analysis.figures.runs import Drawn
from benchmarks.analysis.figures.style import look
from mlomae.records import config_hash

METHODS = [
    "MAE",
    "MAE, same processor time",
    "MLO-MAE",
    "BLO-MAE",
    "MLO-MAE (nca, mask pooling)",
    "MLO-MAE (nca, mask pooling, shuffled labels)",
    "MLO-MAE (nca, mask pooling, masks only)",
    "MLO-MAE (weights only)",
    "frozen at random",
    "oracle, weight 5",
    "MAE (block masks)",
    "MAE (grid masks)",
    "MAE (SimMIM masks)",
    "ColorMAE (green)",
    "R2MAE",
    "HPM",
    "AdaMAE",
    "ADIOS (for MAE)",
    "AutoMAE",
    "CL-MAE",
    "AttMask (hint)",
    "AMT",
    "SemMAE (clusters)",
    "Self-guided MAE",
    "AttG-MAE",
]


def run(method: str, seed: int, knn: float = 48.0, *, ratio: float = 0.75, **changes: Any) -> dict[str, Any]:
    """A pretraining record; the linear probe reads 5 points more than k-NN."""
    kind = "oracle" if method.startswith("oracle") else "learned" if "LO-MAE" in method else "random"
    config = {
        "method": method,
        "mask": {"type": kind, "ratio": ratio},
        "levels": {"of": method.split(", mask ratio")[0]},
        "data": {"batch_size": 128},
        **changes.pop("config", {}),
    }
    metrics = {"knn_top1_avg": knn, "linear_top1_avg": changes.pop("linear", knn + 5)}
    seen = changes.pop("images_seen", {"lower": 204800, "head": 0, "upper": 0})
    record = make_record(method=method, seed=seed, name=f"{method} {ratio:g}", config=config, metrics=metrics)
    return {**record, "images_seen": seen, "train_source": "cifar10 train, 50000 images", **changes}


def curves(seed: int, upper: bool, length: int = 16) -> dict[str, list[Any]]:
    """Falling losses; the upper levels begin at the fourth point."""
    noise = np.random.default_rng(seed).normal(0, 0.02, (3, length))
    step = np.arange(length)
    lower, head, loss = (start * np.exp(-step / 9) + 0.4 for start in (0.6, 1.5, 1.6))
    late = lambda values: [round(float(v), 5) if i >= 3 else None for i, v in enumerate(values)]  # noqa: E731
    found = {"iteration": [50 * (i + 1) for i in range(length)], "loss_lower": [float(v) for v in lower + noise[0]]}
    return found | ({"loss_head": late(head + noise[1]), "loss_upper": late(loss + noise[2])} if upper else {})


def many(methods: int = 25, seeds: int = 3) -> list[dict[str, Any]]:
    """Every method, with costs and accuracies as alike as real ones are."""
    rng = np.random.default_rng(0)
    records = []
    for i, method in enumerate(METHODS[:methods]):
        level, slow = float(rng.normal(48, 0.8)), float(rng.choice([1, 1, 1.05, 1.4, 2, 3.3]))
        learned = "LO-MAE" in method
        for seed in range(seeds):
            cpu = 375 * slow * float(rng.uniform(0.97, 1.03))
            records.append(
                run(
                    method,
                    seed,
                    round(level + float(rng.normal(0, 0.4)), 2),
                    cpu_s=cpu,
                    wall_clock_s=cpu * float(rng.uniform(1.1, 1.6)),
                    images_seen={"lower": 204800, "head": 51200 * learned, "upper": 51200 * learned},
                    curves=curves(100 * i + seed, learned),
                    config={"train": {"outer_iterations": 800}},
                )
            )
    return records


@functools.cache
def crowded_cost() -> list[Drawn]:
    """The figures `cost` of 25 methods, which take a second."""
    with look():
        return cost.draw(inputs(many()))


def ratios(methods: tuple[str, ...] = ("MAE", "MLO-MAE"), seeds: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        run(method, seed, 48 - 30 * (ratio - 0.7 + 0.05 * i) ** 2 + float(rng.normal(0, 0.3)), ratio=ratio)
        for i, method in enumerate(methods)
        for ratio in (0.3, 0.5, 0.6, 0.75, 0.9)
        for seed in range(seeds)
    ]


def inputs(records: list[dict[str, Any]], masks: Path = Path("nowhere")) -> Evidence:
    return Evidence({f"{i:03d}.json": record for i, record in enumerate(records)}, masks=masks)


def mask_values(rows: int = 3, count: int = 8, side: int = 32) -> dict[str, Any]:
    """What `mlomae masks` writes; every second row has weights."""
    rng = np.random.default_rng(2)
    pictures = []
    for i in range(count):
        y, x = np.mgrid[:side, :side] / side
        shade = np.stack([x, y, np.hypot(x - 0.5, y - 0.3 - 0.05 * i)], -1) * 200
        file = io.BytesIO()
        Image.fromarray((shade + rng.uniform(0, 50, shade.shape)).astype(np.uint8)).save(file, format="PNG")
        pictures.append(base64.b64encode(file.getvalue()).decode())
    lines = []
    for i in range(rows):
        order = rng.random((count, 64)).argsort(axis=1).argsort(axis=1)
        weights = [[round(float(w), 3) for w in line] for line in rng.random((count, 64))] if i % 2 else None
        mask = ["".join("1" if n < 48 else "0" for n in line) for line in order]
        row = {"label": f"{METHODS[i]}, 800 iterations", "config_hash": "0" * 16, "seed": 0, "iteration": 800}
        lines.append({**row, "grid": [8, 8], "mask": mask, "weight": weights})
    return {"source": "cifar10 train", "seed": 0, "images": pictures, "rows": lines}


def write_masks(path: Path, **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mask_values(**options)))
    return path


def scene_run(method: str, seed: int, knn: float, share: float = 0.5, **mask: Any) -> dict[str, Any]:
    train = {"type": "on_scenes", "share": share}
    return make_record(
        method=method,
        seed=seed,
        name=f"{method}_{share}",
        dataset=f"on scenes, {share:.0%}",
        config={**CONFIG, "mask": {"type": "random", **mask}, "data": {"train": train, "eval": dict(train)}},
        metrics={"knn_top1_avg": knn, "linear_top1_avg": 2 * knn, "knn_top1_cls": knn / 2, "linear_top1_cls": 3 * knn},
    )


def on_scenes(share: float, image: float) -> list[dict[str, Any]]:
    """MAE at 40, an oracle whose parts are 1, 2 and ``image``, and a learned mask with half of the image part."""
    noise = [0.0, 0.3, -0.2]
    levels: dict[str, tuple[float, dict[str, Any]]] = {
        "MAE": (40.0, {}),
        "region": (41.0, {"type": "oracle", "patches": "region"}),
        "shuffled": (43.0, {"type": "oracle", "patches": "shuffled"}),
        "oracle": (43.0 + image, {"type": "oracle"}),
        "MLO-MAE (nca, mask pooling)": (43.0 + image / 2, {"type": "learned"}),
    }
    return [
        scene_run(method, seed, level + noise[(seed + i) % 3], share, **mask)
        for i, (method, (level, mask)) in enumerate(levels.items())
        for seed in range(3)
    ]


def draws(method: str, values: list[float]) -> list[dict[str, Any]]:
    """Draws of a method's rates, judged on a part of the training images."""
    of = {"type": "cifar10", "split": "train"}
    data = {key: {"type": "part", "of": of, "part": part} for key, part in (("train", "train"), ("eval", "held_out"))}
    found = [scene_run(f"{method}, draw {k + 1}", 0, value) for k, value in enumerate(values)]
    return [
        {**r, "config": config, "config_hash": config_hash(config)}
        for k, r in enumerate(found)
        for config in [{**r["config"], "data": data, "optim": {"theta": {"lr": 0.001 * (k + 1)}}}]
    ]
