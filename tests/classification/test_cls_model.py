"""The classifier: losses, features, resuming with the same bits; timm's own training loop beside it."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from backbone_samples import MODEL, write_checkpoint
from mmengine.optim import OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from timm.loss import LabelSmoothingCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from mlomae.backbones.create import create_backbone
from mlomae.backbones.layer_decay import layer_decay_groups
from mlomae.classification.augment import BatchMix
from mlomae.classification.heads import AttentiveHead, LinearHead
from mlomae.classification.model import Classifier
from mlomae.common.errors import ConfigError
from mlomae.common.random_keys import root_key
from mlomae.config.schema import OptimConfig
from mlomae.pretraining.evaluation import extract_features
from mlomae.pretraining.optim import rates

C = 5


def batches(n: int, size: int = 16, images: int = 6) -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(11)
    return [
        {
            "image": torch.randn(images, 3, size, size, generator=g),
            "label": torch.randint(C, (images,), generator=g),
            "index": torch.arange(i * images, (i + 1) * images),
        }
        for i in range(n)
    ]


def tiny(**options: Any) -> VisionTransformer:
    return create_backbone("random", **{"num_classes": C, "img_size": 16, "model": MODEL, "head_std": 0.02, **options})[
        0
    ]


def adamw(model: Classifier, lr: float = 1e-3, layer_decay: float = 0.75) -> OptimWrapper:
    return OptimWrapper(torch.optim.AdamW(layer_decay_groups(model.backbone, lr, 0.05, layer_decay), lr=lr))


# --- timm's own path ----------------------------------------------------------------------------------------

NAME, SIZE, STEPS, LR, MIN_LR = "vit_tiny_patch16_224", 32, 6, 1e-3, 1e-5


def timm_run(state: dict[str, Tensor], layer_decay: float = 0.75) -> tuple[list[float], Tensor]:
    """Losses of a plain loop of timm's parts, and the logits of the first batch afterwards."""
    model = timm.create_model(NAME, num_classes=C, img_size=SIZE, global_pool="avg", drop_path_rate=0.0)
    model.load_state_dict(state)
    groups = param_groups_layer_decay(
        model, weight_decay=0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=layer_decay
    )
    optimizer = torch.optim.AdamW(groups, lr=LR)
    scheduler = CosineLRScheduler(optimizer, t_initial=STEPS - 1, lr_min=MIN_LR, t_in_epochs=False)
    criterion = LabelSmoothingCrossEntropy(0.1)
    data, losses = batches(STEPS, SIZE), []
    model.train()
    for step, batch in enumerate(data):
        scheduler.step_update(step)
        loss = criterion(model(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, model.eval()(data[0]["image"])


def our_run(backbone: VisionTransformer) -> tuple[list[float], Tensor]:
    model = Classifier(backbone, smoothing=0.1)
    wrapper = adamw(model, LR)
    schedule = OptimConfig(lr=LR, min_lr=MIN_LR, warmup=0.0)
    tables = [rates(schedule, STEPS, peak=group["lr"]) for group in wrapper.optimizer.param_groups]
    data, losses = batches(STEPS, SIZE), []
    model.train()
    for t, batch in enumerate(data):
        for group, table in zip(wrapper.optimizer.param_groups, tables, strict=True):
            group["lr"] = table[t]
        losses.append(model.train_step(batch, wrapper)["loss"].item())
    with torch.no_grad():
        return losses, model.eval()(data[0]["image"])


def test_training_equals_timms_own_loop() -> None:
    """Six steps of vit_tiny with layer decay, smoothing, a cosine to a floor: 1e-6 relative in float32 on the CPU."""
    backbone, _ = create_backbone(f"timm:{NAME}", num_classes=C, img_size=SIZE, head_std=0.02)
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    losses, logits = our_run(backbone)
    reference, reference_logits = timm_run(state)
    assert losses == pytest.approx(reference, rel=1e-6)
    torch.testing.assert_close(logits, reference_logits, rtol=1e-6, atol=1e-6)
    assert abs(losses[-1] - losses[0]) > 1e-2  # it trains
    mutant, mutant_logits = timm_run(state, layer_decay=0.7)
    assert mutant[0] == pytest.approx(losses[0], rel=1e-6)  # the first loss precedes any step
    assert max(abs(a / b - 1) for a, b in zip(mutant, losses, strict=True)) > 1e-4
    assert not torch.allclose(logits, mutant_logits, rtol=1e-4, atol=1e-4)


# --- features -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("global_pool", ["avg", "token"])
def test_features_equal_pretrainings_evaluation(tmp_path: Path, global_pool: str) -> None:
    encoder = write_checkpoint(tmp_path / "c.pth")
    options: dict[str, Any] = {"spec": str(tmp_path / "c.pth"), "num_classes": 0, "img_size": 16}
    model = Classifier(create_backbone(**options, global_pool=global_pool, keep_norm=True)[0]).eval()
    data = batches(2)
    expected, _ = extract_features(encoder, data)
    with torch.no_grad():
        for part, pooling in ((slice(0, 24), "cls"), (slice(24, 48), "avg")):
            found = torch.cat([model.features(batch["image"], pooling) for batch in data])
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected[:, part], rtol=1e-6, atol=1e-6)
    dropped = Classifier(create_backbone(**options)[0])
    with pytest.raises(ConfigError, match="use keep_norm=True"):
        dropped.features(data[0]["image"], "avg")
    with pytest.raises(ConfigError, match="pooling must be one of cls, avg, attentive; got 'max'"):
        model.features(data[0]["image"], "max")


# --- losses and modes ---------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    """ε-smoothing is (1 - ε) nll + ε mean of all nll; soft targets are -Σ t log p; hard one-hot targets are both."""
    data = batches(1)[0]
    model = Classifier(tiny()).eval()
    image, label = data["image"], data["label"]
    with torch.no_grad():
        logp = F.log_softmax(model(image), dim=1)
        nll = -logp[torch.arange(6), label].mean()
        smooth = 0.9 * nll - 0.1 * logp.mean()
        soft = torch.rand(6, C)
        soft = soft / soft.sum(1, keepdim=True)
        cases = [
            ({}, label, nll),
            ({"smoothing": 0.1}, label, smooth),
            ({"mix": BatchMix(C)}, F.one_hot(label, C).float(), nll),
            ({"mix": BatchMix(C)}, soft, -(soft * logp).sum(1).mean()),
        ]
        for options, target, expected in cases:
            loss = Classifier(tiny(), **options)(image, {"label": target}, mode="loss")["loss"]
            torch.testing.assert_close(loss, expected)


def test_predict_gives_one_dict_an_image() -> None:
    model = Classifier(tiny()).eval()
    data = batches(2)[1]
    with torch.no_grad():
        rows = model.test_step(data)
        logits = model(data["image"])
    assert len(rows) == 6
    assert torch.equal(torch.stack([row["score"] for row in rows]), logits)
    assert all(row["score"].dtype == torch.float32 and set(row) == {"score", "label", "index"} for row in rows)
    assert [int(row["index"]) for row in rows] == list(range(6, 12))
    assert torch.equal(torch.stack([row["label"] for row in rows]), data["label"])


def test_errors() -> None:
    with pytest.raises(ConfigError, match="keep_norm=True"):
        Classifier(tiny(), linear="avg")
    with pytest.raises(ConfigError, match="pooling must be one of cls, avg, attentive; got 'mean'"):
        Classifier(tiny(keep_norm=True), linear="mean")
    with pytest.raises(ConfigError, match="needs classes"):
        Classifier(tiny(keep_norm=True, num_classes=0), linear="cls")


# --- the linear protocol ------------------------------------------------------------------------------------


def test_linear_head() -> None:
    head = LinearHead(24, 400)
    x = 3 + 5 * torch.randn(64, 24)
    standard = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-6).sqrt()
    torch.testing.assert_close(head(x), standard @ head[1].weight.T, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in head.named_parameters()] == ["1.weight", "1.bias"]
    assert head[1].weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert torch.equal(head[1].weight, LinearHead(24, 400)[1].weight)
    assert not torch.equal(head[1].weight, LinearHead(24, 400, seed=1)[1].weight)


def test_attentive_head() -> None:
    head = AttentiveHead(24, C, queries=4).double()
    patches = torch.randn(5, 9, 24, dtype=torch.float64)
    pooled = []
    for m, query in enumerate(head.queries):  # by its definition, a patch at a time
        e = torch.stack([(patches[:, i] @ query / 24**0.5).exp() for i in range(9)], dim=1)
        a = e / e.sum(dim=1, keepdim=True)
        torch.testing.assert_close(a, head.attention(patches)[:, m])
        value = head.value.weight[6 * m : 6 * (m + 1)]
        pooled.append(sum(a[:, i, None] * (patches[:, i] @ value.T) for i in range(9)))
    torch.testing.assert_close(head(patches), head.linear(torch.cat(pooled, dim=1)), rtol=1e-12, atol=1e-12)
    for rows in (slice(None), [0]):  # without queries it is the mean of the patches: the linear head, and not with one
        with torch.no_grad():
            head.value.weight.copy_(torch.eye(24))
            head.queries.zero_()[rows] = 0.0 if rows == slice(None) else 5.0
        same = torch.allclose(head(patches), head.linear(patches.mean(dim=1)), rtol=1e-12, atol=1e-12)
        assert same == (rows == slice(None))
    one, twin, other = (AttentiveHead(24, C, queries=4, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), twin.parameters(), strict=True))
    assert not torch.equal(one.queries, other.queries)
    assert not torch.equal(one.value.weight, other.value.weight)
    with pytest.raises(ConfigError, match="queries=16 must divide the width of the backbone, 24"):
        AttentiveHead(24, C)


@pytest.mark.parametrize("pooling", ["cls", "avg", "attentive"])
def test_linear_protocol_trains_the_head_alone_on_fixed_features(pooling: str) -> None:
    model = Classifier(tiny(keep_norm=True, drop_path=0.5), linear=pooling, queries=4)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    attentive = {"head.queries", "head.value.weight", "head.linear.1.weight", "head.linear.1.bias"}
    assert trained == (attentive if pooling == "attentive" else {"head.1.weight", "head.1.bias"})
    data = batches(1)[0]
    wrapper = OptimWrapper(torch.optim.SGD(model.head.parameters(), lr=0.5))
    losses = [model.train_step(data, wrapper)["loss"].item() for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(before[key], value) for key, value in model.backbone.state_dict().items())
    reference = AttentiveHead(24, C, 4) if pooling == "attentive" else LinearHead(24, C)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.5)
    features = model.features(data["image"], pooling).detach()  # what a cache would hold
    for expected in losses:
        loss = F.cross_entropy(reference(features), data["label"])
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# --- bits and precision --------------------------------------------------------------------------------------


def train(model: Classifier, wrapper: OptimWrapper, steps: range, seeded: bool = True) -> None:
    model.train()
    data = batches(4)
    for t in steps:
        if seeded:
            torch.manual_seed(root_key(0, "drop", t, 0))
        model.train_step(data[t], wrapper)


def dropping() -> Classifier:
    model = Classifier(tiny(drop_path=0.5))
    model.backbone.head_drop = nn.Dropout(0.5)
    return model


def test_resumed_run_has_the_same_bits_with_drop_path_and_dropout() -> None:
    whole = dropping()
    train(whole, adamw(whole), range(4))
    for seeded in (True, False):
        first = dropping()
        wrapper = adamw(first)
        train(first, wrapper, range(2), seeded)
        torch.rand(3)  # the new process has drawn something else
        resumed = dropping()
        resumed.load_state_dict(first.state_dict())
        again = adamw(resumed)
        again.load_state_dict(wrapper.state_dict())
        train(resumed, again, range(2, 4), seeded)
        same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
        assert same is seeded  # unseeded is the mutation


@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled")
def test_bf16_under_amp_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine builds its AMP wrapper with a GPU only; its autocast works here. Weights, loss, scores stay float32."""
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    model = Classifier(tiny())
    dtypes = []
    model.backbone.blocks[0].mlp.fc1.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    optimizer = torch.optim.AdamW(layer_decay_groups(model.backbone, 1e-3), lr=1e-3)
    wrapper = amp_optimizer_wrapper.AmpOptimWrapper(optimizer=optimizer, dtype="bfloat16", loss_scale=1.0)
    data = batches(1)[0]
    model.train()
    losses = [model.train_step(data, wrapper)["loss"] for _ in range(8)]
    assert set(dtypes) == {torch.bfloat16}
    assert {loss.dtype for loss in losses} == {torch.float32} == {p.dtype for p in model.parameters()}
    assert losses[-1] < losses[0]
    full = Classifier(tiny())
    first = full.train_step(data, adamw(full))["loss"]
    assert losses[0].item() == pytest.approx(first.item(), rel=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert model.eval().test_step(data)[0]["score"].dtype == torch.float32
