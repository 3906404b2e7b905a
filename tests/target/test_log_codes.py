"""Codes along a grid: what a profile permits, asked of formats, of float graphs and of written ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import UsageError
from qcompiler.quant.format import QFormat
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.log_grids import Grid
from qcompiler.target.formats import resolve_format
from qcompiler.target.legality import check_model
from qcompiler.target.load import load
from qcompiler.target.log_codes import why_not_log
from qcompiler.target.lowered import is_lowered
from qcompiler.target.schema import Target
from qcompiler.target.words import sentences

NPU, CPU = load("edge-npu"), load("cpu-x86")
LOG4 = QFormat.parse("log4")


def without(target: Target, **lists: tuple[str, str]) -> Target:
    """The target with an empty list: ``without(NPU, Softmax="log_outputs")``."""
    rules = {name: replace(target.operators[name], **{key: ()}) for name, key in lists.items()}
    return replace(target, operators={**target.operators, **rules})


def test_what_the_format_asks_for() -> None:
    assert resolve_format(NPU, "w8a8").log is None
    request = resolve_format(load("lowbit-cpu"), "w4a8/sym/log4")
    assert (request.log, request.log_operators, request.symmetric) == (LOG4, (), True)
    assert resolve_format(NPU, "W8A8/LOG5=softmax+GELU").log_operators == ("Softmax", "Gelu")


@pytest.mark.parametrize(
    ("target", "text", "message", "hint"),
    [
        ("cpu-x86", "w8a8/log4", "cpu-x86 keeps no tensor in codes along a grid", "leave /log4 out"),
        ("fpga-pot", "w8a8/log4", "fpga-pot keeps no tensor in codes along a grid", "log_outputs and log_inputs"),
        ("lowbit-cpu", "w4/log4", "activations stay real numbers, so none is kept in log4", "write w4a8/log4"),
        ("edge-npu", "w8a8/log4=MatMul", "keeps no log4 result of MatMul", "it does so of Softmax, Gelu"),
        ("edge-npu", "w8a8/log4=Softmx", "keeps no log4 result of softmx", "did you mean 'Softmax'"),
        ("edge-npu", "w8a8/log8", "a format log8 does not exist", "log2 to log7"),
        ("edge-npu", "w8a8/log4/log5", "'log5' in format 'w8a8/log4/log5' contradicts 'log4'", "leave one out"),
        ("edge-npu", "w8a8/log4=", "'log4=' in format 'w8a8/log4=' names no operator", "write log4 for all"),
        ("edge-npu", "w8a8/log4=+", r"'log4=\+' in format 'w8a8/log4=\+' names no operator", "log4=Softmax+Gelu"),
        ("edge-npu", "w8a8/log4=Softmax+", "names no operator", "write log4 for all"),
    ],
)
def test_refused_with_a_way_out(target: str, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_format(load(target), text)
    assert hint in str(caught.value.hint)


def test_widths_that_no_operator_lists_are_refused() -> None:
    rules = {name: replace(rule, log_outputs=tuple(form for form in rule.log_outputs if form.bits > 4))
             for name, rule in NPU.operators.items()}  # fmt: skip
    with pytest.raises(UsageError, match="edge-npu keeps no result in log4") as caught:
        resolve_format(replace(NPU, operators=rules), "w8a8/log4")
    assert caught.value.hint == "it offers Softmax: log5, log6, log7; Gelu: log5, log6, log7"


def attention(reader: str = "MatMul (p, v)", output: str = "y") -> ir.Value:
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[2,4,4] s, float[2,4,8] v) => (float[2,4,8] {output})
        {{ p = Softmax (s) [reads] y = {reader} }}"""
    return next(iter(ir.from_onnx_text(text).graph)).outputs[0]


def test_who_may_read_such_codes() -> None:
    assert why_not_log(attention(), LOG4, NPU) is None
    found = why_not_log(attention("Add (p, v)"), LOG4, NPU)
    assert found is not None
    assert "reads its result, and Add reads no log4 there on edge-npu" in found
    assert why_not_log(attention(output="p"), LOG4, NPU) == "it makes a graph output, which is read in real numbers"
    found = why_not_log(attention(), LOG4, CPU)
    assert found is not None
    assert found.startswith("cpu-x86 keeps no log4 result of Softmax")
    no_reader = without(NPU, MatMul="log_inputs")
    assert "MatMul reads no log4 there" in str(why_not_log(attention(), LOG4, no_reader))


@pytest.fixture
def placed(builder: Any) -> ir.Model:
    """Softmax, its result on a grid of 16 values, MatMul; as Q/DQ nodes."""
    build, grid = builder(), Grid("shift-uniform-log2", 4, 1.0, shift=0.03125)
    scores = build.pair(build.input(2, 4, 4), "i8")
    words = build.quantize(build.op("Softmax", scores), "i16", grid.scale)
    for op_type, table in (("QLogQuantize", grid.thresholds()), ("QLogDequantize", grid.decoded())):
        words = build.op(op_type, words, build.constant(table))
        node = words.producer()
        node.domain = DOMAIN
        words.type = ir.TensorType(ir.DataType.INT8 if op_type == "QLogQuantize" else ir.DataType.INT16)
    weights = build.dequantize(words, "i16", grid.scale)
    product = build.op("MatMul", weights, build.pair(build.input(2, 4, 8), "i8"))
    model: ir.Model = build.output(build.pair(product, "i8"))
    catalogue.attach(model)
    return model


def reasons(model: ir.Model, target: Target) -> list[str]:
    return [violation.reason for violation in check_model(model, target)]


def test_a_written_graph_is_checked_as_q_and_dq(placed: ir.Model) -> None:
    assert not is_lowered(placed)
    assert reasons(placed, NPU) == []
    found = reasons(placed, without(NPU, Softmax="log_outputs"))
    assert [text[:42] for text in found] == ["edge-npu keeps no log4 result of Softmax ("]
    found = reasons(placed, without(NPU, MatMul="log_inputs"))
    assert [text[:32] for text in found] == ["edge-npu reads no log4 in MatMul"]
    assert "log_outputs and log_inputs in the profile" in found[0]


def test_grids_and_functions_of_a_written_graph(placed: ir.Model) -> None:
    encode = next(node for node in placed.graph if node.op_type == "QLogQuantize")
    short = ir.Value(name="short", const_value=ir.Tensor(np.arange(5, dtype=np.int16)))
    placed.graph.register_initializer(short)
    encode.replace_input_with(1, short)
    assert reasons(placed, NPU) == ["its grid has 6 values, a log format has 4, 8, 16 and so on up to 128"]
    del placed.functions[(DOMAIN, "QLogDequantize", "")]
    assert "the function of QLogDequantize is missing: no runtime could run it" in reasons(placed, NPU)


@pytest.mark.parametrize("op_type", ["QLogQuantize", "QLogDequantize"])
def test_a_node_without_its_table_is_named(placed: ir.Model, op_type: str) -> None:
    node = next(node for node in placed.graph if node.op_type == op_type)
    node.resize_inputs(1)
    assert "it has no table" in reasons(placed, NPU)


def test_the_profile_in_words() -> None:
    asked = "where asked for (--format w8a8/log4)"
    assert f"its result may be kept in log2 to log7 {asked}" in sentences(NPU.operators["Softmax"])
    assert f"it reads log2 to log7 {asked}, decoded to 16 bits by a table" in sentences(NPU.operators["MatMul"])
    few = replace(NPU.operators["Softmax"], log_outputs=(LOG4, QFormat.parse("log6")))
    assert f"its result may be kept in log4 or log6 {asked}" in sentences(few)
