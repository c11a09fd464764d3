"""What `import mlomae` offers: these names with these signatures, documented, typed, and nothing heavy on import."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

import mlomae

ROOT = Path(__file__).parents[1]
SIGNATURES = {
    "FeatureViT": "(weights, img_size=224, out_indices=(3, 5, 7, 11), drop_path=0.0, model=None, window_size=0, "
    "global_blocks=(), rel_pos=False, with_cp=False, seed=0, init_cfg=None)",
    "MaskingStrategy": "(embed_dim, grid)",
    "create_backbone": "(spec, *, num_classes, img_size, drop_path=0.0, global_pool='avg', model=None, "
    "keep_norm=False, dynamic_img_size=False, head_std=2e-05, seed=0)",
    "embed": "(weights, images, *, pooling='avg', img_size=None, model=None, mean=None, std=None, "
    "batch_size=256, device=None)",
    "evaluate": "(path, overrides=None)",
    "export": "(checkpoint, out, fmt, *, pooling=None, num_heads=None)",
    "list_strategies": "()",
    "load_config": "(path, overrides=None)",
    "load_run": "(path, overrides=None)",
    "pretrain": "(config, *, strategy=None, data=None, eval_data=None, overrides=None, work_dir=None, resume=False, "
    "records_dir=None, log_to=())",
    "read_records": "(folder)",
    "register_dataset": "(name, published=None, download=None)",
    "register_strategy": "(name)",
}


def signature(function: Any) -> str:
    """Without the types, which mypy checks."""
    found = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_public_name_has_its_signature_and_is_documented(name: str) -> None:
    found = getattr(mlomae, name)
    assert signature(found) == SIGNATURES[name]
    assert inspect.getdoc(found)
    hints = inspect.get_annotations(found.__init__ if inspect.isclass(found) else found)
    assert "return" in hints, "typed"


def test_the_names_are_these_and_no_others() -> None:
    assert sorted(SIGNATURES) == sorted(mlomae.__all__) == sorted(mlomae._WHERE)
    assert {*SIGNATURES, "__version__"} <= {*dir(mlomae)}
    with pytest.raises(AttributeError, match="module 'mlomae' has no attribute 'pretrian'"):
        _ = mlomae.pretrian


def test_type_checkers_see_them(tmp_path: Path) -> None:
    """The imports for type checkers name what is imported at run time."""
    text = (ROOT / "mlomae" / "__init__.py").read_text()
    block = text[text.index("if TYPE_CHECKING:") : text.index("__version__")].replace("if TYPE_CHECKING:", "if True:")
    seen: dict[str, Any] = {}
    exec(block, seen)
    for name in SIGNATURES:
        assert seen[name] is getattr(mlomae, name)
    assert (ROOT / "mlomae" / "py.typed").is_file()


def test_the_version_is_the_distributions() -> None:
    assert f'version = "{mlomae.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {mlomae.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {mlomae.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_is_light() -> None:
    """No torch, and no more than a tenth of a second of the processor."""
    script = "import sys, time; t = time.process_time(); import mlomae; t = time.process_time() - t; "
    script += "print(t, sum(name.partition('.')[0] in ('torch', 'mmengine', 'numpy') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], env=tiny.environment(), capture_output=True, text=True)
    seconds, heavy = done.stdout.split()
    assert (float(seconds) < 0.1, heavy) == (True, "0"), done.stdout
