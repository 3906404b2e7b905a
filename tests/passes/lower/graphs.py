"""Small Q/DQ graphs around one operator, lowered, and both run in ONNX Runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from qcompiler.ir import facts, interop
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower.lower_integer import LowerInteger
from qcompiler.pipeline.base import Context, Fact
from qcompiler.target.load import load

KINDS: Mapping[str, Any] = {"i8": np.int8, "i16": np.int16}


@dataclass(frozen=True)
class Parameters:
    """Scale, zero point and type of one tensor of codes."""

    scale: float
    zero_point: int = 0
    kind: str = "i8"


def graph(
    body: str,
    inputs: Mapping[str, tuple[tuple[int | str, ...], Parameters]],
    outputs: Mapping[str, Parameters],
    constants: Mapping[str, NDArray[Any]] | None = None,
    *,
    real: tuple[str, ...] = (),
) -> ir.Model:
    """``body`` reads ``a``, ``b``, … behind Q/DQ and gives results that go through Q/DQ to outputs ``out_…``.

    Args:
        body: Statements in ONNX text.
        inputs: Per name the shape of the graph input and its parameters.
        outputs: Per result of the body its parameters.
        constants: Initializers that the body reads.
        real: Results of the body that leave the graph as they are, typed int64.
    """
    lines, held = [], {name: np.asarray(array) for name, array in (constants or {}).items()}

    def pair(source: str, name: str, parameters: Parameters, result: str) -> None:
        held[f"{name}_scale"] = np.float32(parameters.scale)
        held[f"{name}_zero"] = KINDS[parameters.kind](parameters.zero_point)
        lines.append(f"{name}_q = QuantizeLinear ({source}, {name}_scale, {name}_zero)")
        lines.append(f"{result} = DequantizeLinear ({name}_q, {name}_scale, {name}_zero)")

    for name, (_, parameters) in inputs.items():
        pair(f"in_{name}", name, parameters, name)
    lines.append(body)
    for name, parameters in outputs.items():
        pair(name, f"{name}_", parameters, f"out_{name}")
    fed = ", ".join(f"float[{', '.join(map(str, shape))}] in_{name}" for name, (shape, _) in inputs.items())
    given = ", ".join([*(f"float[] out_{name}" for name in outputs), *(f"int64[] {name}" for name in real)])
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({fed}) => ({given}) {{ ' + "\n".join(lines) + " }"
    proto = onnx.parser.parse_model(text)
    for name, array in held.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def lower(model: ir.Model, **arithmetic: Any) -> Context:
    """Run the pass; keyword arguments change the target's arithmetic."""
    target = load("edge-npu")
    target = dataclasses.replace(target, integer=dataclasses.replace(target.integer, **arithmetic))
    ctx = Context(edit=Edit(model), target=target)
    LowerInteger().run(model, ctx)
    assert facts.check(Fact.LOWERED, model) == []
    return ctx


def reasons(ctx: Context) -> list[str]:
    """Why nodes were left in float."""
    return [skip.reason for record in ctx.records for skip in record.skips]


def operators(model: ir.Model) -> list[str]:
    """Operators between the borders."""
    return [node.op_type for node in model.graph if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]


def run(model: ir.Model, feed: Mapping[str, NDArray[Any]], *, optimize: bool = True) -> list[NDArray[Any]]:
    """What ONNX Runtime computes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = interop.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[NDArray[Any]] = session.run(None, dict(feed))
    return results


def feed_of(
    inputs: Mapping[str, tuple[tuple[int | str, ...], Parameters]], random: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Numbers over the whole range of the codes and a little beyond; a symbolic size is 2."""
    fed = {}
    for name, (shape, parameters) in inputs.items():
        sizes = [size if isinstance(size, int) else 2 for size in shape]
        limits = np.iinfo(KINDS[parameters.kind])
        low, high = ((limit - parameters.zero_point) * parameters.scale for limit in (limits.min, limits.max))
        margin = 0.05 * (high - low)
        fed[f"in_{name}"] = random.uniform(low - margin, high + margin, sizes).astype(np.float32)
    return fed


def codes_apart(
    body: str,
    inputs: Mapping[str, tuple[tuple[int | str, ...], Parameters]],
    outputs: Mapping[str, Parameters],
    constants: Mapping[str, NDArray[Any]] | None = None,
    **arithmetic: Any,
) -> tuple[int, list[str]]:
    """Lower, run both, compare.

    Returns:
        Greatest distance from the Q/DQ graph in codes of the output, and the operators of the integer graph.
    """
    model = graph(body, inputs, outputs, constants)
    feed = feed_of(inputs, np.random.default_rng(0))
    wanted = run(model, feed, optimize=False)
    ctx = lower(model, **arithmetic)
    assert reasons(ctx) == []
    assert all(node.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output() for node in model.graph)
    found = run(model, feed)
    worst = 0
    for one, other, parameters in zip(found, wanted, outputs.values(), strict=True):
        assert one.shape == other.shape
        worst = max(worst, int(np.abs(np.rint((one - other) / np.float64(parameters.scale))).max(initial=0)))
    return worst, operators(model)
