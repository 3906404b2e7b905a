"""One node of a model by itself, several times, so that its time can be measured.

Copies read the same activations and have weights of their own: what a session shares between equal weights, and what
stays in the cache because it is read again at once, would make them faster than in a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from qcompiler.analysis.accumulators import family
from qcompiler.analysis.cost import in_width
from qcompiler.analysis.workload import Workload, weight_elements, weight_index
from qcompiler.errors import ModelError
from qcompiler.ir.constants import tensor
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN, VERSION
from qcompiler.quant.packing import pack
from qcompiler.target.integer import GREATEST_SHIFT

__all__ = ["Specimen", "feed_of", "isolated", "other_widths", "specimen"]

_SMALL: Final = 4096
"""Constants up to so many bytes are the same in all copies."""

_IR_VERSION: Final = 10

Declared: TypeAlias = tuple[str, ir.DataType, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """A node with everything it needs.

    Attributes:
        work: What it does.
        node: The node.
        constants: Its constant inputs by name.
        inputs: Its other inputs.
        outputs: Its results.
        opset: Version of the standard operators.
    """

    work: Workload
    node: onnx.NodeProto
    constants: Mapping[str, ir.TensorProtocol]
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    opset: int


def specimen(node: ir.Node, work: Workload, opset: int) -> Specimen:
    """Take a node out of its model.

    Args:
        node: A node whose shapes are all known.
        work: Its work.
        opset: Version of the standard operators of its model.

    Raises:
        ModelError: The node has a graph of its own (If, Loop), which nothing here can isolate.
    """
    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        raise ModelError("it holds a graph", where=str(node.name))
    found = {str(value.name): tensor(value) for value in node.inputs if value is not None}
    constants = {name: item for name, item in found.items() if item is not None}
    given = dict.fromkeys(value for value in node.inputs if value is not None and value.name not in constants)
    return Specimen(
        work, ir.to_proto(node), constants, tuple(map(_declared, given)), tuple(map(_declared, node.outputs)), opset
    )


def other_widths(node: ir.Node, one: Specimen, widths: tuple[int, ...]) -> Iterator[Specimen]:
    """The same node with weights of other widths and made-up codes; nothing where it has no packable weight."""
    index, elements = weight_index(node), weight_elements(node)
    if index is None or elements is None or family(node.op_type) == "QMatMulWeightOnly":
        return
    logical = node.attributes.get("weight_shape")
    weight = node.inputs[index]
    if weight is None or weight.shape is None or str(weight.name) not in one.constants:
        return
    rows_first = family(node.op_type) == "QGemm"
    shape = [size for size in weight.shape if isinstance(size, int)]
    if logical is not None:
        shape = list(logical.as_ints())
    elif rows_first:
        shape.reverse()
    for bits in widths:
        work = in_width(node, one.work, bits)
        if work.format != one.work.format:
            yield _in_width(one, work, str(weight.name), shape, bits, rows_first=rows_first)


def _in_width(one: Specimen, work: Workload, weight: str, shape: list[int], bits: int, *, rows_first: bool) -> Specimen:
    limit = 1 << (bits - 1)
    codes = np.random.default_rng(bits).integers(-limit, limit, shape).astype(np.int8)
    node = onnx.NodeProto()
    node.CopyFrom(one.node)
    kept = [attribute for attribute in node.attribute if attribute.name not in ("bits", "weight_shape")]
    del node.attribute[:]
    node.attribute.extend(kept)
    wide, shift = "Wide" in node.op_type, node.op_type.endswith("Shift")
    endings = ("Wide" if wide else "") + ("Packed" if bits < 8 else "") + ("Shift" if shift else "")
    node.op_type = family(node.op_type) + endings
    if bits < 8:
        node.attribute.extend([helper.make_attribute("bits", bits), helper.make_attribute("weight_shape", shape)])
        codes_stored: NDArray[Any] = pack(codes, bits)
    else:
        codes_stored = np.ascontiguousarray(codes.T) if rows_first else codes
    constants = dict(one.constants) | {weight: ir.Tensor(codes_stored, name=weight)}
    constants |= _coarser(one, int(one.work.format[1:].partition("a")[0]) - bits)
    return replace(one, work=work, node=node, constants=constants)


def _coarser(one: Specimen, fewer: int) -> dict[str, ir.TensorProtocol]:
    """The shift of a rescale behind weights of fewer bits: their scale is as much greater.

    Kernels have a shorter way for shifts of 32 and more, which weights of few bits often cannot take: with the shifts
    of 8-bit weights, those of 4 bits seemed to cost what 8 do where they cost up to a half more.
    """
    name = one.node.input[-1]
    old = one.constants.get(name)
    if old is None or old.dtype is not ir.DataType.UINT8 or name == one.node.input[1]:
        return {}
    shift = np.clip(old.numpy().astype(np.int64) - fewer, 1, GREATEST_SHIFT).astype(np.uint8)
    return {name: ir.Tensor(shift, name=name)}


def isolated(one: Specimen, copies: int) -> bytes:
    """A model that holds the node so many times.

    Only the result of the last copy leaves the model: a runtime allocates and frees the others, as it does with what
    lies inside a model. It runs them as long as it does not optimize.
    """
    nodes, tensors, outputs = [], [], []
    for index in range(copies):
        node = onnx.NodeProto()
        node.CopyFrom(one.node)
        node.name = f"copy_{index}"
        for place, name in enumerate(node.input):
            if name not in one.constants:
                node.input[place] = _activation(one, name, index)
                continue
            item = one.constants[name]
            own = item.nbytes > _SMALL
            node.input[place] = f"{name}/{index}" if own else name
            if own or index == 0:
                tensors.append(_tensor(item, node.input[place], index))
        for place, (name, dtype, shape) in enumerate(one.outputs):
            node.output[place] = f"{name}/{index}"
            if index == copies - 1:
                outputs.append(helper.make_tensor_value_info(node.output[place], int(dtype), shape))
        nodes.append(node)
    unique = {item.name: item for item in tensors}
    inputs = {
        _activation(one, name, index): helper.make_tensor_value_info(_activation(one, name, index), int(dtype), shape)
        for index in range(copies)
        for name, dtype, shape in one.inputs
    }
    graph = helper.make_graph(nodes, "specimen", list(inputs.values()), outputs, list(unique.values()))
    imports = {"": one.opset, one.node.domain: VERSION if one.node.domain == DOMAIN else 1} | {"": one.opset}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, number) for domain, number in imports.items()],
        ir_version=_IR_VERSION,
        functions=list(_functions(one)),
    )
    content: bytes = model.SerializeToString()
    return content


def _activation(one: Specimen, name: str, index: int) -> str:
    """What a copy reads: all the same, which lies in the cache as what a node before has just written does.

    What QuantizeLinear reads comes from outside, and a model has run since it was read last: each copy has its own.
    """
    return f"{name}/{index}" if index and one.node.op_type == "QuantizeLinear" else name


def feed_of(one: Specimen, copies: int = 1) -> dict[str, NDArray[Any]]:
    """Made-up activations: all codes of their type, normal numbers, zeros for indices."""
    generator = np.random.default_rng(0)
    feed: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in one.inputs:
        kind = dtype.numpy()
        if dtype.is_floating_point():
            feed[name] = generator.standard_normal(shape).astype(kind)
        elif dtype.bitwidth in (8, 16) and dtype.is_integer():
            info = np.iinfo(kind)
            feed[name] = generator.integers(info.min, info.max + 1, shape).astype(kind)
        else:
            feed[name] = np.zeros(shape, kind)
    others = [(name, _activation(one, name, index)) for index in range(1, copies) for name in list(feed)]
    return feed | {other: feed[name].copy() for name, other in others if other != name}


def _declared(value: ir.Value) -> Declared:
    if value.dtype is None or value.shape is None:
        raise ModelError("its type or shape is not known", where=str(value.name))
    return str(value.name), value.dtype, tuple(int(size) for size in value.shape if isinstance(size, int))


def _tensor(item: ir.TensorProtocol, name: str, index: int) -> onnx.TensorProto:
    """A constant of copy ``index``: turned by as many elements where its elements are whole bytes."""
    array = item.numpy()
    if index and item.nbytes > _SMALL and item.dtype.bitwidth >= 8:
        array = np.roll(array.reshape(-1), index).reshape(array.shape)
    proto = ir.serde.serialize_tensor(ir.Tensor(array, dtype=item.dtype, name=name))
    proto.name = name
    return proto


def _functions(one: Specimen) -> Iterator[onnx.FunctionProto]:
    if one.node.domain != DOMAIN:
        return
    seen, pending = set(), [one.node.op_type]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(operators()[name].calls)
            yield operators()[name].function(one.opset)
