from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import product

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.passes.lower._layout_axes import last_axis, to_first, to_last, turned_constant
from qcompiler.passes.lower._layout_choice import cheapest, move_cost
from qcompiler.passes.lower._layout_turns import Turn

Choice = Collection[ir.Node]


def cost(graph: ir.Graph, turns: Mapping[ir.Node, Turn], chosen: Choice) -> int:
    """What the Transposes of a choice move, counted plainly."""
    total = 0
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        maker = value.producer()
        written = maker in chosen and maker is not None and turns[maker].writes
        read = {use.node in chosen and use.idx in turns[use.node].reads for use in value.uses()}
        read |= {False} if value.is_graph_output() else set()
        total += move_cost(value) if read - {written} else 0
    return total


def random_graph(random: np.random.Generator, count: int) -> tuple[ir.Graph, dict[ir.Node, Turn]]:
    x = ir.Value(name="x", shape=ir.Shape([1, 3, int(random.integers(1, 9))]))
    values, nodes, turns = [x], [], {}
    for index in range(count):
        inputs = [values[int(place)] for place in random.integers(0, len(values), int(random.integers(1, 3)))]
        shape = ir.Shape([1, int(random.integers(1, 4)), int(random.integers(1, 9))])
        node = ir.node("Op", inputs, outputs=[ir.Value(name=f"v{index}", shape=shape)])
        values.extend(node.outputs)
        nodes.append(node)
        if random.random() < 0.8:
            turns[node] = Turn(tuple(range(len(inputs))), bool(random.random() < 0.8), lambda _: None)
    graph = ir.Graph([x], [values[-1], values[int(random.integers(1, count))]], nodes=nodes, name="g")
    return graph, turns


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_moves_fewer_codes(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph, turns = random_graph(random, 8)
    must = [node for node in turns if random.random() < 0.4]
    free = [node for node in turns if node not in must]
    chosen = cheapest(graph, turns, must)
    assert set(must) <= chosen
    least = min(
        cost(graph, turns, {*must, *(node for node, taken in zip(free, flags, strict=True) if taken)})
        for flags in product([False, True], repeat=len(free))
    )
    assert cost(graph, turns, chosen) == least


def test_moving_one_channel_or_one_position_is_a_matter_of_names() -> None:
    def value(*sizes: int | str) -> ir.Value:
        return ir.Value(shape=ir.Shape(sizes))

    assert [move_cost(value(*sizes)) for sizes in ((2, 1, 5, 5), ("N", 7, 1, 1))] == [1, 1]
    assert move_cost(value("N", 7, "H", 1)) == 56
    assert move_cost(value(2, 3, 4, 5)) == 960
    assert move_cost(ir.Value(shape=ir.Shape([2, 3, 4]), type=ir.TensorType(ir.DataType.INT32))) == 768
    assert move_cost(ir.Value()) == 8


def test_axes_and_permutations() -> None:
    x = np.arange(120).reshape(2, 3, 4, 5)
    last = x.transpose(to_last(4))
    assert last.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(last.transpose(to_first(4)), x)
    assert [last_axis(axis, 4) for axis in range(-4, 4)] == [0, 3, 1, 2] * 2


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((), ()), ((1,), (1,)), ((1, 1, 1), (1,)), ((3, 1, 1), (3,)), ((1, 3, 1, 1), (3,)), ((5,), (5, 1)),
        ((4, 1), (4, 1, 1)), ((3, 4, 5), (4, 5, 3)), ((2, 1, 1, 1), (2, 1, 1, 1)), ((2, 3, 4, 5), (2, 4, 5, 3)),
    ],
)  # fmt: skip
def test_constants_broadcast_as_before(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    x = np.arange(120).reshape(2, 3, 4, 5)
    constant = np.random.default_rng(0).integers(0, 99, shape)
    found = turned_constant(constant, 4)
    assert found.shape == wanted
    np.testing.assert_array_equal(np.moveaxis(x, 1, -1) + found, np.moveaxis(x + constant, 1, -1))


def test_digits_keep_their_axis() -> None:
    assert turned_constant(np.zeros((7, 5, 3)), 4, behind=1).shape == (7, 5, 1, 3)
    assert turned_constant(np.zeros((3,)), 4, behind=1).shape == (3,)
