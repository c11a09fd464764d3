"""The registry's checks of names, options and values, and its import of a folder."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from mlomae.common.errors import ConfigError
from mlomae.common.registry import Registry, check_choice, check_range, import_modules


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
        check_range("thing", interval, size=value)
    for value in outside:
        with pytest.raises(ConfigError) as error:
            check_range("thing", interval, colour=inside[0], size=value)
        assert str(error.value) == f"thing: size={value!r} must be a number in {interval}"


def test_choices() -> None:
    check_choice("thing", ("red", "blue"), colour="blue")
    with pytest.raises(ConfigError, match=r"^thing: colour='pink' is unknown; choose one of red, blue$"):
        check_choice("thing", ("red", "blue"), colour="pink")


def test_every_module_of_a_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "folder_of_plugins"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("first", "second"):
        (package / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    import_modules("folder_of_plugins")
    assert {"folder_of_plugins.first", "folder_of_plugins.second"} <= set(sys.modules)
