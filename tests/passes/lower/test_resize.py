from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.passes.lower.graphs import Parameters, codes_apart, graph, lower, operators, reasons, run

NARROW, NARROW_OUT = Parameters(0.05, 3), Parameters(0.045, -9)
WIDE, WIDE_OUT = Parameters(0.0002, 3, "i16"), Parameters(0.00021, -9, "i16")
IMAGE: tuple[int | str, ...] = ("N", 3, 5, 6)
KINDS = pytest.mark.parametrize(("before", "after"), [(NARROW, NARROW), (NARROW, NARROW_OUT), (WIDE, WIDE_OUT)])


def scales(*numbers: float) -> dict[str, Any]:
    return {"k": np.array(numbers, np.float32)}


NEAREST = {
    "twice": ('mode = "nearest"', scales(1, 1, 2, 2)),
    "three and a half": ('mode = "nearest", coordinate_transformation_mode = "asymmetric"', scales(1, 1, 3.5, 1)),
    "half": ('mode = "nearest", nearest_mode = "round_prefer_ceil"', scales(1, 1, 0.5, 0.5)),
    "corners": (
        'mode = "nearest", coordinate_transformation_mode = "align_corners", nearest_mode = "floor"',
        scales(1, 1, 2, 4),
    ),
}
INTERPOLATED = {
    "twice": ('mode = "linear"', scales(1, 1, 2, 2)),
    "corners": ('mode = "linear", coordinate_transformation_mode = "align_corners"', scales(1, 1, 2, 2)),
    "uneven": ('mode = "linear"', scales(1, 1, 1.6, 0.5)),
    "one axis": ('mode = "linear"', scales(1, 1, 1, 3)),
    "channels last": ('mode = "linear"', scales(1, 2, 1.5, 1)),
    "cubic": ('mode = "cubic"', scales(1, 1, 2, 2)),
    "cubic inside": ('mode = "cubic", exclude_outside = 1, cubic_coeff_a = -0.5', scales(1, 1, 2, 1.7)),
}


@pytest.mark.parametrize("kind", NEAREST)
@pytest.mark.parametrize("parameters", [NARROW, WIDE])
def test_the_nearest_is_copied_without_any_error(kind: str, parameters: Parameters) -> None:
    attributes, constants = NEAREST[kind]
    body = f"y = Resize <{attributes}> (a, , k)"
    apart, names = codes_apart(body, {"a": (IMAGE, parameters)}, {"y": parameters}, constants)
    assert apart == 0
    assert set(names) == {"Gather"}


@pytest.mark.parametrize("kind", INTERPOLATED)
@KINDS
def test_interpolation_is_within_one_code(kind: str, before: Parameters, after: Parameters) -> None:
    attributes, constants = INTERPOLATED[kind]
    body = f"y = Resize <{attributes}> (a, , k)"
    apart, names = codes_apart(body, {"a": (IMAGE, before)}, {"y": after}, constants)
    assert apart <= 1
    assert set(names) <= {"QResize", "Requantize"}


def test_axes_and_sizes_may_be_named() -> None:
    body = 'y = Resize <mode = "linear", axes = [3, 2]> (a, , , k)'
    constants = {"k": np.array([9, 4], np.int64)}
    apart, names = codes_apart(body, {"a": (IMAGE, NARROW)}, {"y": NARROW_OUT}, constants)
    assert apart <= 1
    assert names == ["QResize", "QResize"]


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_the_ratio_of_sides_may_be_kept(policy: str) -> None:
    body = f'y = Resize <mode = "linear", axes = [2, 3], keep_aspect_ratio_policy = "{policy}"> (a, , , k)'
    constants = {"k": np.array([9, 14], np.int64)}
    apart, _ = codes_apart(body, {"a": (IMAGE, NARROW)}, {"y": NARROW_OUT}, constants)
    assert apart <= 1


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_what_lies_outside_a_cropped_region_is_zero(mode: str) -> None:
    body = f'y = Resize <mode = "{mode}", coordinate_transformation_mode = "tf_crop_and_resize"> (a, r, k)'
    constants = {"r": np.array([0, 0, -0.25, 0, 1, 1, 1.25, 0.9], np.float32), **scales(1, 1, 2, 1.5)}
    apart, names = codes_apart(body, {"a": (IMAGE, NARROW)}, {"y": NARROW_OUT}, constants)
    assert apart <= 1
    assert set(names) <= {"QResize", "Requantize"}


def test_sizes_may_be_unknown_where_every_element_is_repeated() -> None:
    body = 'y = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (a, , k)'
    model = graph(body, {"a": (("N", 3, "H", "W"), NARROW)}, {"y": NARROW}, scales(1, 1, 2, 3))
    feed = {"in_a": np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)}
    wanted = run(model, feed, optimize=False)[0]
    ctx = lower(model)
    assert reasons(ctx) == []
    np.testing.assert_array_equal(run(model, feed)[0], wanted)
    assert "Resize" not in operators(model)


def test_shapes_survive() -> None:
    body = 'y = Resize <mode = "linear"> (a, , k)'
    model = graph(body, {"a": (IMAGE, NARROW)}, {"y": NARROW}, scales(1, 1, 2, 2))
    lower(model)
    last = [node for node in model.graph if node.op_type == "QResize"][-1]
    shape = last.outputs[0].shape
    assert shape is not None
    assert list(shape)[1:] == [3, 10, 12]


def test_without_multipliers_only_the_rescale_is_a_shift() -> None:
    pot = Parameters(0.0625, 3)
    body = 'y = Resize <mode = "linear"> (a, , k)'
    apart, names = codes_apart(
        body, {"a": (IMAGE, pot)}, {"y": Parameters(0.03125, 1)}, scales(1, 1, 2, 1.7), multiplier_bits=0
    )
    assert apart <= 1
    assert names == ["QResizeShift", "QResizeShift"]


SYMBOLIC: tuple[int | str, ...] = ("N", 3, "H", "W")
REFUSED: list[tuple[str, str, tuple[int | str, ...], dict[str, Any], dict[str, Any], str]] = [
    ("antialias", 'Resize <mode = "linear", antialias = 1> (a, , k)', IMAGE, scales(1, 1, 0.5, 0.5), {}, "antialias"),
    ("unknown size", 'Resize <mode = "linear"> (a, , k)', SYMBOLIC, scales(1, 1, 2, 2), {}, "interpolation needs it"),
    ("uneven growth", 'Resize <mode = "nearest"> (a, , k)', SYMBOLIC, scales(1, 1, 1.5, 2), {}, "whole number"),
    (
        "coordinates",
        'Resize <mode = "nearest", coordinate_transformation_mode = "align_corners"> (a, , k)',
        SYMBOLIC,
        scales(1, 1, 2, 2),
        {},
        "coordinates depend",
    ),
    (
        "fill",
        'Resize <coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 7.0> (a, r, k)',
        IMAGE,
        {"r": np.array([0, 0, -1, 0, 1, 1, 2, 1], np.float32), **scales(1, 1, 2, 2)},
        {},
        "other than 0",
    ),
    (
        "accumulator",
        'Resize <mode = "linear"> (a, , k)',
        IMAGE,
        scales(1, 1, 2, 2),
        {"accumulator_bits": 20},
        "accumulator has 20 bits",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_what_has_no_integer_form_stays_float_with_a_reason(case: Any) -> None:
    _, body, shape, constants, arithmetic, reason = case
    model = graph(f"y = {body}", {"a": (shape, NARROW)}, {"y": NARROW}, constants)
    ctx = lower(model, **arithmetic)
    assert len(reasons(ctx)) == 1
    assert reason in reasons(ctx)[0]


def test_16_bit_codes_need_a_wide_accumulator() -> None:
    model = graph('y = Resize <mode = "linear"> (a, , k)', {"a": (IMAGE, WIDE)}, {"y": WIDE}, scales(1, 1, 2, 2))
    assert isinstance(model, ir.Model)
    assert "no wide weighted sums" in reasons(lower(model, wide_accumulator_bits=0))[0]
