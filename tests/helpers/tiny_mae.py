"""A masked autoencoder small enough for double backward: attention, LayerNorm, top-k mask, class-token head."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

from mlomae.multilevel import Params, ThreeLevelProblem

PATCHES, PIXELS, WIDTH, CLASSES, VISIBLE = 8, 6, 8, 3, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        x = x + self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, WIDTH))
        return x + self.down(gelu(self.up(self.norm2(x))))


class TinyMAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, WIDTH)
        self.position = nn.Parameter(torch.randn(PATCHES, WIDTH) * 0.3)
        self.cls, self.mask_token = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))
        self.encoder, self.norm, self.decoder = Block(), nn.LayerNorm(WIDTH), Block()
        self.predict = nn.Linear(WIDTH, PIXELS)

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.encoder(torch.cat([self.cls.expand(len(x), 1, -1), x], 1)))

    def forward(self, image: Tensor, visible: Tensor | None = None) -> Tensor:
        """Class token (B, D) without ``visible``; else per-patch error (B, L) from the visible patches (B, V)."""
        x = self.embed(image) + self.position
        if visible is None:
            return self.encode(x)[:, 0]
        index = visible.unsqueeze(-1).expand(-1, -1, WIDTH)
        seen = self.encode(x.gather(1, index))[:, 1:]
        full = self.mask_token.to(seen.dtype).expand(len(x), PATCHES, -1).scatter(1, index, seen) + self.position
        return ((self.predict(self.decoder(full)) - image) ** 2).mean(-1)


class Masker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(WIDTH, 8), nn.Linear(8, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.sigmoid(self.out(torch.tanh(self.hidden(tokens)))).squeeze(-1)


class Tiny:
    """Modules, their parameter dicts, the problem and the batches; ``lower_calls`` and ``feature_calls`` count."""

    def __init__(self, dtype: torch.dtype = torch.float64, size: int = 8, detach: bool = True) -> None:
        torch.manual_seed(0)
        self.detach = detach
        self.mae, self.masker = TinyMAE().to(dtype), Masker().to(dtype)
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)).to(dtype)
        self.theta, self.omega = dict(self.mae.named_parameters()), dict(self.head.named_parameters())
        self.phi: Params = dict(self.masker.named_parameters())
        self.lower_calls = self.feature_calls = 0
        self.problem = ThreeLevelProblem(self.lower, self.features, self.head_loss, fix=self.fix)
        self.lower_batches = [{"x": torch.randn(size, PATCHES, PIXELS, dtype=dtype)} for _ in range(2)]
        labels = [torch.randint(CLASSES, (size,)) for _ in range(2)]
        images = [torch.randn(size, PATCHES, PIXELS, dtype=dtype) for _ in range(2)]
        self.head_batch, self.upper_batch = ({"x": x, "y": y} for x, y in zip(images, labels, strict=True))

    def scores(self, theta: Params, phi: Params, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch["x"] @ theta["embed.weight"].T + theta["embed.bias"] + theta["position"]
        return functional_call(self.masker, phi, (tokens.detach() if self.detach else tokens,))

    def fix(self, theta: Params, phi: Params, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.scores(theta, phi, batch).topk(PATCHES - VISIBLE).indices
        return batch | {"mask": torch.zeros(batch["x"].shape[:2], dtype=torch.bool).scatter(1, hidden, True)}

    def lower(self, theta: Params, phi: Params, batch: dict[str, Tensor]) -> Tensor:
        self.lower_calls += 1
        sigma = self.scores(theta, phi, batch)
        if "mask" in batch:
            mask = batch["mask"].to(sigma.dtype)
        else:
            hidden = sigma.detach().topk(PATCHES - VISIBLE).indices
            mask = torch.zeros_like(sigma).scatter(1, hidden, 1.0)
        visible = mask.detach().argsort(dim=1, stable=True)[:, :VISIBLE]
        error = functional_call(self.mae, theta, (batch["x"], visible))
        return (mask * sigma * error).sum() / mask.sum()

    def features(self, theta: Params, batch: dict[str, Tensor]) -> Tensor:
        self.feature_calls += 1
        return functional_call(self.mae, theta, (batch["x"],))

    def head_loss(self, omega: Params, z: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(self.head, omega, (z,)), batch["y"])

    def batches(self) -> dict[str, dict[str, Tensor]]:
        return {"lower_batch": self.lower_batches[-1], "head_batch": self.head_batch, "upper_batch": self.upper_batch}


def brute_force(tiny: Tiny, theta: Params, omega: Params, phi: Params, lower: object, head: object, upper: object):
    """The one-step hypergradient by double backward, straight from the equation; also returns v."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    theta, omega, phi = ({k: t.detach().clone().requires_grad_() for k, t in d.items()} for d in (theta, omega, phi))
    names, inputs = list(theta), list(theta.values())
    with sdpa_kernel(SDPBackend.MATH):
        loss_upper = tiny.head_loss(omega, tiny.features(theta, upper), upper)
        g_omega = torch.autograd.grad(loss_upper, list(omega.values()), retain_graph=True)
        direct = torch.autograd.grad(loss_upper, inputs, materialize_grads=True)
        loss_head = tiny.head_loss(omega, tiny.features(theta, head), head)
        mixed = torch.autograd.grad(loss_head, list(omega.values()), create_graph=True)
        through = torch.autograd.grad(mixed, inputs, g_omega, materialize_grads=True)
        v = [a - b for a, b in zip(direct, through, strict=True)]
        first = torch.autograd.grad(tiny.lower(theta, phi, lower), inputs, create_graph=True, materialize_grads=True)
        g_phi = torch.autograd.grad(first, list(phi.values()), [-t for t in v])
    return dict(zip(phi, g_phi, strict=True)), dict(zip(names, v, strict=True))
