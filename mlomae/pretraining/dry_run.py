"""`mlomae pretrain --dry-run`: the checks of a run on all its data, a few of its steps, and what it will need. Nothing
is written."""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mlomae.common import checkpoint
from mlomae.common.errors import ConfigError
from mlomae.common.numerics import numerics_of
from mlomae.config.schema import PretrainConfig
from mlomae.data.copies import check_trained_on, digests_of
from mlomae.models.places import weights_path
from mlomae.pretraining.checks import check_labels
from mlomae.pretraining.devices import to_device, training_device
from mlomae.pretraining.evaluation import check_probe
from mlomae.pretraining.introduction import introduction
from mlomae.pretraining.log import duration
from mlomae.pretraining.plan import plan_loading
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import PretrainData, build_data, build_trainer, probe_batches

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STEPS = 10  # iterations that are timed, after one that is not; φ moves in two of them where it moves in every fifth
PATIENCE = 20.0  # seconds after which fewer do


def dry_run(config: PretrainConfig, work_dir: Path) -> list[str]:
    """Lines that say what the run is, its memory, its time and its disk space.

    Raises what the run would raise before its first step, but for what ``work_dir`` holds already."""
    torch.manual_seed(config.seed)
    numerics_of("pretrain", config.to_dict())
    data = build_data(config)
    check_labels(config.feedback["type"], data.batches)
    if data.evaluation is not None:
        check_probe(*probe_batches(config, data.train, data.evaluation), "set data.eval=None")
    for source in data.sources.values():
        digests_of(source)  # as a run does: all images are decoded
    model = Pretrainer(config, data.num_classes)
    lines = []
    if config.init_from:
        lines = model.start_from(config.init_from).splitlines()[:1]
        weights = weights_path(config.init_from)
        check_trained_on(weights, data.evaluation, f"; training of '{config.init_from}'", config.data.allow_near_copies)
    each, taken, first, size = timed_steps(config, data, model)
    return [
        *lines,
        *introduction(config, data, model, work_dir),
        f"memory: {_memory(config)}",
        f"disk: {size / 1e6:,.0f} MB a checkpoint, {config.train.keep_checkpoints} are kept",
        f"time: about {duration(each * config.train.outer_iterations)}, and the evaluation ({each:.3g} s an iteration, "
        f"measured on {taken})",
        f"first loss_lower: {first:.4g}",
        "dry run: the data and the configuration are sound; nothing was written",
    ]


def timed_steps(config: PretrainConfig, data: PretrainData, model: Pretrainer) -> tuple[float, int, float, int]:
    """Seconds of an outer iteration, the number that were timed, the first loss, and the bytes of a checkpoint."""
    with TemporaryDirectory() as nowhere:
        trainer, _ = build_trainer(config, model, data, Path(nowhere), {}, False)
    taken, started = 0, time.perf_counter()
    for t, batch in zip(range(config.train.outer_iterations), trainer.batches(0), strict=False):
        losses = trainer.step(to_device(batch, trainer.device), t)
        float(next(iter(losses.values())))  # waits for the device
        if t == 0:
            first, started = float(losses["loss_lower"]), time.perf_counter()
            continue
        taken = t
        if taken == STEPS or time.perf_counter() - started > PATIENCE:
            break
    if not taken:
        raise ConfigError("nothing can be timed with train.outer_iterations=1; set 2 at least")
    each = (time.perf_counter() - started) / taken
    return each, taken, first, checkpoint.estimated_bytes(trainer.modules.values(), trainer.optimizers.values())


def _memory(config: PretrainConfig) -> str:
    """The most that the steps have held."""
    said = "unknown in this process"
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024  # of the kernel's answer
        said = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB in this process"
    loading = plan_loading(config)
    if loading.workers:
        said += f", at most {loading.loading / 1e9:.1f} GB in those that read images ({loading.workers})"
    if training_device().type == "cuda":
        said += f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the GPU"
    return said
