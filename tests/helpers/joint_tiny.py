"""The tiny autoencoder with a feedback that has no parameters, and both feedbacks written another way."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

import torch
from checks import response_vector
from quadratic import relative_error
from tiny_mae import CLASSES, WIDTH, Tiny, TinyMAE
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlomae.feedback import JointFeedback
from mlomae.multilevel import Params

TEMPERATURE, PENALTY = 0.3, 2.0
Reference = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def nca_reference(z_head: Tensor, z_upper: Tensor, y_head: Tensor, y_upper: Tensor) -> Tensor:
    """The loss sample by sample, straight from its definition; pooled features."""
    losses = []
    for z_i, y_i in zip(z_upper, y_upper, strict=True):
        weights = [(z_i @ z_j / (z_i.norm() * z_j.norm()) / TEMPERATURE).exp() for z_j in z_head]
        own = [w for w, y_j in zip(weights, y_head, strict=True) if y_j == y_i]
        if own:
            losses.append(-(sum(own) / sum(weights)).log())
    return torch.stack(losses).mean()


def centred_reference(z_head: Tensor, z_upper: Tensor, y_head: Tensor, y_upper: Tensor) -> Tensor:
    mean = sum(z_head) / len(z_head)
    return nca_reference(z_head - mean, z_upper - mean, y_head, y_upper)


def ridge_scores(z_head: Tensor, z_upper: Tensor, y_head: Tensor, classes: int = CLASSES) -> Tensor:
    """Least squares with √λ rows appended and an intercept column that has none, by QR instead of normal equations."""
    scale = ((z_head - z_head.mean(0)).square().mean(0) + 1e-6).sqrt()
    width, one_hot = z_head.shape[1], torch.eye(classes, dtype=z_head.dtype)
    penalty = torch.cat([PENALTY**0.5 * torch.eye(width, dtype=z_head.dtype), z_head.new_zeros(width, 1)], 1)
    rows = torch.cat([torch.cat([z_head / scale, z_head.new_ones(len(z_head), 1)], 1), penalty])
    q, r = torch.linalg.qr(rows)
    targets = torch.cat([one_hot[y_head], z_head.new_zeros(width, classes)])
    w = torch.linalg.solve_triangular(r, q.T @ targets, upper=True)
    return torch.cat([z_upper / scale, z_upper.new_ones(len(z_upper), 1)], 1) @ w


def ridge_reference(z_head: Tensor, z_upper: Tensor, y_head: Tensor, y_upper: Tensor) -> Tensor:
    p = (ridge_scores(z_head, z_upper, y_head) / TEMPERATURE).exp()
    return -(p[torch.arange(len(p)), y_upper] / p.sum(1)).log().mean()


def squared_reference(z_head: Tensor, z_upper: Tensor, y_head: Tensor, y_upper: Tensor) -> Tensor:
    targets = torch.eye(CLASSES, dtype=z_upper.dtype)[y_upper]
    return ((ridge_scores(z_head, z_upper, y_head) - targets) ** 2).sum() / len(z_upper)


CASES: dict[str, tuple[str, dict[str, object], Reference]] = {
    "nca": ("nca", {"temperature": TEMPERATURE, "centre": False}, nca_reference),
    "nca, centred": ("nca", {"temperature": TEMPERATURE}, centred_reference),
    "ridge": ("ridge", {"temperature": TEMPERATURE, "penalty": PENALTY}, ridge_reference),
    "ridge, squared error": ("ridge", {"loss": "squared_error", "penalty": PENALTY}, squared_reference),
}


class Encode(nn.Module):
    """All tokens (B, 1 + L, D), where TinyMAE gives the class token alone."""

    def __init__(self, mae: TinyMAE) -> None:
        super().__init__()
        self.mae = mae

    def forward(self, image: Tensor) -> Tensor:
        return self.mae.encode(self.mae.embed(image) + self.mae.position)


class JointTiny(Tiny):
    def __init__(self, feedback: JointFeedback, dtype: torch.dtype = torch.float64, **options: object) -> None:
        super().__init__(dtype, **options)  # type: ignore[arg-type]
        self.feedback, self.omega = feedback, {}
        self.problem = dataclasses.replace(self.problem, joint_loss=self.joint_loss)
        for batch in (self.head_batch, self.upper_batch):
            batch["label"] = batch.pop("y")

    def features(self, theta: Params, batch: dict[str, Tensor]) -> Tensor:
        self.feature_calls += 1
        return functional_call(Encode(self.mae), {f"mae.{k}": t for k, t in theta.items()}, (batch["x"],))

    def joint_loss(self, z_head: Tensor, z_upper: Tensor, head: dict, upper: dict) -> Tensor:
        return self.feedback.joint_loss(z_head, z_upper, head, upper)

    def head_loss(self, *args: object) -> Tensor:
        raise RuntimeError("a joint loss has no head")


def brute_force_joint(
    tiny: JointTiny, reference: Reference, theta: Params, phi: Params, lower: dict, head: dict, upper: dict
) -> tuple[Params, Params]:
    """g_φ and v by double backward through the reference."""
    theta, phi = ({k: t.detach().clone().requires_grad_() for k, t in d.items()} for d in (theta, phi))
    inputs = list(theta.values())
    pool = lambda z: z[:, 0] if tiny.feedback.pooling == "cls" else z[:, 1:].sum(1) / (z.shape[1] - 1)  # noqa: E731
    with sdpa_kernel(SDPBackend.MATH):
        z_head, z_upper = pool(tiny.features(theta, head)), pool(tiny.features(theta, upper))
        loss = reference(z_head, z_upper, head["label"], upper["label"])
        v = torch.autograd.grad(loss, inputs, materialize_grads=True)
        first = torch.autograd.grad(tiny.lower(theta, phi, lower), inputs, create_graph=True, materialize_grads=True)
        g_phi = torch.autograd.grad(first, list(phi.values()), [-t for t in v])
    return dict(zip(phi, g_phi, strict=True)), dict(zip(theta, v, strict=True))


def check_joint(ml: ModuleType, feedback: JointFeedback, reference: Reference, bound: float = 1e-9) -> None:
    tiny = JointTiny(feedback)
    found = ml.hypergradient(tiny.problem, tiny.theta, {}, tiny.phi, **tiny.batches())
    expected, v = brute_force_joint(tiny, reference, tiny.theta, tiny.phi, *tiny.batches().values())
    response = response_vector(tiny.problem, tiny.theta, {}, tiny.head_batch, tiny.upper_batch, ml=ml)
    assert relative_error(response, v) < bound
    assert relative_error(found, expected) < bound


def build(name: str, pooling: str = "avg") -> tuple[JointFeedback, Reference]:
    from mlomae import feedback

    kind, options, reference = CASES[name]
    module = feedback.create(kind, embed_dim=WIDTH, num_classes=CLASSES, pooling=pooling, **options)
    assert isinstance(module, JointFeedback)
    return module, reference
