"""Protobuf and GraphSurgeon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest

from qcompiler.errors import PassError, PipelineError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.ir.interop import from_proto, graphsurgeon_pass, to_proto
from qcompiler.ir.render import render
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context, Fact, Pass, Preserves
from qcompiler.pipeline.manager import Pipeline
from qcompiler.quant import state
from qcompiler.quant.state import NodeDecision


@graphsurgeon_pass
def look_only(graph: gs.Graph, ctx: Context) -> None:
    """Change nothing."""


@graphsurgeon_pass(name="drop-relu", provides={Fact.TYPED}, preserves=Preserves.NOTHING)
def drop_relu(graph: gs.Graph, ctx: Context) -> None:
    for node in [node for node in graph.nodes if node.op == "Relu"]:
        for consumer in list(node.outputs[0].outputs):
            consumer.inputs[0] = node.inputs[0]
        node.outputs.clear()
        ctx.note(f"dropped {node.name}")
    graph.cleanup()


def test_weights_of_a_loaded_model_are_inside_the_proto(small_cnn_path: Path) -> None:
    proto = to_proto(io.load(small_cnn_path))
    onnx.checker.check_model(proto)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in proto.graph.initializer)
    assert render(from_proto(proto)) == render(io.load(small_cnn_path))


def test_a_round_trip_that_changes_nothing_counts_nothing(small_cnn: ir.Model) -> None:
    before = render(small_cnn)
    small_cnn.graph[0].meta["mark"] = 1
    small_cnn.graph[1].outputs[0].meta["mark"] = 2
    ctx = Context(Edit(small_cnn))
    look_only().run(small_cnn, ctx)
    assert ctx.edit.count == 0
    assert render(small_cnn) == before
    assert small_cnn.graph[0].meta["mark"] == 1
    assert small_cnn.graph[1].outputs[0].meta["mark"] == 2


def test_an_edit_counts_and_the_model_still_runs(small_cnn: ir.Model) -> None:
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    before = Runner(small_cnn).run(feed)["y"]
    ctx = Context(Edit(small_cnn))
    drop_relu().run(small_cnn, ctx)
    assert [node.op_type for node in small_cnn.graph] == ["Conv", "MaxPool", "Flatten", "Gemm"]
    assert ctx.edit.count > 0
    assert ctx.records[0].notes[0].text == "dropped relu"
    after = Runner(small_cnn).run(feed)["y"]
    assert not np.allclose(before, after)
    assert check(Fact.TYPED, small_cnn) == []
    node = ctx.edit.insert("Neg", [small_cnn.graph.inputs[0]], name="conv")
    assert node.name == "conv_1"


def test_the_decorator_makes_a_pass() -> None:
    assert issubclass(drop_relu, Pass)
    assert drop_relu.name == "drop-relu"
    assert drop_relu.provides == {Fact.TYPED}
    assert look_only.name == "look-only"
    assert look_only.__doc__ == "Change nothing."
    assert look_only.__module__ == __name__
    assert look_only() == look_only()


def test_a_pipeline_in_which_it_comes_too_late_is_refused() -> None:
    Pipeline((look_only(), AssignFormats()), given=AssignFormats.requires)
    with pytest.raises(PipelineError, match=r"'look-only'.*'assign-formats'") as caught:
        Pipeline((AssignFormats(), look_only()), given=AssignFormats.requires)
    assert caught.value.hint == "move 'look-only' before 'assign-formats'"


def test_refused_once_formats_are_assigned(small_cnn: ir.Model) -> None:
    state.set_node_decision(small_cnn.graph[0], NodeDecision(True))
    with pytest.raises(PassError, match="before assign-formats"):
        look_only().run(small_cnn, Context(Edit(small_cnn)))
