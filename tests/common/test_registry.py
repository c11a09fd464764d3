"""The registry's checks of names, options and values, and its import of a folder."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Count, Registry, check_interval, import_modules


class Base:
    def __init__(self, size: int = 1) -> None:
        self.size = size


class Middle(Base):
    """Without an ``__init__`` of its own."""


class Thing(Middle):
    def __init__(self, width: int, colour: str = "red", **options: Any) -> None:
        super().__init__(**options)
        self.width, self.colour = width, colour


@pytest.fixture
def things() -> Registry[Any]:
    registry = Registry[Any]("thing")
    registry.register("class")(Thing)
    registry.register("function")(lambda width, height: (width, height))
    return registry


def test_a_class_that_passes_options_on_has_those_of_its_base(things: Registry[Any]) -> None:
    assert list(things.options("class", ("width",))) == ["colour", "size"]
    found = things.build("class", {"size": 3}, width=2)
    assert (found.width, found.colour, found.size) == (2, "red", 3)
    assert things.build("function", {"height": 5}, width=2) == (2, 5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("klass", {}, "unknown thing 'klass'; choose one of class, function"),
        (None, {}, "thing without a type; choose one of class, function"),
        ("class", {"sise": 1}, "thing 'class' has no option 'sise' (did you mean 'size'?); it has colour, size"),
        ("class", {"width": 1}, "thing 'class' has no option 'width'; it has colour, size"),
        ("function", {}, "thing 'function' needs the option 'height'; it has height"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(things: Registry[Any], name: Any, options: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        things.build(name, options, width=2)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", [0, 1, 0.5], [-1e-9, 1.1, math.nan, True, "0.5", None]),
        ("(0, 1)", [0.5], [0, 1, 1.0]),
        ("[2, inf)", [2, 10**9], [1, math.inf]),
        ("(-inf, inf)", [-5.0, 0], [-math.inf, math.inf, math.nan]),
    ],
)
def test_ranges_open_and_closed(interval: str, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        check_interval(value, interval, "size")
    for value in outside:
        with pytest.raises(ConfigError, match=r"^size must be ") as error:
            check_interval(value, interval, "size")
        assert str(error.value).endswith(f"; got {value!r}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "pink"}, "option 'colour' of thing 'limited' must be one of red, blue; got 'pink'"),
        ({"size": 0}, "option 'size' of thing 'limited' must be at least 1; got 0"),
        ({"size": 1.5}, "option 'size' of thing 'limited' must be int; got 1.5"),
        ({"rate": 1}, "option 'rate' of thing 'limited' must be inside [0, 1); got 1.0"),
        ({"rate": "high"}, "option 'rate' of thing 'limited' must be float or None; got 'high'"),
        ({"flag": "no"}, "option 'flag' of thing 'limited' must be bool; got 'no'"),
        ({"some": "ab"}, "option 'some' of thing 'limited' must be int or list; got 'ab'"),
    ],
)
def test_annotations_limit_options(options: dict[str, Any], words: str) -> None:
    registry = Registry[Any]("thing")

    @registry.register("limited")
    def limited(
        colour: Literal["red", "blue"] = "red",
        size: Count = 1,
        rate: Annotated[float, "[0, 1)"] | None = None,
        flag: bool = True,
        some: int | list[int] = 1,
        call: Callable[[int], int] = abs,
    ) -> tuple[Any, ...]:
        return colour, size, rate

    assert registry.build("limited", {"colour": "blue", "size": 2, "rate": 0}) == ("blue", 2, 0)
    others = {"flag": False, "some": (1, 2), "call": "not checked"}
    assert registry.build("limited", {"rate": None, **others}) == ("red", 1, None)
    with pytest.raises(ConfigError) as error:
        registry.build("limited", options)
    assert str(error.value) == words


def test_every_module_of_a_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "folder_of_plugins"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("first", "second"):
        (package / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    import_modules("folder_of_plugins")
    assert {"folder_of_plugins.first", "folder_of_plugins.second"} <= set(sys.modules)
