"""The README of a model on a hub, from the record of its run."""

import json
import math
from pathlib import Path

from scipy import stats

from mlomae.backbones.export import load_line
from mlomae.backbones.export_source import Source
from mlomae.common.errors import CheckpointError, DataError, counted
from mlomae.records import Record, hardware_phrase, read_record, read_records

_SHARES = ("top1", "top5", "mean_per_class")  # metrics in percent of the test images, by what their names hold


def record_of(source: Source, given: Path | None) -> Record | None:
    """The record of the run that a checkpoint lies in, or the one in the file ``given``; None if there is none.

    Raises CheckpointError for a file that is no record, or a record of another seed.
    """
    run = source.path.parents[1] if source.path.parent.name == "checkpoints" else source.path.parent
    path = given or run / "record.json"
    if not path.is_file():
        if given:
            raise CheckpointError(f"record '{path}' does not exist; give the record.json of the run")
        return None
    try:
        record = read_record(path, path.name)
    except DataError as error:
        raise CheckpointError(f"'{path}' cannot be told as the model's record: {error}") from error
    if (seed := source.meta.get("seed")) is not None and record["seed"] != seed:
        raise CheckpointError(
            f"'{path}' is of seed {record['seed']}, the checkpoint of seed {seed}; give its own record"
        )
    return record


def model_card(
    source: Source, repo: str, fmt: str, record: Record | None, others: Path | None = None, licence: str | None = None
) -> str:
    """Markdown with the front matter that hubs read.

    ``others``: a folder of records; those of the same configuration are the other seeds. ``licence``: of the weights,
    an identifier such as "cc-by-4.0"; without one the card says that none was chosen.
    """
    library, task = (
        ("timm" if fmt == "timm" else "transformers"),
        "classification" if source.classes else "feature-extraction",
    )
    front = ["---", f"library_name: {library}", f"pipeline_tag: image-{task}", "tags: [vision, mlomae]"]
    front += [f"license: {licence}"] if licence else []
    what = f"A classifier of {counted(len(source.classes), 'class')}" if source.classes else "A ViT encoder"
    model, method = source.meta["model"], source.meta.get("method")
    heads, patch = model["num_heads"], model["patch_size"]
    shape = f"width {model['embed_dim']}, depth {model['depth']}, {counted(heads, 'head')}, patches of {patch} pixels"
    by = f", pretrained with {method}" if method else ""
    load = load_line(source, f"hf-hub:{repo}" if fmt == "timm" else repo, fmt)
    lines = [*front, "---", "", f"# {repo.rpartition('/')[2]}", "", f"{what}{by}: {shape}.", ""]
    lines += ["## Use", "```python", f"import {library}", "", f"model = {load}", "```", ""]
    lines += _pixels(source)
    if source.classes:
        lines += [f"Classes: {', '.join(source.classes[:50])}{' ...' if len(source.classes) > 50 else ''}.", ""]
    lines += _of_record(record, others) if record else ["## Numbers", "No record of the run was at hand.", ""]
    stated = f"`{licence}`, chosen by" if licence else "none is stated; it is for"
    lines += [
        "## Licence",
        f"Of the weights: {stated} whoever trained them, within the terms of the training data.",
        "",
    ]
    return "\n".join(lines)


def _pixels(source: Source) -> list[str]:
    height, width = source.vit.patch_embed.img_size
    mean, std = (source.pixels.get(key) for key in ("mean", "std"))
    normalised = (
        f"normalised with mean {list(mean)} and std {list(std)}" if mean and std else "normalised as ImageNet's are"
    )
    return [f"Images of {height}x{width} pixels, {normalised}.", ""]


def _of_record(record: Record, others: Path | None) -> list[str]:
    """Data, numbers with intervals, cost and what repeats the run."""
    same = [r for r in read_records(others) if r["config_hash"] == record["config_hash"]] if others else []
    runs = {r["seed"]: r for r in [*same, record]}
    rows = [f"| {name} | {_number(name, record, list(runs.values()))} |" for name in sorted(record["metrics"])]
    train, test = record.get("train_source", record["dataset"]), record.get("eval_source") or record.get("test_source")
    seeds = ", ".join(map(str, sorted(runs)))
    spread = (
        "mean and 95 % interval of the mean over the seeds"
        if len(runs) > 1
        else ("95 % interval for the choice of the test images; the spread between seeds is not in it")
    )
    seen = record.get("images_seen")
    images = sum(seen.values()) if isinstance(seen, dict) else seen
    cost = [
        f"{counted(images, 'image')} seen" if images else "",
        f"{record['wall_clock_s']:,.0f} s",
        f"{record['cpu_s']:,.0f} CPU seconds",
    ]
    return [
        "## Data",
        f"Trained on {train}." + (f" Tested on {test}." if test else ""),
        "",
        "## Numbers",
        f"Seed{'s' if len(runs) > 1 else ''} {seeds}. Of shares in percent: {spread}.",
        "",
        "| metric | value |",
        "|---|---|",
        *rows,
        "",
        "## Cost",
        f"{', '.join(filter(None, cost))} on {hardware_phrase(record)}.",
        "",
        "## Provenance",
        f"Configuration `{record['config_hash']}`, mlomae {record['versions'].get('mlomae', '?')}, "
        f"commit {record.get('git_commit') or 'unknown'}.",
        "",
        "```json",
        json.dumps(record["config"], indent=1),
        "```",
        "",
    ]


def _number(name: str, record: Record, runs: list[Record]) -> str:
    value = record["metrics"][name]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if not any(share in name for share in _SHARES):
        return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    values = [r["metrics"][name] for r in runs if name in r["metrics"]]
    if len(values) > 1:
        mean = sum(values) / len(values)
        half = float(stats.t.ppf(0.975, len(values) - 1)) * float(stats.sem(values))
        return f"{mean:.1f} ± {half:.1f}"
    count = record["metrics"].get("n_test") or record["metrics"].get("n")
    return f"{value:.1f} ({_interval(value / 100, int(count))})" if count else f"{value:.1f}"


def _interval(share: float, count: int) -> str:
    """Wilson's, in percent."""
    z = float(stats.norm.ppf(0.975))
    middle, width = (
        share + z * z / (2 * count),
        z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)),
    )
    low, high = ((middle + sign * width) / (1 + z * z / count) for sign in (-1, 1))
    return f"{100 * low:.1f} to {100 * high:.1f}"
