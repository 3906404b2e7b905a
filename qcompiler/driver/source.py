"""Where the model comes from: a file, a shipped sample, or memory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcompiler.errors import ModelError, UsageError, nearest

if TYPE_CHECKING:
    from qcompiler.driver.options import ModelSpec
    from qcompiler.models import SampleModel

__all__ = ["Source", "find", "open_source"]


@dataclass(frozen=True)
class Source:
    """The float model as a file.

    Attributes:
        path: The file.
        text: What to call it in messages and in the report.
        stem: What the output is named after.
        sample: The shipped sample it is, which brings its own data.
        temporary: Whether the file goes away after the compile.
    """

    path: Path
    text: str
    stem: str
    sample: SampleModel | None = None
    temporary: bool = False


def find(model: str | Path) -> Source:
    """The model that a path or the name of a sample means; a file goes before a sample of the same name.

    Raises:
        UsageError: There is no such file or sample.
    """
    from qcompiler import models

    path = Path(model)
    if path.is_file():
        return Source(path, str(path), path.stem)
    name = str(model)
    if name in models.names():
        sample = models.load(name)
        return Source(sample.path, f"{name} (shipped sample)", name, sample)
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder", hint="name the .onnx file in it")
    beside = [item.name for item in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
    known = [*models.names(), *(str(path.parent / name) for name in beside)]
    hint = nearest(name, known) or f"shipped samples: {', '.join(models.names())}"
    raise UsageError(f"there is no model file '{model}'", hint=hint)


@contextlib.contextmanager
def open_source(model: ModelSpec) -> Iterator[Source]:
    """The model as a file; a model in memory is written to a temporary one first.

    A model in memory is not changed by a compile, and the float model stays at hand for comparison.
    """
    if isinstance(model, str | Path):
        yield find(model)
        return
    with tempfile.TemporaryDirectory(prefix="qcompiler-") as folder:
        path = Path(folder) / "model.onnx"
        name = _write(model, path)
        yield Source(path, f"{name} (in memory)", name, temporary=True)


def _write(model: object, path: Path) -> str:
    """Write a model in memory; returns a name for it that is fit for a file."""
    import onnx
    import onnx_ir as ir

    if isinstance(model, onnx.ModelProto):
        large = model.ByteSize() > 1 << 30
        onnx.save(model, path, save_as_external_data=large, location="model.onnx.data")
        name = model.graph.name
    elif isinstance(model, ir.Model):
        from qcompiler.ir import io

        io.save(model, path)
        name = model.graph.name or ""
    else:
        hint = "give a path, an onnx.ModelProto or an onnx_ir.Model"
        raise ModelError(f"a {type(model).__name__} is not a model", hint=hint)
    fit = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    return fit or "model"
