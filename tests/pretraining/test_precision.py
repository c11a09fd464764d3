"""Accumulation, mixed precision and compilation change cost, not the method; asked-for precision is checked."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from mlomae.backbones.config import TrainConfig as TransferTrainConfig
from mlomae.common import precision
from mlomae.common.errors import CheckpointError, ConfigError, TrainingError
from mlomae.common.precision import BF16_WIDTH
from mlomae.config.schema import WIDTHS, ModelConfig
from mlomae.models import SIZES
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining import step as step_module
from mlomae.pretraining.devices import to_device
from mlomae.pretraining.losses import lower
from mlomae.pretraining.pretrainer import Pretrainer
from mlomae.pretraining.run import run_pretraining


def one_iteration(monkeypatch: pytest.MonkeyPatch, double: bool = False, **changes: Any) -> tuple[dict, dict]:
    """(losses, gradient of each level: the last one given to its optimizer) of the first outer iteration."""
    cfg = tiny.config(data__eval=None, **changes)
    model, data = tiny.trainer(cfg)
    batches = data.batches[0]
    if double:
        model.double()
        for batch in (*batches["lower"], batches["head"], batches["upper"]):
            batch["image"] = batch["image"].double()
    gradients: dict[str, dict[str, torch.Tensor]] = {}
    apply = OuterStep._apply

    def record(self: OuterStep, level: str, params: dict, g: dict) -> None:
        gradients[level] = {k: t.clone() for k, t in g.items()}
        apply(self, level, params, g)

    with monkeypatch.context() as patch:
        patch.setattr(OuterStep, "_apply", record)
        return tiny.step_of(model)(batches, 0), gradients


def relative(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    flat = lambda g: torch.cat([g[k].flatten().double() for k in sorted(g)])  # noqa: E731
    return float((flat(a) - flat(b)).norm() / flat(b).norm())


@pytest.mark.parametrize("normalize", ["mask", "weight"])
def test_two_accumulated_halves_equal_one_batch(monkeypatch: pytest.MonkeyPatch, normalize: str) -> None:
    whole, g_whole = one_iteration(monkeypatch, double=True, mask__normalize=normalize)
    halves, g_halves = one_iteration(monkeypatch, double=True, mask__normalize=normalize, train__accumulate=2)
    for name in whole:
        assert float(halves[name]) == pytest.approx(float(whole[name]), rel=1e-10)
    for level in ("theta", "omega", "phi"):
        assert relative(g_halves[level], g_whole[level]) < 1e-9
    assert relative(g_whole["theta"], one_iteration(monkeypatch, double=True, seed=1)[1]["theta"]) > 0.1, "too blunt"


def test_a_batch_that_does_not_divide_into_the_accumulated_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"train\.accumulate=3 does not divide the 8 images"):
        one_iteration(monkeypatch, train__accumulate=3)


def test_bf16_is_active_and_close(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    forward = torch.nn.Linear.forward

    def spy(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        y = forward(self, x)
        seen.add(y.dtype)
        return y

    full, g_full = one_iteration(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Linear, "forward", spy)
        half, g_half = one_iteration(monkeypatch, train__amp="bf16")
    assert torch.bfloat16 in seen
    for name in full:
        assert half[name].dtype == torch.float32
        assert float(half[name]) == pytest.approx(float(full[name]), rel=0.02)
    assert 1e-5 < relative(g_half["theta"], g_full["theta"]) < 0.1
    assert 1e-5 < relative(g_half["phi"], g_full["phi"]) < 0.3


def test_a_bf16_run_finishes_with_full_precision_weights(tmp_path: Path) -> None:
    cfg = tiny.config(name="bf16", train__amp="bf16", train__outer_iterations=2)
    record = run_pretraining(cfg, tmp_path)
    assert record["config"]["train"]["amp"] == "bf16"
    state = torch.load(tmp_path / "checkpoints" / "iter_2.pth", weights_only=True)
    assert {t.dtype for module in state["modules"].values() for t in module.values()} == {torch.float32}


def test_inactive_autocast_is_an_error_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny.trainer(tiny.config(train__amp="bf16"))
    tiny.step_of(model)
    monkeypatch.setattr(Pretrainer, "autocast", lambda self: nullcontext())
    with pytest.raises(TrainingError, match=r"'bf16' is not active.*float32.*set train.amp='none'"):
        tiny.step_of(model)


def test_full_precision_does_not_ask_for_autocast() -> None:
    model, _ = tiny.trainer(tiny.config())
    with model.autocast():
        assert not torch.is_autocast_enabled("cpu")
    tiny.step_of(model)


FLAGS = {"fpu avx512_bf16 amx_bf16": "AMX", "avx2 avx512_bf16": "AVX512-BF16", "asimd bf16": "Arm's bf16", "avx2": ""}


@pytest.mark.parametrize("width", [BF16_WIDTH - 8, BF16_WIDTH])
@pytest.mark.parametrize(("flags", "unit"), FLAGS.items())
def test_auto_is_bf16_where_a_processor_gains_by_it(
    flags: str, unit: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_flags", lambda: set(flags.split()))
    became = "bf16" if unit and width == BF16_WIDTH else "none"
    auto = tiny.config(train__amp="auto", model__embed_dim=width)
    assert (precision.bf16_unit(), auto.train.amp) == (unit, became)
    assert auto == tiny.config(train__amp=became, model__embed_dim=width), "hashes are of what runs"
    assert TransferTrainConfig().amp == "none", "whose width is not known yet"
    for amp in ("none", "bf16"):
        assert tiny.config(train__amp=amp, model__embed_dim=width).train.amp == amp
        assert unit in precision.describe_amp(amp, width)
    assert ("slower" in precision.describe_amp("bf16", width)) == (became == "none")
    assert (f"from width {BF16_WIDTH}" in precision.describe_amp("none", width)) == (bool(unit) and became == "none")


def test_widths_of_named_sizes() -> None:
    assert {name: dim for name, (dim, _, _) in SIZES.items()} == WIDTHS
    assert ModelConfig(size="small").width == 384
    assert ModelConfig(size="small", embed_dim=64).width == 64
    assert ModelConfig(size="unknown").width == 0


@pytest.mark.parametrize("native", [True, False])
def test_auto_follows_the_gpu_where_there_is_one(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(precision, "cpu_flags", lambda: {"amx_bf16"})
    assert tiny.config(train__amp="auto").train.amp == ("bf16" if native else "none")


def test_a_run_is_not_resumed_in_another_precision(tmp_path: Path) -> None:
    run_pretraining(tiny.config(name="x", train__outer_iterations=2), tmp_path)
    with pytest.raises(CheckpointError, match=r"train\.amp \(.none. -> .bf16.\)"):
        run_pretraining(tiny.config(name="x", train__amp="bf16", train__outer_iterations=2), tmp_path, resume=True)


def test_a_bf16_run_that_is_resumed_has_the_same_bits(tmp_path: Path) -> None:
    cfg = tiny.config(name="x", train__amp="bf16", train__outer_iterations=4)
    run_pretraining(cfg, tmp_path / "whole")
    run_pretraining(cfg, tmp_path / "halves")
    for path in (tmp_path / "halves" / "record.json", tmp_path / "halves" / "checkpoints" / "iter_4.pth"):
        path.unlink()  # as if killed after iteration 2
    run_pretraining(cfg, tmp_path / "halves", resume=True)
    whole, halves = (
        torch.load(tmp_path / name / "checkpoints" / "iter_4.pth", weights_only=True) for name in ("whole", "halves")
    )
    assert tiny.differences(whole["modules"], halves["modules"]) == []


def test_unknown_amp_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.amp.*must be one of auto, none, bf16; got 'fp16'"):
        tiny.config(train__amp="fp16")


POOLED = {"feedback": {"type": "nca"}, "levels": {"lower_steps": 1, "mask_pooling": True, "solver": "explicit"}}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"levels__lower_steps": 1}, POOLED], ids=["one_step", "explicit"])
def test_a_compiled_iteration_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch, changes: dict) -> None:
    # one step: Adam's first updates would turn rounding into steps, and the second loss would show it
    plain, g_plain = one_iteration(monkeypatch, **changes)
    compiled, g_compiled = one_iteration(monkeypatch, **changes, train__compile=True)
    for name in plain:
        assert float(compiled[name]) == pytest.approx(float(plain[name]), rel=1e-5)
    for level in g_plain:
        if g_plain[level]:
            assert relative(g_compiled[level], g_plain[level]) < 1e-4
    assert relative(one_iteration(monkeypatch, **changes, seed=1)[1]["phi"], g_plain["phi"]) > 0.1, "too blunt"


@pytest.mark.slow
def test_compiled_lower_loss_draws_the_same_masks() -> None:
    model, data = tiny.trainer(tiny.config())
    batch = data.batches[0]["lower"][0]
    assert float(torch.compile(partial(lower, model))(batch)) == pytest.approx(float(lower(model, batch)), rel=1e-5)


class SharedMemory:
    """A backend of torch.compile whose outputs share memory between iterations, as those of CUDA graphs do: with the
    first call after `mark` all earlier ones become NaN. Without ``marked`` iterations torch lets that begin with any
    forward pass that no backward pass is waiting for, here with every one."""

    def __init__(self, marked: bool) -> None:
        self.marked, self.outputs, self.due = marked, [], False

    def mark(self) -> None:
        self.due = self.marked

    def compiled(self, function: Any, cuda_graphs: bool) -> Any:
        assert cuda_graphs
        backend = aot_autograd(fw_compiler=partial(self._made, begins=not self.marked), bw_compiler=self._made)
        return torch.compile(function, dynamic=False, backend=backend)

    def _made(self, graph: torch.fx.GraphModule, _: Any, begins: bool = False) -> Any:
        def run(*inputs: Any) -> Any:
            if self.due or begins:
                for tensor in self.outputs:
                    tensor.data.fill_(float("nan"))  # behind autograd's back, which would raise
                self.outputs, self.due = [], False
            made = [t.clone() if isinstance(t, torch.Tensor) else t for t in graph(*inputs)]
            self.outputs += [t for t in made if isinstance(t, torch.Tensor) and t.is_floating_point()]
            return made

        return make_boxed_func(run)


def losses_of(**changes: Any) -> list[dict[str, float]]:
    """Those of three iterations, read after the last one."""
    torch._dynamo.reset()
    model, data = tiny.trainer(tiny.config(data__eval=None, **changes))
    step = tiny.step_of(model)
    losses = [step(data.batches[t], t) for t in range(3)]
    return [{name: float(value) for name, value in found.items()} for found in losses]


AVERAGED = {"levels": {"lower_steps": 2, "v_momentum": 0.5}}


@pytest.mark.parametrize(
    ("changes", "marked"),
    [(AVERAGED, True), (AVERAGED, False), (POOLED, True)],
    ids=["one_step", "one_step, not marked", "explicit"],
)
def test_nothing_is_read_that_cuda_graphs_have_overwritten(
    monkeypatch: pytest.MonkeyPatch, changes: dict, marked: bool
) -> None:
    memory = SharedMemory(marked)
    monkeypatch.setattr(step_module, "compiled", memory.compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", memory.mark)
    found = losses_of(**changes, train__compile=True, train__cuda_graphs=True)
    expected = losses_of(**changes)
    same = [a == pytest.approx(b, rel=1e-4) for a, b in zip(found, expected, strict=True)]
    assert all(same) if marked else not any(same)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_graphs_are_refused_without_a_device() -> None:
    model, _ = tiny.trainer(tiny.config(train__compile=True, train__cuda_graphs=True))
    with pytest.raises(ConfigError, match=r"needs a CUDA device; set train\.cuda_graphs=False"):
        tiny.step_of(model)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [{}, POOLED], ids=["one_step", "explicit"])
def test_cuda_graphs_give_the_losses_of_the_plain_step(changes: dict) -> None:
    model, data = tiny.trainer(tiny.config(data__eval=None, **changes))
    graphs, _ = tiny.trainer(tiny.config(data__eval=None, **changes, train__compile=True, train__cuda_graphs=True))
    plain, replayed = (tiny.step_of(m.cuda()) for m in (model, graphs))
    for t in range(4):  # the first iterations warm up and record
        batches = to_device(data.batches[t % len(data.batches)], torch.device("cuda"))
        expected = {name: float(value) for name, value in plain(batches, t).items()}
        assert {name: float(value) for name, value in replayed(batches, t).items()} == pytest.approx(expected, rel=1e-2)
