"""calibrate-weights: scales of constants, per tensor, channel and block."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcompiler.errors import ModelError, PassError
from qcompiler.ir.edit import Edit
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights, in_groups
from qcompiler.passes.calibrate.clip_search import squared_error
from qcompiler.pipeline.base import Context
from qcompiler.quant import arithmetic, state
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams, params_from_range
from qcompiler.quant.state import TensorQuant

I8 = "i8/sym/narrow"
FORMATS = ["i8/sym", "i8/sym/axis=0", "i4/sym/axis=1", "u4/axis=-1", "i2/sym/axis=0"]
FORMATS += ["i4/axis=0/block=4", "i4/sym/axis=1/block=5"]


def calibrated(array: np.ndarray | ir.TensorProtocol, form: str, method: str = "minmax", **target: object) -> QParams:
    """Parameters that the pass gives one weight."""
    tensor = array if isinstance(array, ir.TensorProtocol) else ir.Tensor(array)
    weight = ir.Value(name="w", const_value=tensor, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype))
    graph = ir.Graph([], [], nodes=[], initializers=[weight], opset_imports={"": 21})
    model = ir.Model(graph, ir_version=10)
    state.set_value_quant(weight, TensorQuant(QFormat.parse(form)))
    limits = SimpleNamespace(**({"scale_floor": 2.0**-100, "power_of_two_scales": False} | target))
    CalibrateWeights(method=method).run(model, Context(Edit(model), target=limits))  # type: ignore[arg-type]
    quant = state.value_quant(weight)
    assert quant is not None
    assert quant.params is not None
    return quant.params


def error(array: np.ndarray, params: QParams, form: str) -> float:
    parsed = QFormat.parse(form)
    back = arithmetic.dequantize(arithmetic.quantize(array, params, parsed), params, parsed)
    return float(np.square(back.astype(np.float64) - array).sum())


def test_scales_per_tensor_channel_and_block() -> None:
    weight = np.arange(-12, 12, dtype=np.float32).reshape(4, 6)
    assert calibrated(weight, I8).scale == np.float32(12 / 127)
    np.testing.assert_allclose(calibrated(weight, f"{I8}/axis=0").scale, np.array([12, 6, 5, 11]) / 127, rtol=1e-6)
    blocked = calibrated(weight, "i4/sym/axis=1/block=4")
    assert blocked.scale.shape == (4, 2)  # the last block is short
    np.testing.assert_allclose(blocked.scale[0], np.array([12, 8]) / 7, rtol=1e-6)


@pytest.mark.parametrize("form", FORMATS)
def test_full_ranges_round_to_the_nearest_code(form: str) -> None:
    weight = np.random.default_rng(0).standard_normal((12, 10)).astype(np.float32)
    params, parsed = calibrated(weight, form), QFormat.parse(form)
    back = arithmetic.dequantize(arithmetic.quantize(weight, params, parsed), params, parsed)
    steps = np.broadcast_to(arithmetic.expand(params.scale, weight.shape, parsed), weight.shape)
    # Half a step by rounding, half a step more where the zero point was rounded.
    assert (np.abs(back - weight) <= steps * (0.5001 if parsed.symmetric else 1.0001)).all()


@given(
    hnp.arrays(np.float32, (6, 10), elements=st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)),
    st.sampled_from(FORMATS),
)
@settings(max_examples=60, deadline=None)
def test_mse_is_never_worse_than_minmax(weight: np.ndarray, form: str) -> None:
    full = error(weight, calibrated(weight, form), form)
    assert error(weight, calibrated(weight, form, "mse"), form) <= full * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize(("form", "gain"), [("i4/sym", 0.3), ("i4/sym/axis=0", 0.5), ("i4/axis=0", 0.7)])
def test_mse_pays_on_heavy_tails(form: str, gain: float) -> None:
    weight = np.random.default_rng(0).laplace(size=(16, 4000)).astype(np.float32)
    assert error(weight, calibrated(weight, form, "mse"), form) < gain * error(weight, calibrated(weight, form), form)


def test_dead_channels_take_the_least_live_scale() -> None:
    weight = np.array([[1.0, -2.0], [0.0, 0.0], [0.5, 0.1]], np.float32)
    scale = calibrated(weight, f"{I8}/axis=0").scale
    np.testing.assert_allclose(scale, np.array([2.0, 0.5, 0.5]) / 127, rtol=1e-6)
    chosen = calibrated(weight, f"{I8}/axis=0", "mse").scale
    assert chosen[1] == min(chosen[0], chosen[2])
    assert (calibrated(np.zeros((3, 2), np.float32), f"{I8}/axis=0").scale == 1.0).all()


def test_power_of_two_scales_cover_the_range() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 9)).astype(np.float32)
    scale = calibrated(weight, f"{I8}/axis=0", power_of_two_scales=True).scale
    assert (np.frexp(scale)[0] == 0.5).all()
    bound = np.abs(weight).max(axis=1)
    assert (scale * 127 >= bound).all()
    assert (scale * 127 < 2 * bound).all()


def test_the_scale_floor_holds() -> None:
    weight = np.array([[1e-9, 0.0], [1.0, 0.5]], np.float32)
    assert calibrated(weight, f"{I8}/axis=0", scale_floor=1e-5).scale[0] == np.float32(1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("form", [I8, f"{I8}/axis=0", "i4/sym/axis=0/block=2"])
def test_weights_that_are_not_finite_are_refused(bad: float, form: str) -> None:
    weight = np.ones((3, 4), np.float32)
    weight[1, 2] = bad
    with pytest.raises(ModelError, match=r"weight 'w'.*NaN or infinity"):
        calibrated(weight, form)


def test_an_axis_that_does_not_exist_and_integers_are_refused() -> None:
    with pytest.raises(PassError, match="has no axis 4"):
        calibrated(np.ones((3, 4), np.float32), "i8/sym/axis=4")
    with pytest.raises(PassError, match="only floats are quantized"):
        calibrated(np.ones((3, 4), np.int64), I8)


def test_half_precision_and_empty_weights() -> None:
    assert calibrated(np.array([1.0, -2.0], np.float16), I8).scale == np.float32(2 / 127)
    assert calibrated(np.zeros((0, 4), np.float32), I8).scale == 1.0
    assert calibrated(np.zeros((0, 4), np.float32), f"{I8}/axis=0").scale.shape == (0,)


def test_tied_constants_share_the_widest_scale() -> None:
    weights = []
    for name, bound in (("a", 1.0), ("b", 3.0)):
        tensor = ir.Tensor(np.array([bound, -bound], np.float32))
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape([2]), type=ir.TensorType(tensor.dtype))
        state.set_value_quant(value, TensorQuant(QFormat.parse(I8), tie="t"))
        weights.append(value)
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=weights, opset_imports={"": 21}), ir_version=10)
    CalibrateWeights().run(model, Context(Edit(model)))
    for value in weights:
        quant = state.value_quant(value)
        assert quant is not None
        assert quant.params == params_from_range(-3, 3, QFormat.parse(I8))


def test_one_tensor_at_a_time_is_in_memory() -> None:
    def make() -> ir.Tensor:
        return ir.Tensor(np.ones((1000, 1000), np.float32))

    weights = []
    for index in range(8):
        lazy = ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=ir.Shape([1000, 1000]), cache=False)
        value = ir.Value(name=f"w{index}", const_value=lazy, shape=lazy.shape, type=ir.TensorType(lazy.dtype))
        state.set_value_quant(value, TensorQuant(QFormat.parse(f"{I8}/axis=0")))
        weights.append(value)
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=weights, opset_imports={"": 21}), ir_version=10)
    tracemalloc.start()
    CalibrateWeights(method="mse").run(model, Context(Edit(model)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 4_000_000  # of 32 MB in all


def test_squared_error_in_pieces_is_the_error_of_the_reference_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.passes.calibrate.clip_search._PIECE", 7)
    weight = np.random.default_rng(0).standard_normal((3, 25)).astype(np.float32)
    form = QFormat.parse("i4")
    params = params_from_range(weight.min(axis=1), weight.max(axis=1), form)
    along = form.along(0)
    back = arithmetic.dequantize(arithmetic.quantize(weight, params, along), params, along)
    expected = np.square(back.astype(np.float64) - weight).sum(axis=1)
    np.testing.assert_allclose(squared_error(weight, params, form), expected, rtol=1e-5)


def test_groups_are_the_elements_that_share_a_scale() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    rows, shape = in_groups(array, QFormat.parse("i4/axis=2/block=3"))
    assert shape == (2, 3, 2)
    assert rows.shape == (12, 3)
    assert rows[0].tolist() == [0, 1, 2]
    assert rows[1].tolist() == [3, 0, 0]
    rows, shape = in_groups(array, QFormat.parse("i4/axis=1"))
    assert shape == (3,)
    assert sorted(rows[1]) == sorted(array[:, 1].reshape(-1))


@pytest.mark.parametrize(("bits", "like"), [(8, "minmax"), (4, "mse"), (2, "mse")])
def test_auto_clips_below_8_bits_only(bits: int, like: str) -> None:
    form = f"i{bits}/sym/axis=0"
    array = np.random.default_rng(0).standard_t(1.5, size=(4, 40_000)).astype(np.float32)
    other = "mse" if like == "minmax" else "minmax"
    assert calibrated(array, form, "auto") == calibrated(array, form, like)
    assert calibrated(array, form, "auto") != calibrated(array, form, other)


@pytest.mark.parametrize("form", [f"{I8}/pot/axis=0", "i4/sym/pot/axis=0", "i3/sym/pot", "i2/sym/pot/axis=0"])
def test_power_of_two_scales_by_least_squares(form: str) -> None:
    weight = np.random.default_rng(1).laplace(size=(6, 400)).astype(np.float32)
    covering, chosen = calibrated(weight, form), calibrated(weight, form, "auto")
    assert (np.frexp(chosen.scale)[0] == 0.5).all()
    assert (chosen.scale <= covering.scale).all()
    errors = [error(weight, QParams(covering.scale / 2.0**k, covering.zero_point), form) for k in range(6)]
    assert error(weight, chosen, form) <= min(errors)
