"""Bytes of a file by whom they belong to: they add up to what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.analysis.file_parts import file_parts
from qcompiler.analysis.size import stored_bytes
from qcompiler.ir import io, origins
from qcompiler.ir.edit import Edit

Parse = Callable[[str], ir.Model]


def test_parts_add_up_to_the_file(small_cnn: ir.Model, tmp_path: Path) -> None:
    origins.mark(small_cnn.graph)
    parts = file_parts(small_cnn)
    written = io.save(small_cnn, tmp_path / "m.onnx")
    assert parts.total == stored_bytes(written[0])
    conv = next(node for node in small_cnn.graph if node.op_type == "Conv")
    weight = conv.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    assert weight.const_value.nbytes < parts.of([str(conv.name)]) < parts.total


def test_external_data_is_counted_at_most(small_cnn: ir.Model, tmp_path: Path) -> None:
    gemm = next(node for node in small_cnn.graph if node.op_type == "Gemm")
    rows = gemm.inputs[1]
    assert rows is not None
    Edit(small_cnn).set_constant(rows, np.ones((10, 3000), np.float32))
    bound = file_parts(small_cnn, external_threshold=1000).total
    written = io.save(small_cnn, tmp_path / "m.onnx", external_threshold=1000)
    assert len(written) == 2
    assert sum(path.stat().st_size for path in written) <= bound <= stored_bytes(written[0]) + 2 * 4096 + 1024


def test_what_is_inserted_belongs_to_its_anchor_and_shared_constants_to_all_readers(parse: Parse) -> None:
    model = parse(
        '<ir_version: 10, opset_import: ["" : 21]> m (float[4] x) => (float[4] y)'
        "<float[4] w = {1.0, 2.0, 3.0, 4.0}> { a = Add(x, w) y = Mul(a, w) }"
    )
    for node, name in zip(model.graph, ("first", "second"), strict=True):
        node.name = name
    origins.mark(model.graph)
    added = Edit(model).insert("Neg", [model.graph.inputs[0]], after=model.graph[0])
    assert origins.origin(added) == "first"
    assert origins.owners(model.graph.initializers["w"]) == {"first", "second"}
    assert origins.owners(model.graph.inputs[0]) == frozenset()
    parts = file_parts(model)
    shared = parts.nodes[frozenset({"first", "second"})]
    assert shared > 16
    assert parts.of(["first", "second"]) == parts.of(["first"]) + parts.of(["second"]) + shared


@pytest.mark.parametrize("op_type", ["QConv", "QGemm"])
def test_functions_are_told_apart(parse: Parse, op_type: str, tmp_path: Path) -> None:
    from qcompiler.quant.functions import catalogue

    model = parse(
        '<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]> m (int8[1,4] x, int8[4,2] w, int32[2] b,'
        f"int32[2] m, uint8[2] c) => (int8[1,2] y) {{ y = ai.qcompiler.{op_type} (x, w, b, m, c) }}"
    )
    catalogue.attach(model)
    parts = file_parts(model)
    assert set(parts.functions) == catalogue.needed([op_type])
    assert parts.total == io.save(model, tmp_path / "m.onnx")[0].stat().st_size
