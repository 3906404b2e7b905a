"""The applier of Q/DQ placement: inserts what the planner listed, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import PassError
from qcompiler.ir.constants import is_constant
from qcompiler.ir.edit import AttributeValue, Edit
from qcompiler.ir.uses import use_count
from qcompiler.passes.place.plan import Edge, Pair, ValuePlan
from qcompiler.quant import arithmetic, state
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.log_grids import Grid
from qcompiler.quant.params import QParams
from qcompiler.quant.state import Clamp, NodeDecision

__all__ = ["Applier", "saturates_like"]


@dataclass(slots=True)
class Applier:
    """Turns value plans into nodes of one graph."""

    edit: Edit
    graph: ir.Graph
    _order: dict[ir.Node, int] = field(init=False)

    def __post_init__(self) -> None:
        self._order = {node: index for index, node in enumerate(self.graph)}

    def apply(self, plan: ValuePlan) -> None:
        """Insert the pairs of one value and rewire their readers."""
        if is_constant(plan.value):
            self._apply_constant(plan)
            return
        source = plan.value
        if plan.main is not None:
            result = self._insert_pair(source, plan.main)
            self._rewire(plan.main.edges, result)
            if plan.after_main:
                self._rewire(plan.float_edges, result)
                self._take_over_output(plan.value, result)
                self._drop_absorbed(plan.main, source)
                source = result
        for pair in plan.others:
            self._rewire(pair.edges, self._insert_pair(source, pair))

    # -- constants -----------------------------------------------------------------------------------------

    def _apply_constant(self, plan: ValuePlan) -> None:
        pairs = [plan.main] if plan.main is not None else []
        for pair in [*pairs, *plan.others]:
            result = self.constant_pair(plan.value, pair)
            self._rewire(pair.edges, result)
        self.edit.remove_unused([plan.value])

    def constant_pair(self, value: ir.Value, pair: Pair) -> ir.Value:
        """Store an initializer as integer codes and return the output of their DequantizeLinear."""
        params = _params(pair, value)
        tensor = value.const_value
        if tensor is None:
            raise PassError("the initializer has no content", where=value.name)
        form = pair.quant.format
        codes = ir.LazyTensor(
            lambda: ir.Tensor(arithmetic.quantize(np.asarray(tensor.numpy(), np.float32), params, form)),
            dtype=ir.DataType.from_numpy(arithmetic.storage_dtype(form)),
            shape=ir.Shape(tuple(tensor.shape)),  # type: ignore[arg-type]
            cache=False,
            name=f"{value.name}_quantized",
        )
        stored = self.edit.constant(f"{value.name}_quantized", codes)
        anchor = min((edge.node for edge in pair.edges), key=lambda node: self._order[node])
        return self._dequantize(stored, params, form, str(value.name), before=anchor, shape=value.shape)

    # -- activations ---------------------------------------------------------------------------------------

    def _insert_pair(self, value: ir.Value, pair: Pair) -> ir.Value:
        params, form = _params(pair, value), pair.quant.format
        base, stored = str(value.name), arithmetic.WORDS if form.logarithmic else form.in_bytes
        scale, zero = self.edit.constant(f"{base}_scale", params.scale), self._zero_point(base, params, stored)
        producer = value.producer()
        before = None if producer is not None else _first(self.graph)
        last = self.edit.insert(
            "QuantizeLinear",
            [value, scale, zero],
            attributes=_axis_attributes(form),
            name=f"{base}_QuantizeLinear",
            output_name=f"{base}_quantized",
            before=before,
            after=producer,
        )
        last.outputs[0].shape = value.shape
        last.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(arithmetic.storage_dtype(stored)))
        if params.grid is not None:
            last = self._insert_grid(last, params.grid, base)
        elif form.bits < BYTE:
            last = self._clip_codes(last, form)
        return self._dequantize_node(last.outputs[0], scale, zero, stored, base, value.shape, after=last)

    def _insert_grid(self, quantize: ir.Node, grid: Grid, base: str) -> ir.Node:
        """Insert codes along a grid between 16-bit codes and what these become by the grid's table."""
        node, steps = quantize, (("QLogQuantize", grid.thresholds(), "log"), ("QLogDequantize", grid.decoded(), "grid"))
        for op_type, table, result in steps:
            source = node.outputs[0]
            constant = self.edit.constant(f"{base}_{result}_table", table)
            node = self.edit.insert(
                op_type,
                [source, constant],
                domain=DOMAIN,
                name=f"{base}_{op_type}",
                output_name=f"{base}_{result}",
                after=node,
            )
            node.outputs[0].shape = source.shape
            node.outputs[0].type = ir.TensorType(ir.DataType.INT8 if result == "log" else ir.DataType.INT16)
        return node

    def _clip_codes(self, quantize: ir.Node, form: QFormat) -> ir.Node:
        """Keep bytes within the codes of fewer bits: ``clip(clip(v, -128, 127), -8, 7) = clip(v, -8, 7)``.

        ONNX has 4-bit types, but ONNX Runtime 1.32 is no place for activations in them: behind a Clip, around a MaxPool
        or a Conv with 8-bit weights the session fails to load, and a Relu before them is dropped whatever the zero
        point. And integer kernels read bytes.
        """
        codes, dtype = quantize.outputs[0], arithmetic.storage_dtype(form.in_bytes)
        ends = (("least", form.minimum), ("greatest", form.maximum))
        bounds = [self.edit.constant(f"{codes.name}_{name}", np.array(code, dtype)) for name, code in ends]
        name = f"{codes.name}_clip"
        clip = self.edit.insert("Clip", [codes, *bounds], after=quantize, name=name, output_name=f"{name}ped")
        state.set_node_decision(clip, NodeDecision(True, f"codes of {form.bits} bits in bytes"))
        clip.outputs[0].type, clip.outputs[0].shape = codes.type, codes.shape
        return clip

    def _drop_absorbed(self, main: Pair, value: ir.Value) -> None:
        """Remove a fused Relu or Clip whose work the saturation of its QuantizeLinear does exactly.

        The codes of the format end where the activation clips, so both give the same code for every real number. The
        QuantizeLinear remembers it: who removes that brings the clamp back.
        """
        activation = value.producer()
        if (
            activation is None
            or main.quant.params is None
            or not saturates_like(activation, main.quant.format, main.quant.params)
        ):
            return
        before = activation.inputs[0]
        if before is None or use_count(before) != 1 or before.is_graph_output() or before.is_graph_input():
            return  # its name is not ours to give
        clamp = Clamp(str(activation.name), str(value.name), *(_clamp_ends(activation) or (None, None)))
        for use in list(value.uses()):
            self.edit.set_input(use.node, use.idx, before)
            state.set_absorbed_clamp(use.node, clamp)
        name = value.name
        self.edit.remove_unused([value])
        # What readers of the codes see is the activation's result; under its name it is compared with the float one.
        before.name = name

    def _dequantize(
        self, codes: ir.Value, params: QParams, form: QFormat, base: str, *, before: ir.Node, shape: ir.Shape | None
    ) -> ir.Value:
        """Dequantize stored codes; a bias has no zero point (weights need one: ONNX Runtime fuses no Gemm without)."""
        scale = self.edit.constant(f"{base}_scale", params.scale)
        zero = None if form.bits == 32 else self._zero_point(base, params, form)
        return self._dequantize_node(codes, scale, zero, form, base, shape, before=before)

    def _dequantize_node(
        self,
        codes: ir.Value,
        scale: ir.Value,
        zero: ir.Value | None,
        form: QFormat,
        base: str,
        shape: ir.Shape | None,
        *,
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Value:
        inputs = [codes, scale] if zero is None else [codes, scale, zero]
        node = self.edit.insert(
            "DequantizeLinear",
            inputs,
            attributes=_axis_attributes(form),
            before=before,
            after=after,
            name=f"{base}_DequantizeLinear",
            output_name=f"{base}_dequantized",
        )
        node.outputs[0].shape = shape
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        return node.outputs[0]

    def _zero_point(self, base: str, params: QParams, form: QFormat) -> ir.Value:
        return self.edit.constant(f"{base}_zero_point", params.zero_point.astype(arithmetic.storage_dtype(form)))

    # -- biases --------------------------------------------------------------------------------------------

    def bias_pair(self, edge: Edge, scale: NDArray[np.float32]) -> None:
        """Store a bias as int32 codes at ``scale`` and let ``edge`` read their DequantizeLinear.

        Raises:
            PassError: The bias is no constant, or 32 bits do not hold it.
        """
        value = edge.node.inputs[edge.index]
        tensor = None if value is None else value.const_value
        if value is None or tensor is None:
            raise PassError("the bias is not a constant", where=edge.node.name)
        bias = np.asarray(tensor.numpy()).reshape(-1)
        if (np.abs(bias) > scale.astype(np.float64) * 2.0**31).any():
            raise PassError(
                "the bias does not fit 32 bits at the scale of the accumulator (activation × weight)",
                where=edge.node.name,
                hint="calibrate-weights makes room for biases when it runs behind calibrate; or --exclude the node",
            )
        self._bias(edge, value, arithmetic.quantize_bias(bias, scale), scale)

    def exact_bias(self, edge: Edge, bias: NDArray[np.float32], base: str) -> None:
        """Store a float bias without loss as ``int32 * 2^k`` per channel.

        A float32 is ``mantissa * 2^k`` with a 24-bit integer mantissa, so the DequantizeLinear gives back the very
        same float32. ONNX Runtime's WeightBiasQuantization looks for a bias that is an initializer; with this one
        it leaves the node in float, as the user asked.
        """
        mantissa, exponent = np.frexp(bias.astype(np.float64))
        # Subnormal scales would flush; such a bias is below 2^-126 and its mantissa keeps fewer bits.
        power = np.maximum(exponent - 24, -126)
        codes = np.rint(np.ldexp(mantissa, exponent - power)).astype(np.int32)
        self._bias(
            edge,
            edge.node.inputs[edge.index] if edge.index < len(edge.node.inputs) else None,
            codes,
            np.ldexp(1.0, power).astype(np.float32),
            base,
        )

    def _bias(
        self,
        edge: Edge,
        value: ir.Value | None,
        codes: NDArray[np.int32],
        scale: NDArray[np.float32],
        base: str = "bias",
    ) -> None:
        name = str(value.name) if value is not None else base
        form = QFormat(32, symmetric=True, axis=None if scale.ndim == 0 else 0)
        stored = self.edit.constant(f"{name}_quantized", codes)
        result = self._dequantize(
            stored,
            QParams(scale, np.zeros(scale.shape, np.int32)),
            form,
            name,
            before=edge.node,
            shape=ir.Shape(codes.shape),
        )
        self.edit.set_input(edge.node, edge.index, result)
        if value is not None:
            self.edit.remove_unused([value])

    # -- wiring --------------------------------------------------------------------------------------------

    def _rewire(self, edges: tuple[Edge, ...], value: ir.Value) -> None:
        for edge in edges:
            self.edit.set_input(edge.node, edge.index, value)

    def _take_over_output(self, value: ir.Value, result: ir.Value) -> None:
        """Give the public name of a quantized graph output to what is dequantized from it."""
        if not value.is_graph_output():
            return
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = result
        public = value.name
        value.name = self.edit.unique_name(f"{public}_real")
        result.name = public


def _params(pair: Pair, value: ir.Value) -> QParams:
    if pair.quant.params is None:
        raise PassError(
            "the value has a format but no scale",
            where=f"place-qdq, value {value.name}",
            hint="run calibrate and calibrate-weights before place-qdq",
        )
    return pair.quant.params


def _axis_attributes(form: QFormat) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {}
    if form.axis is not None:
        attributes["axis"] = form.axis
    if form.block is not None:
        attributes["block_size"] = form.block
    return attributes


def _first(graph: ir.Graph) -> ir.Node:
    return next(iter(graph))


def saturates_like(node: ir.Node, form: QFormat, params: QParams) -> bool:
    """Whether quantizing with these parameters clips exactly where a Relu or Clip ``node`` does.

    The lower bound must get the least code and the upper bound the greatest: quantization is monotone, so everything
    beyond a bound then has the code of the bound.
    """
    ends = None if form.logarithmic else _clamp_ends(node)
    if ends is None:
        return False
    low, high = (
        None if end is None else int(arithmetic.quantize(np.float32(end).reshape(1), params, form)[0]) for end in ends
    )
    return (low is None or low == form.minimum) and (high is None or high == form.maximum)


def _clamp_ends(node: ir.Node) -> tuple[float | None, float | None] | None:
    """Least and greatest result of a Relu or Clip; ``None`` where it is neither, or an end is computed."""
    if node.op_type == "Relu":
        return 0.0, None
    operands = [*node.inputs[1:], None, None][:2]
    if node.op_type != "Clip" or any(operand is not None and not is_constant(operand) for operand in operands):
        return None
    low, high = (
        None if item is None or item.const_value is None else float(item.const_value.numpy()) for item in operands
    )
    return low, high
