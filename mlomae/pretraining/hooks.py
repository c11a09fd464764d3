"""MMEngine hooks: checkpoints, health of the mask beside the losses, pictures."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlomae.common import checkpoint
from mlomae.common import random_keys as counter
from mlomae.pretraining import health
from mlomae.pretraining.loop import to_device
from mlomae.pretraining.pictures import reconstruction_sheet, save_picture


@HOOKS.register_module()
class AtomicCheckpointHook(Hook):
    """Writes a checkpoint every ``interval`` outer iterations and at the end; keeps the newest ``keep``."""

    priority = "VERY_LOW"  # after the schedulers have stepped, so that a checkpoint holds the next iteration's rates

    def __init__(self, interval: int, keep: int) -> None:
        self.interval, self.keep = interval, keep

    @master_only
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done = batch_idx + 1
        if done % self.interval == 0 or done == runner.max_iters:
            checkpoint.save_atomically(runner.training_state(done), checkpoint.checkpoint_path(runner.run_dir, done))
            checkpoint.prune(runner.run_dir, self.keep)


@HOOKS.register_module()
class MaskHealthHook(Hook):
    """Logs, every ``interval`` outer iterations and on fixed probe images, the health of σ and the overlap of the masks
    of two successive logs (same images, new noise), and the feedback's accuracy beside chance.

    Where the objects of the images are known (embedded data) also how σ and the influence of the patches separate them
    from the background. It reads the present weights and changes nothing: training has the same bits without it.
    """

    priority = "HIGH"  # before the logger reads the values

    def __init__(self, interval: int, probe: dict[str, torch.Tensor]) -> None:
        self.interval, self.probe = interval, probe
        self._previous: torch.Tensor | None = None

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if (batch_idx + 1) % self.interval or outputs is None:
            return
        model = runner.model
        values = self._mask_values(model, batch_idx)
        if data_batch.get("upper") is not None:
            device = next(model.parameters()).device
            upper, head = (to_device(data_batch[level], device) for level in ("upper", "head"))
            scores = health.feedback_scores(model, head, upper)
            values["feedback_accuracy"] = health.feedback_accuracy(model.feedback, scores, upper)
            values["feedback_chance"] = 100.0 / scores.shape[-1]
            if model.mask.trainable and "object" in self.probe:
                values |= health.object_influence(model, to_device(data_batch["lower"][-1], device), head, upper)
        for name, value in values.items():
            runner.message_hub.update_scalar(f"train/{name}", float(value))

    def _mask_values(self, model: Any, batch_idx: int) -> dict[str, Any]:
        """Overlap with the masks of the last log, and the health of σ where there is one."""
        probe = to_device(self.probe, next(model.parameters()).device)
        tokens = model.mae.encoder.embed(probe["image"])
        batch = {**probe, "key": counter.fold(probe["key"], batch_idx)}
        mask = model.choose_mask(tokens, batch).mask
        values: dict[str, Any] = {}
        if self._previous is not None:
            values["mask_overlap"] = health.mask_overlap(mask, self._previous, model.ratio)
        self._previous = mask
        sigma = model.mask.scores(tokens, None)
        if sigma is not None:
            values |= {f"sigma_{k}": v for k, v in health.score_health(sigma).items()}
            if "object" in probe:
                values |= health.object_scores(sigma, probe["object"], model.mae.encoder.grid)
        return values


@HOOKS.register_module()
class PictureHook(Hook):
    """Saves a sheet of image, masked image, scores and reconstruction every ``interval`` outer iterations."""

    priority = "LOW"

    def __init__(self, interval: int, probe: dict[str, torch.Tensor], images: int = 8) -> None:
        self.interval = interval
        self.probe = {k: v[:images] for k, v in probe.items()}

    @master_only
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        done = batch_idx + 1
        if done % self.interval == 0 or done == runner.max_iters:
            sheet = reconstruction_sheet(runner.model, to_device(self.probe, next(runner.model.parameters()).device))
            save_picture(sheet, runner.run_dir / "pictures" / f"iter_{done}.png")
