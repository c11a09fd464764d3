"""How configurations inherit: as MMEngine's do, and another ``type`` drops the options that only the old one has."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlomae.common.registry import options_of

_HOMES = ("mlomae.data", "mlomae.masking", "mlomae.feedback", "mlomae.auxiliary")  # importing them registers types


def register_types() -> None:
    """Import what registers the types that a configuration can name."""
    for home in _HOMES:
        importlib.import_module(home)


def foreign_options(old: object, new: object) -> set[str]:
    """The options of type ``old`` that ``new`` does not have; none where one of the two is not known."""
    register_types()
    before, now = options_of(old), options_of(new)
    return set() if before is None or now is None else before - now


@contextmanager
def types_drop_options(say: Callable[[str], None]) -> Iterator[None]:
    """Within the block, a section that is merged into one of another ``type`` does not inherit `foreign_options`:
    ``data.train.type=imagefolder`` over a config of cub200 is no error about ``subset``. ``say`` is told of each."""
    from mmengine.config import Config

    given = inspect.getattr_static(Config, "_merge_a_into_b")
    usual = given.__func__

    def merge(a: Any, b: Any, allow_list_keys: bool = False) -> Any:
        if isinstance(a, dict) and isinstance(b, dict) and a.get("type", b.get("type")) != b.get("type"):
            old, new = b.get("type"), a["type"]
            dropped = sorted(foreign_options(old, new) & b.keys() - a.keys())
            if dropped:
                say(f"note: type '{new}' takes the place of '{old}', whose options are dropped: {', '.join(dropped)}")
                b = b.copy()
                for key in dropped:
                    del b[key]
        return usual(a, b, allow_list_keys)

    Config._merge_a_into_b = staticmethod(merge)
    try:
        yield
    finally:
        Config._merge_a_into_b = given
