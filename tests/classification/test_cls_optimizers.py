"""LARS as MAE's linear probe has it, and decay of matrices alone in a head."""

import cls_runs
import pytest
import torch
from torch import Tensor

from mlomae.backbones.config import OptimConfig
from mlomae.backbones.training import build_optimizer
from mlomae.classification.model import ClassifierStep
from mlomae.classification.run import build_model


def mae_lars(p: Tensor, gradients: list[Tensor], lr: float, weight_decay: float, momentum: float) -> Tensor:
    """facebookresearch/mae, util/lars.py, restated: 1-D parameters take plain momentum steps."""
    mu = torch.zeros_like(p)
    for g in gradients:
        if p.ndim > 1:
            g = g + weight_decay * p
            g = g * 0.001 * p.norm() / g.norm()
        mu = momentum * mu + g
        p = p - lr * mu
    return p


def test_lars_scales_matrices_without_weight_decay_too() -> None:
    torch.manual_seed(0)
    start = {"weight": torch.randn(4, 3).double(), "bias": torch.randn(4).double()}
    gradients = {name: [torch.randn_like(p) for _ in range(4)] for name, p in start.items()}
    params = {name: torch.nn.Parameter(p.clone()) for name, p in start.items()}
    settings = OptimConfig(type="lars", lr=6.4, weight_decay=0.0, momentum=0.9)
    optimizer = build_optimizer([{"params": [p], "lr": 6.4, "weight_decay": 0.0} for p in params.values()], settings)
    for step in range(4):
        for name, p in params.items():
            p.grad = gradients[name][step].clone()
        optimizer.step()
    for name, p in params.items():
        expected = mae_lars(start[name], gradients[name], 6.4, 0.0, 0.9)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-6, atol=0)  # timm adds 1e-8 to the norm


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_the_bias_of_a_head_does_not_decay(kind: str) -> None:
    config = cls_runs.config(protocol="linear", optim__type=kind, optim__weight_decay=0.1)
    model, _ = build_model(config, 4)
    groups = ClassifierStep(model, config).optimizer.param_groups
    decays = {tuple(p.shape): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {(4, 16): 0.1, (4,): 0.0}
    assert {group["lr"] for group in groups} == {config.optim.lr}
