"""The tables of Resize against ONNX Runtime's own float Resize."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qcompiler.quant.integer.resampling import Axis, coordinates, nearest, outside, taps

TRANSFORMATIONS = (
    "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn", "align_corners",
    "tf_crop_and_resize",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SIZES = [(1, 4), (4, 1), (5, 10), (5, 20), (9, 3), (8, 4), (7, 13), (13, 7), (6, 5)]
ROI = (-0.125, 1.25)


@functools.cache
def session(**attributes: Any) -> ort.InferenceSession:
    """Resize along the last axis to sizes that are fed."""
    region = np.array([0, 0, 0, ROI[0], 1, 1, 1, ROI[1]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "region", "", "sizes"], ["y"], **attributes)],
        "resize",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 2, None]),
            helper.make_tensor_value_info("sizes", TensorProto.INT64, [4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, None, None])],
        [numpy_helper.from_array(region, "region")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def resized(x: NDArray[Any], size: int, **attributes: Any) -> NDArray[Any]:
    feed = {"x": np.tile(x, (1, 1, 2, 1)), "sizes": np.array([1, 1, 2, size])}
    result: NDArray[Any] = session(**attributes).run(None, feed)[0][0, 0, 0]
    return result


def axis_of(size: int, result: int, transformation: str) -> Axis:
    region = ROI if transformation == "tf_crop_and_resize" else (0.0, 1.0)
    return Axis(size, result, float(np.float32(result) / np.float32(size)), region)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_reads_what_the_runtime_reads(transformation: str, rounding: str) -> None:
    for size, result in SIZES:
        axis = axis_of(size, result, transformation)
        x = np.arange(1, size + 1, dtype=np.float32)
        found = np.where(outside(axis, transformation), 0, x[nearest(axis, transformation, rounding)])
        settings = {"mode": "nearest", "coordinate_transformation_mode": transformation, "nearest_mode": rounding}
        sure = distance_to_tie(axis, transformation, rounding) > 1e-5
        sure |= np.frexp(axis.scale)[0] == 0.5  # exact there
        wanted = resized(x, result, **settings)
        np.testing.assert_array_equal(found[sure], wanted[sure], err_msg=f"{size} to {result}")


def distance_to_tie(axis: Axis, transformation: str, rounding: str) -> NDArray[Any]:
    """How far the coordinates are from where the rounding changes: float32 decides there, not the mode."""
    position = coordinates(axis, transformation).astype(np.float64) + (0.5 if rounding.startswith("round") else 0.0)
    return np.abs(position - np.rint(position))


TAPS = [(name, mode, False) for name in TRANSFORMATIONS for mode in ("linear", "cubic")]
TAPS += [(name, "cubic", True) for name in TRANSFORMATIONS if name != "tf_half_pixel_for_nn"]


@pytest.mark.parametrize(("transformation", "mode", "exclude"), TAPS)
def test_taps_weigh_as_the_runtime_does(transformation: str, mode: str, exclude: bool) -> None:
    for size, result in SIZES:
        axis = axis_of(size, result, transformation)
        x = np.random.default_rng(size).normal(size=size).astype(np.float32)
        index, weight = taps(axis, transformation, mode, exclude_outside=exclude)
        settings = {"mode": mode, "coordinate_transformation_mode": transformation, "exclude_outside": int(exclude)}
        wanted = resized(x, result, **settings)
        np.testing.assert_allclose((x[index] * weight).sum(axis=1), wanted, atol=2e-5, err_msg=f"{size} to {result}")


def test_weights_of_a_row_add_up_to_one() -> None:
    for transformation in TRANSFORMATIONS:
        axis = axis_of(7, 12, transformation)
        for mode in ("linear", "cubic"):
            total = taps(axis, transformation, mode)[1].sum(axis=1)
            np.testing.assert_allclose(total, ~outside(axis, transformation), atol=1e-12)


def test_ties_of_nearest_neighbours_fall_as_the_mode_says() -> None:
    axis = Axis(8, 4, 0.5)
    assert coordinates(axis, "half_pixel").tolist() == [0.5, 2.5, 4.5, 6.5]
    wanted = {"round_prefer_floor": [0, 2, 4, 6], "round_prefer_ceil": [1, 3, 5, 7]}
    assert {mode: nearest(axis, "half_pixel", mode).tolist() for mode in wanted} == wanted


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(KeyError):
        coordinates(Axis(2, 4, 2.0), "sideways")
    with pytest.raises(ValueError, match="interpolation"):
        taps(Axis(2, 4, 2.0), "half_pixel", "quintic")
    with pytest.raises(ValueError, match="outside"):
        taps(Axis(1, 8, 8.0, (4.0, 5.0)), "tf_half_pixel_for_nn", "cubic", exclude_outside=True) and taps(
            Axis(4, 4, 0.25), "asymmetric", "cubic", exclude_outside=True
        )
