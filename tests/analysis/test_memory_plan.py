"""Peak memory: a slow reference, hand-counted graphs, and what fused kernels and views do not need."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.analysis.activation_bytes import activation_bytes, in_place
from qcompiler.analysis.memory_plan import memory_plan, memory_steps
from qcompiler.ir.edit import Edit
from qcompiler.ir.shapes import infer
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context
from qcompiler.target.load import load

Parse = Callable[[str], ir.Model]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[ir.Graph, dict[ir.Value, int]]:
    """Random graphs of elementwise nodes and views, and bytes of their values."""
    values = [ir.Value(name=f"x{index}") for index in range(draw(st.integers(1, 2)))]
    inputs, nodes = list(values), []
    for index in range(draw(st.integers(1, 9))):
        read = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
        view = draw(st.booleans())
        node = ir.Node("", "Identity" if view else "Sum", read[:1] if view else read, name=f"n{index}")
        node.outputs[0].name = f"v{index}"
        nodes.append(node)
        values.append(node.outputs[0])
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True))
    sizes = {value: draw(st.integers(0, 50)) for value in values}
    return ir.Graph(inputs, outputs, nodes=nodes, name="g"), sizes


def reference(graph: ir.Graph, sizes: dict[ir.Value, int]) -> list[int]:
    """Live bytes at every node, each looked up from scratch."""
    nodes, found = list(graph), []

    def buffer(value: ir.Value) -> ir.Value:
        producer = value.producer()
        if producer is None or in_place(producer) is None:
            return value
        source = in_place(producer)
        assert source is not None
        return buffer(source)

    for index in range(len(nodes)):
        known = [*graph.inputs, *(value for node in nodes[: index + 1] for value in node.outputs)]
        needed = {value for node in nodes[index:] for value in node.inputs if value is not None}
        needed |= set(graph.outputs) | set(nodes[index].outputs)
        started = set(graph.inputs) if index == 0 else set()
        alive = {buffer(value) for value in known if value in needed or value in started}
        alive |= {buffer(value) for value in sizes if _bridges(value, known, needed, buffer)}
        members = {root: [v for v in sizes if buffer(v) is root] for root in alive}
        found.append(sum(max(sizes[value] for value in group) for group in members.values()))
    return found


def _bridges(
    value: ir.Value, known: list[ir.Value], needed: set[ir.Value], buffer: Callable[[ir.Value], ir.Value]
) -> bool:
    """Whether a buffer is held for a view that comes later."""
    group = [item for item in (*known, *needed) if buffer(item) is buffer(value)]
    return any(item in known for item in group) and any(item in needed for item in group)


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_equals_the_reference(case: tuple[ir.Graph, dict[ir.Value, int]]) -> None:
    graph, sizes = case
    assert [step.bytes for step in memory_steps(graph, sizes.__getitem__)] == reference(graph, sizes)
    plan = memory_plan(graph, sizes.__getitem__)
    assert plan.peak == max(reference(graph, sizes)) == sum(plan.live.values())


def test_a_residual_holds_its_shortcut(parse: Parse) -> None:
    model = parse(
        '<ir_version: 10, opset_import: ["" : 21]> m (float[8] x) => (float[8] y)'
        "{ a = Neg(x) b = Abs(a) c = Sqrt(b) y = Add(a, c) }"
    )
    infer(model)
    steps = list(memory_steps(model.graph))
    assert [set(step.live) for step in steps] == [{"x", "a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "c", "y"}]
    assert memory_plan(model.graph).peak == 3 * 32


def test_formats_views_and_fused_kernels_count(small_cnn: ir.Model) -> None:
    infer(small_cnn)
    whole = memory_plan(small_cnn.graph).peak
    AssignFormats().run(small_cnn, Context(Edit(small_cnn), target=load("edge-npu"), format="w8a8"))
    plan = memory_plan(small_cnn.graph)
    nodes = {node.op_type: node for node in small_cnn.graph}
    conv, relu = nodes["Conv"].outputs[0], nodes["Relu"].outputs[0]
    assert activation_bytes(conv) == 0
    channels = relu.shape[1] if relu.shape is not None else None
    assert isinstance(channels, int)
    assert activation_bytes(relu) == 8 * 8 * channels
    assert in_place(nodes["Relu"]) is conv
    assert in_place(nodes["Flatten"]) is nodes["Flatten"].inputs[0]
    assert plan.peak <= whole / 3
    assert plan.node


def test_weight_only_formats_keep_real_activations(small_cnn: ir.Model) -> None:
    infer(small_cnn)
    whole = memory_plan(small_cnn.graph)
    AssignFormats().run(small_cnn, Context(Edit(small_cnn), target=load("lowbit-cpu"), format="w4"))
    assert memory_plan(small_cnn.graph) == whole


def test_nothing_lives_in_an_empty_graph() -> None:
    assert memory_plan(ir.Graph([], [], nodes=[], name="empty")).peak == 0
