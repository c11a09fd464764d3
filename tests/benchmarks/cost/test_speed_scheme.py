"""What the speed rows claim: the authors' scheme is what it says, operations by hand, no host sync, no graph kept."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import response_vector
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cost.speed.authors import AuthorsScheme
from benchmarks.cost.speed.rows import build
from benchmarks.cost.speed.setting import SETTINGS
from mlomae.common.flops import count_flops
from mlomae.config.schema import config_from_dict
from mlomae.multilevel import OuterStep, hypergradient, mixed_product
from mlomae.pretraining.losses import level_problem, lower
from mlomae.pretraining.pretrainer import Pretrainer

TINY = SETTINGS["tiny"]
SYNCHRONISES = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "unique_dim", "masked_select"}


def model_and_batches(**mask: Any) -> tuple[Pretrainer, dict[str, Any]]:
    """In float64, with the scores' gradients away from zero."""
    values = TINY.config("mlomae").to_dict()
    values["mask"] |= mask
    torch.manual_seed(0)
    model = Pretrainer(config_from_dict(values), TINY.classes).double()
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    wide = lambda b: {k: t.double() if t.is_floating_point() else t for k, t in b.items()}  # noqa: E731
    batches = TINY.batches()
    return model, {k: [wide(b) for b in v] if isinstance(v, list) else wide(v) for k, v in batches.items()}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    a, b = (torch.cat([d[k].detach().flatten() for k in expected]) for d in (found, expected))
    assert b.norm() > 1e-8
    return float((a - b).norm() / b.norm())


def solve(model: Pretrainer, last: dict, batches: dict[str, Any], solver: str) -> dict[str, Tensor]:
    levels = model.level_parameters()
    chosen = {"lower_batch": last, "head_batch": batches["head"], "upper_batch": batches["upper"]}
    return hypergradient(level_problem(model), levels["theta"], levels["omega"], levels["phi"], **chosen, solver=solver)


def test_authors_scheme_is_the_finite_difference_solver_and_leaves_parameters_alone() -> None:
    model, batches = model_and_batches(detach_mask_input=False)  # a difference of values does not see a detach
    scheme = AuthorsScheme(model, {})
    last = scheme.freeze(batches["lower"][-1])
    before = copy.deepcopy(model.state_dict())
    found = scheme.hypergradient(last, batches["head"], batches["upper"])
    assert all((t - before[k]).abs().max() < 1e-14 for k, t in model.state_dict().items())
    assert distance(found, solve(model, last, batches, "finite_difference")) < 1e-7
    assert distance(found, solve(model, last, batches, "one_step")) < 1e-2
    direct = hypergradient(
        level_problem(model), **model.level_parameters(), lower_batch=last, head_batch=None,
        upper_batch=batches["upper"], paths="direct",
    )  # fmt: skip
    assert distance(direct, found) > 1e-2, "the head's path must count here"


# --- exactness of the shared encoder pass and of the mixed product on the real model --------------------------------


@pytest.mark.parametrize("arch", ["token", "mlp", "transformer"])
@pytest.mark.parametrize("detach", [True, False])
def test_mixed_product_equals_double_backward_for_every_masking_network(arch: str, detach: bool) -> None:
    model, batches = model_and_batches(arch=arch, detach_mask_input=detach, hidden=16)
    levels, problem = model.level_parameters(), level_problem(model)
    theta, phi = levels["theta"], levels["phi"]
    last = problem.fix(theta, phi, batches["lower"][-1])
    v = response_vector(problem, theta, levels["omega"], batches["head"], batches["upper"])
    found = mixed_product(problem, theta, phi, v, last)
    with sdpa_kernel(SDPBackend.MATH):
        first = torch.autograd.grad(problem.lower(theta, phi, last), list(theta.values()), create_graph=True)
        expected = torch.autograd.grad(first, list(phi.values()), [-v[k] for k in theta])
    assert distance(found, dict(zip(phi, expected, strict=True))) < 1e-9
    assert not any(t.requires_grad for t in found.values())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("head_steps", [1, 3])
def test_sharing_the_heads_encoder_pass_changes_nothing_but_the_cost(accumulate: int, head_steps: int) -> None:
    moved, passes = [], []
    for share in (True, False):
        model, batches = model_and_batches()
        levels = model.level_parameters()
        start = {k: p.detach().clone() for k, p in model.named_parameters()}
        optimizers = {level: SGD(params.values(), lr=0.5) for level, params in levels.items()}
        step = OuterStep(
            level_problem(model), **levels, optimizers=optimizers, head_steps=head_steps, accumulate=accumulate
        )
        assert step.shares_features
        step.shares_features = share
        calls: list[int] = []
        embed: Any = model.mae.encoder.patch_embed  # which features alone go through
        hook = embed.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        losses = step(batches["lower"], batches["head"], batches["upper"])
        hook.remove()
        found = {k: p.detach() - start[k] for k, p in model.named_parameters() if p.requires_grad}
        moved.append(found | losses)
        passes.append(len(calls))
    for level in ("mae.", "feedback.", "mask.", "loss"):
        parts = [{k: t for k, t in x.items() if k.startswith(level)} for x in moved]
        assert distance(*parts) < 1e-10, level
    if accumulate == 1:
        assert passes == [2, 2], "head and upper; or head alone, then both together"


def test_sharing_spares_one_forward_pass_of_the_head_batch() -> None:
    counts = []
    for share in (True, False):
        model, batches = model_and_batches()
        levels = model.level_parameters()
        optimizers = {level: SGD(params.values(), lr=0.5) for level, params in levels.items()}
        step = OuterStep(level_problem(model), **levels, optimizers=optimizers)
        step.shares_features = share
        counts.append(count_flops(lambda: step(batches["lower"], batches["head"], batches["upper"])))  # noqa: B023
    _, full = forward_flops()
    assert counts[1] - counts[0] == pytest.approx(full * TINY.batch, rel=1e-6)


# --- operations, by hand --------------------------------------------------------------------------------------------


def _blocks(tokens: int, width: int, depth: int) -> int:
    """qkv, projection and MLP: weights of 12 width², two products of attention; a multiply-add is 2."""
    return depth * (24 * tokens * width**2 + 4 * tokens**2 * width)


def _last_block(tokens: int, count: int, width: int) -> int:
    """Keys and values of all tokens, the rest of ``count`` of them."""
    return 2 * (2 * tokens + 10 * count) * width**2 + 4 * tokens * count * width


def forward_flops() -> tuple[int, int]:
    """(F, G): one image through the masked autoencoder, of which the kept patches are embedded and the removed ones
    predicted, and through the encoder with all its tokens, of which the last block computes the class token alone."""
    m = TINY.model
    length, dim, width = (m["img_size"] // m["patch_size"]) ** 2, m["embed_dim"], m["decoder_embed_dim"]
    kept, pixels = length // 4, 3 * m["patch_size"] ** 2
    embed = 2 * length * pixels * dim
    encode, removed = _blocks(kept + 1, dim, m["depth"]), length - kept
    blocks = _blocks(length + 1, width, m["decoder_depth"] - 1) + _last_block(length + 1, removed, width)
    decode = 2 * (kept + 1) * dim * width + blocks + 2 * removed * width * pixels
    full = embed + _blocks(length + 1, dim, m["depth"] - 1) + _last_block(length + 1, 1, dim)
    return embed * kept // length + encode + decode, full


def embed_flops() -> int:
    m = TINY.model
    return 2 * (m["img_size"] // m["patch_size"]) ** 2 * 3 * m["patch_size"] ** 2 * m["embed_dim"]


def test_operations_of_plain_mae_are_those_counted_by_hand() -> None:
    lower, _ = forward_flops()
    by_hand = 2 * TINY.batch * (3 * lower - embed_flops() // 4)  # K = 2; no gradient with respect to the pixels
    assert count_flops(build("mae", TINY)) == pytest.approx(by_hand, rel=1e-9)


def test_operations_of_the_schemes_are_those_counted_by_hand() -> None:
    """Ours 6F + 6G + 3F for the pass with tangents, theirs 10F + 10G; M is the masking network, the head is left out.

    Torch's forward mode spends three products on one, also where one of the factors has no tangent.
    """
    lower, full = forward_flops()
    m, embed = TINY.model, embed_flops()
    scores = 2 * (m["img_size"] // m["patch_size"]) ** 2 * (m["embed_dim"] * 128 + 128)
    seen = embed + scores  # of all patches, by the masking network, without a graph of the tokens
    steps = 2 * (3 * lower - embed // 4 + seen) + seen  # two on θ, and the mask of the last batch
    ours = steps + 2 * (3 * full - embed) + 3 * lower + embed + 7 * scores
    theirs = steps + full + 3 * (3 * full - embed) + 4 * (lower + embed + 3 * scores)
    assert count_flops(build("one_step", TINY)) == pytest.approx(TINY.batch * ours, rel=1e-3)
    assert count_flops(build("authors", TINY)) == pytest.approx(TINY.batch * theirs, rel=1e-3)


# --- host and memory ------------------------------------------------------------------------------------------------


class NoSync(TorchDispatchMode):
    """Refuses what makes the host wait for values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in SYNCHRONISES:
            raise RuntimeError(f"host synchronisation: {func}")
        return func(*args, **(kwargs or {}))


def refuse(name: str) -> Callable[..., Any]:
    def called(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"host synchronisation: Tensor.{name}")

    return called


@pytest.mark.parametrize("row", ["mae", "one_step"])
def test_an_iteration_never_waits_for_the_device(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = build(row, TINY)
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(Tensor, name, refuse(name))
    for _ in range(2):  # the first one also makes the optimizers' state
        with NoSync():
            step()


def test_the_authors_scheme_is_seen_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    step = build("authors", TINY)
    with pytest.raises(RuntimeError, match="host synchronisation"), NoSync():
        step()


class Saved:
    """Stands for a tensor that a graph keeps for its backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved_by(step: Callable[[], Any]) -> tuple[list[weakref.ref], Any]:
    made: list[weakref.ref] = []

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor.detach())
        made.append(weakref.ref(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        result = step()
    return made, result


@pytest.mark.parametrize("row", ["mae", "one_step"])
def test_no_graph_outlives_an_iteration(row: str) -> None:
    made, (losses,) = saved_by(build(row, TINY))
    assert len(made) > 100
    assert not any(saved() is not None for saved in made), "without waiting for the garbage collector"
    assert not any(t.requires_grad for t in losses.values())


def test_a_kept_graph_would_be_seen() -> None:
    model, batches = model_and_batches()
    made, loss = saved_by(lambda: lower(model, batches["lower"][0]))
    assert loss.requires_grad
    assert any(saved() is not None for saved in made)
