"""Channels are followed through whatever moves, averages, adds or joins them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qcompiler.passes.equalize.equalize_channels import EqualizeChannels


def between(
    make: SimpleNamespace, nodes: list[Any], inputs: int, shape: tuple[int, ...] = (3, 3), **weights: Any
) -> Any:
    """Conv (8 channels) → ``nodes`` from ``c`` to ``m`` → Conv with ``inputs`` channels."""
    return make.build(
        [make.node("Conv", "x w1 b1", "c", pads=[1, 1, 1, 1]), *nodes, make.node("Conv", "m w2")],
        [1, 3, 6, 6],
        w1=make.uneven(8, 3, *shape),
        b1=make.uneven(8),
        w2=make.uneven(4, inputs, 1, 1, axis=1),
        **weights,
    )


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Concat", 11, {"axis": 1}),
        ("Transpose", 8, {"perm": [0, 1, 3, 2]}),
        ("Pad", 8, {}),
        ("Slice", 4, {}),
        ("Reshape", 8, {}),
        ("Resize", 8, {"mode": "linear"}),
        ("ReduceMean", 8, {}),
        ("PRelu", 8, {}),
        ("Add", 8, {}),
        ("Mul", 8, {}),
    ],
)
def test_what_lets_factors_pass(make: SimpleNamespace, kind: str, inputs: int, attributes: dict[str, Any]) -> None:
    weights = {
        "Concat": ("c x", {}),
        "Pad": ("c pads", {"pads": np.array([0, 0, 1, 1, 0, 0, 2, 0])}),
        "Slice": ("c s e a p", {"s": np.array([7]), "e": np.array([-9]), "a": np.array([1]), "p": np.array([-2])}),
        "Reshape": ("c sizes", {"sizes": np.array([1, 8, 4, 9])}),
        "Resize": ("c n sizes", {"n": np.zeros(0, np.float32), "sizes": np.array([1, 1, 2, 2], np.float32)}),
        "ReduceMean": ("c axes", {"axes": np.array([2, 3])}),
        "PRelu": ("c slope", {"slope": make.uneven(8, 1, 1)}),
        "Add": ("c b", {"b": make.uneven(8, 1, 1)}),
        "Mul": ("c b", {"b": make.uneven(8, 1, 1)}),
    }.get(kind, ("c", {}))
    model = between(make, [make.node(kind, weights[0], "m", **attributes)], inputs, **weights[1])
    kinds = make.kinds(model)
    context = make.run(model)
    assert context.edit.count, make.skipped(context)
    assert make.kinds(model) == kinds


def test_both_branches_of_a_concat_and_a_sum(make: SimpleNamespace) -> None:
    model = make.build(
        [
            make.node("Conv", "x w1", "a"),
            make.node("Conv", "x w2", "b"),
            make.node("Relu", "a", "r"),
            make.node("Concat", "r b", "j", axis=1),
            make.node("Conv", "j w3", "d"),
            make.node("Add", "d one", "e"),
            make.node("Add", "e j", "s"),
            make.node("MaxPool", "s", "p", kernel_shape=[2, 2]),
            make.node("Conv", "p w4"),
        ],
        [2, 3, 4, 4],
        w1=make.uneven(4, 3, 1, 1),
        w2=make.uneven(4, 3, 1, 1, seed=1),
        w3=make.uneven(8, 8, 1, 1),
        w4=make.uneven(2, 8, 1, 1, axis=1),
        one=np.array(1, np.float32),
    )
    before = {name: make.content(model, name).copy() for name in ("w1", "w2", "w3", "w4")}
    context = make.run(model)
    factors = make.columns(make.content(model, "w4")) / make.columns(before["w4"])
    made = np.concatenate([make.rows(before[n]) / make.rows(make.content(model, n)) for n in ("w1", "w2")])
    np.testing.assert_allclose(factors, made, rtol=1e-5)
    np.testing.assert_allclose(make.content(model, "one").ravel(), 1 / factors, rtol=1e-5)
    assert make.content(model, "one").shape == (1, 8, 1, 1)
    assert context.records[0].notes[0].text == "equalized the channels of 1 of 1 streams between layers"


def test_channels_of_zeros_take_any_factor(make: SimpleNamespace) -> None:
    """The shortcut of a ResNet without a convolution: every second pixel, padded to twice the channels."""
    nodes = [
        make.node("Slice", "c s e a p", "h"),
        make.node("Pad", "h pads", "w"),
        make.node("Conv", "c w3", "d", strides=[2, 2]),
        make.node("Add", "d w", "m"),
    ]
    bounds = {"s": np.array([0, 0]), "e": np.array([9, 9]), "a": np.array([2, 3]), "p": np.array([2, 2])}
    pads = np.array([0, 2, 0, 0, 0, 3, 0, 0])
    model = between(make, nodes, 13, w3=make.uneven(13, 8, 1, 1), pads=pads, **bounds)
    before = {name: make.content(model, name).copy() for name in ("w1", "w2", "w3")}
    make.run(model)
    factors = make.columns(make.content(model, "w2")) / make.columns(before["w2"])
    np.testing.assert_allclose(make.rows(before["w1"]) / make.rows(make.content(model, "w1")), factors[2:10], rtol=1e-5)
    assert (np.abs(np.log(factors[[0, 1, 10, 11, 12]])) > 0.05).all()


def test_a_gated_branch_keeps_its_gate(make: SimpleNamespace) -> None:
    """Squeeze and excitation: the factor passes the product, and the pooled copy before the gate's own layer."""
    nodes = [
        make.node("Relu", "c", "r"),
        make.node("GlobalAveragePool", "r", "g"),
        make.node("Conv", "g w3", "h"),
        make.node("HardSigmoid", "h", "i"),
        make.node("Mul", "i r", "m"),
    ]
    context = make.run(between(make, nodes, 8, w3=make.uneven(8, 8, 1, 1, axis=1)))
    assert context.edit.count
    assert "Conv_h (Conv): HardSigmoid_i (HardSigmoid) behind it does not let a factor pass" in make.skipped(context)


def test_matrix_products_in_three_axes(make: SimpleNamespace) -> None:
    model = make.build(
        [
            make.node("MatMul", "x w1", "a"),
            make.node("Add", "b1 a", "b"),
            make.node("Relu", "b", "r"),
            make.node("MatMul", "r w2"),
        ],
        ["N", 5, 4],
        w1=make.uneven(4, 6, axis=1),
        b1=make.uneven(6),
        w2=make.uneven(6, 3),
    )
    make.run(model)
    columns, rows = np.abs(make.content(model, "w1")).max(0), np.abs(make.content(model, "w2")).max(1)
    np.testing.assert_allclose(columns / rows, np.full(6, columns[0] / rows[0]), rtol=1e-3)


def test_control_flow_and_unread_results_are_named(make: SimpleNamespace) -> None:
    model = make.build(
        [make.node("Conv", "x w1", "c"), make.node("Sigmoid", "x")], [1, 3, 4, 4], w1=make.uneven(4, 3, 1, 1)
    )
    context = make.run(model, EqualizeChannels(when="always"))
    assert "Conv_c (Conv): no layer reads its result" in make.skipped(context)
