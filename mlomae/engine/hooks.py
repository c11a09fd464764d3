"""MMEngine hooks: checkpoints, health of the mask beside the losses, pictures."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlomae import counter
from mlomae.engine import checkpoint, health
from mlomae.engine.loop import to_device
from mlomae.engine.pictures import reconstruction_sheet, save_picture


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
    of two successive logs (same images, new noise), and the feedback's accuracy beside chance (a feedback
    without parameters classifies the upper batch by the head batch)."""

    priority = "HIGH"  # before the logger reads the values

    def __init__(self, interval: int, probe: dict[str, torch.Tensor]) -> None:
        self.interval, self.probe = interval, probe
        self._previous: torch.Tensor | None = None

    @torch.no_grad()
    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if (batch_idx + 1) % self.interval or outputs is None:
            return
        model = runner.model
        probe = to_device(self.probe, next(model.parameters()).device)
        tokens = model.mae.encoder.embed(probe["image"])
        batch = {**probe, "key": counter.fold(probe["key"], batch_idx)}
        mask = model.choose_mask(tokens, batch).mask
        values = {}
        if self._previous is not None:
            values["mask_overlap"] = health.mask_overlap(mask, self._previous, model.ratio)
        self._previous = mask
        sigma = model.mask.scores(tokens, None)
        if sigma is not None:
            values |= {f"sigma_{k}": v for k, v in health.score_health(sigma).items()}
        if data_batch.get("upper") is not None:
            # the upper batch has not trained the head, so this is the accuracy on images new to it
            upper, head = (to_device(data_batch[level], tokens.device) for level in ("upper", "head"))
            reference = model(head, mode="features") if model.feedback.joint else None
            scores = model.feedback.predict(model(upper, mode="features"), reference, head)
            values["feedback_accuracy"] = health.feedback_accuracy(scores, upper["label"])
            values["feedback_chance"] = torch.tensor(100.0 / scores.shape[1])
        for name, value in values.items():
            runner.message_hub.update_scalar(f"train/{name}", value.item())


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
