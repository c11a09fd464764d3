"""The reference pages, from the code: `python docs/generate.py` writes docs/reference/{cli,config,api}.md.

They are kept in git, where they can be read without building anything; a test checks that they are what the code gives.
"""

import argparse
import dataclasses
import inspect
import os
import pkgutil
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlomae
from benchmarks.tasks import all_tasks
from mlomae.cli import build_parser
from mlomae.common.atomic import write_text
from mlomae.config.schema import PretrainConfig
from mlomae.config.strict import Configuration

PAGES = Path(__file__).parent / "reference"
WRITTEN = "<!-- written by docs/generate.py -->\n"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """``parser`` and those of its subcommands, in the order of the help."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from commands(sub)


def cli() -> str:
    """A section for each command, with its --help."""
    os.environ["COLUMNS"] = "110"  # argparse wraps to the terminal
    parts = ["# Command line\n"]
    for parser in commands(build_parser()):
        level = "##" if parser.prog.count(" ") < 2 else "###"
        parts.append(f"{level} {parser.prog}\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


def kind(annotation: Any) -> str:
    """The type of a key, with the interval or the choices of its values."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *notes = typing.get_args(annotation)
        return f"{kind(inner)} in {notes[0]}" if isinstance(notes[0], str) else kind(inner)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(annotation))
    if options := [a for a in typing.get_args(annotation) if typing.get_origin(annotation) not in (dict, list, tuple)]:
        return " or ".join("None" if a is type(None) else kind(a) for a in options)
    return getattr(annotation, "__name__", str(annotation))


def sections(of: type, name: str = "") -> Iterator[tuple[str, type]]:
    """Dotted name and dataclass of ``of`` and of each section in it, a level's for ``optim``."""
    yield name, of
    hints = typing.get_type_hints(of, include_extras=True)
    for field in dataclasses.fields(of):
        found = [hints[field.name], *typing.get_args(hints[field.name])]
        for inner in (a for a in found if dataclasses.is_dataclass(a) and isinstance(a, type)):
            more = ".LEVEL" if typing.get_origin(hints[field.name]) is dict else ""
            yield from sections(inner, f"{name}.{field.name}{more}".lstrip("."))


def default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory()
    return "see its section" if dataclasses.is_dataclass(value) else f"`{value!r}`"


def keys(config: type) -> str:
    """Tables of the keys of a configuration, a section each, with what its docstring says."""
    parts = []
    for name, section in sections(config):
        hints = typing.get_type_hints(section, include_extras=True)
        rows = [
            f"| `{name + '.' if name else ''}{f.name}` | {kind(hints[f.name])} | {default(f)} |".replace(
                " | None |", ""
            )
            for f in dataclasses.fields(section)
            if not dataclasses.is_dataclass(hints[f.name])
        ]
        title = f"### {name}\n" if name else ""
        parts.append(f"{title}{prose(section)}\n\n| key | type | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def config() -> str:
    """Every key of every configuration."""
    classes: dict[str, type[Configuration]] = {"Pretraining": PretrainConfig}
    classes |= {f"Task: {t.name}": pkgutil.resolve_name(t.config) for t in all_tasks()}
    intro = "Keys can be overridden on the command line: `--cfg-options train.log_interval=10`.\n"
    return "\n".join(["# Configuration\n", intro, *(f"## {name}\n{keys(c)}" for name, c in classes.items())])


def prose(documented: Any) -> str:
    """A docstring as Markdown: arguments are a list, ``code`` has single marks."""
    text = re.sub(r"``([^`]+)``", r"`\1`", inspect.getdoc(documented) or "")
    text = re.sub(r"^    (\w[^:\n]*): ", r"- `\1`: ", text, flags=re.M)
    return re.sub(r"^(Args|Attributes):$", r"Arguments:\n", re.sub(r"^ {8}", "  ", text, flags=re.M), flags=re.M)


def api() -> str:
    """The names of `mlomae.__all__`: signature and docstring."""
    parts = ["# Python\n", "The names of `import mlomae`, which stay.\n"]
    for name in sorted(mlomae.__all__, key=str.lower):
        found = getattr(mlomae, name)
        signature = re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", str(inspect.signature(found)))
        if len(signature) > 90:  # a line for each argument
            lines = re.sub(r", (?=\*|\w+:)", ",\n    ", signature.replace("(", "(\n    ", 1))
            signature = lines.replace(") ->", ",\n) ->")
        parts.append(f"## {name}\n```text\n{name}{signature}\n```\n{prose(found)}\n")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    return {PAGES / f"{page.__name__}.md": WRITTEN + page() for page in (cli, config, api)}


if __name__ == "__main__":
    for path, text in pages().items():
        write_text(path, text)
