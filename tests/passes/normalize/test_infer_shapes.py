"""The pass around shape inference."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from qcompiler.ir.edit import Edit
from qcompiler.passes.normalize.infer_shapes import InferShapes
from qcompiler.pipeline.base import Context


def edits(model: ir.Model) -> int:
    ctx = Context(Edit(model))
    InferShapes().run(model, ctx)
    return ctx.edit.count


def test_counts_what_was_learned(small_cnn: ir.Model) -> None:
    assert edits(small_cnn) == 0
    for node in list(small_cnn.graph)[:2]:
        node.outputs[0].type = node.outputs[0].shape = None
    small_cnn.graph[2].outputs[0].shape = ir.Shape([None, 8, None, 4])
    assert edits(small_cnn) == 3
    assert str(small_cnn.graph[2].outputs[0].shape) == "[N,8,4,4]"
    assert edits(small_cnn) == 0


def test_custom_operators_do_not_count_again(parse: Callable[[str], ir.Model]) -> None:
    model = parse('<ir_version: 10, opset_import: ["" : 21, "c" : 1]> m (float[2] x) => (float[2] y)'
                  "{ a = c.Magic(x)  b = Neg(x)  y = Add(a, b) }")
    assert edits(model) == 1
    assert edits(model) == 0
