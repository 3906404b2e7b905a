"""Where the compiled part of the project lies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

__all__ = ["library_path"]

_NAMES: Final = {"darwin": "libqcompiler_runtime.dylib", "win32": "qcompiler_runtime.dll"}


def library_path() -> Path | None:
    """The shared library with the native kernels and the execution provider.

    It is built when the project is installed and a C++ compiler is there.

    Returns:
        Its path, or ``None`` where the installation has none: compiled models then run by their function bodies.
    """
    import qcompiler.runtime

    name = _NAMES.get(sys.platform, "libqcompiler_runtime.so")
    # An editable installation has two folders: the sources, and the one where compiled files are installed.
    folders = [Path(folder) for folder in qcompiler.runtime.__path__]
    installed = [Path(folder) / "qcompiler" / "runtime" for folder in sys.path if folder]
    return next((folder / name for folder in [*folders, *installed] if (folder / name).is_file()), None)
