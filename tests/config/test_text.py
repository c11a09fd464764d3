"""A configuration that is written as a file reads back to equal values, whatever its texts are."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlomae.common.atomic import write_text
from mlomae.config.strict import read_config
from mlomae.config.text import config_text

ODD = (
    "/photos/{{ fileBasename }}",
    "{{ fileDirname}}/{{{fileExtname}}}",
    "{{$HOME:none}} {{'$HOME:none'}}",
    "{{ _base_.data.root }}",
    "\\{{ fileBasename }}\\",
    'it\'s "odd" \'\'\' """',
    "C:\\new\\u0041\\",
    "Fotos/Größe/写真/🐱/\u2028/e\u0301",
    "undecodable \udcff",
    "e\u0301",  # Python would compose the name of an argument
    "$HOME %(x)s {x} # no comment",
)


def back(values: dict[str, Any], about: str, folder: Path) -> dict[str, Any]:
    write_text(folder / "config.py", config_text(values, about))
    return read_config(folder / "config.py", None, "configs")


@pytest.mark.parametrize("text", ODD)
def test_odd_names_read_back(text: str, tmp_path: Path) -> None:
    values = {"root": text, "data": {"train": {"root": text}, "all": [text, {text: 1}], text: {"a": text}}}
    assert back(values, f"Of the folder {text}", tmp_path) == values


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("{}$:'\" \\_abfileBasename.ü"), max_size=40))
def test_any_text_reads_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    values = {"root": text, "data": {"train": {"root": f"{{{{ fileBasename }}}}{text}"}}}
    assert back(values, text, tmp_path_factory.mktemp("config")) == values


def test_values_of_all_kinds_and_long_ones_read_back(tmp_path: Path) -> None:
    values = {"name": "a", "d": {"class": 1, "b": [1.5, None, True]}, "e": {"long": "x" * 90, "f": {}}, "g": 1e-30}
    assert back(values, "", tmp_path) == values
