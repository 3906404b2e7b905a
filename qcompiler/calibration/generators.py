"""Samples from a user's own generator: ``generator:FILE.py:FUNCTION``.

The function is called as ``generate(inputs, count, seed)`` with what the model declares (``{name: (dtype, shape)}``)
and gives any iterable of feeds ``{name: array}``. Its file is Python code and is run, because the user names it.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qcompiler.errors import DataError, UsageError, first_line, nearest

__all__ = ["PREFIX", "generated", "generator_file"]

PREFIX: Final = "generator:"


def generator_file(spec: str) -> tuple[Path, str]:
    """File and function of a specification.

    Raises:
        UsageError: It names none, or there is no such file.
    """
    file, _, function = spec.removeprefix(PREFIX).rpartition(":")
    if not file or not function:
        raise UsageError(f"'{spec}' does not name a function", hint="write generator:FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise UsageError(f"there is no file '{file}' with a generator")
    return Path(file), function


def generated(spec: str, inputs: Mapping[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """At most ``count`` feeds of the generator.

    Raises:
        DataError: The generator fails or gives nothing.
        UsageError: There is no such file or function.
    """
    path, name = generator_file(spec)
    module_spec = importlib.util.spec_from_file_location(f"qcompiler_generator_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"'{path}' is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"'{path}' cannot be run: {first_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, item in vars(module).items() if callable(item) and not key.startswith("_")]
        raise UsageError(f"'{path}' has no function '{name}'", hint=nearest(name, known))
    try:
        feeds = list(itertools.islice(function(dict(inputs), count, seed), count))
    except Exception as error:
        hint = f"it is called as {name}(inputs, count, seed), inputs are {{name: (dtype, shape)}}, and gives feeds"
        raise DataError(f"the generator failed: {first_line(error)}", where=spec, hint=hint) from error
    if not feeds:
        raise DataError("the generator gave no samples", where=spec)
    return feeds
