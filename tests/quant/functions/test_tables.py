from __future__ import annotations

import numpy as np
import onnx
import pytest

from qcompiler.quant.functions import catalogue
from tests.quant.functions.running import one_node_model, run_body

BYTES = np.arange(-128, 128).astype(np.int8).reshape(2, 128)
WORDS = np.arange(-32768, 32768).astype(np.int16).reshape(4, -1)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("constant", [(), (1,)])
def test_the_body_of_a_lookup_is_the_specification(dtype: type, constant: tuple[int, ...]) -> None:
    limits = np.iinfo(dtype)
    table = np.random.default_rng(1).integers(limits.min, limits.max, 256, endpoint=True).astype(dtype)
    found = run_body("QLookup", [BYTES, table], {}, constants=constant)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, catalogue.operators()["QLookup"].specification(BYTES, table))


@pytest.mark.parametrize("curved", [0, 1])
@pytest.mark.parametrize("seed", range(8))
def test_the_body_of_an_interpolation_is_the_specification_at_every_code(seed: int, curved: int) -> None:
    random = np.random.default_rng(seed)
    if seed % 2 and not curved:
        table = random.integers(-(1 << 22), 1 << 22, 513, endpoint=True)
        table[:4] = [-(1 << 22), 1 << 22] * 2
    else:
        table = np.clip(np.cumsum(random.integers(-40000, 40000, 513)), -(1 << 22), 1 << 22)
    attributes = {"curved": curved, "to": 3, "low": -100, "high": 101}
    if seed % 4 < 2:
        attributes = {"curved": curved, "to": 5, "low": -32768, "high": 32767}
    inputs = [WORDS, table.astype(np.int32)]
    wanted = catalogue.operators()["QLookupInterpolated"].specification(*inputs, **attributes)
    found = run_body("QLookupInterpolated", inputs, attributes, constants=(1,) if seed % 3 else ())
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_shape_inference_sees_through_the_functions() -> None:
    attributes = {"curved": 0, "to": 3, "low": -128, "high": 127}
    model = one_node_model("QLookupInterpolated", [WORDS, np.zeros(513, np.int32)], attributes, constants=(1,))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT16, ["N", 7]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT8, None))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type
    assert [size.dim_param or size.dim_value for size in inferred.shape.dim] == ["N", 7]
