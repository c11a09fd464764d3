"""The two data sources of a transfer, built and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mlomae.common.errors import ConfigError, DataError
from mlomae.data import Images, check_disjoint

AnyImages = TypeVar("AnyImages", bound=Images)


@contextmanager
def values_of(section: str) -> Iterator[None]:
    """Say in one line that a value of a free-form section has the wrong type; its keys are checked by name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"config section '{section}' holds a value of the wrong type ({error}); correct it"
        ) from error


def open_pair(data: Any, build: Callable[[dict[str, Any]], AnyImages]) -> tuple[AnyImages, AnyImages]:
    """``data.train`` and ``data.test`` as ``build`` makes them.

    Raises DataError if their classes differ or if a test image is also a training image, and what ``build`` raises.
    """
    with values_of("data.train and data.test"):
        train, test = build(data.train), build(data.test)
    if list(train.classes) != list(test.classes):
        odd = sorted(set(train.classes) ^ set(test.classes)) or ["the order"]
        raise DataError(
            f"classes of {train.describe()} and {test.describe()} differ ({odd[0]}); give both splits of one data set"
        )
    check_disjoint(train, test)
    return train, test
