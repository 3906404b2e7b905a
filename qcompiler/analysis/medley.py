"""Different nodes in one model: what a node costs more between others than among its like.

Copies of one node find its code, its tables and the predictions of its branches where the last copy left them. Nodes of
a model do not: about a microsecond each, which counts where nodes are short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx
from numpy.typing import NDArray
from onnx import compose, helper

from qcompiler.analysis.specimens import Specimen, feed_of, isolated

__all__ = ["chosen", "medley"]

_BYTES: Final = 768 << 10
"""What all nodes read and write together: it must stay in the cache, or the medley would measure memory."""

_MOST: Final = 60


def chosen(many: Sequence[Specimen]) -> list[int]:
    """Which nodes to mix: short ones of one version of the standard operators, in their order."""
    total = 0
    found: list[int] = []
    for index in sorted(range(len(many)), key=lambda item: many[item].work.bytes):
        total += many[index].work.bytes
        if total > _BYTES or len(found) == _MOST:
            break
        if many[index].opset == many[0].opset:
            found.append(index)
    return sorted(found)


def medley(many: Sequence[Specimen]) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """A model of nodes that have nothing to do with each other, and a feed; only the last result leaves it."""
    nodes, inputs, tensors, outputs = [], [], [], []
    feed: dict[str, NDArray[Any]] = {}
    functions: dict[str, onnx.FunctionProto] = {}
    imports: dict[str, int] = {}
    for index, one in enumerate(many):
        model = onnx.load_from_string(isolated(one, 1))
        prefix = f"{index}/"
        graph = compose.add_prefix_graph(model.graph, prefix)
        nodes += graph.node
        inputs += graph.input
        tensors += graph.initializer
        outputs = list(graph.output)
        functions |= {item.name: item for item in model.functions}
        imports |= {item.domain: item.version for item in model.opset_import}
        feed |= {prefix + name: array for name, array in feed_of(one).items()}
    model = helper.make_model(
        helper.make_graph(nodes, "medley", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid(domain, number) for domain, number in imports.items()],
        ir_version=10,
        functions=list(functions.values()),
    )
    content: bytes = model.SerializeToString()
    return content, feed
