"""Read models: lazily, suspiciously, and with errors that say what to do.

Weights stay in the file, whether they lie inside the protobuf or beside it (``qcompiler.ir.wire``,
``qcompiler.ir.mapped``). A model comes from anywhere, so everything it says about files is checked before a byte
is read or allocated: external data lies in the model's own folder (symbolic links resolved), offsets and lengths
lie inside the file, and a tensor has as many bytes as its type and shape need.

``save`` lives in ``qcompiler.ir.store`` and is offered here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from qcompiler.errors import ModelError, first_line
from qcompiler.ir import wire
from qcompiler.ir.collector import collector_paused
from qcompiler.ir.mapped import MappedFile, mapped_tensor
from qcompiler.ir.store import save
from qcompiler.ir.structure import check_structure

__all__ = ["IR_VERSIONS", "OPSETS", "SOURCE", "files", "load", "release", "save"]

IR_VERSIONS: Final = range(3, 14)
"""IR versions accepted."""

OPSETS: Final = range(7, 27)
"""Versions of the standard operator set accepted."""

SOURCE: Final = "qcompiler.source"
"""Key in ``model.meta``: path of the file the model came from."""

_FILES: Final = "qcompiler.files"


def load(path: str | Path) -> ir.Model:
    """Load a model; its weights stay in the file until they are looked at.

    Args:
        path: An ``.onnx`` file. Rewriting it in place while the model is in use is not allowed; replacing it is.

    Returns:
        The model; ``model.meta["qcompiler.source"]`` holds the path.

    Raises:
        ModelError: The file is missing, truncated, no model, of an unsupported version, cyclic, or refers to data
            that is missing, too short or outside its folder.
    """
    with collector_paused():
        return _load(Path(path))


def _load(path: Path) -> ir.Model:
    files = _Files(path)
    try:
        skeleton = wire.skeleton(files.model.view(), path.name)
        proto = onnx.ModelProto.FromString(skeleton.data)
    except wire.TruncatedError as error:
        raise ModelError(
            f"the file is truncated: it holds {files.model.size:,} bytes and {error}",
            where=str(path), hint="copy or download it again",
        ) from error
    except (wire.NotAModelError, DecodeError) as error:
        raise ModelError(
            f"not an ONNX model: {error}", where=str(path), hint="export the network to ONNX first"
        ) from error
    _check_versions(proto, path)
    try:
        model = ir.serde.deserialize_model(proto)
    except ir.serde.SerdeError as error:
        raise ModelError(f"the graph is malformed: {_root_cause(error)}", where=str(path)) from error
    _bind_weights(model, files)
    check_structure(model, str(path))
    model.meta[SOURCE] = path
    model.meta[_FILES] = tuple(files.opened.values())
    return model


def files(model: ir.Model) -> list[Path]:
    """The files a loaded model lies in: its own, then those of its external data."""
    return [file.path for file in model.meta.get(_FILES, ())]


def release(model: ir.Model) -> None:
    """Let go of the memory that mapped weights occupy; they are read again from disk when next looked at."""
    for file in model.meta.get(_FILES, ()):
        file.release()


class _Files:
    """The model file and its external data, each mapped once.

    Args:
        path: The model file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent
        self.opened: dict[str, MappedFile] = {}
        try:
            self.model = self.opened[path.name] = MappedFile(path)
        except FileNotFoundError as error:
            raise ModelError("there is no such file", where=str(path)) from error
        except OSError as error:
            raise ModelError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error

    def open(self, location: str, tensor: str) -> MappedFile:
        """The external data file called ``location`` by tensor ``tensor``.

        Raises:
            ModelError: It is missing, unreadable or outside the model's folder.
        """
        if (file := self.opened.get(location)) is not None:
            return file
        where = f"{self.path}, tensor '{tensor}'"
        target = self.folder / location
        base = self.folder.resolve()
        if not location or Path(location).is_absolute() or not target.resolve().is_relative_to(base):
            raise ModelError(
                f"external data '{location}' lies outside the folder of the model", where=where,
                hint="put the data beside the model as a real file; links that leave the folder are not followed",
            )
        if not target.is_file():
            reason = "is not a regular file" if target.exists() else "is missing"
            raise ModelError(
                f"external data file '{location}' {reason}", where=where, hint=f"it belongs in {self.folder.resolve()}"
            )
        try:
            self.opened[location] = MappedFile(target)
        except OSError as error:
            raise ModelError(f"external data '{location}' cannot be read: {error.strerror}", where=where) from error
        return self.opened[location]


def _bind_weights(model: ir.Model, files: _Files) -> None:
    """Replace references to data in files by mapped tensors, and check the tensors that are inline."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _bound(value.const_value, files)
    for node in _all_nodes(model):
        for name, attribute in tuple(node.attributes.items()):
            if attribute.is_ref() or attribute.value is None:
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if (bound := _bound(tensor, files)) is not tensor:
                    node.attributes[name] = ir.AttrTensor(name, bound)
            elif attribute.type == ir.AttributeType.TENSORS:
                node.attributes[name] = ir.AttrTensors(name, [_bound(item, files) for item in attribute.as_tensors()])


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the model: subgraphs and functions included."""
    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def _bound(tensor: ir.TensorProtocol, files: _Files) -> ir.TensorProtocol:
    """The tensor itself if inline and sound; mapped, if its data lies in a file."""
    if isinstance(tensor, ir.ExternalTensor):
        return _mapped(tensor, files)
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        _check_inline(tensor, files)
    return tensor


def _mapped(tensor: ir.ExternalTensor, files: _Files) -> ir.TensorProtocol:
    location = str(tensor.location)
    own = location == files.path.name
    where = f"{files.path}, tensor '{tensor.name}'"
    if tensor.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        raise ModelError(f"data of type {tensor.dtype.name.lower()} cannot lie in a file", where=where)
    file = files.open(location, tensor.name)
    needed, offset, length = _bytes_needed(tensor, where), tensor.offset or 0, tensor.length
    if length is not None and (length < needed or (own and length != needed)):
        raise ModelError(f"shape {list(tensor.shape)} needs {needed:,} bytes, {length:,} are given", where=where)
    if offset < 0 or offset + needed > file.size:
        raise ModelError(
            f"its data lies at bytes {offset:,} to {offset + needed:,} of '{location}', which holds {file.size:,}",
            where=where, hint="the data file is truncated or belongs to another model",
        )
    return mapped_tensor(
        file, offset, tensor.dtype, ir.Shape(tensor.shape), name=tensor.name, doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props) or None,
    )


def _check_inline(tensor: ir.serde.TensorProtoTensor, files: _Files) -> None:
    """An inline tensor that claims a shape it has no data for would otherwise become an allocation of any size."""
    where = f"{files.path}, tensor '{tensor.name}'"
    if tensor.dtype == ir.DataType.UNDEFINED:
        raise ModelError("it has no element type", where=where)
    proto, needed = tensor.raw, _bytes_needed(tensor, where)
    if proto.HasField("raw_data"):
        if len(proto.raw_data) != needed:
            raise ModelError(
                f"shape {list(tensor.shape)} needs {needed:,} bytes, {len(proto.raw_data):,} are given", where=where
            )
        return
    entries = max(
        len(field)
        for field in (proto.float_data, proto.int32_data, proto.int64_data, proto.double_data, proto.uint64_data)
    )
    if entries * 16 < needed:  # no typed field holds more than 16 bytes per entry (complex128 takes two of 8)
        raise ModelError(f"shape {list(tensor.shape)} needs {needed:,} bytes, the tensor has no such data", where=where)


def _bytes_needed(tensor: ir.TensorProtocol, where: str) -> int:
    """Bytes of a tensor according to its type and shape."""
    bits = tensor.dtype.bitwidth
    for size in tensor.shape:
        if not isinstance(size, int) or size < 0:
            raise ModelError(f"shape {list(tensor.shape)} has an impossible dimension", where=where)
        bits *= size
    return (bits + 7) // 8


def _check_versions(proto: onnx.ModelProto, path: Path) -> None:
    if proto.ir_version not in IR_VERSIONS:
        raise ModelError(
            f"IR version {proto.ir_version} is not supported", where=str(path),
            hint=f"versions {IR_VERSIONS[0]} to {IR_VERSIONS[-1]} are; export again with another version",
        )
    imports = (*proto.opset_import, *(item for function in proto.functions for item in function.opset_import))
    for item in imports:
        if item.domain in ("", "ai.onnx") and item.version not in OPSETS:
            raise ModelError(
                f"opset {item.version} is not supported", where=str(path),
                hint=f"opsets {OPSETS[0]} to {OPSETS[-1]} are; export again with another opset_version",
            )
    if not proto.opset_import:
        raise ModelError("the model imports no operator set", where=str(path))


def _root_cause(error: BaseException) -> str:
    """The innermost message of a chain of errors, one line of it."""
    while (deeper := error.__cause__ or error.__context__) is not None:  # the library's wrapper may itself fail
        error = deeper
    return first_line(error)
