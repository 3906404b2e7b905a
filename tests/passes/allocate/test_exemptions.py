"""Rules that keep groups wide: whom they name, why, and what it costs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import UsageError
from qcompiler.passes.allocate.exemptions import exemptions, parse_rules
from qcompiler.passes.allocate.groups import tie_groups
from qcompiler.target.load import load

from .test_assign_formats import RESIDUAL, parse

TARGET = load("lowbit-cpu")
WIDE = parse(
    """a = MatMul(x, w1)
       b = MatMul(a, w2)
       c = MatMul(b, w3)
       y = MatMul(c, w4)""",
    "float[1,5,200] x",
    "float[1,5,200] y",
    {"w1": (200, 200), "w2": (200, 2), "w3": (2, 200), "w4": (200, 200)},
)


def sizes(model: ir.Model) -> dict[str, dict[str, float]]:
    groups = tie_groups(model, TARGET, ["w4a8", "w8a8"]).groups
    return {group.name: {"w8a8": group.weights, "w4a8": group.weights / 2} for group in groups}


def test_first_and_last_layer() -> None:
    groups = tie_groups(RESIDUAL, TARGET, ["w4a8", "w8a8"]).groups
    found = exemptions(RESIDUAL, TARGET, groups, ("first-last",), sizes(RESIDUAL))
    assert [(item.group, item.option, item.bytes) for item in found] == [("Conv_0", "w8a8", 54), ("Conv_5", "w8a8", 4)]
    assert found[0].reason == "it is the first layer with weights"


def test_tiny_layers_name_their_share() -> None:
    groups = tie_groups(WIDE, TARGET, ["w8a8", "w4a8"]).groups
    assert exemptions(WIDE, TARGET, groups, ("tiny",), sizes(WIDE)) == ()
    large = parse(
        "a = MatMul(x, w1)\n y = MatMul(a, w2)",
        "float[1,1200] x",
        "float[1,1] y",
        {"w1": (1200, 1200), "w2": (1200, 1)},
    )
    found = exemptions(large, TARGET, tie_groups(large, TARGET, ["w8a8", "w4a8"]).groups, ("tiny",), sizes(large))
    assert [item.group for item in found] == ["MatMul_1"]
    assert "1200 of 1441200" in found[0].reason
    assert found[0].bytes == 600


def test_spikes_name_their_ratio() -> None:
    model = ir.from_proto(ir.to_proto(WIDE))
    value = model.graph.initializers["w4"]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[7] *= 50
    value.const_value = ir.Tensor(array)
    groups = tie_groups(model, TARGET, ["w8a8", "w4a8"]).groups
    found = exemptions(model, TARGET, groups, ("spikes",), sizes(model))
    assert [item.group for item in found] == ["MatMul_3"]
    assert "times the 99th percentile" in found[0].reason
    assert exemptions(WIDE, TARGET, groups, ("spikes",), sizes(model)) == ()


def test_a_group_that_two_rules_name_counts_once() -> None:
    groups = tie_groups(RESIDUAL, TARGET, ["w8a8", "w4a8"]).groups
    found = exemptions(RESIDUAL, TARGET, groups, ("first-last", "tiny", "spikes"), sizes(RESIDUAL))
    assert [item.group for item in found] == ["Conv_0", "Conv_5"]
    assert np.sum([item.bytes for item in found]) == 58


def test_rules_by_name() -> None:
    assert parse_rules("none") == ()
    assert parse_rules("tiny, first-last,tiny") == ("tiny", "first-last")
    with pytest.raises(UsageError, match="'first'"):
        parse_rules("first")
    with pytest.raises(UsageError, match="'none'"):
        parse_rules("none,tiny")
