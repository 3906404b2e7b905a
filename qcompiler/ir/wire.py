"""Cut the weights out of an ONNX file without reading them.

A model file is one protobuf message, and Python's protobuf needs two copies of it in memory (the bytes and the
parsed message) before anybody has looked at a weight. The wire format makes a shortcut possible: a message is a
sequence of fields, ``tag, payload``, where a tag is ``number << 3 | wire type`` and the payload of wire type 2
(bytes, strings, sub-messages, packed arrays) is preceded by its length. So one can walk
``ModelProto.graph.initializer.raw_data`` by lengths alone, hand everything but the large weights to protobuf, and
put in the place of each weight an ONNX external-data reference that points into the model file itself.

``raw_data`` is the little-endian content. Packed ``float_data`` and ``double_data`` happen to be that too.

Source: https://protobuf.dev/programming-guides/encoding and ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

__all__ = ["NotAModelError", "Skeleton", "TruncatedError", "delimited", "skeleton", "varint"]

LARGE: Final = 1 << 14
"""Fields up to this many bytes are left to protobuf."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5

# Message → number of a field that may hold weights → message of that field.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph"},
    "Graph": {1: "Node", 5: "Tensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph"},
}
_MODEL_FIELDS: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Numbers of the fields of ``ModelProto`` and their wire types."""

_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA = 2, 4, 9, 10
_FLOAT, _DOUBLE = 1, 11


class TruncatedError(ValueError):
    """The data ends inside a field."""


class NotAModelError(ValueError):
    """The data is no ONNX model."""


@dataclass(slots=True)
class Skeleton:
    """A model without its large weights.

    Attributes:
        data: Serialised ``ModelProto`` whose large tensors are external-data references to ``location``.
        cut: Number of tensors cut out.
    """

    data: bytes
    cut: int


@dataclass(slots=True)
class _Cutter:
    """State of one walk."""

    view: memoryview
    location: bytes
    cut: int = 0
    has_graph: bool = field(default=False)

    def message(self, kind: str, start: int, end: int) -> list[bytes | memoryview]:
        """The chunks of one message, large weights replaced."""
        if kind == "Tensor":
            return self.tensor(start, end)
        children = _CHILDREN[kind]
        chunks: list[bytes | memoryview] = []
        kept = start  # everything from here to the current field goes over as it is
        for number, wire, where, begin, stop in _fields(self.view, start, end):
            if kind == "Model" and _MODEL_FIELDS.get(number) != wire:
                raise NotAModelError(f"field {number} of wire type {wire} does not exist in a model")
            if kind == "Model" and number == 7:
                self.has_graph = True
            if wire != _DELIMITED or stop - begin <= LARGE or number not in children:
                continue
            inner = self.message(children[number], begin, stop)
            chunks += [self.view[kept:where], delimited(number, sum(map(len, inner))), *inner]
            kept = stop
        chunks.append(self.view[kept:end])
        return chunks

    def tensor(self, start: int, end: int) -> list[bytes | memoryview]:
        """The chunks of one tensor: its large payload becomes a reference to the place in the file."""
        payloads: list[tuple[int, int, int, int]] = []
        data_type = 0
        for number, wire, where, begin, stop in _fields(self.view, start, end):
            if number == _DATA_TYPE and wire == _VARINT:
                data_type = varint_at(self.view, begin, stop)[0]
            elif wire == _DELIMITED and number in (_FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA):
                payloads.append((number, where, begin, stop))
        wanted = {_RAW_DATA, _FLOAT_DATA if data_type == _FLOAT else 0, _DOUBLE_DATA if data_type == _DOUBLE else 0}
        if len(payloads) != 1 or payloads[0][0] not in wanted or payloads[0][3] - payloads[0][2] <= LARGE:
            return [self.view[start:end]]
        _, where, begin, stop = payloads[0]
        self.cut += 1
        reference = _reference(self.location, begin, stop - begin)
        return [self.view[start:where], self.view[stop:end], reference]


def skeleton(view: memoryview, location: str) -> Skeleton:
    """Serialised model with every large weight replaced by a reference to ``location``.

    Args:
        view: The content of a model file, usually memory-mapped.
        location: Name of that file, as external-data references call it.

    Raises:
        TruncatedError: The data ends inside a field.
        NotAModelError: The data is no ONNX model.
    """
    if not len(view):
        raise NotAModelError("the file is empty")
    cutter = _Cutter(view, location.encode())
    chunks = cutter.message("Model", 0, len(view))
    if not cutter.has_graph:
        raise NotAModelError("there is no graph in it")
    return Skeleton(b"".join(chunks), cutter.cut)


def varint(value: int) -> bytes:
    """``value`` as a base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, length: int) -> bytes:
    """Tag and length that precede a payload of ``length`` bytes of field ``number``."""
    return varint(number << 3 | _DELIMITED) + varint(length)


def varint_at(view: memoryview, position: int, end: int) -> tuple[int, int]:
    """The varint at ``position`` and the position after it."""
    value = shift = 0
    while position < end:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise NotAModelError("a number is longer than 64 bits")
    raise TruncatedError("the data ends inside a number")


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Fields of a message: number, wire type, where the tag begins, where the payload begins and ends."""
    position = start
    while position < end:
        where = position
        tag, position = varint_at(view, position, end)
        number, wire = tag >> 3, tag & 7
        if wire == _DELIMITED:
            length, position = varint_at(view, position, end)
        elif wire == _VARINT:
            length = varint_at(view, position, end)[1] - position
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise NotAModelError(f"wire type {wire} is not used by ONNX")
        if position + length > end:
            raise TruncatedError(f"a field needs {length} bytes and {end - position} are left")
        yield number, wire, where, position, position + length
        position += length


def _reference(location: bytes, offset: int, length: int) -> bytes:
    """``TensorProto.external_data`` entries (field 13) and ``data_location = EXTERNAL`` (field 14)."""
    out = bytearray()
    for key, value in ((b"location", location), (b"offset", b"%d" % offset), (b"length", b"%d" % length)):
        entry = delimited(1, len(key)) + key + delimited(2, len(value)) + value
        out += delimited(13, len(entry)) + entry
    return bytes(out) + varint(14 << 3 | _VARINT) + varint(1)
