"""Masked autoencoders whose mask is learned from downstream feedback.

The names in ``__all__`` are what a script needs; each is imported on first use, so that ``import mlomae`` is fast and
does not load torch. To change the method, see `mlomae.masking`, `mlomae.feedback`, `mlomae.multilevel`, `mlomae.data`.
"""

import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlomae.backbones.create import create_backbone
    from mlomae.backbones.embed import embed
    from mlomae.backbones.export import export
    from mlomae.backbones.feature_vit import FeatureViT
    from mlomae.config.schema import load_config
    from mlomae.data import register_dataset
    from mlomae.masking import MaskingStrategy, list_strategies
    from mlomae.masking import register as register_strategy
    from mlomae.pretraining.api import pretrain
    from mlomae.pretraining.load import evaluate_checkpoint as evaluate
    from mlomae.pretraining.load import load_run
    from mlomae.records import read_records

__version__ = "0.2.0"
__all__ = [
    "FeatureViT",
    "MaskingStrategy",
    "create_backbone",
    "embed",
    "evaluate",
    "export",
    "list_strategies",
    "load_config",
    "load_run",
    "pretrain",
    "read_records",
    "register_dataset",
    "register_strategy",
]

_WHERE = {
    "FeatureViT": "mlomae.backbones.feature_vit:FeatureViT",
    "MaskingStrategy": "mlomae.masking:MaskingStrategy",
    "create_backbone": "mlomae.backbones.create:create_backbone",
    "embed": "mlomae.backbones.embed:embed",
    "evaluate": "mlomae.pretraining.load:evaluate_checkpoint",
    "export": "mlomae.backbones.export:export",
    "list_strategies": "mlomae.masking:list_strategies",
    "load_config": "mlomae.config.schema:load_config",
    "load_run": "mlomae.pretraining.load:load_run",
    "pretrain": "mlomae.pretraining.api:pretrain",
    "read_records": "mlomae.records:read_records",
    "register_dataset": "mlomae.data:register_dataset",
    "register_strategy": "mlomae.masking:register",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mlomae' has no attribute '{name}'")
    return pkgutil.resolve_name(_WHERE[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
