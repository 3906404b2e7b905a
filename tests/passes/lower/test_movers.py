from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.quant.annotations import annotation
from tests.passes.lower.graphs import Parameters, codes_apart, feed_of, graph, lower, operators, reasons, run

NARROW = Parameters(0.043, -9)
OTHER = Parameters(0.029, 17)
WIDE = Parameters(0.00031, 12, "i16")
IMAGE = (2, 8, 4, 6)


def whole(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.int64)


MOVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Reshape": ("y = Reshape (a, k)", {"k": whole(2, -1)}),
    "Transpose": ("y = Transpose <perm = [0, 2, 3, 1]> (a)", {}),
    "Flatten": ("y = Flatten <axis = 2> (a)", {}),
    "Squeeze": ("t = Slice (a, k, l, m) y = Squeeze (t, m)", {"k": whole(0), "l": whole(1), "m": whole(1)}),
    "Unsqueeze": ("y = Unsqueeze (a, k)", {"k": whole(1)}),
    "Slice": ("y = Slice (a, k, l, m)", {"k": whole(1, 0), "l": whole(7, 99), "m": whole(1, 3)}),
    "Gather": ("y = Gather <axis = 1> (a, k)", {"k": np.array([[3, 0], [-1, 2]], np.int64)}),
    "GatherND": ("y = GatherND (a, k)", {"k": np.array([[0, 3], [1, 2]], np.int64)}),
    "GatherElements": ("y = GatherElements <axis = 1> (a, k)", {"k": np.ones((2, 2, 4, 6), np.int64)}),
    "Expand": ("y = Expand (a, k)", {"k": whole(3, 2, 8, 4, 6)}),
    "Tile": ("y = Tile (a, k)", {"k": whole(1, 2, 1, 3)}),
    "Compress": ("y = Compress <axis = 1> (a, k)", {"k": np.arange(8) % 3 == 0}),
    "ReverseSequence": ("y = ReverseSequence <time_axis = 1, batch_axis = 0> (a, k)", {"k": whole(3, 8)}),
    "ReduceMax": ("y = ReduceMax <keepdims = 0> (a, k)", {"k": whole(2, 3)}),
    "ReduceMin": ("y = ReduceMin (a, k)", {"k": whole(-1)}),
    "DepthToSpace": ("y = DepthToSpace <blocksize = 2> (a)", {}),
    "DepthToSpace by columns": ('y = DepthToSpace <blocksize = 2, mode = "CRD"> (a)', {}),
    "SpaceToDepth": ("y = SpaceToDepth <blocksize = 2> (a)", {}),
    "Pad": ("y = Pad (a, k)", {"k": whole(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Pad with a number": ("y = Pad (a, k, l)", {"k": whole(0, 0, 1, 2, 0, 0, 0, 1), "l": np.float32(0.61)}),
    "Pad some axes": ("y = Pad (a, k, , l)", {"k": whole(1, 2), "l": whole(3)}),
    "Pad with edges": ('y = Pad <mode = "edge"> (a, k)', {"k": whole(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Pad by reflection": ('y = Pad <mode = "reflect"> (a, k)', {"k": whole(0, 0, 1, 2, 0, 0, 0, 1)}),
}


@pytest.mark.parametrize("name", MOVERS)
@pytest.mark.parametrize("kind", [NARROW, WIDE], ids=["8 bits", "16 bits"])
def test_codes_are_moved_exactly(name: str, kind: Parameters) -> None:
    body, constants = MOVERS[name]
    if name == "Squeeze":  # what lies between two movers has codes as well
        body = body.replace("y = Squeeze (t, m)", "tq = QuantizeLinear (t, a_scale, a_zero) "
                            "td = DequantizeLinear (tq, a_scale, a_zero) y = Squeeze (td, m)")  # fmt: skip
    worst, found = codes_apart(body, {"a": (IMAGE, kind)}, {"y": kind}, constants)
    assert worst == 0
    assert "Requantize" not in found
    assert all(op in ("Cast", "Reshape", "Transpose", "Slice", name.split()[0]) for op in found)


@pytest.mark.parametrize("name", [name for name in MOVERS if name != "Squeeze"])
@pytest.mark.parametrize(("a", "y"), [(NARROW, OTHER), (WIDE, NARROW), (NARROW, WIDE)])
def test_another_scale_behind_a_mover_is_one_rescale(name: str, a: Parameters, y: Parameters) -> None:
    body, constants = MOVERS[name]
    worst, found = codes_apart(body, {"a": (IMAGE, a)}, {"y": y}, constants)
    assert worst <= 1
    assert found.count("Requantize") == 1


def test_the_parts_of_a_split_may_want_different_scales() -> None:
    body = "p, q, r = Split <axis = 1> (a, k)"
    outputs = {"p": NARROW, "q": OTHER, "r": WIDE}
    worst, found = codes_apart(body, {"a": (IMAGE, NARROW)}, outputs, {"k": whole(2, 5, 1)})
    assert worst <= 1
    assert found == ["Split", "Requantize", "Requantize"]
    halves = "p, q = Split <axis = -1, num_outputs = 2> (a)"
    assert codes_apart(halves, {"a": (IMAGE, WIDE)}, {"p": WIDE, "q": WIDE}) == (0, ["Split"])


@pytest.mark.parametrize("kind", [NARROW, WIDE])
def test_an_identity_is_nothing(kind: Parameters) -> None:
    assert codes_apart("y = Identity (a)", {"a": (IMAGE, kind)}, {"y": kind}) == (0, [])


@pytest.mark.parametrize("kind", [NARROW, WIDE])
def test_where_takes_both_sides_at_the_scale_of_the_result(kind: Parameters) -> None:
    inputs = {"a": ((4, 8), kind), "b": ((8,), OTHER)}
    constants = {"c": np.arange(8) % 3 == 0, "k": np.float32(-1e9)}
    worst, found = codes_apart("y = Where (c, a, b)", inputs, {"y": kind}, {"c": constants["c"]})
    assert worst <= 1
    assert sorted(found) == ["Cast", "Cast", "Cast", "Requantize", "Where"]
    worst, _ = codes_apart("y = Where (c, a, k)", {"a": ((4, 8), kind)}, {"y": kind}, constants)
    assert worst == 0


class TestConcat:
    def test_equal_parameters_are_joined_as_they_are(self) -> None:
        inputs = dict.fromkeys("abc", (IMAGE, WIDE))
        assert codes_apart("y = Concat <axis = 1> (a, b, c)", inputs, {"y": WIDE}) == (0, ["Concat"])

    @pytest.mark.parametrize("axis", [1, -1])
    def test_two_scales_become_one_operator(self, axis: int) -> None:
        inputs = {"a": (IMAGE, NARROW), "b": (IMAGE, WIDE)}
        for y in (NARROW, OTHER, WIDE):
            worst, found = codes_apart(f"y = Concat <axis = {axis}> (a, b)", inputs, {"y": y})
            assert worst <= 1
            assert found == ["QConcat"]

    def test_of_more_only_what_differs_is_rescaled(self) -> None:
        inputs = {"a": (IMAGE, NARROW), "b": (IMAGE, OTHER), "c": (IMAGE, NARROW)}
        worst, found = codes_apart("y = Concat <axis = 1> (a, b, c)", inputs, {"y": NARROW})
        assert worst <= 1
        assert found == ["Requantize", "Concat"]

    def test_a_constant_is_stored_in_the_codes_of_the_result(self) -> None:
        constants = {"k": np.linspace(-2, 2, 2 * 4 * 6).astype(np.float32).reshape(2, 1, 4, 6)}
        worst, found = codes_apart("y = Concat <axis = 1> (k, a)", {"a": (IMAGE, OTHER)}, {"y": NARROW}, constants)
        assert worst <= 1
        assert found == ["Requantize", "Concat"]

    def test_powers_of_two_are_shifted(self) -> None:
        inputs = {"a": (IMAGE, Parameters(2.0**-6, 3)), "b": (IMAGE, Parameters(2.0**-3))}
        y = {"y": Parameters(2.0**-4, -1)}
        worst, found = codes_apart("y = Concat <axis = 1> (a, b)", inputs, y, multiplier_bits=0)
        assert worst <= 1
        assert found == ["QConcatShift"]


def test_a_table_of_codes_is_gathered_from_as_it_is() -> None:
    random = np.random.default_rng(2)
    constants = {"kq": random.integers(-32768, 32767, (30, 8)).astype(np.int16), "ks": np.float32(0.001)}
    constants |= {"kz": np.int16(4), "i": np.array([[3, 29, 0]], np.int64)}
    body = "k = DequantizeLinear (kq, ks, kz) t = Gather (k, i) y = Mul (t, a)"
    body = body.replace(
        "y = Mul", "tq = QuantizeLinear (t, ks, kz) td = DequantizeLinear (tq, ks, kz) y = Mul (td, a) #"
    )
    body = body.split(" #", maxsplit=1)[0]
    worst, found = codes_apart(body, {"a": ((8,), NARROW)}, {"y": Parameters(0.005, 0, "i16")}, constants)
    assert worst <= 1
    assert found == ["Gather", "QMul"]


@pytest.mark.parametrize("kind", [NARROW, WIDE])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_places_of_extremes_are_found_among_codes(kind: Parameters, op: str) -> None:
    inputs = {"a": (IMAGE, kind)}
    model = graph(f"place = {op} <axis = 1> (a)", inputs, {}, real=("place",))
    feed = feed_of(inputs, np.random.default_rng(0))
    wanted = run(model, feed, optimize=False)
    lower(model)
    assert "DequantizeLinear" not in [node.op_type for node in model.graph]
    np.testing.assert_array_equal(run(model, feed)[0], wanted[0])


def test_moved_codes_say_what_they_mean() -> None:
    model = graph("y = Transpose <perm = [1, 0]> (a)", {"a": ((3, 4), NARROW)}, {"y": NARROW})
    lower(model)
    (node,) = [node for node in model.graph if node.op_type == "Transpose"]
    meaning = annotation(node.outputs[0])
    assert meaning is not None
    assert (meaning.of, meaning.zero_point) == ("y", -9)
    assert node.outputs[0].dtype is ir.DataType.INT8


@pytest.mark.parametrize(
    ("body", "shape", "reason"),
    [
        ("y = DepthToSpace <blocksize = 2> (a)", ("N", 8, "H", 4), "sizes of the image"),
        ("s = Shape (a) z = Size (a) f = Cast <to = 1> (z) y = Pad (a, k, f)", (2, 8), "float|computed"),
    ],
)
def test_reasons(body: str, shape: tuple[int | str, ...], reason: str) -> None:
    constants = {"k": whole(0, 1, 0, 1)} if "k" in body.split("(")[-1] else {}
    model = graph(body, {"a": (shape, NARROW)}, {"y": NARROW}, constants)
    found = reasons(lower(model))
    assert any(word in item for item in found for word in reason.split("|"))
    assert set(operators(model)) & {"DepthToSpace", "Pad"}
