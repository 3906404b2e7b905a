"""Nodes in the shapes that networks have, to be measured where no model is given: classes of shapes, not all shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN, VERSION, TensorType
from qcompiler.quant.packing import pack

__all__ = ["grid"]

_OPSET: Final = 21
_CLAMP: Final[dict[str, Any]] = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}
_SPATIAL: Final = ((3, 16, 32, 3, 1), (16, 16, 32, 3, 1), (32, 64, 16, 3, 2), (64, 64, 56, 3, 1), (128, 128, 28, 3, 1),
                   (256, 256, 14, 3, 1), (512, 512, 7, 3, 1), (3, 64, 224, 7, 2))  # fmt: skip
"""Channels in and out, height and width, kernel, stride."""

_POINTWISE: Final = ((16, 32, 56), (64, 64, 28), (64, 256, 56), (256, 64, 56), (512, 128, 28), (1024, 256, 14),
                     (512, 2048, 7), (128, 128, 14))  # fmt: skip
_DEPTHWISE: Final = ((16, 112), (64, 56), (128, 28), (256, 14))
_GEMM: Final = ((1, 64, 10), (1, 512, 1000), (1, 1024, 1024), (1, 4096, 4096), (16, 64, 256), (16, 1024, 1024),
                (64, 256, 64), (128, 384, 1536), (128, 1536, 384))  # fmt: skip
_WEIGHT_ONLY: Final = ((1, 512, 512), (1, 1024, 4096), (16, 1024, 1024), (128, 1024, 1024))
_BLOCK: Final = 32
_TABLES: Final = ((1, 1000, 64), (16, 1000, 384), (128, 1000, 384))
"""Indices, rows and depth of tables that are looked up."""
_MATMUL: Final = ((4, 16, 16, 16), (4, 64, 32, 64), (12, 128, 32, 128), (12, 128, 128, 32), (1, 256, 256, 256))
_ELEMENTS: Final = ((1, 16, 8, 8), (1, 64, 28, 28), (1, 64, 56, 56))
_ROWS: Final = ((1, 17, 64), (1, 128, 384), (12, 128, 128))

_Given: TypeAlias = "tuple[ir.DataType, tuple[int, ...]] | NDArray[Any]"
"""Type and shape of an activation, or a constant."""


def grid() -> ir.Model:
    """A model of nodes that have nothing to do with each other.

    Weights have 8 bits, but where each width is a node of its own.
    """
    values: list[ir.Value] = []
    constants: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for op_type, domain, given, attributes, result in _nodes():
        inputs = [_value(item, f"{op_type}_{len(nodes)}_{index}") for index, item in enumerate(given)]
        for value in inputs:
            (values if value.const_value is None else constants).append(value)
        node = ir.node(op_type, inputs, attributes, domain=domain, name=f"{op_type}_{len(nodes)}")
        output = node.outputs[0]
        output.name, output.type, output.shape = f"{node.name}_result", ir.TensorType(result[0]), ir.Shape(result[1])
        nodes.append(node)
    outputs = [node.outputs[0] for node in nodes]
    imports = {"": _OPSET, DOMAIN: VERSION}
    graph = ir.Graph(values, outputs, nodes=nodes, initializers=constants, opset_imports=imports, name="grid")
    return ir.Model(graph, ir_version=10)


def _value(item: _Given, name: str) -> ir.Value:
    if isinstance(item, tuple):
        return ir.Value(name=name, type=ir.TensorType(item[0]), shape=ir.Shape(item[1]))
    kind = ir.TensorType(ir.DataType.from_numpy(item.dtype))
    return ir.Value(name=name, type=kind, shape=ir.Shape(item.shape), const_value=ir.Tensor(item, name=name))


_Declared: TypeAlias = tuple[ir.DataType, tuple[int, ...]]
_Node: TypeAlias = "tuple[str, str, Sequence[_Given], dict[str, Any], tuple[ir.DataType, tuple[int, ...]]]"


def _nodes() -> Iterator[_Node]:
    """One node of each family in turn, so that a budget that ends early has seen a little of everything."""
    makers = (_products, _convolutions, _matmuls, _elementwise, _rows, _pools, _borders, _weight_only, _tables)
    families = [list(make()) for make in makers]
    for index in range(max(map(len, families))):
        for family in families:
            if index < len(family):
                yield family[index]


def _ours(op_type: str, given: Sequence[_Given], **attributes: Any) -> _Node:
    """A node of our set, its result as the operator says."""
    operator = operators()[op_type]
    types = [
        TensorType(*item) if isinstance(item, tuple) else TensorType(ir.DataType.from_numpy(item.dtype), item.shape)
        for item in given
    ]
    found = operator.infer(types, attributes)
    shape = tuple(size for size in found.shape or () if isinstance(size, int))
    return op_type, DOMAIN, given, attributes, (found.dtype, shape)


def _codes(*shape: int) -> _Declared:
    return ir.DataType.INT8, shape


def _weight(*shape: int) -> NDArray[np.int8]:
    return np.random.default_rng(len(shape)).integers(-127, 128, shape).astype(np.int8)


def _per_channel(channels: int, *ones: int) -> list[_Given]:
    """Bias, multiplier and shift."""
    shape = (channels, *ones)
    return [np.zeros(shape, np.int32), np.full(shape, 1 << 30, np.int32), np.full(shape, 42, np.uint8)]


def _scalars() -> list[_Given]:
    return [np.array(1 << 30, np.int32), np.array(31, np.uint8)]


def _products() -> Iterator[_Node]:
    for rows, depth, columns in _GEMM:
        yield _ours("QGemm", [_codes(rows, depth), _weight(depth, columns), *_per_channel(columns)], **_CLAMP)


def _convolutions() -> Iterator[_Node]:
    shapes = [(i, o, size, kernel, stride, 1) for i, o, size, kernel, stride in _SPATIAL]
    shapes += [(i, o, size, 1, 1, 1) for i, o, size in _POINTWISE]
    shapes += [(channels, channels, size, 3, 1, channels) for channels, size in _DEPTHWISE]
    for channels, outputs, size, kernel, stride, group in shapes:
        weight = _weight(outputs, channels // group, kernel, kernel)
        attributes = {
            "strides": [stride, stride], "dilations": [1, 1], "pads": [kernel // 2] * 4, "group": group,
            "x_zero_point": -128, **_CLAMP,
        }  # fmt: skip
        yield _ours("QConv", [_codes(1, channels, size, size), weight, *_per_channel(outputs, 1, 1)], **attributes)
        last: list[_Given] = [_codes(1, size, size, channels), weight, *_per_channel(outputs)]
        yield _ours("QConvChannelsLast", last, **attributes)


def _matmuls() -> Iterator[_Node]:
    for batch, rows, depth, columns in _MATMUL:
        given = [_codes(1, batch, rows, depth), _codes(1, batch, depth, columns), *_scalars()]
        yield _ours("QMatMul", given, a_zero_point=3, b_zero_point=-5, **_CLAMP)


def _weight_only() -> Iterator[_Node]:
    for bits in (4, 2, 3, 8):
        for rows, depth, columns in _WEIGHT_ONLY:
            limit = 1 << (bits - 1)
            codes = np.random.default_rng(bits).integers(-limit, limit, (columns, depth)).astype(np.int8)
            given: list[_Given] = [
                (ir.DataType.FLOAT, (rows, depth)),
                pack(codes, bits) if bits < 8 else codes.view(np.uint8),
                np.full((columns, depth // _BLOCK), 1000, np.uint16),
                np.full(columns, 1e-5, np.float32),
                np.zeros((1, 1), np.int8),
            ]
            yield _ours("QMatMulWeightOnly", given, bits=bits, block=_BLOCK, weight_shape=[columns, depth])


def _tables() -> Iterator[_Node]:
    for bits in (8, 4, 3, 2):
        for count, rows, depth in _TABLES:
            limit = 1 << (bits - 1)
            codes = np.random.default_rng(bits).integers(-limit, limit, (rows, depth)).astype(np.int8)
            given: list[_Given] = [(ir.DataType.INT64, (1, count)), pack(codes, bits)]
            packed = {"bits": bits, "weight_shape": [rows, depth]}
            factors: list[_Given] = [np.full(rows, 1 << 30, np.int32), np.full(rows, 35, np.uint8)]
            yield _ours("QGather", [*given, *factors], **packed, **_CLAMP)
            yield _ours("QGatherWeightOnly", [*given, np.full(rows, 1e-2, np.float32)], **packed)


def _elementwise() -> Iterator[_Node]:
    zeros = {"a_zero_point": 1, "b_zero_point": 2}
    factor = np.array(1 << 20, np.int32)
    table = np.arange(-128, 128).astype(np.int8)
    for shape in _ELEMENTS:
        x = _codes(*shape)
        yield _ours("QAdd", [x, x, factor, factor, np.array(21, np.uint8)], **zeros, **_CLAMP)
        yield _ours("QMul", [x, x, *_scalars()], **zeros, **_CLAMP)
        yield _ours("Requantize", [x, *_scalars()], x_zero_point=4, **_CLAMP)
        yield _ours("QLookup", [x, table])


def _rows() -> Iterator[_Node]:
    from qcompiler.quant.integer.norm_parameters import Codes, layer_parameters

    x = Codes(0.02, 3, -128, 127)
    for shape in _ROWS:
        size = shape[-1]
        found = layer_parameters(x, x, np.ones(size), np.zeros(size), size=size, epsilon=1e-5)
        norm = {"axes": [-1], "size": size, "left": found.left, "right": found.right, "epsilon": found.epsilon,
                "root_shift": found.root_shift, **_CLAMP}  # fmt: skip
        yield _ours("QLayerNormalization", [_codes(*shape), found.multiplier, found.bias, found.shift], **norm)
        factors: list[_Given] = [np.array(1 << 26, np.int32), np.array(30, np.uint8), np.array(1 << 30, np.int32),
                   np.array(46, np.uint8)]  # fmt: skip
        yield _ours("QSoftmax", [_codes(*shape), *factors], axis=-1, **_CLAMP)


def _pools() -> Iterator[_Node]:
    for shape in _ELEMENTS:
        mean: list[_Given] = [np.array(1 << 24, np.int32), np.array(30, np.uint8)]
        yield _ours("QGlobalAveragePool", [_codes(*shape), *mean], x_zero_point=0, **_CLAMP)
        low = {"axis": 3, "kernel": 3, "stride": 2, "dilation": 1, "begin": 1, "end": 1, "to": 3}
        yield _ours("QMaxPool", [_codes(*shape)], **low)


def _borders() -> Iterator[_Node]:
    """Standard operators at the borders of an integer graph and between its nodes."""
    parameters: list[_Given] = [np.array(0.02, np.float32), np.array(3, np.int8)]
    for shape in _ELEMENTS:
        real: _Declared = (ir.DataType.FLOAT, shape)
        turned = (shape[0], *shape[2:], shape[1])
        yield "QuantizeLinear", "", [real, *parameters], {}, _codes(*shape)
        yield "DequantizeLinear", "", [_codes(*shape), *parameters], {}, real
        yield "Transpose", "", [_codes(*shape)], {"perm": [0, 2, 3, 1]}, _codes(*turned)
        yield "Transpose", "", [_codes(*turned)], {"perm": [0, 3, 1, 2]}, _codes(*shape)
        yield "Flatten", "", [_codes(*shape)], {"axis": 1}, _codes(shape[0], int(np.prod(shape[1:])))
