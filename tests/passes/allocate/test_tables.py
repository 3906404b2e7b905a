"""Tables of which rows are looked up: a scale per row, bits that somebody has to ask for, a decision of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir
import pytest

from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.format_marks import mark_format
from qcompiler.passes.allocate.groups import tie_groups, weight_inputs
from qcompiler.passes.allocate.layer_formats import layer_formats
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.quant import state
from qcompiler.quant.format import QFormat
from qcompiler.quant.operators import TABLE_INPUT
from qcompiler.target.formats import resolve_format
from qcompiler.target.load import load

from .test_assign_formats import parse

BODY = "e = Gather(t, i) m = MatMul(e, v) y = MatMul(m, t)"
SHAPES = {"t": (128, 64), "v": (64, 128)}
I4 = QFormat.parse("i4/sym")
TABLE = parse(BODY, "int64[4] i", "float[4,64] y", SHAPES)


def assigned(form: str, target: str, *, mark: str = "", tables: bool = False) -> ir.Model:
    copy, profile = TABLE.clone(), load(target)
    if mark:
        mark_format(copy.graph[0], resolve_format(profile, mark))
    AssignFormats(tables=tables).run(copy, Context(Edit(copy), target=profile, format=form))
    return copy


def table_format(model: ir.Model) -> str:
    quant = state.edge_quant(model.graph[0], TABLE_INPUT)
    return "" if quant is None else str(quant.format)


@pytest.mark.parametrize("form", ["w8a8", "w4a8", "w2a8"])
def test_a_table_has_8_bits_and_a_scale_per_row_whatever_products_get(form: str) -> None:
    found = assigned(form, "edge-npu")
    assert table_format(found) == "i8/sym/narrow/axis=0"
    product = state.edge_quant(found.graph[2], 1)
    assert product is not None
    assert product.format.axis == 1, "which reads the same matrix in codes of its own"


@pytest.mark.parametrize(("target", "wide", "narrow"), [("lowbit-cpu", "w8a8", "w3a8"), ("lowbit-cpu", "w8", "w3")])
def test_marks_and_those_who_measure_ask_for_fewer(target: str, wide: str, narrow: str) -> None:
    assert table_format(assigned(wide, target)) == "i8/sym/narrow/axis=0"
    assert table_format(assigned(wide, target, mark=narrow)) == "i3/sym/axis=0"
    assert table_format(assigned(narrow, target, tables=True)) == "i3/sym/axis=0"
    assert table_format(assigned(narrow, target, mark=wide, tables=True)) == "i8/sym/narrow/axis=0"


def test_scales_of_rows_are_those_of_rows_whatever_is_asked_of_weights() -> None:
    profile, found = load("lowbit-cpu"), assigned("w4/block=64/sym", "lowbit-cpu", tables=True)
    assert table_format(found) == "i4/sym/axis=0"
    texts = layer_formats(found.graph, profile, resolve_format(profile, "w4/block=64/sym"))
    assert texts == {"Gather_0": "w4", "MatMul_1": "w4/block=64/sym", "MatMul_2": "w4/block=64/sym"}


@pytest.mark.parametrize("kind", ["w4a8", "w4"])
def test_only_bits_that_somebody_asked_for_are_missed(kind: str) -> None:
    rule = replace(load("lowbit-cpu").operators["Gather"], tables=(I4,), weight_only=(I4,))
    profile = replace(load("lowbit-cpu"), operators={**load("lowbit-cpu").operators, "Gather": rule})
    for mark, notes in (("", 0), (kind.replace("4", "3"), 1)):
        copy = TABLE.clone()
        if mark:
            mark_format(copy.graph[0], resolve_format(profile, mark))
        ctx = Context(Edit(copy), target=profile, format=kind)
        ctx.records.append(PassRecord("assign-formats"))
        AssignFormats().run(copy, ctx)
        assert table_format(copy) == "i4/sym/axis=0"
        said = [note.text for record in ctx.records for note in record.notes if "Gather_0" in note.text]
        assert len(said) == notes


@pytest.mark.parametrize(("form", "mark", "said"), [("w4a8", "", 1), ("w8a8", "", 0), ("w4", "", 1), ("w4", "w8", 0)])
def test_a_table_that_keeps_more_bits_than_were_asked_for_is_told(form: str, mark: str, said: int) -> None:
    copy, profile = TABLE.clone(), load("lowbit-cpu")
    if mark:
        mark_format(copy.graph[0], resolve_format(profile, mark))
    ctx = Context(Edit(copy), target=profile, format=form)
    ctx.records.append(PassRecord("assign-formats"))
    AssignFormats().run(copy, ctx)
    notes = [note.text for record in ctx.records for note in record.notes]
    assert sum("the table that it looks up keeps 8 bits" in text for text in notes) == said


def test_what_is_looked_up_is_rescaled_to_what_is_read(kept: Callable[..., dict[str, state.TensorQuant]]) -> None:
    found = assigned("w8a8", "edge-npu")
    result = kept(found)["e"]
    assert str(result.format) == "i8"
    assert result.tie is None
    assert list(weight_inputs(found.graph[0], load("edge-npu"))) == [TABLE_INPUT]


@pytest.mark.parametrize(
    ("shapes", "target"),
    [
        ({"t": (16, 8), "v": (8, 16)}, "edge-npu"),
        (SHAPES, "edge-npu-per-tensor"),
    ],
    ids=["small", "no scale per row"],
)
def test_other_tables_have_the_codes_of_their_result(
    decide: Callable[..., ir.Model],
    kept: Callable[..., dict[str, state.TensorQuant]],
    shapes: dict[str, tuple[int, int]],
    target: str,
) -> None:
    found = decide(BODY, "int64[4] i", f"float[4,{shapes['t'][1]}] y", shapes, target)
    quant = state.edge_quant(next(node for node in found.graph if node.op_type == "Gather"), TABLE_INPUT)
    assert quant is not None
    assert quant.tie == kept(found)["e"].tie is not None


def test_a_computed_table_is_moved(decide: Callable[..., ir.Model]) -> None:
    body = "m = MatMul(x, v) e = Gather(m, i) y = MatMul(e, t)"
    found = decide(body, "int64[4] i, float[128,64] x", "float[4,64] y", {"v": (64, 128), "t": (128, 64)}, "edge-npu")
    quant = state.edge_quant(next(node for node in found.graph if node.op_type == "Gather"), TABLE_INPUT)
    assert quant is not None
    assert quant.format.axis is None


def test_a_table_of_which_no_codes_are_read_stays_float(
    decide: Callable[..., ir.Model], why_float: Callable[..., dict[str, str]]
) -> None:
    body = "e = Gather(t, i) h = Cosh(e) y = MatMul(h, v)"
    found = decide(body, "int64[4] i", "float[4,128] y", SHAPES, "edge-npu")
    assert why_float(found)["Gather_e"] == "no integer node reads it"


@pytest.mark.parametrize(
    ("candidates", "target"), [(("w8a8", "w4a8", "w2a8"), "edge-npu"), (("w8", "w4", "w3", "w2"), "lowbit-cpu")]
)
def test_a_table_decides_for_itself_even_where_a_product_reads_it_too(candidates: tuple[str, ...], target: str) -> None:
    found = tie_groups(TABLE, load(target), candidates)
    assert [group.nodes for group in found.groups] == [("Gather_0",), ("MatMul_1",), ("MatMul_2",)]
    assert [group.weights for group in found.groups] == [8192, 8192, 8192]
    assert {group.options for group in found.groups} == {candidates}
