"""Views of the graph."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.ir.dataflow import chains, digraph, lifetimes, ties

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
RESIDUAL = HEAD + """m (float[2] x) => (float[2] y) {
    [a] a = Neg(x)  [b] b = Relu(a)  [c] c = Exp(b)  [d] d = Add(c, a)  [e] e = Mul(d, d)  [f] y = Neg(e)
}"""


def test_digraph(parse: Callable[[str], ir.Model]) -> None:
    view = digraph(parse(RESIDUAL).graph)
    assert [(u.name, v.name, [x.name for x in data["values"]]) for u, v, data in view.edges(data=True)] == [
        ("a", "b", ["a"]), ("a", "d", ["a"]), ("b", "c", ["b"]), ("c", "d", ["c"]), ("d", "e", ["d"]), ("e", "f", ["e"])
    ]
    assert nx.is_directed_acyclic_graph(view)


def test_chains(parse: Callable[[str], ir.Model]) -> None:
    found = [[node.name for node in chain] for chain in chains(parse(RESIDUAL).graph)]
    assert found == [["a"], ["b", "c"], ["d", "e", "f"]]


def test_a_graph_output_ends_a_chain(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + "m (float[2] x) => (float[2] y, float[2] a) { [a] a = Neg(x)  [b] y = Relu(a) }")
    assert [[node.name for node in chain] for chain in chains(model.graph)] == [["a"], ["b"]]


def test_lifetimes(parse: Callable[[str], ir.Model]) -> None:
    spans = {value.name: span for value, span in lifetimes(parse(RESIDUAL).graph).items()}
    assert spans == {"x": (-1, 0), "a": (0, 3), "b": (1, 2), "c": (2, 3), "d": (3, 4), "e": (4, 5), "y": (5, 6)}


def test_a_captured_value_lives_until_the_body_has_run(parse: Callable[[str], ir.Model]) -> None:
    model = parse(HEAD + """main (bool c, float[2] x) => (float[2] y) {
        k = Neg(x)
        m = Exp(x)
        [if] y = If(c) <then_branch = a () => (float[2] t) { t = Add(m, k) },
                        else_branch = b () => (float[2] e) { e = Neg(x) }>
    }""")
    spans = {value.name: span for value, span in lifetimes(model.graph).items()}
    assert spans["k"] == (0, 2)
    assert spans["x"] == (-1, 2)
    assert {(u.op_type, v.op_type) for u, v in digraph(model.graph).edges} == {("Neg", "If"), ("Exp", "If")}


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12))))
def test_ties_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    groups = ties(pairs)
    assert {frozenset(group) for group in groups} == {frozenset(c) for c in nx.connected_components(nx.Graph(pairs))}
    assert sum(map(len, groups)) == len({item for pair in pairs for item in pair})
