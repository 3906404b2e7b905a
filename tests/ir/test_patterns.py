"""Matching helpers answer about exactly the graph they are given."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from qcompiler.ir import patterns, regions
from qcompiler.ir.regions import MaskInfo

Parse = Callable[[str], ir.Model]

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[1, 4] x, float[N, 4] z) => (float[1, 4] y, float[1, 4] r)
<float[1] two = {2.0}, float[4] many = {1, 2, 3, 4}>
{
    m = Mul (two, x)
    a = Add (m, many)
    q = Mul (a, a)
    r = Relu (q)
    y = LeakyRelu <alpha = 0.25> (q)
}
"""


@pytest.fixture
def model(parse: Parse) -> ir.Model:
    return parse(TEXT)


def value(model: ir.Model, name: str) -> ir.Value:
    return next(item for node in model.graph for item in node.outputs if item.name == name)


def test_producers_and_consumers(model: ir.Model) -> None:
    q = value(model, "q")
    assert patterns.producer(q, "Mul") is q.producer()
    assert patterns.producer(q, "Add", "Div") is None
    assert patterns.producer(model.graph.inputs[0]) is None
    assert [node.op_type for node in patterns.consumers(q)] == ["Relu", "LeakyRelu"]
    assert [node.op_type for node in patterns.consumers(q, "Relu")] == ["Relu"]


def test_an_only_consumer_reads_alone(model: ir.Model) -> None:
    only = patterns.only_consumer(value(model, "m"))
    assert only is not None
    assert only.op_type == "Add"
    assert patterns.only_consumer(value(model, "m"), "Mul") is None
    assert patterns.only_consumer(value(model, "q")) is None
    assert patterns.only_consumer(value(model, "r")) is None  # an output of the graph


def test_an_output_of_the_graph_has_no_only_consumer(model: ir.Model) -> None:
    model.graph.outputs.append(value(model, "m"))
    assert patterns.only_consumer(value(model, "m")) is None


def test_operands(model: ir.Model) -> None:
    m, a, q = (value(model, name) for name in "maq")
    first, second = (node for node in model.graph if node.op_type == "Mul")
    add = a.producer()
    assert add is not None
    assert patterns.scalar_operand(first) == (model.graph.inputs[0], 2.0)
    assert patterns.scalar_operand(add) is None
    assert patterns.other_operand(add, m) is add.inputs[1]
    assert patterns.other_operand(second, a) is None
    assert patterns.reads_twice(second)
    assert not patterns.reads_twice(first)
    assert patterns.skip_back(q, ("Mul", "Add")) is model.graph.initializers["two"]


def test_shapes_and_attributes(model: ir.Model) -> None:
    assert patterns.static_shape(model.graph.inputs[1]) == (None, 4)
    assert patterns.rank(value(model, "m")) is None
    leaky = value(model, "y").producer()
    assert leaky is not None
    assert patterns.number(leaky, "alpha", 0.01) == 0.25
    assert patterns.number(leaky, "beta", 0.5) == 0.5
    assert patterns.integer(leaky, "axis", -1) == -1
    assert patterns.integers(leaky, "pads") is None


def test_other_domains_do_not_match(parse: Parse) -> None:
    model = parse(
        '<ir_version: 10, opset_import: ["" : 21, "their.own" : 1]>'
        "agraph (float[1] x) => (float[1] y) { y = their.own.Relu (x) }"
    )
    node = model.graph[0]
    assert node.domain == "their.own"
    assert not patterns.has_type(node, "Relu")


def test_regions_follow_the_graph(model: ir.Model) -> None:
    nodes = list(model.graph)
    written = regions.set_region("gelu", 0, nodes[1:3])
    assert regions.region(nodes[1]) is written
    assert regions.region(nodes[0]) is None
    (found,) = regions.regions(model)
    assert (found.kind, found.id) == ("gelu", "gelu:0")
    assert [item.name for item in found.inputs] == ["m"]  # the constant is no input
    assert [item.name for item in found.outputs] == ["q"]
    nodes[1].meta.pop("qcompiler.region")
    (found,) = regions.regions(model)
    assert [node.op_type for node in found.nodes] == ["Mul"]
    regions.clear(model.graph, regions=True)
    assert regions.regions(model) == []


def test_masks_are_read_back(model: ir.Model) -> None:
    info = MaskInfo(-1e4, "operand")
    regions.set_mask(model.graph.initializers["many"], info)
    regions.set_mask(value(model, "a"), MaskInfo(-1e4, "sum"))
    assert [(item.name, found.role) for item, found in regions.masked_values(model.graph)] == [
        ("many", "operand"),
        ("a", "sum"),
    ]
    assert regions.mask(model.graph.initializers["many"]) == info
    assert regions.mask(value(model, "q")) is None
    assert regions.mask(None) is None
    regions.clear(model.graph, masks=True)
    assert list(regions.masked_values(model.graph)) == []
