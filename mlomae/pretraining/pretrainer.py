"""The model MMEngine trains: MAE, masking strategy and feedback head, and the three losses as pure functions.

Parameter groups are dicts by full name: θ the trainable parameters under ``mae.``, with those that move together with
them (``auxiliary.``, and ``mask.`` if the strategy is adaptive); φ under ``mask.`` (if it is trainable); ω under
``feedback.``. Batches are dicts of tensors as `mlomae.data` streams make them; legend there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mlomae import auxiliary, feedback, masking
from mlomae.common import random_keys as counter
from mlomae.common.errors import ConfigError
from mlomae.config.schema import PretrainConfig
from mlomae.masking import AdaptiveMasking, Mask, MaskingStrategy, MaskState, Reconstruction
from mlomae.models import MAE, create_encoder
from mlomae.models.weights import load_pretrained
from mlomae.multilevel import ThreeLevelProblem, list_options
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining.levels import level_problem, outer_step
from mlomae.pretraining.precision import require_bf16
from mlomae.pretraining.running_average import RunningAverage
from mlomae.pretraining.warmup import FeedbackWatch, moves_phi

Batch = dict[str, Any]


class Pretrainer(nn.Module):
    """``forward(batch, mode)`` is the one entry for `functional_call`: "lower" L_I, "errors" rec, "features" z,
    "attend" z as the feedback sees it, "head" L_II/L_III."""

    def __init__(self, config: PretrainConfig, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        model = config.model
        encoder = create_encoder(
            model.size, model.img_size, model.patch_size, model.embed_dim, model.depth, model.num_heads
        )
        self.mae = MAE(
            encoder, model.decoder_embed_dim, model.decoder_depth, model.decoder_num_heads, model.norm_pix_loss
        )
        options = {k: v for k, v in config.mask.items() if k not in ("type", "ratio")}
        self.ratio = config.mask.get("ratio", 0.75)
        self.mask = masking.create(config.mask["type"], embed_dim=encoder.embed_dim, grid=encoder.grid, **options)
        self.mask.check_ratio(encoder.num_patches, self.ratio)  # refuses an impossible ratio before training starts
        self.mask.attach(self.mae)
        self._check_compile()
        options = {k: v for k, v in config.feedback.items() if k != "type"}
        self.feedback = feedback.create(
            config.feedback["type"], embed_dim=encoder.embed_dim, num_classes=num_classes, **options
        )
        if self.feedback.dense and self.attends:
            raise ConfigError(
                f"levels.mask_pooling weighs the tokens of an image against each other, and "
                f"feedback.type='{config.feedback['type']}' looks at each by itself; set levels.mask_pooling=False"
            )
        self.auxiliary: auxiliary.AuxiliaryLoss | None = None
        if config.auxiliary is not None:
            options = {k: v for k, v in config.auxiliary.items() if k != "type"}
            self.auxiliary = auxiliary.create(
                config.auxiliary["type"], embed_dim=encoder.embed_dim, num_classes=num_classes, **options
            )
        self.warmup_mask = masking.create("random", embed_dim=encoder.embed_dim, grid=encoder.grid)
        self.average: RunningAverage | None = None
        if config.levels.v_momentum:
            if "smooth" not in list_options(config.levels.solver):
                raise ConfigError(
                    f"levels.v_momentum: solver='{config.levels.solver}' has no response vector to average; "
                    "set it to 0 or choose one_step, neumann or cg"
                )
            used = {n: p for n, p in self.level_parameters()["theta"].items() if n.startswith("mae.encoder.")}
            self.average = RunningAverage(used, config.levels.v_momentum)
        self.watch: FeedbackWatch | None = None
        if self.mask.trainable:
            self.watch = FeedbackWatch(-1 if config.levels.warmup_margin else config.levels.warmup)
        self.progress = 0.0  # share of the run that is done
        self._beside: list[Tensor] = []  # the losses beside L_I, of the steps since the last outer iteration
        self._step: OuterStep | None = None

    def start_from(self, path: str) -> str:
        """Pretrained weights for the autoencoder, and for the copies of it that the strategy keeps; what was loaded.

        Raises what `load_pretrained` raises. Before the optimizers are made: the strategy may make parameters anew.
        """
        report = load_pretrained(self.mae, path)
        self.mask.attach(self.mae)
        return str(report)

    def _check_compile(self) -> None:
        """Raise ConfigError for a strategy whose work changes from batch to batch in ways that compile anew."""
        if not self.config.train.compile:
            return
        kind = self.config.mask["type"]
        if type(self.mask).batch_ratio is not MaskingStrategy.batch_ratio:
            raise ConfigError(
                f"train.compile would compile anew for every ratio that mask.type='{kind}' draws; "
                "set train.compile=False"
            )
        if self.mask.adaptive or self.mask.scheduled or self.config.auxiliary is not None:
            what = f"mask.type='{kind}'" if self.mask.adaptive or self.mask.scheduled else "auxiliary"
            raise ConfigError(f"train.compile does not go with {what}; set train.compile=False")

    # --- parameters of the three levels -------------------------------------------------------------------------

    def level_parameters(self) -> dict[str, dict[str, Tensor]]:
        """{"theta", "omega", "phi"}; ω and φ are empty when the mask is not learned: the upper levels do not run.

        ω is empty too for a feedback without parameters: then stage II takes no steps.
        """
        named: dict[str, Tensor] = {n: p for n, p in self.named_parameters() if p.requires_grad}
        pick = lambda prefix: {n: p for n, p in named.items() if n.startswith(prefix)}  # noqa: E731
        learned = self.mask.trainable
        own = pick("mask.") if self.mask.adaptive else {}
        return {
            "theta": {**pick("mae."), **own, **pick("auxiliary.")},
            "omega": pick("feedback.") if learned else {},
            "phi": pick("mask.") if learned else {},
        }

    def saved_modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by name; the running average of v only where there is one."""
        modules = {"mae": self.mae, "mask": self.mask, "feedback": self.feedback}
        further = {"average": self.average, "auxiliary": self.auxiliary}
        return {**modules, **{name: module for name, module in further.items() if module is not None}}

    # --- losses -------------------------------------------------------------------------------------------------

    def choose_mask(self, tokens_BLD: Tensor, batch: Batch) -> Mask:
        """The strategy's mask, or a random one if the batch is marked ``warmup``; if the batch carries a fixed one, its
        set with weights computed anew. A training batch carries the ``ratio`` drawn for it."""
        fixed = batch.get("mask")
        if fixed is not None:
            fixed = Mask(fixed["ids_keep"], fixed["ids_restore"], fixed["mask"], fixed["weight"])
        strategy = self.warmup_mask if batch.get("warmup") else self.mask
        ratio = batch.get("ratio", self.ratio)
        return strategy(tokens_BLD, batch["image"], ratio, batch.get("epoch", 0), self._mask_state(batch, fixed))

    def _mask_state(self, batch: Batch, fixed: Mask | None = None) -> MaskState:
        progress = self.progress if self.mask.scheduled else 0.0
        iteration = round(progress * self.config.train.outer_iterations)
        return MaskState.of(batch, fixed=fixed, progress=progress, iteration=iteration)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The mask of a batch and ``rec`` (B, L), the error of every patch under it, with what led to them."""
        tokens_BLD = self.mae.encoder.embed(batch["image"])
        mask = self.choose_mask(tokens_BLD, batch)
        latents_BKD = self.mae.encode_kept(tokens_BLD, mask)
        rec_BL = self.mae.patch_error(self.mae.decoder(latents_BKD, mask.ids_restore), batch["image"])
        state, label = self._mask_state(batch), batch.get("label")
        return Reconstruction(self.mae, batch["image"], tokens_BLD, mask, latents_BKD, rec_BL, state, label)

    def lower(self, batch: Batch) -> Tensor:
        """Stage I: L_I = Σ m·σ·rec / Σ m, or with normalize="weight" the mean over images of Σ mσ rec / Σ mσ; added
        the strategy's own loss and the auxiliary one, where there are any.

        L_I is a mean over images, because every image has the same number of removed patches: so the loss of a
        global batch is the mean of its parts' losses, which data parallelism and accumulation rely on.
        """
        seen = self.reconstruct(batch)
        mask, weight_BL = seen.mask.mask, seen.mask.mask * seen.mask.weight
        if self.mask.normalize == "weight":
            loss = ((weight_BL * seen.rec_BL).sum(dim=1) / weight_BL.sum(dim=1)).mean()
        else:
            loss = (weight_BL * seen.rec_BL).sum() / mask.sum()
        terms = [self.mask.own_loss(seen)] if isinstance(self.mask, AdaptiveMasking) else []
        terms += [self.auxiliary(seen)] if self.auxiliary is not None else []
        if not terms:
            return loss
        beside = torch.stack(terms).sum()
        self._beside.append(beside.detach())
        return loss + beside

    def attend(self, tokens_BND: Tensor, batch: Batch) -> Tensor:
        """Encoder tokens (B, 1 + L, D), the patches' times Lσ/Σσ: their plain mean is the mean weighed by σ.

        As in stage I, the masking network sees patch embeddings that it cannot change.
        """
        sigma_BL = self.mask.scores(self.mae.encoder.embed(batch["image"]).detach(), MaskState.of(batch))
        assert sigma_BL is not None
        weight_BL = sigma_BL.shape[1] * sigma_BL / sigma_BL.sum(dim=1, keepdim=True)
        return torch.cat([tokens_BND[:, :1], tokens_BND[:, 1:] * weight_BL.unsqueeze(-1)], dim=1)

    def feedback_tokens(self, batch: Batch) -> Tensor:
        """Tokens (B, 1 + L, D) of labelled images, as the feedback sees them."""
        z = self(batch, mode="features")
        return self.attend(z, batch) if self.attends else z

    @property
    def attends(self) -> bool:
        """Whether the masking network weighs the feedback's features (``levels.mask_pooling``)."""
        return self.config.levels.mask_pooling and self.mask.trainable

    def forward(self, batch: Any, mode: str = "lower", z: Tensor | None = None) -> Tensor:
        if mode == "lower":
            return self.lower(batch)
        if mode == "features":
            return self.mae.encoder(batch["image"])
        if mode == "errors":
            return self.reconstruct(batch).rec_BL
        if mode == "attend":
            assert z is not None
            return self.attend(z, batch)
        return self.feedback(z, batch)

    def problem(self) -> ThreeLevelProblem:
        """The three losses as functions of (θ, φ, ω)."""
        return level_problem(self)

    # --- training -----------------------------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast if the configuration asks for it."""
        if self.config.train.amp == "none":
            return nullcontext()
        return torch.autocast(self.mae.encoder.cls_token.device.type, dtype=torch.bfloat16)

    def check_autocast(self) -> None:
        """Raise TrainingError if mixed precision was asked for but the blocks do not compute in bf16."""
        if self.config.train.amp != "none":
            require_bf16(self.mae.encoder.blocks[0].mlp.fc1, self.autocast())  # type: ignore[union-attr, arg-type]

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Tensor]:
        """One outer iteration on the batches of `mlomae.data.OuterBatches`; returns its levels' losses, detached, and
        apart from L_I what was added to it, ``loss_beside``.

        Until the watch lets φ begin, by ``data["iteration"]``, masks are random and φ stays as it is; from then on it
        takes a step in every ``levels.upper_every``-th iteration.
        """
        if self._step is None:
            self._step = outer_step(self, optim_wrapper)
        if data.get("head") is not None:
            data["head"]["dropout_key"] = data["head"]["key"]
        t, upper = data.get("iteration", 0), False
        self.set_progress(t)
        first = t * len(data["lower"])
        lower = [{**batch, "ratio": self._batch_ratio(number)} for number, batch in enumerate(data["lower"], first)]
        if self.watch is not None:
            upper = moves_phi(t, self.watch.begin, self.config.levels.upper_every)
            if not 0 <= self.watch.begin <= t:
                lower = [{**batch, "warmup": True} for batch in lower]
        losses = self._step(lower, data.get("head"), data.get("upper"), upper)
        with torch.no_grad():
            self.mask.follow(self.mae, self.progress)
        if self._beside:
            losses["loss_beside"] = torch.stack(self._beside).mean()
            losses["loss_lower"] = losses["loss_lower"] - losses["loss_beside"]
            self._beside = []
        return losses

    def set_progress(self, iteration: int) -> None:
        """Put schedules of the masks where they are in an outer iteration; after the last one they stay as in it."""
        length = self.config.train.outer_iterations
        self.progress = min(iteration, length - 1) / length

    def _batch_ratio(self, number: int) -> float:
        """The share of patches to remove from the ``number``-th global lower batch."""
        return self.mask.batch_ratio(self.ratio, counter.root_key(self.config.seed, "mask ratio", number))
