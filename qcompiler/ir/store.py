"""Write models: atomically, deterministically, one weight at a time.

The protobuf is written piece by piece (its wire format allows it: ``qcompiler.ir.wire``), so that writing needs
memory for the graph and for one weight, never for a second copy of the model. Everything goes to temporary files in
the target folder, which are renamed when all of it is on disk; whatever goes wrong, including Ctrl-C, leaves the old
files as they were and no new ones.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import onnx
import onnx_ir as ir

from qcompiler.errors import ModelError, QCompilerError
from qcompiler.ir.collector import collector_paused
from qcompiler.ir.slim import initializer_head, without_initializers
from qcompiler.ir.wire import delimited

__all__ = ["atomic_files", "initializer_bytes", "save"]

PROTOBUF_LIMIT: Final = (1 << 31) - (1 << 24)
"""A protobuf message ends below 2 GiB; some is left for the graph."""

_INLINE: Final = 4096
"""Tensors up to this many bytes stay in the protobuf even when the others go to a file beside."""

_ALIGNMENT: Final = 4096
_REFERENCE: Final = 384
"""Most bytes of a reference to a file beside: a file name of up to 255 characters, offset and length in digits."""
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


def save(model: ir.Model, path: str | Path, *, external_threshold: int = 1 << 30) -> list[Path]:
    """Write a model.

    Args:
        model: The model; it is not changed.
        path: Where to; an existing file is replaced once the new one is complete.
        external_threshold: When the weights of the main graph exceed this many bytes, they go to ``NAME.data``
            beside the model, NAME being the model's file name.

    Returns:
        The files written: the model and, where used, its external data.

    Raises:
        QCompilerError: The folder is missing or read-only, the disk is full, … Nothing is left behind.
        ModelError: The model cannot be serialised.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise QCompilerError("this is not a regular file and will not be replaced", where=str(path))
    with collector_paused():
        weights = [_Weight(value) for value in model.graph.initializers.values()]
        external = sum(weight.length for weight in weights) > min(external_threshold, PROTOBUF_LIMIT)
        targets = [path.with_name(f"{path.name}.data"), path] if external else [path]
        with atomic_files(targets) as files:
            if external:
                _write_data(weights, files[0])
            _write_model(model, weights, targets[0].name, files[-1])
    return targets[::-1]


def initializer_bytes(value: ir.Value, *, external: bool = False) -> int:
    """Bytes that ``save`` writes for one initializer, framing included; no data is read.

    Args:
        value: The initializer.
        external: Whether weights go to a file beside the model. Alignment and the text that says where a weight lies
            are counted at their most then.

    Raises:
        ModelError: It has no content.
    """
    weight = _Weight(value)
    head = len(weight.head(""))
    if external and weight.length > _INLINE:
        body = head + _REFERENCE
        return len(delimited(_INITIALIZER, body)) + body + weight.length + _ALIGNMENT
    size = head + (0 if weight.whole else len(delimited(_RAW_DATA, weight.length)) + weight.length)
    return len(delimited(_INITIALIZER, size)) + size


class _Weight:
    """An initializer on its way to a file.

    Args:
        value: The initializer.

    Attributes:
        length: Bytes of data to be streamed; 0 for strings, which protobuf holds in another way.
        offset: Where the data was put in the file beside the model; ``None`` while it is nowhere.
    """

    __slots__ = ("length", "offset", "tensor", "value")

    def __init__(self, value: ir.Value) -> None:
        if value.const_value is None:
            raise ModelError(f"initializer '{value.name}' has no content")
        self.value = value
        self.tensor: ir.TensorProtocol = value.const_value
        self.length = 0 if self.tensor.dtype == ir.DataType.STRING else self.tensor.nbytes
        self.offset: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the head of this initializer is all of it."""
        return self.offset is not None or self.tensor.dtype == ir.DataType.STRING

    def write(self, file: BinaryIO) -> None:
        """Append the bytes."""
        start = file.tell()
        if self.length > _INLINE and (tofile := getattr(self.tensor, "tofile", None)) is not None:
            tofile(file)  # large arrays are written without a copy
        else:
            file.write(self.tensor.tobytes())
        if file.tell() - start != self.length:
            raise ModelError(f"initializer '{self.value.name}' has {file.tell() - start:,} bytes, not {self.length:,}")

    def head(self, location: str) -> bytes:
        """A serialised ``TensorProto`` up to, and without, its ``raw_data``; with a reference to data beside."""
        proto = initializer_head(self.value)
        if self.offset is not None:
            proto.data_location = onnx.TensorProto.EXTERNAL
            for key, text in (("location", location), ("offset", str(self.offset)), ("length", str(self.length))):
                proto.external_data.add(key=key, value=text)
        return bytes(proto.SerializeToString(deterministic=True))


@contextmanager
def atomic_files(targets: list[Path]) -> Iterator[list[BinaryIO]]:
    """Open temporary files beside ``targets``, and rename them when the block ends without an error.

    Args:
        targets: Files to create or replace; the renames happen in this order.

    Raises:
        QCompilerError: The operating system refused; nothing is left behind.
    """
    temporary = [target.with_name(f".{target.name}.{os.getpid()}.tmp") for target in targets]
    files: list[BinaryIO] = []
    try:
        for name in temporary:
            name.unlink(missing_ok=True)  # of a process with our number that was killed
            files.append(name.open("xb"))
        yield files
        for file in files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        _rename(temporary, targets)
    except OSError as error:
        raise _refused(error, targets[-1]) from error
    finally:
        for file in files:
            with suppress(OSError):  # a full disk refuses the last buffer once more
                file.close()
        for name in temporary[: len(files)]:
            name.unlink(missing_ok=True)


def _rename(sources: list[Path], targets: list[Path]) -> None:
    """Rename all, or none: files already replaced are put back when a later rename fails."""
    kept: list[tuple[Path, Path | None]] = []
    try:
        for source, target in zip(sources, targets, strict=True):
            backup = source.with_suffix(".old") if target.exists() and target is not targets[-1] else None
            kept.append((target, backup))
            if backup is not None:
                target.replace(backup)
            source.replace(target)
    except BaseException:
        for target, backup in kept:
            if backup is not None and backup.exists():
                backup.replace(target)
            elif backup is None and target is not targets[-1]:
                target.unlink(missing_ok=True)
        raise
    for _, backup in kept:
        if backup is not None:
            backup.unlink(missing_ok=True)


def _write_data(weights: list[_Weight], file: BinaryIO) -> None:
    """Write the large weights one after another."""
    for weight in weights:
        if weight.length > _INLINE:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            weight.offset = file.tell()
            weight.write(file)


def _write_model(model: ir.Model, weights: list[_Weight], location: str, file: BinaryIO) -> None:
    """Write the protobuf: everything but the graph, then the graph with its initializers streamed."""
    proto = without_initializers(model)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    frame = proto.SerializeToString(deterministic=True)
    heads = [weight.head(location) for weight in weights]
    tags = [b"" if weight.whole else delimited(_RAW_DATA, weight.length) for weight in weights]
    sizes = [
        len(head) + len(tag) + (0 if weight.whole else weight.length)
        for head, tag, weight in zip(heads, tags, weights, strict=True)
    ]
    body = len(graph) + sum(len(delimited(_INITIALIZER, size)) + size for size in sizes)
    if len(frame) + body > (1 << 31) - 1:
        raise ModelError("the graph itself, without its weights, exceeds the 2 GiB that protobuf allows")
    file.write(frame + delimited(_GRAPH, body) + graph)
    for head, tag, size, weight in zip(heads, tags, sizes, weights, strict=True):
        file.write(delimited(_INITIALIZER, size) + head + tag)
        if not weight.whole:
            weight.write(file)


def _refused(error: OSError, target: Path) -> QCompilerError:
    """What the operating system meant, in words."""
    reasons = {
        errno.ENOSPC: ("the disk is full", "free some space, or write elsewhere with -o"),
        errno.EDQUOT: ("the disk quota is exhausted", "free some space, or write elsewhere with -o"),
        errno.EACCES: ("the folder cannot be written to", "choose another place with -o"),
        errno.EPERM: ("the folder cannot be written to", "choose another place with -o"),
        errno.EROFS: ("the folder is read-only", "choose another place with -o"),
        errno.ENOENT: ("the folder does not exist", f"create {target.parent} first"),
        errno.ENOTDIR: ("the folder is not a folder", "choose another place with -o"),
    }
    text, hint = reasons.get(error.errno or 0, (f"it cannot be written: {error.strerror or error}", None))
    return QCompilerError(text, where=str(target), hint=hint)
