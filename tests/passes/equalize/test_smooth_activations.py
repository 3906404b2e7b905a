"""Factors and shifts move between activations and weights: the model stays what it is, its ranges get alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.calibration.checks import inputs_of
from qcompiler.calibration.data import load as load_data
from qcompiler.errors import UsageError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.models import loaders
from qcompiler.passes.equalize import _channel_walk
from qcompiler.passes.equalize._layout import Layout, along
from qcompiler.passes.equalize._union import SignedUnion
from qcompiler.passes.equalize.reparameterize_norms import ReparameterizeNorms
from qcompiler.passes.equalize.smooth_activations import SmoothActivations
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord
from qcompiler.pipeline.manager import Pipeline
from qcompiler.target.load import load

Array = NDArray[Any]
TARGET = load("edge-npu")


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def run(which: Pass, model: ir.Model, feeds: list[dict[str, Array]], tolerance: float = 1e-5) -> Context:
    """Run a pass; make sure that outputs, facts and nodes stay, and that a second run changes nothing."""
    data = load_data(feeds, inputs_of(model))
    context = Context(Edit(model), target=TARGET, calibration=data, jobs=1)
    context.records.append(PassRecord(which.name))
    wanted = Runner(model, optimize=False, threads=1).run(feeds[0])
    kinds = [node.op_type for node in model.graph]
    which.run(model, context)
    got = Runner(model, optimize=False, threads=1).run(feeds[0])
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= tolerance * np.abs(array).max(), name
    assert [node.op_type for node in model.graph] == kinds
    for fact in (Fact.TYPED, Fact.SORTED, Fact.CANONICAL):
        assert check(fact, model) == []
    before = context.edit.count
    again = Context(context.edit, target=TARGET, calibration=data, jobs=1, records=[PassRecord(which.name)])
    which.run(model, again)
    assert context.edit.count == before, "a second run changes something"
    return context


def skipped(context: Context) -> str:
    return "; ".join(f"{skip.node}: {skip.reason}" for skip in context.records[0].skips)


def normed(make: SimpleNamespace, *, bias: bool = True) -> ir.Model:
    """LayerNormalization with two loud channels, one far from zero, and two products behind it."""
    gamma, beta = np.ones(16, np.float32), np.zeros(16, np.float32)
    gamma[3], gamma[7], beta[5] = 40, 25, 60
    ends = [make.node("Add", "m1 b1", "y1"), make.node("Add", "m2 b2", "y2")] if bias else []
    return make.build(  # type: ignore[no-any-return]
        [
            make.node("LayerNormalization", "x gamma beta", "n"),
            make.node("MatMul", "n w1", "m1"),
            make.node("MatMul", "n w2", "m2"),
            *ends,
        ],
        ["N", 4, 16],
        outputs="y1 y2" if bias else "m1 m2",
        gamma=gamma, beta=beta, w1=normal(16, 8), w2=normal(16, 4),
        **({"b1": normal(8), "b2": normal(4)} if bias else {}),
    )  # fmt: skip


def feeds_of(count: int = 8) -> list[dict[str, Array]]:
    return [{"x": normal(1, 4, 16, seed=seed)} for seed in range(count)]


def product_error(model: ir.Model, feeds: list[dict[str, Array]]) -> float:
    """Mean squared error of both products when what the norm gives has 8 bits and one scale."""
    norm = next(node for node in model.graph if node.op_type == "LayerNormalization")
    seen = Runner(model, [str(norm.outputs[0].name)], threads=1)
    data = np.concatenate([next(iter(seen.run(feed).values())).reshape(-1, 16) for feed in feeds])
    low, high = min(data.min(), 0), max(data.max(), 0)
    scale = (high - low) / 255
    rounded = np.rint((data - low) / scale) * scale + low
    weights = [item.inputs[1] for item in model.graph if item.op_type == "MatMul"]
    tensors = [weight.const_value.numpy() for weight in weights if weight and weight.const_value]
    return float(sum(np.square((rounded - data) @ tensor).mean() for tensor in tensors))


def test_a_norm_with_loud_channels_loses_most_of_its_error(make: SimpleNamespace) -> None:
    model = normed(make)
    before = product_error(model, feeds_of())
    context = run(SmoothActivations(), model, feeds_of())
    assert product_error(model, feeds_of()) < 0.2 * before
    assert context.records[0].notes[0].text == "smoothed 1 of 1 regions of channels"
    assert "n_smoothed" in {value.name for node in model.graph for value in node.outputs}


def test_an_explicit_strength_is_that_of_the_paper(make: SimpleNamespace) -> None:
    model = normed(make)
    rows = Runner(model, ["n"], threads=1)
    data = np.concatenate([rows.run(feed)["n"].reshape(-1, 16) for feed in feeds_of()[:6]])
    weights = np.abs(np.concatenate([make.content(model, "w1"), make.content(model, "w2")], 1)).max(1)
    first = make.content(model, "w1").copy()
    run(SmoothActivations(alpha=0.5, shift=False), model, feeds_of())
    wanted = np.sqrt(np.abs(data).max(0) / weights)
    wanted /= np.exp(np.log(wanted).mean())
    np.testing.assert_allclose(make.content(model, "w1"), first * wanted[:, None], rtol=1e-4)


def test_without_a_bias_behind_nothing_is_shifted(make: SimpleNamespace) -> None:
    model = normed(make, bias=False)
    beta = make.content(model, "beta").copy()
    context = run(SmoothActivations(), model, feeds_of())
    assert "its channels are not shifted: MatMul_m1 (MatMul) behind it has no bias" in skipped(context)
    live = beta != 0
    assert (make.content(model, "beta")[~live] == 0).all()


def test_a_reader_that_is_no_product_stops_factors(make: SimpleNamespace) -> None:
    model = make.build(
        [
            make.node("LayerNormalization", "x gamma beta", "n"),
            make.node("MatMul", "n w", "m"),
            make.node("Add", "m b", "y"),
            make.node("Tanh", "n", "z"),
        ],
        ["N", 4, 16], outputs="y z",
        gamma=normal(16), beta=normal(16), w=normal(16, 8), b=normal(8),
    )  # fmt: skip
    context = run(SmoothActivations(), model, feeds_of())
    assert context.edit.count == 0
    assert "Tanh_z (Tanh) lets no factor pass" in skipped(context)


def test_a_residual_sum_takes_back_a_shift(make: SimpleNamespace) -> None:
    """Behind a norm that is also added to what its reader gives, a shift goes into that reader's bias."""
    beta = 30 * normal(16)
    model = make.build(
        [
            make.node("LayerNormalization", "x gamma beta", "n"),
            make.node("MatMul", "n w1", "m1"),
            make.node("Add", "m1 b1", "a1"),
            make.node("Tanh", "a1", "t"),
            make.node("MatMul", "t w2", "m2"),
            make.node("Add", "m2 b2", "a2"),
            make.node("Add", "n a2", "s"),
            make.node("LayerNormalization", "s gamma2 beta2", "y"),
        ],
        ["N", 4, 16],
        gamma=normal(16), beta=beta, w1=normal(16, 8), b1=normal(8), w2=normal(8, 16), b2=normal(16),
        gamma2=normal(16, seed=2), beta2=normal(16, seed=2),
    )  # fmt: skip
    second = make.content(model, "b2").copy()
    context = run(SmoothActivations(), model, feeds_of())
    assert "its channels are not divided" in skipped(context)
    moved = make.content(model, "b2") - second
    assert np.abs(moved).max() > 1
    np.testing.assert_allclose(make.content(model, "beta") + moved, beta, rtol=1e-4, atol=1e-4)


def test_channels_of_a_sample_reach_where_they_should() -> None:
    found = _channel_walk.find(normalized(loaders.load("digits_vit").path).graph)
    heads = found.meetings
    assert len(heads) == len(found.averages) == 3
    for meeting in heads:
        assert meeting.left.shape == meeting.right.shape == (1, 4, 12)
        assert np.array_equal(meeting.left.ravel() - meeting.left.min(), np.arange(48))
        for one, two in zip(meeting.left.ravel().tolist(), meeting.right.ravel().tolist(), strict=True):
            (root, sign), (other, inverse) = found.union.find(one), found.union.find(two)
            assert (root, sign) == (other, -inverse)


def test_a_product_of_two_free_tensors_lets_no_factor_pass(make: SimpleNamespace) -> None:
    """Also where nothing else in the graph is stuck: the product is all that ends there."""
    model = make.build(
        [
            make.node("MatMul", "x w1", "a"),
            make.node("MatMul", "a w2", "c"),
            make.node("Mul", "a c", "m"),
            make.node("Softmax", "m"),
        ],
        ["N", 4, 16], w1=normal(16, 16) * np.geomspace(0.01, 1, 16).astype(np.float32), w2=normal(16, 16, seed=1),
    )  # fmt: skip
    context = run(SmoothActivations(alpha=0.5), model, feeds_of())
    assert "multiplies two tensors of free channels" in skipped(context)


def test_what_stuck_the_first_time_stays_stuck(make: SimpleNamespace) -> None:
    """A gate that a factor passes, behind it something that it does not; another product reads the same channels."""
    model = make.build(
        [
            make.node("Relu", "x", "r"),
            make.node("MatMul", "r w1", "a"),
            make.node("MatMul", "a w2", "y"),
            make.node("Mul", "a r", "m"),
            make.node("Max", "m x", "z"),
        ],
        ["N", 4, 16], outputs="y z", w1=normal(16, 16) * np.geomspace(0.01, 1, 16).astype(np.float32),
        w2=normal(16, 16, seed=1),
    )  # fmt: skip
    context = run(SmoothActivations(alpha=0.5), model, feeds_of())
    assert context.edit.count == 0
    assert "MatMul_a (MatMul): its channels are not divided: Max_z (Max) lets no factor pass" in skipped(context)


def test_norms_that_are_added_to_layers_take_one_factor_with_them(make: SimpleNamespace) -> None:
    model = make.build(
        [
            make.node("MatMul", "x w1", "a"),
            make.node("LayerNormalization", "x gamma", "n"),
            make.node("Add", "a n", "s"),
            make.node("MatMul", "s w2"),
        ],
        ["N", 4, 16], w1=normal(16, 16), gamma=np.geomspace(0.1, 10, 16).astype(np.float32), w2=normal(16, 4),
    )  # fmt: skip
    assert run(ReparameterizeNorms(), model, feeds_of()).edit.count > 0


def test_channels_that_end_nowhere_are_named(make: SimpleNamespace) -> None:
    """Asking for a shape does not count as reading."""
    model = make.build(
        [
            make.node("MatMul", "x w1", "a"),
            make.node("Shape", "a", "s"),
            make.node("Gelu", "a", "g"),
            make.node("MatMul", "g w2", "b"),
            make.node("LayerNormalization", "b gamma", "n"),
            make.node("Tanh", "n", "t"),
            make.node("Reshape", "t s"),
        ],
        ["N", 4, 16], w1=normal(16, 16), w2=normal(16, 16, seed=1), gamma=normal(16),
    )  # fmt: skip
    for which in (SmoothActivations(), ReparameterizeNorms()):
        text = skipped(run(which, model, feeds_of()))
        assert "(LayerNormalization): its channels are not divided: Tanh_t (Tanh) lets no factor pass" in text
        assert ("MatMul_a (MatMul): its channels are not divided: Gelu_g (Gelu)" in text) == (which.name[0] == "s")


BODY = """<ir_version: 10, opset_import: ["" : 21]> g (float[1,4,16] x, bool flag, float[16,16] w1, float[16,8] w2)
=> (float[1,4,8] y, float[1,16,4] z)
{
    [first] a = MatMul (x, w1)
    [turn] t = Transpose <perm = [0, 2, 1]> (a)
    [second] y = MatMul (a, w2)
    [if] z = If (flag) <then_branch = yes () => (float[1,16,4] p) { p = Neg (t) },
                   else_branch = no () => (float[1,16,4] q) { q = Abs (t) }>
}"""


def test_what_only_a_body_reads_keeps_its_size() -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(BODY)))
    edit = Edit(model)
    sizes = np.geomspace(0.01, 1, 16).astype(np.float32)
    for node, content in ((0, normal(16, 16) * sizes), (2, normal(16, 8))):
        edit.set_input(model.graph[node], 1, edit.constant(f"w_{node}", content))
    del model.graph.inputs[2:]
    feeds = [{"x": normal(1, 4, 16, seed=seed), "flag": np.array(True)} for seed in range(4)]
    wanted = Runner(model, optimize=False).run(feeds[0])
    data = load_data(feeds, inputs_of(model))
    context = Context(edit, target=TARGET, calibration=data, records=[PassRecord("smooth-activations")])
    SmoothActivations(alpha=0.5).run(model, context)
    assert "a body reads" in skipped(context)
    for name, array in Runner(model, optimize=False).run(feeds[0]).items():
        np.testing.assert_allclose(array, wanted[name], rtol=1e-5, atol=1e-5)


def normalized(path: Path) -> ir.Model:
    model = io.load(path)
    Pipeline(spec.parse("normalize")).run(model, Context(Edit(model), target=TARGET))
    return model


@pytest.mark.parametrize("which", [SmoothActivations(samples=8), ReparameterizeNorms(samples=8)])
def test_a_shipped_transformer_stays_what_it_is(which: Pass) -> None:
    sample = loaders.load("digits_vit")
    with np.load(sample.calibration) as arrays:
        feeds = [{name: arrays[name][i : i + 1] for name in arrays.files} for i in range(8)]
    context = run(which, normalized(sample.path), feeds)
    assert context.edit.count > 20


def test_ranges_made_alike_round_as_a_quantizer_per_channel(make: SimpleNamespace) -> None:
    """One scale behind the pass gives the error that a scale and zero point per channel gave before."""
    model = normed(make)
    rows = Runner(model, ["n"], threads=1)
    data = np.concatenate([rows.run(feed)["n"].reshape(-1, 16) for feed in feeds_of()[:6]]).astype(np.float64)
    low, high = data.min(0), data.max(0)
    run(ReparameterizeNorms(), model, feeds_of())
    changed = Runner(model, ["n_reparameterized"], threads=1)
    after = np.concatenate([changed.run(feed)["n_reparameterized"].reshape(-1, 16) for feed in feeds_of()[:6]])
    np.testing.assert_allclose(after.max(0), np.full(16, after.max()), rtol=1e-4)
    np.testing.assert_allclose(after.min(0), np.full(16, after.min()), rtol=1e-4)
    scale = (high - low) / 255
    wanted = np.rint((data - low) / scale)
    one = (after.max().astype(np.float64) - after.min()) / 255
    codes = np.rint((after - after.min()) / one)
    assert (codes == wanted).mean() > 0.99
    assert np.abs(codes - wanted).max() <= 1


def test_without_samples_nothing_is_done(make: SimpleNamespace) -> None:
    for which in (SmoothActivations(), ReparameterizeNorms()):
        model = normed(make)
        context = Context(Edit(model), target=TARGET, records=[PassRecord(which.name)])
        which.run(model, context)
        assert context.edit.count == 0
        assert "without calibration samples" in context.records[0].notes[0].text
    with pytest.raises(UsageError, match="alpha"):
        SmoothActivations(alpha=2.0).run(normed(make), Context(Edit(normed(make))))


def dense(layout: Layout, shape: tuple[int, ...]) -> Array:
    """The label of every element, written out."""
    total = np.full(shape, layout.base, np.int64)
    for axis, part in enumerate(layout.parts):
        if part is not None:
            total += part.reshape([-1 if at == axis else 1 for at in range(len(shape))])
    return total


_Step = Callable[[np.random.Generator, Array, Layout], tuple[Array, Layout | None]]


def transpose(random: np.random.Generator, array: Array, layout: Layout) -> tuple[Array, Layout | None]:
    order = random.permutation(array.ndim).tolist()
    return array.transpose(order), layout.transposed(order)


def take(random: np.random.Generator, array: Array, layout: Layout) -> tuple[Array, Layout | None]:
    axis = int(random.integers(array.ndim))
    start = int(random.integers(array.shape[axis]))
    indices = np.arange(array.shape[axis])[start :: int(random.integers(1, 3))]
    return array.take(indices, axis), layout.taken(axis, indices)


def tile(random: np.random.Generator, array: Array, layout: Layout) -> tuple[Array, Layout | None]:
    repeats = random.integers(1, 3, array.ndim).tolist()
    return np.tile(array, repeats), layout.tiled(repeats)


def reshape(random: np.random.Generator, array: Array, layout: Layout) -> tuple[Array, Layout | None]:
    shape = list(array.shape)
    if random.integers(2) and len(shape) > 1:
        at = int(random.integers(len(shape) - 1))
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    else:
        at = int(random.integers(len(shape)))
        split = 2 if shape[at] % 2 == 0 else 1
        shape[at : at + 1] = [split, shape[at] // split]
    return array.reshape(shape), layout.reshaped(array.shape, tuple(shape))


def join(random: np.random.Generator, array: Array, layout: Layout) -> tuple[Array, Layout | None]:
    axis = int(random.integers(array.ndim))
    sizes = [array.shape[axis]] * 2
    return np.concatenate([array, array], axis), Layout.joined([layout, layout], axis, sizes)


@pytest.mark.parametrize("seed", range(40))
def test_layouts_follow_dense_labels(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape: tuple[int, ...] = (3, 4, 8)
    layout = along(3, 2, 5, 8)
    array = dense(layout, shape)
    steps: tuple[_Step, ...] = (transpose, take, tile, reshape, join)
    for _ in range(6):
        array, found = steps[int(random.integers(len(steps)))](random, array, layout)
        if found is None or array.size > 20_000:
            return
        layout = found
        np.testing.assert_array_equal(dense(layout, array.shape), array)
        np.testing.assert_array_equal(layout.all(), np.unique(array))


def test_labels_that_would_be_their_own_inverse_are_found() -> None:
    union = SignedUnion()
    union.grow(4)
    one = np.array([0, 1])
    union.tie(one, one + 1, inverse=True)
    assert union.find(0)[1] == union.find(2)[1] == -union.find(1)[1]
    assert union.contradictions() == []
    union.tie(np.array([2]), np.array([0]), inverse=True)
    assert union.contradictions() == [0, 1, 2]
