"""The installed version of the compiler."""

from __future__ import annotations

import functools
from importlib import metadata

__all__ = ["version"]


@functools.cache
def version() -> str:
    """Version of the installed distribution; ``unknown`` in a source tree that was not installed."""
    try:
        return metadata.version("qcompiler")
    except metadata.PackageNotFoundError:
        return "unknown"
