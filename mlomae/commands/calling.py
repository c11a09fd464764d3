"""From the options of a command line to the arguments of a function."""

import argparse
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any


def call(function: Callable[..., Any], args: argparse.Namespace, **more: Any) -> Any:
    """Call ``function`` with those options of the command line that it has parameters for."""
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in vars(args).items() if name in names}, **more)


def report(function: str, args: argparse.Namespace) -> int:
    """Print the text that ``function``, "module:name", returns with the exit status; it is imported only now."""
    text, status = call(pkgutil.resolve_name(function), args)
    print(text)
    return int(status)
