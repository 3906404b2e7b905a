"""fit-powers-of-two: the model stays what it is, and activations fit scales that are powers of two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration.data import load as load_data
from qcompiler.errors import DataError, UsageError
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.passes.equalize._streams import streams
from qcompiler.passes.equalize.fit_powers_of_two import FitPowersOfTwo
from qcompiler.pipeline.base import Context, Fact, PassRecord
from qcompiler.quant import factors
from qcompiler.quant.plan import dump
from qcompiler.target.load import load
from qcompiler.target.schema import Fallback, Target
from tests.passes.equalize.conftest import SIX, build, node

SHIFTS = load("fpga-pot")


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def samples(shape: tuple[int, ...], scale: float = 1.0) -> Any:
    feeds = [{"x": scale * normal(1, *shape, seed=seed)} for seed in range(8)]
    return load_data(feeds, {"x": (ir.DataType.FLOAT, ("N", *shape))})


def fit(
    model: ir.Model, shape: tuple[int, ...], target: Target = SHIFTS, plan: str = "", scale: float = 1.0
) -> Context:
    """Run the pass, and make sure of what holds for every run."""
    feed = {"x": scale * normal(3, *shape, seed=99)}
    before = Runner(model, optimize=False).run(feed)
    ctx = Context(Edit(model), target=target, calibration=None if plan else samples(shape, scale))
    ctx.records.append(PassRecord("fit-powers-of-two"))
    FitPowersOfTwo(plan=plan).run(model, ctx)
    for fact in (Fact.TYPED, Fact.SORTED, Fact.CANONICAL):
        assert check(fact, model) == []
    for name, expected in before.items():
        np.testing.assert_allclose(Runner(model, optimize=False).run(feed)[name], expected, rtol=1e-4, atol=1e-5)
    count = ctx.edit.count
    FitPowersOfTwo(plan=plan).run(model, ctx)
    assert ctx.edit.count == count, "a second run changes something"
    return ctx


def chain(activation: str = "Relu", inputs: str = "c", **constants: Any) -> ir.Model:
    return build(
        [node("Conv", "x w1 b1", "c"), node(activation, inputs, "r"), node("Conv", "r w2 b2")],
        ["N", 3, 6, 6], w1=normal(8, 3, 1, 1), b1=normal(8), w2=normal(4, 8, 1, 1), b2=normal(4), **constants,
    )  # fmt: skip


def names(model: ir.Model) -> set[str]:
    return {str(value.name) for item in model.graph for value in item.outputs}


def test_the_range_behind_a_relu_becomes_a_power_of_two() -> None:
    model = build(
        [node("Conv", "x w1", "c"), node("Clip", "c zero six", "r"), node("Conv", "r w2")],
        ["N", 3, 6, 6], w1=10 * normal(8, 3, 1, 1), w2=normal(4, 8, 1, 1), zero=SIX["zero"], six=SIX["six"],
    )  # fmt: skip
    fit(model, (3, 6, 6))
    clip = next(item for item in model.graph if item.op_type == "Clip")
    bound = clip.inputs[2]
    assert bound is not None
    assert bound.const_value is not None
    six = float(bound.const_value.numpy())
    steps = np.log2(six / 255)
    assert abs(steps - round(steps)) < 0.1  # 6 becomes about 255 / 32 or 255 / 64
    assert bound.const_value.numpy().shape == ()


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "MaxPool", "GlobalAveragePool"])
def test_activations_let_a_factor_pass(activation: str) -> None:
    model = build(
        [
            node("Conv", "x w1 b1", "c"),
            node(activation, "c", "r", **({"kernel_shape": [2, 2]} if activation == "MaxPool" else {})),
            node("Conv", "r w2 b2"),
        ],
        ["N", 3, 6, 6], w1=normal(8, 3, 1, 1), b1=normal(8), w2=normal(4, 8, 1, 1), b2=normal(4),
    )  # fmt: skip
    free = streams(model.graph)
    assert [[value.name for value in stream.values] for stream in free] == [["x"], ["c", "r"]]
    fit(model, (3, 6, 6))


@pytest.mark.parametrize(("activation", "inputs"), [("Sigmoid", "c"), ("Tanh", "c"), ("Softmax", "c"), ("Mul", "c c")])
def test_what_is_not_linear_stops_a_factor(activation: str, inputs: str) -> None:
    model = chain(activation, inputs)
    assert [[value.name for value in stream.values] for stream in streams(model.graph)] == [["x"]]
    fit(model, (3, 6, 6))
    assert {"c", "r", "y"} <= names(model)


def test_a_residual_stream_shares_one_factor() -> None:
    model = build(
        [
            node("Conv", "x w1 b1", "c"),
            node("Relu", "c", "r"),
            node("Conv", "r w2 b2", "d"),
            node("Add", "r d", "s"),
            node("Add", "s shift", "t"),
            node("Concat", "t padding", "u", axis=0),
            node("Relu", "u", "v"),
            node("Conv", "v w3"),
        ],
        [1, 3, 6, 6], w1=normal(8, 3, 1, 1), b1=normal(8), w2=normal(8, 8, 1, 1), b2=normal(8),
        shift=normal(1, 8, 1, 1), padding=normal(1, 8, 6, 6), w3=normal(4, 8, 1, 1),
    )  # fmt: skip
    inner = streams(model.graph)[1]
    assert [value.name for value in inner.values] == ["c", "r", "d", "s", "t", "u", "v"]
    feed = {"x": normal(1, 3, 6, 6, seed=5)}
    before = Runner(model, optimize=False).run(feed)["y"]
    from qcompiler.passes.equalize._streams import multiply

    multiply(model.graph, dict.fromkeys(inner.values, 1.3), Edit(model), "_fitted")
    np.testing.assert_allclose(Runner(model, optimize=False).run(feed)["y"], before, rtol=1e-4, atol=1e-5)
    assert {"c_fitted", "s_fitted", "v_fitted", "y"} <= names(model)
    assert factors.dump(model.graph)["v_fitted"] == 1.3


def test_the_input_is_multiplied_in_real_numbers() -> None:
    model = chain()
    fit(model, (3, 6, 6), scale=np.pi)
    first = model.graph.node(0)
    assert first.op_type == "Mul"
    assert first.outputs[0].name == "x_fitted"
    assert "before that becomes codes" in factors.why_float(first)
    model = chain()
    fit(model, (3, 6, 6), replace(SHIFTS, fallback=Fallback.REFUSE), scale=np.pi)
    assert model.graph.node(0).op_type == "Conv"


def test_shared_weights_are_left_alone() -> None:
    model = build(
        [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r w", "d"), node("Relu", "d", "e"),
         node("Conv", "e w")],
        ["N", 4, 6, 6], w=normal(4, 4, 1, 1),
    )  # fmt: skip
    assert streams(model.graph) == []


def test_layers_that_touch_what_bears_no_factor_are_named() -> None:
    model = build(
        [node("Conv", "x w1", "c"), node("Add", "c one", "a"), node("Sigmoid", "a", "s"), node("Conv", "s w2", "d"),
         node("Relu", "d", "r"), node("Conv", "r w3")],
        ["N", 4, 6, 6], w1=normal(4, 4, 1, 1), w2=normal(4, 4, 1, 1), w3=normal(4, 4, 1, 1),
        one=np.ones(1, np.float32),
    )  # fmt: skip
    context = fit(model, (4, 6, 6), scale=np.pi)
    found = {skip.node: skip.reason for skip in context.records[0].skips[:2]}
    assert found == {
        "Conv_y (Conv)": "its result is not multiplied: it is an output of the model",
        "Conv_c (Conv)": "its result is not multiplied: Sigmoid_s (Sigmoid) bears no factor",
    }


def test_other_targets_are_not_touched() -> None:
    model = chain()
    ctx = Context(Edit(model), target=load("edge-npu"))
    FitPowersOfTwo().run(model, ctx)
    assert ctx.edit.count == 0


def test_without_samples_there_is_a_hint() -> None:
    model = chain()
    with pytest.raises(DataError, match="--calibration random"):
        FitPowersOfTwo().run(model, Context(Edit(model), target=SHIFTS))


def test_a_plan_brings_its_factors(tmp_path: Path) -> None:
    import json

    first, second = chain(), chain()
    fit(first, (3, 6, 6), scale=np.pi)
    written = dump(first)
    assert set(written["factors"]) == {"x_fitted", "c_fitted", "r_fitted"}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(written))
    fit(second, (3, 6, 6), plan=str(path))
    assert dump(second)["factors"] == written["factors"]
    assert names(second) == names(first)
    for name, value in first.graph.initializers.items():
        assert value.const_value is not None
        other = second.graph.initializers[name].const_value
        assert other is not None
        np.testing.assert_array_equal(value.const_value.numpy(), other.numpy())


@pytest.mark.parametrize("bad", [{"x": 0}, {"x": -1.0}, {"x": "1"}, {"x": True}, {"x": float("inf")}, [1]])
def test_a_plan_with_nonsense_for_factors_is_refused(bad: Any) -> None:
    with pytest.raises(UsageError):
        factors.read({"factors": bad})
