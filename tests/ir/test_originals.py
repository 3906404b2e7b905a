"""What constants were before a pass fitted them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qcompiler.ir import originals


def made() -> tuple[ir.Model, ir.Value]:
    x = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    w = ir.Value(name="w", const_value=ir.tensor(np.array([1.0, 2.0], np.float32), name="w"))
    node = ir.Node("", "Add", [x, w], name="add")
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 21}, name="main")
    return ir.Model(graph, ir_version=10), w


def content(model: ir.Model) -> list[float]:
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    return [float(item) for item in tensor.numpy()]


def test_a_model_without_fitted_constants_is_its_own_reference():
    model, _ = made()
    assert originals.restored(model) is model


def test_the_first_content_that_was_kept_is_the_original():
    model, w = made()
    for values in ([3.0, 4.0], [5.0, 6.0]):
        originals.keep(w)
        w.const_value = ir.tensor(np.array(values, np.float32), name="w")
    assert originals.is_kept(w)
    assert content(originals.restored(model)) == [1.0, 2.0]
    assert content(model) == [5.0, 6.0]


def test_a_copy_of_the_model_has_the_same_original():
    model, w = made()
    originals.keep(w, ir.tensor(np.zeros(2, np.float32)))
    assert content(originals.restored(model.clone())) == [0.0, 0.0]
