"""One Q/DQ group, seen as what an integer operator needs: codes in, codes out, what lies between.

A site is a node whose activations all come through a DequantizeLinear (or are constants) and whose results all go
into a QuantizeLinear, possibly through activations that a clamp replaces. A lowering gets a site and an
:class:`~qcompiler.passes.lower.emitter.Emitter` and returns the codes that take the place of the QuantizeLinear's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.quant.arithmetic import dequantize, quantize
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams

if TYPE_CHECKING:
    from qcompiler.passes.lower.emitter import Emitter
    from qcompiler.target.integer import IntegerArithmetic

__all__ = [
    "FORMATS",
    "Codes",
    "Lowering",
    "NoIntegerForm",
    "Site",
    "Weight",
    "bounds",
    "codes_of_quantizer",
    "dequantizer",
]

FORMATS: Final = MappingProxyType({ir.DataType.INT8: QFormat(8), ir.DataType.INT16: QFormat(16)})
"""What activations can be stored as."""


class NoIntegerForm(Exception):  # noqa: N818 - it is an answer, not a failure: the node stays float
    """Why a node has no integer form; a sentence that goes to the report as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """An activation (or a constant operand) in codes, one scale for the tensor.

    Attributes:
        value: The tensor of codes.
        scale: Its scale, exactly as float32.
        zero_point: Its zero point.
        dtype: ``INT8`` or ``INT16``.
        of: Name of the real tensor.
    """

    value: ir.Value
    scale: float
    zero_point: int
    dtype: ir.DataType
    of: str

    @property
    def low(self) -> int:
        """Least code that the tensor can hold: its producer's clamp where it is known, else that of the type."""
        return self._bound("low", FORMATS[self.dtype].minimum)

    @property
    def high(self) -> int:
        """Greatest code that the tensor can hold."""
        return self._bound("high", FORMATS[self.dtype].maximum)

    @property
    def magnitude(self) -> int:
        """Greatest ``|code - zero_point|``."""
        return max(self.high - self.zero_point, self.zero_point - self.low)

    def same_parameters(self, other: Codes) -> bool:
        """Whether equal codes mean equal numbers."""
        return (self.scale, self.zero_point, self.dtype) == (other.scale, other.zero_point, other.dtype)

    def code_of(self, real: float) -> int:
        """The code that QuantizeLinear gives a real number."""
        params = QParams(np.asarray(self.scale, np.float32), np.asarray(self.zero_point, np.int32))
        return int(quantize(np.float32(real).reshape(1), params, FORMATS[self.dtype])[0])

    def _bound(self, name: str, default: int) -> int:
        content = constants.array(self.value)
        if content is not None and content.size:
            return int(content.min() if name == "low" else content.max())
        producer = self.value.producer()
        known = producer.attributes.get(name) if producer is not None and producer.domain else None
        return int(known.as_int()) if known is not None else default


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A constant weight in codes.

    Attributes:
        codes: Codes as int8 (narrower types widened), in the shape the node reads.
        scale: float64, shape ``()`` per tensor or ``(size of axis,)``; block-wise scales have the shape of ONNX.
        zero_point: int64 of the same shape.
        axis: Axis along which scales vary; ``None`` per tensor.
        block: Codes that share a scale along ``axis``; 0 without blocks.
        bits: Bits of the stored type: 8 or 4.
        name: Name of the stored tensor.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int | None
    block: int
    bits: int
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A node and the codes around it.

    Attributes:
        node: The operator.
        inputs: Per input its codes; ``None`` where it is absent, no tensor of activation codes, or float.
        outputs: Per output what its QuantizeLinear writes; ``value`` is the tensor to be replaced.
        absorbed: Activations (and the constant Add behind a matrix product) between node and QuantizeLinear, in order.
        arithmetic: What the target's rescale can do.
    """

    node: ir.Node
    inputs: tuple[Codes | None, ...]
    outputs: tuple[Codes, ...]
    absorbed: tuple[ir.Node, ...]
    arithmetic: IntegerArithmetic

    @property
    def output(self) -> Codes:
        """The codes of the first output."""
        return self.outputs[0]

    def codes(self, index: int) -> Codes:
        """The codes of input ``index``.

        Raises:
            NoIntegerForm: It has none.
        """
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise NoIntegerForm(f"its input {index} is not a tensor of 8- or 16-bit codes with one scale")
        return found

    def clamp(self) -> tuple[int, int]:
        """Least and greatest code of output 0: its type's, narrowed by absorbed Relu, Clip, Min and Max.

        Quantization is monotone, so a bound on real numbers is a bound on codes.

        Raises:
            NoIntegerForm: A bound is not one constant number.
        """
        low, high = FORMATS[self.output.dtype].minimum, FORMATS[self.output.dtype].maximum
        for node in self.absorbed:
            if node.op_type == "Add":
                continue
            least, greatest = bounds(node)
            low = low if least is None else max(low, self.output.code_of(least))
            high = high if greatest is None else min(high, self.output.code_of(greatest))
        return min(low, high), high

    def weight(self, index: int) -> Weight | None:
        """The constant weight at input ``index``; ``None`` where it is no dequantized constant."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        producer = dequantizer(value)
        if producer is None or (codes := constants.array(producer.inputs[0])) is None:
            return None
        scale = constants.array(producer.inputs[1])
        if scale is None:
            return None
        stored = constants.array(producer.inputs[2]) if len(producer.inputs) > 2 else None
        zero = np.zeros(scale.shape, np.int64) if stored is None else stored.astype(np.int64)
        dtype = producer.inputs[0].dtype if producer.inputs[0] is not None else None
        if dtype is ir.DataType.UINT8:  # the same numbers in signed codes
            codes, zero = codes.astype(np.int16) - 128, zero - 128
        return Weight(
            codes.astype(np.int8),
            scale.astype(np.float64),
            zero,
            None if scale.size == 1 and scale.ndim == 0 else producer.attributes.get_int("axis", 1),
            producer.attributes.get_int("block_size", 0),
            4 if dtype in (ir.DataType.INT4, ir.DataType.UINT4) else 8,
            str(producer.inputs[0].name if producer.inputs[0] is not None else ""),
        )

    def constant(self, index: int) -> NDArray[Any] | None:
        """The number(s) of a constant input, dequantized where it is stored as codes; ``None`` where not constant."""
        return real_constant(self.node.inputs[index]) if index < len(self.node.inputs) else None


Lowering: TypeAlias = "Callable[[Site, Emitter], ir.Value | Sequence[ir.Value]]"
"""Emits the integer form of a site and returns its codes, one value per output."""


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes ``value``; ``None`` where something else does."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def codes_read(value: ir.Value | None) -> Codes | None:
    """The activation codes that a node reads through a DequantizeLinear; ``None`` where it reads none."""
    node = dequantizer(value)
    if node is None or node.inputs[0] is None:
        return None
    return _codes(node, node.inputs[0], str(value.name if value is not None else ""))


def codes_of_quantizer(node: ir.Node) -> Codes | None:
    """What a QuantizeLinear writes; ``None`` where it has several scales or codes of another type."""
    source = node.inputs[0]
    return _codes(node, node.outputs[0], str(source.name if source is not None else ""))


def real_constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The content of a constant, dequantized where it is stored as codes."""
    node = dequantizer(value)
    if node is None:
        return constants.array(value)
    codes, scale = constants.array(node.inputs[0]), constants.array(node.inputs[1])
    if codes is None or scale is None:
        return None
    zero = constants.array(node.inputs[2]) if len(node.inputs) > 2 else None
    axis = None if scale.ndim == 0 else node.attributes.get_int("axis", 1)
    params = QParams(scale, np.zeros(scale.shape, np.int32) if zero is None else zero.astype(np.int32))
    block = node.attributes.get_int("block_size", 0) or None
    return dequantize(codes, params, QFormat(32, axis=axis, block=block))


def _codes(node: ir.Node, value: ir.Value, of: str) -> Codes | None:
    scale = constants.array(node.inputs[1])
    zero = constants.array(node.inputs[2]) if len(node.inputs) > 2 else None
    zero_type = node.inputs[2].dtype if len(node.inputs) > 2 and node.inputs[2] is not None else None
    dtype = zero_type or value.dtype
    if dtype is None or dtype not in FORMATS:
        return None
    if scale is None or scale.size != 1 or (zero is not None and zero.size != 1):
        return None
    return Codes(value, float(scale.reshape(())), 0 if zero is None else int(zero.reshape(())), dtype, of)


def bounds(node: ir.Node) -> tuple[float | None, float | None]:
    """Least and greatest real result of an activation."""
    if node.op_type == "Relu":
        return 0.0, None
    if node.op_type == "Clip":
        operands = [*node.inputs[1:], None, None][:2]
        return _number(operands[0], node), _number(operands[1], node)
    other = next((item for item in node.inputs if constants.is_constant(item) or _is_constant(item)), None)
    bound = _number(other, node)
    return (None, bound) if node.op_type == "Min" else (bound, None)


def _is_constant(value: ir.Value | None) -> bool:
    node = dequantizer(value)
    return node is not None and constants.is_constant(node.inputs[0])


def _number(value: ir.Value | None, node: ir.Node) -> float | None:
    if value is None:
        return None
    content = real_constant(value)
    if content is None or content.size != 1:
        raise NoIntegerForm(f"the bound of {node.name} ({node.op_type}) is not one constant number")
    return float(content.reshape(()))
