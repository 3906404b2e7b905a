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
from qcompiler.ir.slim import initializer_head, without_initializers
from qcompiler.ir.wire import delimited

__all__ = ["atomic_files", "save"]

PROTOBUF_LIMIT: Final = (1 << 31) - (1 << 24)
"""A protobuf message ends below 2 GiB; some is left for the graph."""

_INLINE: Final = 4096
"""Tensors up to this many bytes stay in the protobuf even when the others go to a file beside."""

_ALIGNMENT: Final = 4096
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
    weights = [value for value in model.graph.initializers.values() if value.const_value is not None]
    total = sum(_bytes(value) for value in weights)
    external = total > min(external_threshold, PROTOBUF_LIMIT)
    targets = [path.with_name(f"{path.name}.data"), path] if external else [path]
    with atomic_files(targets) as files:
        places = _write_data(weights, files[0]) if external else {}
        _write_model(model, weights, places, targets[0].name, files[-1])
    return targets[::-1]


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


def _write_data(weights: list[ir.Value], file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Write the large weights one after another; returns offset and length by name."""
    places: dict[str, tuple[int, int]] = {}
    for value in weights:
        length = _bytes(value)
        if length <= _INLINE:
            continue
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
        places[str(value.name)] = (file.tell(), length)
        _write_tensor(value, file)
    return places


def _write_tensor(value: ir.Value, file: BinaryIO) -> None:
    """Append the bytes of one weight."""
    tensor, start = value.const_value, file.tell()
    if isinstance(tensor, ir.TensorProtocol) and hasattr(tensor, "tofile"):
        tensor.tofile(file)
    elif tensor is not None:
        file.write(tensor.tobytes())
    if file.tell() - start != _bytes(value):
        raise ModelError(f"initializer '{value.name}' has {file.tell() - start:,} bytes, not {_bytes(value):,}")


def _write_model(
    model: ir.Model, weights: list[ir.Value], places: dict[str, tuple[int, int]], location: str, file: BinaryIO
) -> None:
    """Write the protobuf: everything but the graph, then the graph with its initializers streamed."""
    proto = without_initializers(model)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    frame = proto.SerializeToString(deterministic=True)
    heads = [_head(value, places.get(str(value.name)), location) for value in weights]
    sizes = [
        len(head) + (0 if _whole(value, places) else len(delimited(_RAW_DATA, _bytes(value))) + _bytes(value))
        for head, value in zip(heads, weights, strict=True)
    ]
    body = len(graph) + sum(len(delimited(_INITIALIZER, size)) + size for size in sizes)
    if len(frame) + body > (1 << 31) - 1:
        raise ModelError("the graph itself, without its weights, exceeds the 2 GiB that protobuf allows")
    file.write(frame + delimited(_GRAPH, body) + graph)
    for head, size, value in zip(heads, sizes, weights, strict=True):
        file.write(delimited(_INITIALIZER, size) + head)
        if not _whole(value, places):
            file.write(delimited(_RAW_DATA, _bytes(value)))
            _write_tensor(value, file)


def _whole(value: ir.Value, places: dict[str, tuple[int, int]]) -> bool:
    """Whether the head of this initializer is all of it: its data lies elsewhere, or it holds strings."""
    return str(value.name) in places or (
        value.const_value is not None and value.const_value.dtype == ir.DataType.STRING
    )


def _head(value: ir.Value, place: tuple[int, int] | None, location: str) -> bytes:
    """A serialised ``TensorProto`` up to, and without, its ``raw_data``; with a reference where the data is beside."""
    proto = initializer_head(value)
    if place is not None:
        proto.data_location = onnx.TensorProto.EXTERNAL
        for key, text in zip(("location", "offset", "length"), (location, *map(str, place)), strict=True):
            proto.external_data.add(key=key, value=text)
    return bytes(proto.SerializeToString(deterministic=True))


def _bytes(value: ir.Value) -> int:
    """Serialised size of an initializer's data; strings count as nothing, they are never streamed."""
    tensor = value.const_value
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return 0
    return tensor.nbytes


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
