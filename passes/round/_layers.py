"""Layers whose weights can be rounded: each as matrices of output channels by summed products.

A convolution of ``G`` groups is ``G`` products ``Y_g = X_g W_g^T`` of patches with a matrix; Gemm and MatMul are the
case ``G = 1``. So every weight is seen as an array ``(groups, rows, columns)``: a row is one output channel of its
group, a column one input of the sum (``channel, tap…`` of a convolution). What rounds works on that view and on codes;
where scales lie (tensor, channel, block) it sees only as one scale per element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import PassError
from qcompiler.ir import constants, originals
from qcompiler.ir.constants import is_constant
from qcompiler.ir.operators import has_type
from qcompiler.ir.patterns import integer
from qcompiler.passes.normalize._rewrite import own_constant
from qcompiler.pipeline.base import Context
from qcompiler.quant import arithmetic, state
from qcompiler.quant.operators import LINEAR, WEIGHT_INPUT
from qcompiler.quant.params import QParams
from qcompiler.quant.state import TensorQuant

__all__ = ["Grid", "RoundLayer", "own_layers", "own_weight", "roundable_layers", "write_codes"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The real numbers that codes stand for: ``scale * (code - zero)``, one entry per weight.

    Attributes:
        scale: Positive, broadcastable to the weight's matrices.
        zero: Zero points as floats, of the same shape.
        minimum: Least code.
        maximum: Greatest code.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.float32]
    minimum: int
    maximum: int

    def nearest(self, real: NDArray[Any]) -> NDArray[np.int32]:
        """Codes nearest to real numbers (rounding ``half_even``, then saturation)."""
        codes = np.clip(np.rint(real / self.scale) + self.zero, self.minimum, self.maximum)
        return codes.astype(np.int32)

    def real(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers that codes stand for, as DequantizeLinear computes them (one rounding)."""
        return (codes - self.zero).astype(np.float32) * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class RoundLayer:
    """A linear node with a quantized constant weight.

    Attributes:
        node: Conv, Gemm or MatMul.
        quant: Format and parameters of the weight.
        groups: Groups of a convolution, else 1.
        rows: Output channels per group.
        columns: Products in each sum.
    """

    node: ir.Node
    quant: TensorQuant
    groups: int
    rows: int
    columns: int

    @property
    def weight(self) -> ir.Value:
        """The value that holds the weight."""
        value = self.node.inputs[WEIGHT_INPUT]
        if value is None:
            raise PassError("the node has no weight", where=self.node.name)
        return value

    @property
    def data(self) -> ir.Value:
        """The value that the weight is multiplied with."""
        value = self.node.inputs[0]
        if value is None:
            raise PassError("the node has no data input", where=self.node.name)
        return value

    @property
    def params(self) -> QParams:
        """Scale and zero point of the weight."""
        if self.quant.params is None:
            raise PassError("its weight has no scale", where=self.node.name)
        return self.quant.params

    @property
    def transposed(self) -> bool:
        """Whether the stored weight has the summed axis first."""
        return self.node.op_type == "MatMul" or (self.node.op_type == "Gemm" and not integer(self.node, "transB", 0))

    def matrices(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array of the weight's shape as ``(groups, rows, columns)``."""
        flat = array.T if self.transposed else array
        return flat.reshape(self.groups, self.rows, self.columns)

    def tensor(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """The inverse of ``matrices``."""
        shape = self.shape
        if self.transposed:
            return np.ascontiguousarray(matrices.reshape(shape[::-1]).T)
        return matrices.reshape(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stored weight."""
        tensor = constants.tensor(self.weight)
        if tensor is None:
            raise PassError("its weight has no content", where=self.node.name)
        return tuple(int(size) for size in tensor.shape.numpy())

    def weights(self) -> NDArray[np.float32]:
        """The weight's present content, ``(groups, rows, columns)``."""
        content = constants.array(self.weight)
        if content is None:
            raise PassError("its weight has no content", where=self.node.name)
        return self.matrices(np.asarray(content, np.float32))

    def real_weights(self) -> NDArray[np.float32]:
        """The weight in the float model, whatever was fitted since; ``(groups, rows, columns)``."""
        tensor = originals.original(self.weight)
        return self.weights() if tensor is None else self.matrices(np.asarray(tensor.numpy(), np.float32))

    def grid(self, params: QParams | None = None) -> Grid:
        """What codes stand for, with the layer's own or other parameters."""
        params = params or self.params
        form = self.quant.format
        scale, zero = (self.spread(item).astype(np.float32) for item in (params.scale, params.zero_point))
        return Grid(scale, zero, form.minimum, form.maximum)

    def codes(self) -> NDArray[np.int32]:
        """The codes that the weight gets as it is, ``(groups, rows, columns)``."""
        return self.grid().nearest(self.weights())

    def rounded(self) -> NDArray[np.float32]:
        """What those codes stand for, ``(groups, rows, columns)``."""
        return self.grid().real(self.codes())

    def spread(self, parameter: NDArray[Any]) -> NDArray[Any]:
        """One entry of a scale-shaped array per weight: ``(groups, rows, columns)``, or 1 column where all agree."""
        form, shape = self.quant.format, self.shape
        if form.axis is None:
            return np.broadcast_to(parameter, (self.groups, self.rows, 1))
        full = self.matrices(np.broadcast_to(arithmetic.expand(parameter, shape, form), shape))
        by_row = form.block is None and form.axis % len(shape) == (1 if self.transposed else 0)
        return full[:, :, :1] if by_row else full

    def owners(self) -> NDArray[np.int64]:
        """Which scale (index into the flattened parameters) each weight has, as ``spread`` lays them out."""
        return self.spread(np.arange(self.params.scale.size).reshape(self.params.scale.shape))


def roundable_layers(graph: ir.Graph) -> Iterator[tuple[ir.Node, RoundLayer | str]]:
    """Every linear node with a quantized constant weight, or the reason why its codes cannot be chosen."""
    for node in graph:
        decision = state.node_decision(node)
        if node.op_type not in LINEAR or node.domain or decision is None or not decision.integer:
            continue
        weight = node.inputs[WEIGHT_INPUT]
        if not is_constant(weight):
            if is_constant(node.inputs[0]):
                yield node, "its constant matrix comes first"
            continue
        quant = state.edge_quant(node, WEIGHT_INPUT)
        if quant is None or quant.params is None:
            yield node, "its weight has no scale"
        else:
            yield node, _layer(node, quant) or _why_not(node)


def _layer(node: ir.Node, quant: TensorQuant) -> RoundLayer | None:
    if _why_not(node):
        return None
    tensor = constants.tensor(node.inputs[WEIGHT_INPUT])
    shape = tuple(int(size) for size in tensor.shape.numpy()) if tensor is not None else ()
    if has_type(node, "Conv"):
        groups = integer(node, "group", 1)
        return RoundLayer(node, quant, groups, shape[0] // groups, int(np.prod(shape[1:])))
    transposed = node.op_type == "MatMul" or not integer(node, "transB", 0)
    return RoundLayer(node, quant, 1, *(reversed(shape) if transposed else shape))


def _why_not(node: ir.Node) -> str:
    tensor = constants.tensor(node.inputs[WEIGHT_INPUT])
    rank = 0 if tensor is None else len(tensor.shape)
    if tensor is None or not tensor.dtype.is_floating_point():
        return "its weight holds no floats"
    if is_constant(node.inputs[0]):
        return "both its operands are constants"
    if node.op_type == "ConvTranspose":
        return "each output of a transposed convolution sums another part of its weight: codes stay the nearest"
    if node.op_type != "Conv" and rank != 2:
        return "its weight is no matrix"
    if tensor.size == 0:
        return "its weight is empty"
    if node.op_type == "Conv" and node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "its padding depends on a size that is not known"
    return _why_shared(node)


def _why_shared(node: ir.Node) -> str:
    """A weight that others read in the same codes cannot be rounded for one of them."""
    weight = node.inputs[WEIGHT_INPUT]
    own = state.edge_quant(node, WEIGHT_INPUT)
    for use in () if weight is None else weight.uses():
        if use.node is node and use.idx == WEIGHT_INPUT:
            continue
        other = state.edge_quant(use.node, use.idx) if use.node.graph is node.graph else None
        if other is not None and own is not None and other.format == own.format and other.params == own.params:
            return f"its weight is also that of {use.node.name} ({use.node.op_type})"
    return ""


def own_layers(graph: ir.Graph, ctx: Context, why_not: Callable[[RoundLayer], str] = lambda _: "") -> list[RoundLayer]:
    """Layers to round, each with a weight of its own; why others are left alone is recorded.

    Args:
        graph: The graph.
        ctx: Where reasons go.
        why_not: Why the caller cannot round a layer; empty where it can. Such a layer is not touched.
    """
    found = []
    for node, layer in list(roundable_layers(graph)):
        reason = layer if isinstance(layer, str) else why_not(layer)
        if isinstance(layer, str) or reason:
            ctx.skip(node, reason)
            continue
        own_weight(layer, ctx)
        found.append(layer)
    return found


def own_weight(layer: RoundLayer, ctx: Context) -> None:
    """Give the layer a constant of its own where others read its weight in other formats, so that it can be changed."""
    own_constant(ctx.edit, layer.node, WEIGHT_INPUT)


def write_codes(layer: RoundLayer, codes: NDArray[Any], ctx: Context, params: QParams | None = None) -> None:
    """Make the weight exactly what ``codes`` (``(groups, rows, columns)``) stand for; rounding it gives them back.

    Args:
        layer: The layer; its weight must be its own (``own_weight``).
        codes: The codes.
        ctx: Where edits go.
        params: New scales and zero points, written beside; by default the old ones stay.
    """
    real = layer.grid(params).real(codes)
    if params is not None:
        state.replace_edge_quant(layer.node, WEIGHT_INPUT, layer.quant.with_params(params))
    originals.keep(layer.weight)
    ctx.edit.set_constant(layer.weight, layer.tensor(real))
