"""Reading constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir.constants import array, is_constant, scalar

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def test_initializers_inputs_and_computed_values(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + "m (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add(x, w)  y = Neg(a) }")
    weight = model.graph.initializers["w"]
    np.testing.assert_array_equal(array(weight), [1, 2])  # type: ignore[arg-type]
    assert is_constant(weight)
    assert array(model.graph.inputs[0]) is None
    assert array(model.graph[0].outputs[0]) is None
    assert array(None) is None
    assert scalar(weight) is None


def test_an_initializer_that_a_feed_may_override_is_no_constant(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + "m (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    model.graph.inputs.append(model.graph.initializers["w"])
    assert array(model.graph.initializers["w"]) is None


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("value = float {2.5}", 2.5), ("value_float = 2.5", 2.5), ("value_int = 7", 7), ("value_ints = [7]", 7),
        ("value_floats = [2.5]", 2.5), ("value_floats = [1.0, 2.0]", None), ("value = bool {1}", 1),
        ("value = int8[1,1] {-3}", -3), ('value_string = "a"', None),
    ],
)
def test_constant_nodes(parse: Callable[[str], ir.Model], attribute: str, expected: float | None) -> None:
    model = parse(HEAD + f"m () => (float y) {{ k = Constant<{attribute}>()  y = Cast<to = 1>(k) }}")
    found = scalar(model.graph[0].outputs[0])
    assert found == expected
    assert type(found) is type(expected)
