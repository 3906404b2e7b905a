"""Files appear whole or not at all.

The compiled model is written into a private folder beside its destination, checked there, and moved by one rename
per file, the model last. Whatever goes wrong, Ctrl-C included, the folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qcompiler.errors import QCompilerError

__all__ = ["check_writable", "publish", "staging", "write_bytes", "write_text"]


@contextlib.contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A private folder on the file system of ``output``, removed on the way out.

    Yields:
        The path at which to write the file: it bears the final name, so that what refers to its own name (external
        data) is already right.

    Raises:
        QCompilerError: The destination cannot be written to.
    """
    if output.is_dir():
        raise QCompilerError(f"'{output}' is a folder", hint="name the output file")
    if not output.parent.is_dir():
        raise QCompilerError(f"the output folder '{output.parent}' does not exist", hint="create it first")
    try:
        folder = tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent)
    except OSError as error:
        raise _cannot_write(output, error) from error
    try:
        yield Path(folder) / output.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, output: Path) -> None:
    """Move the staged model and the files beside it to where ``output`` is; the model comes last.

    Raises:
        QCompilerError: A rename failed.
    """
    beside = sorted(path for path in staged.parent.iterdir() if path != staged)
    try:
        for path in (*beside, staged):
            os.replace(path, output.parent / path.name)  # noqa: PTH105 -- tests simulate failure at this very call
    except OSError as error:
        raise _cannot_write(output, error) from error


def check_writable(path: Path) -> None:
    """Find out before long work whether ``write_text`` will be able to write.

    Raises:
        QCompilerError: The file cannot be written.
    """
    with staging(path):
        pass


def write_text(path: Path, text: str) -> None:
    """Write a small text file so that a reader sees the old or the new content, never a part.

    Raises:
        QCompilerError: The file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for any content.

    Raises:
        QCompilerError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> QCompilerError:
    return QCompilerError(f"cannot write '{path}': {error.strerror or error}", hint="nothing was left behind")
