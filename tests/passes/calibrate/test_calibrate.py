"""calibrate: parameters of activations from samples."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.data import Dataset
from qcompiler.errors import DataError, PassError, PipelineError
from qcompiler.ir.edit import Edit
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context
from qcompiler.quant import arithmetic, state
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams, params_from_range
from qcompiler.quant.state import TensorQuant

U8, I16 = QFormat.parse("u8"), QFormat.parse("i16")


def dataset(model: ir.Model, **arrays: np.ndarray) -> Dataset:
    return data.load(arrays, data.inputs_of(model))


def run(model: ir.Model, samples: Dataset | None, target: object = None, **options: object) -> Context:
    ctx = Context(Edit(model), calibration=samples, target=target)  # type: ignore[arg-type]
    Calibrate(**options).run(model, ctx)  # type: ignore[arg-type]
    return ctx


def value(model: ir.Model, name: str) -> ir.Value:
    known = {item.name: item for node in model.graph for item in node.outputs}
    known |= {item.name: item for item in (*model.graph.inputs, *model.graph.initializers.values())}
    return known[name]


def node(model: ir.Model, kind: str) -> ir.Node:
    return next(item for item in model.graph if item.op_type == kind)


def want(model: ir.Model, name: str, form: QFormat = U8, tie: str | None = None) -> None:
    state.set_value_quant(value(model, name), TensorQuant(form, tie=tie))


def params(model: ir.Model, name: str) -> QParams:
    quant = state.value_quant(value(model, name))
    assert quant is not None
    assert quant.params is not None
    return quant.params


def notes(ctx: Context) -> str:
    return " ".join(note.text for record in ctx.records for note in record.notes)


@pytest.fixture
def chain(parse: Callable[[str], ir.Model]) -> ir.Model:
    """x → Neg → a → Relu → b → Add(b, c) → y, with a constant c."""
    return parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 4] x) => (float[N, 4] y) <float[4] c = {-8.0, 0.0, 0.0, 4.0}>
        { a = Neg(x)  b = Relu(a)  y = Add(b, c) }""")


X = np.array([[-3, -1, 0, 2], [0, 1, 1, 5]], np.float32)


@pytest.mark.parametrize("number", ["-1", "0", "nan", "inf"])
def test_deviations_reach_somewhere(number: str) -> None:
    with pytest.raises(PipelineError, match=r"deviations=.* is no finite number above 0"):
        spec.parse(f"calibrate{{deviations={number}}}")


def test_values_and_inputs_get_the_parameters_of_their_range(chain: ir.Model) -> None:
    for name in ("x", "a", "b"):
        want(chain, name)
    ctx = run(chain, dataset(chain, x=X))
    assert params(chain, "x") == params_from_range(-3, 5, U8)
    assert params(chain, "a") == params_from_range(-5, 3, U8)
    assert params(chain, "b") == params_from_range(0, 3, U8)
    assert "minmax ranges of 3 tensors from 2 samples" in notes(ctx)
    assert ctx.edit.count == 3


def test_an_edge_gets_the_same_range_in_its_own_format(chain: ir.Model) -> None:
    want(chain, "b")
    state.set_edge_quant(node(chain, "Add"), 0, TensorQuant(I16))
    state.set_edge_quant(node(chain, "Relu"), 0, TensorQuant(U8))  # its value has no decision of its own
    run(chain, dataset(chain, x=X))
    own = state.own_edge_quant(node(chain, "Add"), 0)
    assert isinstance(own, TensorQuant)
    assert own.params == params_from_range(0, 3, I16)
    other = state.own_edge_quant(node(chain, "Relu"), 0)
    assert isinstance(other, TensorQuant)
    assert other.params == params_from_range(-5, 3, U8)


@pytest.mark.parametrize("method", ["minmax", "moving-average", "percentile", "mse", "entropy"])
def test_tied_values_share_parameters(chain: ir.Model, method: str) -> None:
    want(chain, "a", tie="t")
    want(chain, "b", tie="t")
    run(chain, dataset(chain, x=X), method=method)
    assert params(chain, "a") == params(chain, "b")
    if method == "minmax":
        assert params(chain, "a") == params_from_range(-5, 3, U8)


def test_a_tied_constant_widens_the_range(chain: ir.Model) -> None:
    want(chain, "b", tie="t")
    want(chain, "c", tie="t")
    run(chain, dataset(chain, x=X))
    assert params(chain, "b") == params(chain, "c") == params_from_range(-8, 4, U8)


def test_constants_alone_are_left_to_calibrate_weights(chain: ir.Model) -> None:
    want(chain, "c")
    run(chain, None)
    quant = state.value_quant(value(chain, "c"))
    assert quant is not None
    assert quant.params is None


def test_given_parameters_are_kept_and_shared(chain: ir.Model) -> None:
    given = params_from_range(-1, 1, U8)
    state.set_value_quant(value(chain, "a"), TensorQuant(U8, given, tie="t"))
    want(chain, "b", tie="t")
    run(chain, dataset(chain, x=X))
    assert params(chain, "a") == given
    assert params(chain, "b") == given


def test_without_samples_there_is_a_hint(chain: ir.Model) -> None:
    want(chain, "a")
    with pytest.raises(DataError, match="--calibration random"):
        run(chain, None)


def test_targets_limit_scales(chain: ir.Model) -> None:
    want(chain, "a")
    target = SimpleNamespace(scale_floor=2.0**-4, power_of_two_scales=True)
    run(chain, dataset(chain, x=X * 1e-3), target)
    assert params(chain, "a").scale == 2.0**-4
    want(chain, "a")
    run(chain, dataset(chain, x=X), target)
    scale = float(params(chain, "a").scale)
    assert scale == 2.0**-4
    target.scale_floor = 2.0**-60
    want(chain, "a")
    run(chain, dataset(chain, x=X), target)
    found = params(chain, "a")
    assert float(np.log2(found.scale)) == -4.0  # 8 / 255 = 2^-4.99…, the next power above is 2^-4
    low, high = (float(found.scale) * (code - int(found.zero_point)) for code in (0, 255))
    assert low <= -5
    assert high >= 3


def test_blocked_activations_are_refused(chain: ir.Model) -> None:
    want(chain, "a", QFormat.parse("i4/axis=1/block=2"))
    with pytest.raises(PassError, match="activation 'a' has a blocked format"):
        run(chain, dataset(chain, x=X))


def test_activations_per_channel(chain: ir.Model) -> None:
    want(chain, "a", QFormat.parse("i8/axis=1"))
    run(chain, dataset(chain, x=X))
    assert params(chain, "a") == params_from_range([0, -1, -1, -5], [3, 1, 0, 0], QFormat.parse("i8"))


def test_mask_constants_do_not_ruin_the_softmax_input(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 4] x, float[N, 4] m) => (float[N, 4] y) { s = Add(x, m)  y = Softmax(s) }""")
    value(model, "s").meta["qcompiler.mask"] = SimpleNamespace(constant=-1e4, role="sum")
    want(model, "s")
    mask = np.zeros((2, 4), np.float32)
    mask[:, 3] = -1e4
    ctx = run(model, dataset(model, x=X, m=mask))
    assert params(model, "s") == params_from_range(-3 - 16, 1, U8)
    assert "mask constants left out of the range of 's'" in notes(ctx)


def test_padding_rows_are_left_out(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 4, 1] x, int64[N, 4] attention_mask) => (float[N, 4, 1] y, int64[N, 4] z)
        { y = Neg(x)  z = Identity(attention_mask) }""")
    want(model, "y")
    ctx = run(model, dataset(model, x=X[..., None], attention_mask=np.array([[1, 1, 1, 1], [1, 1, 1, 0]])))
    assert params(model, "y") == params_from_range(-2, 3, U8)
    assert "padding rows" in notes(ctx)


def test_a_value_that_is_never_seen_gets_sane_parameters(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, 0] x) => (float[N, 0] y) { y = Neg(x) }""")
    want(model, "y")
    run(model, dataset(model, x=np.zeros((2, 0), np.float32)))
    assert params(model, "y").scale == 1.0


def test_power_of_two_scales_are_searched_by_default(chain: ir.Model) -> None:
    want(chain, "a", QFormat.parse("u8/pot"))
    want(chain, "b", U8)
    ctx = run(chain, dataset(chain, x=X))
    assert float(np.frexp(params(chain, "a").scale)[0]) == 0.5
    assert "minmax and mse ranges of 2 tensors" in notes(ctx)


def test_a_power_of_two_that_makes_results_covers_them(chain: ir.Model) -> None:
    outlier = np.append(np.zeros((1, 3), np.float32), np.float32([[8.1]]), axis=1)
    several = np.concatenate([np.random.default_rng(0).uniform(0, 1, (5000, 4)).astype(np.float32), outlier])
    scales = []
    for result in (False, True):
        want(chain, "a", QFormat.parse("u8/pot"))
        if result:
            reader = next(iter(value(chain, "a").uses()))
            state.set_edge_quant(reader.node, reader.idx, state.FLOAT)
        run(chain, dataset(chain, x=several))
        scales.append(float(params(chain, "a").scale))
    assert scales[0] < scales[1] == 2.0**-4


def test_few_bits_are_clipped_where_that_costs_least(chain: ir.Model) -> None:
    """Of one tensor 8 bits cover everything, 4 bits the bulk of it; behind a Relu no code is spent on signs."""
    tail = np.random.default_rng(0).laplace(0, 1, (4000, 4)).astype(np.float32)
    reader = node(chain, "Add")
    want(chain, "b", QFormat.parse("i8"))
    state.set_edge_quant(reader, 0, TensorQuant(QFormat.parse("i4")))
    ctx = run(chain, dataset(chain, x=tail))
    own = state.own_edge_quant(reader, 0)
    assert isinstance(own, TensorQuant)
    assert own.params is not None
    greatest = float(-tail.min())
    assert params(chain, "b") == params_from_range(0, greatest, QFormat.parse("i8"))
    assert own.params.zero_point == -8
    assert 0.2 * greatest < 15 * float(own.params.scale) < 0.8 * greatest
    assert _error(np.maximum(-tail, 0), own.params) < 0.7 * _error(
        np.maximum(-tail, 0), params_from_range(0, greatest, QFormat.parse("i4"))
    )
    assert "narrow-mse ranges" in notes(ctx)


def test_few_bits_follow_a_method_that_is_named(chain: ir.Model) -> None:
    tail = np.random.default_rng(0).laplace(0, 1, (4000, 4)).astype(np.float32)
    want(chain, "a", QFormat.parse("i4"))
    run(chain, dataset(chain, x=tail), method="minmax")
    assert 15 * float(params(chain, "a").scale) == pytest.approx(float(np.ptp(tail)), rel=1e-5)


def _error(data: np.ndarray, given: QParams) -> float:
    form = QFormat.parse("i4")
    codes = arithmetic.quantize(data, given, form)
    return float(np.square(arithmetic.dequantize(codes, given, form) - data).mean())
