"""Factors move between layers: the weights become alike, the model computes what it did."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.ir.statistics import set_statistics, statistics
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels


@pytest.mark.parametrize(
    ("activation", "attributes"),
    [("Relu", {}), ("LeakyRelu", {"alpha": 0.1}), ("MaxPool", {"kernel_shape": [2, 2]}), ("GlobalAveragePool", {})],
)
def test_both_sides_get_the_same_range(make: SimpleNamespace, activation: str, attributes: dict[str, Any]) -> None:
    model = make.relu_chain(activation, **attributes)
    before = make.kinds(model)
    context = make.run(model)
    first, second = make.rows(make.content(model, "w1")), make.columns(make.content(model, "w2"))
    np.testing.assert_allclose(first / second, np.full(8, first[0] / second[0]), rtol=1e-3)
    assert make.kinds(model) == before
    assert context.records[0].notes[0].text == "equalized the channels of 1 of 1 streams between layers"


def test_factors_of_one_pair_are_those_of_the_paper(make: SimpleNamespace) -> None:
    model = make.relu_chain()
    first, second = make.content(model, "w1").copy(), make.content(model, "w2").copy()
    bias = make.content(model, "b1").copy()
    make.run(model)
    factors = np.sqrt(make.rows(first) / make.columns(second)).astype(np.float64)
    factors /= np.exp(np.log(factors).mean())  # a common factor says nothing
    np.testing.assert_allclose(make.content(model, "w1"), first / factors.reshape(-1, 1, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(make.content(model, "b1"), bias / factors, rtol=1e-5)
    np.testing.assert_allclose(make.content(model, "w2"), second * factors.reshape(1, -1, 1, 1), rtol=1e-5)


def test_relu6_gets_a_bound_per_channel(make: SimpleNamespace) -> None:
    model = make.mobile_chain()
    first = make.content(model, "w1").copy()
    make.run(model)
    assert make.kinds(model) == ["Conv", "Relu", "Min", "Conv", "Relu", "Min", "Conv"]
    bounds = make.content(model, "Clip_r1_bounds")
    assert bounds.shape == (1, 8, 1, 1)
    factors = make.rows(first) / make.rows(make.content(model, "w1"))
    np.testing.assert_allclose(bounds.ravel(), 6 / factors, rtol=1e-5)
    # A depthwise channel belongs to both pairs: all three layers meet.
    middle = make.rows(make.content(model, "w2"))
    for other in (make.rows(make.content(model, "w1")), make.columns(make.content(model, "w3"))):
        np.testing.assert_allclose(other / middle, np.full(8, other[0] / middle[0]), rtol=1e-2)


def test_changed_tensors_change_their_names(make: SimpleNamespace) -> None:
    """What is compared by name with the float model must have its content."""
    model = make.mobile_chain()
    make.run(model)
    names = {str(value.name) for item in model.graph for value in item.outputs}
    assert not names & {"c1", "r1", "c2", "r2"}
    assert {"r1_equalized", "r2_equalized", "y"} <= names


def test_growth_limits_how_large_a_channel_becomes(make: SimpleNamespace) -> None:
    model = make.mobile_chain()
    make.run(model, EqualizeChannels(when="always", growth=1))
    assert make.content(model, "Clip_r1_bounds").max() <= 6
    model = make.mobile_chain()
    make.run(model, EqualizeChannels(when="always", growth=2))
    assert 6 < make.content(model, "Clip_r1_bounds").max() <= 12 * (1 + 1e-6)


def test_balanced_channels_keep_their_clip(make: SimpleNamespace) -> None:
    model = make.mobile_chain()
    for name in ("w1", "w2", "w3"):
        model.graph.initializers[name].const_value = ir.Tensor(np.sign(make.content(model, name)))
    context = make.run(model)
    assert make.kinds(model).count("Clip") == 2
    assert context.edit.count == 0


def test_statistics_follow_their_tensor(make: SimpleNamespace) -> None:
    model = make.relu_chain()
    first = make.content(model, "w1").copy()
    output = model.graph[0].outputs[0]
    set_statistics(output, np.ones(8), np.full(8, 4.0))
    make.run(model)
    factors = make.rows(first) / make.rows(make.content(model, "w1"))
    found = statistics(output)
    assert found is not None
    np.testing.assert_allclose(found[0], 1 / factors, rtol=1e-5)
    np.testing.assert_allclose(found[1], 4 / factors**2, rtol=1e-5)


def test_dead_channels_stay(make: SimpleNamespace) -> None:
    model = make.relu_chain()
    first, second = make.content(model, "w1").copy(), make.content(model, "w2").copy()
    first[2], second[:, 5] = 0, 0
    for name, array in (("w1", first), ("w2", second)):
        model.graph.initializers[name].const_value = ir.Tensor(array)
    make.run(model)
    np.testing.assert_array_equal(make.content(model, "w2")[:, 2], second[:, 2])
    np.testing.assert_array_equal(make.content(model, "w1")[5], first[5])
    assert not np.array_equal(make.content(model, "w1")[0], first[0])


def test_nearly_dead_channels_do_not_decide_for_the_others(make: SimpleNamespace) -> None:
    """They would pull the common factor down so far that every live channel vanished beside their biases."""
    dead, vanishing = make.relu_chain(), make.relu_chain()
    for model, factor in ((dead, 0.0), (vanishing, 1e-12)):
        first = make.content(model, "w1").copy()
        first[2] *= factor
        model.graph.initializers["w1"].const_value = ir.Tensor(first)
        make.run(model)
    np.testing.assert_allclose(make.content(vanishing, "w2"), make.content(dead, "w2"), rtol=1e-6)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_behind_a_flatten(make: SimpleNamespace, transposed: int) -> None:
    last = make.uneven(8 * 36, 5)
    model = make.build(
        [
            make.node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]),
            make.node("Relu", "c", "r"),
            make.node("Flatten", "r", "f"),
            make.node("Gemm", "f w2", "g", transB=transposed),
            make.node("Relu", "g", "s"),
            make.node("Gemm", "s w3"),
        ],
        ["N", 3, 6, 6],
        w1=make.uneven(8, 3, 3, 3),
        b1=make.uneven(8),
        w2=np.ascontiguousarray(last.T) if transposed else last,
        w3=make.uneven(5, 3),
    )
    make.run(model)
    weight = make.content(model, "w2").T if transposed else make.content(model, "w2")
    by_channel = np.abs(weight).reshape(8, -1).max(1)
    first = make.rows(make.content(model, "w1"))
    np.testing.assert_allclose(by_channel / first, np.full(8, by_channel[0] / first[0]), rtol=1e-3)


def test_gemm_chain_with_bounds(make: SimpleNamespace) -> None:
    nodes = [make.node("Gemm", "x w1 b1", "g"), make.node("Clip", "g zero six", "r"), make.node("Gemm", "r w2")]
    model = make.build(
        nodes, ["N", 4], w1=make.uneven(4, 6, axis=1), b1=make.uneven(6), w2=make.uneven(6, 2), **make.SIX
    )
    make.run(model)
    assert make.content(model, "Clip_r_bounds").shape == (1, 6)


@pytest.mark.parametrize(("first", "second"), [("Conv", "ConvTranspose"), ("ConvTranspose", "Conv")])
@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_and_grouped(make: SimpleNamespace, first: str, second: str, groups: int) -> None:
    model = make.build(
        [
            make.node(first, "x w1 b1", "c", group=groups),
            make.node("Relu", "c", "r"),
            make.node(second, "r w2", group=groups),
        ],
        [2, 4, 5, 5],
        w1=make.uneven(4, 4 // groups, 3, 3, axis=1),
        b1=make.uneven(4),
        w2=make.uneven(4, 4 // groups, 3, 3),
    )
    context = make.run(model)
    assert context.edit.count


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 2.0, float("inf")]), st.booleans())
def test_any_chain_keeps_its_outputs(make: SimpleNamespace, seed: int, growth: float, bounded: bool) -> None:
    activation = "Clip" if bounded else "Relu"
    operands = " zero six" if bounded else ""
    model = make.build(
        [
            make.node("Conv", "x w1 b1", "c1"),
            make.node(activation, "c1" + operands, "r1"),
            make.node("Conv", "r1 w2 b2", "c2", group=6, pads=[1, 1, 1, 1]),
            make.node(activation, "c2" + operands, "r2"),
            make.node("Conv", "r2 w3"),
        ],
        [1, 3, 4, 4],
        w1=make.uneven(6, 3, 1, 1, seed=seed),
        b1=make.uneven(6, seed=seed),
        w2=make.uneven(6, 1, 3, 3, seed=seed),
        b2=make.uneven(6, seed=seed + 1),
        w3=make.uneven(2, 6, 1, 1, axis=1, seed=seed),
        **make.SIX,
    )
    make.run(model, EqualizeChannels(when="always", growth=growth))
