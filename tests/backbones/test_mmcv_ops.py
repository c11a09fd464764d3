"""When the stand-in is installed and when not, what it refuses, and that spawned processes have it."""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from mlomae.backbones import mmcv_ops as ops
from mlomae.common.errors import BackendError
from mlomae.doctor import doctor

pytest.importorskip("mmcv")
FakeMmcv = Callable[..., Path]
COMPILED = 'def nms():\n    return "compiled"\n'
BROKEN = 'raise ImportError("_ext.so: undefined symbol: _ZN2at\\nsecond line")\n'
WITHOUT_OPS = pytest.mark.skipif(ops.install() == ops.COMPILED, reason="mmcv has compiled operators here")


@pytest.fixture
def fake_mmcv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMmcv]:
    """Replace mmcv, as if nothing of it or of mmdet were imported, by a package with the given ``_ext`` or none."""

    def modules() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in ("mmcv", "mmdet")]

    def write(extension: str | None = None) -> Path:
        package = tmp_path / "mmcv"
        package.mkdir()
        (package / "__init__.py").touch()
        if extension is not None:
            (package / "_ext.py").write_text(extension)
        monkeypatch.syspath_prepend(tmp_path)
        return package

    real = {name: sys.modules.pop(name) for name in modules()}
    yield write
    for name in modules():
        del sys.modules[name]
    sys.modules.update(real)


def ops_line() -> str:
    (line,) = [line for line in doctor()[0].splitlines() if line.startswith("mmcv ops ")]
    return line.removeprefix("mmcv ops").strip()


def test_installs_where_operators_are_missing(fake_mmcv: FakeMmcv) -> None:
    fake_mmcv()
    assert ops_line() == "torchvision stand-in"
    assert ops.install() == ops.install() == "torchvision stand-in"
    assert importlib.util.find_spec("mmcv._ext")  # mmengine and mmcv ask for it; a module without a spec raises
    extension = importlib.import_module("mmcv._ext")
    assert extension is sys.modules["mlomae.backbones.mmcv_ext"]
    assert not hasattr(extension, "__path__")
    assert ops_line() == "torchvision stand-in"


def test_never_hides_compiled_operators(fake_mmcv: FakeMmcv) -> None:
    package = fake_mmcv(COMPILED)
    assert ops.install() == ops.install() == "compiled"
    extension = sys.modules["mmcv._ext"]
    assert extension.__file__ == str(package / "_ext.py")
    assert extension.nms() == "compiled"
    assert ops_line() == "compiled"


def test_compiled_operators_may_be_in_use_before(fake_mmcv: FakeMmcv) -> None:
    fake_mmcv(COMPILED)
    extension = importlib.import_module("mmcv._ext")
    sys.modules["mmcv.ops"] = sys.modules["mmdet.structures"] = types.ModuleType("early")
    assert ops.install() == "compiled"
    assert sys.modules["mmcv._ext"] is extension


def test_compiled_operators_that_do_not_load(fake_mmcv: FakeMmcv) -> None:
    fake_mmcv(BROKEN)
    with pytest.raises(BackendError, match=r"^mmcv's compiled .* \(_ext.so: undefined symbol: _ZN2at\); install.*$"):
        ops.install()
    assert "mmcv._ext" not in sys.modules
    text, status = doctor()
    assert status == 1
    assert "problem: mmcv's compiled operators do not load (_ext.so: undefined symbol: _ZN2at); install" in text
    assert ops_line() == "none"


def test_without_mmcv(fake_mmcv: FakeMmcv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"mmcv is not installed; .* install .*\[benchmarks\]'"):
        ops.install()
    assert ops_line() == "mmcv not installed"


@pytest.mark.parametrize("name", ["mmcv._ext", "mmcv.ops"])
def test_operators_of_others_are_refused(fake_mmcv: FakeMmcv, name: str) -> None:
    fake_mmcv()
    sys.modules[name] = types.ModuleType(name)
    with pytest.raises(BackendError, match=r"mmcv.ops was imported with other operators"):
        ops.install()
    assert sys.modules.get("mmcv._ext") is not sys.modules["mlomae.backbones.mmcv_ext"]


def test_what_mmdet_keeps_in_place_of_operators_is_replaced(fake_mmcv: FakeMmcv, tmp_path: Path) -> None:
    """As in mmdet's command lines, which import parts of it before they read the config that imports mlomae.mm."""
    (fake_mmcv() / "ops.py").write_text("from mmcv import _ext\nnms = _ext.nms\n")
    source = "try:\n    from mmcv.ops import nms as own\nexcept ImportError:\n    own = None\nnms = 3\n"
    (tmp_path / "mmdet").mkdir()
    (tmp_path / "mmdet" / "__init__.py").touch()
    (tmp_path / "mmdet" / "early.py").write_text(source)
    early = importlib.import_module("mmdet.early")
    assert early.own is None
    assert ops.install() == "torchvision stand-in"
    assert early.own is importlib.import_module("mlomae.backbones.mmcv_ext").nms
    assert early.nms == 3


def test_mmdet_without_its_source_must_come_after(fake_mmcv: FakeMmcv) -> None:
    fake_mmcv()
    for name in ("mmdet", "mmdet.registry", "mmdet.version", "mmdet.structures"):
        sys.modules[name] = types.ModuleType(name)
    with pytest.raises(BackendError, match=r"^mmdet.structures was imported without operators .* before mmdet$"):
        ops.install()
    assert "mmcv._ext" not in sys.modules
    del sys.modules["mmdet.structures"]
    assert ops.install() == "torchvision stand-in"


@WITHOUT_OPS
def test_other_operators_are_named() -> None:
    mmcv_ops = importlib.import_module("mmcv.ops")
    remedy = "is not in torchvision; install an mmcv with compiled ops"
    boxes, scores = torch.zeros(1, 4), torch.zeros(1)
    with pytest.raises(BackendError, match=f"^mmcv's operator 'softnms' {remedy}"):
        mmcv_ops.soft_nms(boxes, scores)
    with pytest.raises(BackendError, match=f"^mmcv's operator 'roi_pool_forward' {remedy}"):
        mmcv_ops.RoIPool(2)(torch.ones(1, 1, 8, 8), torch.zeros(1, 5))
    with pytest.raises(BackendError, match=f"^mmcv's operator 'sigmoid_focal_loss_forward' {remedy}"):
        mmcv_ops.sigmoid_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 2.0, 0.25, None, "mean")
    assert "torchvision" in mmcv_ops.get_compiler_version()
    assert "torchvision" in mmcv_ops.get_compiling_cuda_version()


def test_spawned_loader_workers_unpickle_a_class_whose_module_installs() -> None:
    from pooled_data import Pooled

    loader = DataLoader(Pooled(), num_workers=1, multiprocessing_context="spawn")
    assert [item.flatten().tolist() for item in loader] == [[float(i)] * 4 for i in range(3)]
