"""Nodes that follow a format of their own: what assign-formats makes of the marks."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.ir.copies import shared_copy
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.format_marks import followed, mark_format, marked
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.target.formats import resolve_format
from qcompiler.target.load import load

from .test_assign_formats import RESIDUAL, STREAM


def assigned(model: ir.Model, target: str, form: str, marks: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Formats of weights and of what is multiplied with them, by node."""
    copy, profile = shared_copy(model), load(target)
    for node in copy.graph:
        if node.name in marks:
            mark_format(node, resolve_format(profile, marks[node.name]))
    AssignFormats().run(copy, Context(Edit(copy), target=profile, format=form))
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    for node in copy.graph:
        if node.op_type in ("Conv", "MatMul"):
            for index in (0, 1):
                quant = state.edge_quant(node, index)
                found[1 - index][str(node.name)] = "float" if quant is None else str(quant.format)
    return found


def test_a_marked_node_follows_its_own_format() -> None:
    weights, reads = assigned(RESIDUAL, "edge-npu", "w8a8", {"Conv_2": "w4a8"})
    assert weights == {"Conv_0": "i8/sym/narrow/axis=0", "Conv_2": "i4/sym/axis=0", "Conv_5": "i8/sym/narrow/axis=0"}
    assert set(reads.values()) == {"i8"}


def test_activations_of_a_marked_node_have_their_own_width() -> None:
    _, reads = assigned(RESIDUAL, "edge-npu", "w8a8", {"Conv_5": "w8a16"})
    assert reads["Conv_5"] == "i16"
    assert reads["Conv_2"] == "i8"


def test_weight_only_formats_may_differ_too() -> None:
    weights, reads = assigned(STREAM, "lowbit-cpu", "w8", {"MatMul_3": "w3"})
    assert weights["MatMul_0"].startswith("u8") or weights["MatMul_0"].startswith("i8")
    assert "3" in weights["MatMul_3"].partition("/")[0]
    assert set(reads.values()) == {"float"}


def test_marks_go_with_copies_and_can_be_taken_away() -> None:
    copy, request = shared_copy(RESIDUAL), resolve_format(load("edge-npu"), "w4a8")
    node = next(iter(copy.graph))
    mark_format(node, request)
    again = shared_copy(copy)
    assert [(str(item.name), own.text) for item, own in marked(again.graph)] == [("Conv_0", "w4a8")]
    mark_format(next(iter(again.graph)), None)
    assert list(marked(again.graph)) == []
    assert followed(node, resolve_format(load("edge-npu"), "w8a8")) is request
