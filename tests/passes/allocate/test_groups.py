"""Which nodes share a decision, and among which formats."""

from __future__ import annotations

import pytest

from qcompiler.errors import UsageError
from qcompiler.passes.allocate.groups import Grouping, tie_groups
from qcompiler.target.load import load

from .test_assign_formats import RESIDUAL, STREAM, parse

SHARED = parse(
    """a = MatMul(x, w)
       r = Relu(a)
       y = MatMul(r, w)""",
    "float[1,5,8] x",
    "float[1,5,8] y",
    {"w": (8, 8)},
)
CONCAT = parse(
    """a = Conv(x, w1)
       b = Conv(x, w2)
       c = Concat <axis=1> (a, b)
       d = Conv(c, w3)
       e = Conv(a, w4)
       y = Add(d, e)""",
    "float[1,3,8,8] x",
    "float[1,4,8,8] y",
    {"w1": (4, 3, 1, 1), "w2": (4, 3, 1, 1), "w3": (4, 8, 1, 1), "w4": (4, 4, 1, 1)},
)
BLOCKS = parse(
    """a = MatMul(x, w1)
       y = MatMul(a, w2)""",
    "float[1,5,128] x",
    "float[1,5,16] y",
    {"w1": (128, 32), "w2": (32, 16)},
)


def together(found: Grouping) -> list[tuple[str, ...]]:
    return [group.nodes for group in found.groups]


def test_every_layer_decides_for_itself_where_only_weights_differ() -> None:
    found = tie_groups(RESIDUAL, load("lowbit-cpu"), ["w8a8", "w4a8", "w2a8"])
    assert together(found) == [("Conv_0", "Relu_1"), ("Conv_2",), ("Conv_5",)]
    assert [group.name for group in found.groups] == ["Conv_0", "Conv_2", "Conv_5"]
    assert [group.weights for group in found.groups] == [108, 144, 8]
    assert {group.options for group in found.groups} == {("w8a8", "w4a8", "w2a8")}
    assert not any(group.activations for group in found.groups)
    assert found.fixed == ()
    assert found.refused == {}


def test_readers_of_a_residual_stream_agree_where_activations_differ() -> None:
    found = tie_groups(RESIDUAL, load("edge-npu"), ["w8a8", "w8a16"])
    by_name = {group.name: group for group in found.groups}
    assert {"Conv_2", "Add_3"} <= set(by_name["Conv_2"].nodes), "both read the result of Relu_1"
    assert by_name["Conv_5"].activations
    assert "Conv_0" in by_name


def test_nodes_that_share_a_weight_are_one_group() -> None:
    found = tie_groups(SHARED, load("lowbit-cpu"), ["w8a8", "w4a8"])
    assert together(found) == [("MatMul_0", "Relu_1", "MatMul_2")]
    assert found.groups[0].weights == 64, "a shared weight counts once"


def test_what_is_concatenated_is_read_in_one_format() -> None:
    weights_alone = tie_groups(CONCAT, load("lowbit-cpu"), ["w8a8", "w4a8"])
    assert [group.name for group in weights_alone.groups] == ["Conv_0", "Conv_1", "Conv_3", "Conv_4"]
    found = tie_groups(CONCAT, load("lowbit-cpu"), ["w4a8", "w4a4"])
    together_ = next(group.nodes for group in found.groups if "Conv_3" in group.nodes)
    assert "Conv_4" in together_, "Conv_4 reads what is also concatenated for Conv_3"


def test_weight_only_formats() -> None:
    found = tie_groups(STREAM, load("lowbit-cpu"), ["w8", "w4/block=32/asym", "w3", "w2"])
    assert [group.nodes for group in found.groups] == [("MatMul_0",), ("MatMul_3",)]
    assert found.groups[0].options == ("w8", "w4/block=32/asym", "w3", "w2")


def test_candidates_with_the_same_outcome_are_one_option() -> None:
    found = tie_groups(BLOCKS, load("lowbit-cpu"), ["w4/block=64", "w4/block=32", "w8"])
    assert {group.name: group.options for group in found.groups} == {
        "MatMul_0": ("w4/block=64", "w4/block=32", "w8"),
        "MatMul_1": ("w4/block=64", "w8"),
    }, "the sums of MatMul_1 have 32 products: a scale for each is what both come to"
    same = tie_groups(BLOCKS, load("lowbit-cpu"), ["w4a8", "w4a8/channel", "w8a8"])
    assert {group.options for group in same.groups} == {("w4a8", "w8a8")}


def test_one_candidate_is_no_choice() -> None:
    found = tie_groups(RESIDUAL, load("lowbit-cpu"), ["w4a8"])
    assert found.groups == ()
    assert [group.options for group in found.fixed] == [("w4a8",)] * 3


def test_excluded_nodes_are_no_groups() -> None:
    found = tie_groups(RESIDUAL, load("lowbit-cpu"), ["w8a8", "w4a8"], exclude=("Conv_2",))
    assert "Conv_2" not in {name for group in found.groups for name in group.nodes}


@pytest.mark.parametrize(
    ("candidates", "what"),
    [
        ([], "no candidate"),
        (["w8a8", "w4"], "mix real activations"),
        (["w8a8", "w5a8"], "5|offer"),
        (["w8a8", "w4a8/block=32"], "block|follow"),
    ],
)
def test_refusals(candidates: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        tie_groups(RESIDUAL, load("lowbit-cpu"), candidates)
