"""What is trained: MAE, masking strategy, feedback and auxiliary loss, and how its parameters divide among the levels.

Parameter groups are dicts by full name: θ the trainable parameters under ``mae.``, with those that move together with
them (``auxiliary.``, and ``mask.`` if the strategy is adaptive); φ under ``mask.`` (if it is trainable); ω under
``feedback.``. Batches are dicts of tensors as `mlomae.data` streams make them; legend there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlomae import auxiliary, feedback, masking
from mlomae.common.errors import ConfigError
from mlomae.config.schema import PretrainConfig
from mlomae.masking import Mask, MaskingStrategy, MaskState, Reconstruction
from mlomae.models import MAE, create_encoder
from mlomae.models.loading import load_pretrained
from mlomae.models.mae import patchify
from mlomae.multilevel import list_options

Batch = dict[str, Any]


class RunningAverage(nn.Module):
    """A running average of the response vector v over outer iterations: one batch's v is mostly noise.

        a_t = β a_{t−1} + (1 − β) v_t,   v̄_t = a_t / (1 − β^t)

    ``average(v)`` takes v_t and returns v̄_t, a dict with the keys of v; β = ``momentum``, ``like`` its tensors. The
    division makes the first average v itself (as in Adam, Kingma and Ba, ICLR 2015). The state is in buffers, which
    checkpoints keep, so that a resumed run goes on with the same bits; nothing waits for the device.
    """

    def __init__(self, like: dict[str, Tensor], momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))
        for name, t in like.items():
            self.register_buffer(self._buffer(name), torch.zeros_like(t, requires_grad=False))

    @staticmethod
    def _buffer(name: str) -> str:
        return name.replace(".", "/")  # a buffer's name may not contain dots

    @torch.no_grad()
    def forward(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        self.steps.add_(1)
        weight = 1.0 - torch.pow(self.momentum, self.steps.double())
        averages = {}
        for name, t in v.items():
            a = self.get_buffer(self._buffer(name))
            a.lerp_(t.to(a.dtype), 1.0 - self.momentum)
            averages[name] = a / weight.to(a.dtype)
        return averages


class Encoding(NamedTuple):
    """``embedded_BLD`` the tokens of all patches, None if the strategy does not see them; ``latents_BKD``
    (B, 1 + K, D) of class token and kept patches; ``patches_BLP`` their pixels, and the others', as `patchify` orders
    them."""

    mask: Mask
    embedded_BLD: Tensor | None
    latents_BKD: Tensor
    patches_BLP: Tensor


class Pretrainer(nn.Module):
    """The networks; their losses are functions of them (`mlomae.pretraining.losses`)."""

    def __init__(self, config: PretrainConfig, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        model = config.model
        encoder = create_encoder(
            model.size, model.img_size, model.patch_size, model.embed_dim, model.depth, model.num_heads, model.norm_eps
        )
        self.mae = MAE(
            encoder, model.decoder_embed_dim, model.decoder_depth, model.decoder_num_heads, model.norm_pix_loss
        )
        size = {"embed_dim": encoder.embed_dim, "num_classes": num_classes}
        options = dict(config.mask)
        self.ratio = options.pop("ratio", 0.75)
        self.mask = masking.create(options.pop("type"), embed_dim=encoder.embed_dim, grid=encoder.grid, **options)
        self.mask.check_ratio(encoder.num_patches, self.ratio)  # refuses an impossible ratio before training starts
        self.mask.attach(self.mae)
        self._check_compile()
        options = dict(config.feedback)
        self.feedback = feedback.create(options.pop("type"), **size, **options)
        if self.pools_by_score and self.feedback.dense:
            raise ConfigError(
                f"levels.mask_pooling weights the tokens of an image against each other, and "
                f"feedback.type='{config.feedback['type']}' classifies each by itself; set levels.mask_pooling=False"
            )
        if self.pools_by_score and not self.feedback.sees_patches:
            raise ConfigError("levels.mask_pooling weights patch tokens; set feedback.pooling='avg'")
        self.auxiliary: auxiliary.AuxiliaryLoss | None = None
        if config.auxiliary is not None:
            options = dict(config.auxiliary)
            self.auxiliary = auxiliary.create(options.pop("type"), **size, **options)
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
        self.progress = 0.0  # share of the run that is done

    def forward(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        """``function(self, *args)``: lets `functional_call` evaluate any loss at other parameters."""
        return function(self, *args)

    def start_from(self, path: str) -> str:
        """Load weights into the autoencoder, and into the strategy's copies of it; returns a report of what was loaded.

        Call it before the optimizers are made: the strategy may create new parameters. Raises as `load_pretrained`.
        """
        report = load_pretrained(self.mae, path)
        self.mask.attach(self.mae)
        return str(report)

    def _check_compile(self) -> None:
        """Raise ConfigError for a strategy that would recompile from batch to batch, or does not compile."""
        if not self.config.train.compile:
            if self.config.train.cuda_graphs:
                raise ConfigError("train.cuda_graphs replays compiled kernels; set train.compile=True")
            return
        kind = self.config.mask["type"]
        if type(self.mask).batch_ratio is not MaskingStrategy.batch_ratio:
            raise ConfigError(
                f"train.compile would recompile for every ratio that mask.type='{kind}' draws; set train.compile=False"
            )
        if self.mask.adaptive or self.mask.scheduled or self.config.auxiliary is not None:
            what = f"mask.type='{kind}'" if self.mask.adaptive or self.mask.scheduled else "auxiliary"
            raise ConfigError(f"train.compile does not work with {what}; set train.compile=False")

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

    # --- one pass ----------------------------------------------------------------------------------------------------

    def _strategy(self, batch: Batch) -> MaskingStrategy:
        return self.warmup_mask if batch.get("warmup") else self.mask

    def choose_mask(self, tokens_BLD: Tensor, batch: Batch) -> Mask:
        """The strategy's mask, or a random one if the batch is marked ``warmup``; if the batch carries a fixed one, its
        set with weights computed anew. A training batch carries the ``ratio`` drawn for it."""
        fixed = Mask(**batch["mask"]) if "mask" in batch else None
        ratio, epoch = batch.get("ratio", self.ratio), batch.get("epoch", 0)
        return self._strategy(batch)(tokens_BLD, batch["image"], ratio, epoch, self._mask_state(batch, fixed))

    def tokens_to_see(self, patches_BLP: Tensor, batch: Batch) -> Tensor:
        """What the strategy is given of the tokens (`MaskingStrategy.sees`), from the pixels of all patches."""
        sees = self._strategy(batch).sees
        if sees == "nothing":
            return patches_BLP[..., :0]
        return self.mae.encoder.embed_patches(patches_BLP, constant=sees == "values")

    @torch.no_grad()
    def freeze_mask(self, batch: Batch, random_mask: bool = False) -> Batch:
        """``batch`` with the mask of its keys frozen in, the strategy's own or a uniform one."""
        marked = {**batch, "warmup": True} if random_mask else batch
        patches_BLP = patchify(batch["image"], self.mae.encoder.patch_size)
        mask = self.choose_mask(self.tokens_to_see(patches_BLP, marked), marked)
        return {**batch, "mask": {k: getattr(mask, k) for k in ("ids_keep", "ids_restore", "mask", "weight")}}

    def _mask_state(self, batch: Batch, fixed: Mask | None = None) -> MaskState:
        progress = self.progress if self.mask.scheduled else 0.0
        iteration = round(progress * self.config.train.outer_iterations)
        return MaskState.of(batch, fixed=fixed, progress=progress, iteration=iteration)

    def encode(self, batch: Batch) -> Encoding:
        """The mask of a batch and the latents of the patches that it keeps."""
        patches_BLP = patchify(batch["image"], self.mae.encoder.patch_size)
        tokens_BLD = self.tokens_to_see(patches_BLP, batch)
        mask = self.choose_mask(tokens_BLD, batch)
        if self._strategy(batch).sees == "tokens":
            return Encoding(mask, tokens_BLD, self.mae.encode_kept(tokens_BLD, mask), patches_BLP)
        embedded_BLD = tokens_BLD if tokens_BLD.shape[2] else None
        return Encoding(mask, embedded_BLD, self.mae.encode_patches(patches_BLP, mask), patches_BLP)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The mask of a batch and the errors of the removed patches under it, with what led to them."""
        mask, embedded_BLD, latents_BKD, patches_BLP = self.encode(batch)
        rec_BR = self.mae.removed_error(latents_BKD, patches_BLP, mask)
        state, label = self._mask_state(batch), batch.get("label")
        return Reconstruction(self.mae, batch["image"], embedded_BLD, mask, latents_BKD, rec_BR, state, label)

    @property
    def pools_by_score(self) -> bool:
        """Whether the masking network weights the feedback's features (``levels.mask_pooling``)."""
        return self.config.levels.mask_pooling and self.mask.trainable

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 autocast if the configuration asks for it."""
        enabled = self.config.train.amp != "none"
        return torch.autocast(self.mae.encoder.cls_token.device.type, torch.bfloat16, enabled=enabled)

    def set_progress(self, iteration: int) -> None:
        """Set the schedules of masks to an outer iteration; after the last one they stay at it."""
        length = self.config.train.outer_iterations
        self.progress = min(iteration, length - 1) / length
