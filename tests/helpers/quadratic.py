"""A three-level quadratic whose total derivative is written down with matrices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mlomae.multilevel import Params, ThreeLevelProblem

THETA, OMEGA, PHI, Z, N = 5, 3, 4, 4, 6


def relative_error(found: Params, expected: Params) -> float:
    a = torch.cat([found[k].detach().double().flatten() for k in expected])
    b = torch.cat([expected[k].detach().double().flatten() for k in expected])
    assert b.norm() > 1e-6, "an expected value of zero proves nothing"
    return float((a - b).norm() / b.norm())


def _definite(g: torch.Generator, size: int) -> Tensor:
    q = torch.linalg.qr(torch.randn(N, size, size, generator=g, dtype=torch.float64))[0]
    return q @ torch.diag_embed(0.5 + torch.rand(N, size, generator=g, dtype=torch.float64)) @ q.mT


@dataclass
class Quadratic:
    """L_I = mean ½θᵀAθ − θᵀBφ;  z = Pθ;  head loss = mean ½ωᵀCω − ωᵀGz + ½|z − t|² + uᵀω. θ has an unused entry."""

    theta: Params
    omega: Params
    phi: Params
    lower: dict[str, Tensor]
    head: dict[str, Tensor]
    upper: dict[str, Tensor]

    problem = ThreeLevelProblem(
        lower=lambda theta, phi, b: (
            (
                0.5 * torch.einsum("i,nij,j->n", theta["a"], b["A"], theta["a"])
                - torch.einsum("i,nij,j->n", theta["a"], b["B"], phi["p"])
            ).mean()
            + 0.5 * (theta["decoder"] ** 2).sum()
        ),
        features=lambda theta, b: b["P"] @ theta["a"],
        head_loss=lambda omega, z, b: (
            0.5 * torch.einsum("i,nij,j->n", omega["w"], b["C"], omega["w"])
            - torch.einsum("i,nij,nj->n", omega["w"], b["G"], z)
            + 0.5 * ((z - b["t"]) ** 2).sum(1)
            + b["u"] @ omega["w"]
        ).mean(),
    )

    def closed_form(self, paths: str = "both", identity: bool = False) -> Params:
        """∂_φ through θ* = A⁻¹Bφ and ω* = C⁻¹Mθ, at the present θ and ω; A⁻¹, C⁻¹ → 1 with ``identity``."""
        theta, omega = self.theta["a"].detach(), self.omega["w"].detach()
        a, b = self.lower["A"].mean(0), self.lower["B"].mean(0)
        c, m = self.head["C"].mean(0), (self.head["G"] @ self.head["P"]).mean(0)
        up = self.upper
        z = up["P"] @ theta
        direct = ((z - up["t"]).unsqueeze(1) @ up["P"]).mean((0, 1)) - (up["P"].mT @ up["G"].mT @ omega).mean(0)
        d_omega = up["C"].mean(0) @ omega - (up["G"] @ z.unsqueeze(2)).mean(0).squeeze(1) + up["u"].mean(0)
        head = m.T @ (d_omega if identity else torch.linalg.solve(c, d_omega))
        v = {"both": direct + head, "direct": direct, "head": head}[paths]
        return {"p": b.T @ (v if identity else torch.linalg.solve(a, v))}

    def move_to_optimum(self) -> None:
        """Put θ and ω where the lower levels are minimal."""
        theta = torch.linalg.solve(self.lower["A"].mean(0), self.lower["B"].mean(0) @ self.phi["p"])
        pull = ((self.head["G"] @ self.head["P"]).mean(0)) @ theta - self.head["u"].mean(0)
        self.theta["a"], self.omega["w"] = theta, torch.linalg.solve(self.head["C"].mean(0), pull)

    def batches(self) -> dict[str, dict[str, Tensor]]:
        return {"lower_batch": self.lower, "head_batch": self.head, "upper_batch": self.upper}


def quadratic(seed: int = 0) -> Quadratic:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def labelled() -> dict[str, Tensor]:
        return {
            "P": draw(N, Z, THETA),
            "C": _definite(g, OMEGA),
            "G": draw(N, OMEGA, Z),
            "t": draw(N, Z),
            "u": draw(N, OMEGA),
        }

    return Quadratic(
        theta={"a": draw(THETA), "decoder": draw(2)},
        omega={"w": draw(OMEGA)},
        phi={"p": draw(PHI)},
        lower={"A": _definite(g, THETA), "B": draw(N, THETA, PHI)},
        head=labelled() | {"only_in_head": draw(N)},
        upper=labelled(),
    )
