"""Selectors by which a user names nodes: a node name, an operator type, or ``re:PATTERN`` on the node name."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx_ir as ir

from qcompiler.errors import UsageError, nearest

__all__ = ["select"]


def select(graph: ir.Graph, selectors: Iterable[str]) -> dict[ir.Node, str]:
    """The nodes that any selector names, with the first selector that names each.

    Raises:
        UsageError: A selector names nothing, or its pattern is malformed: a typing error must not pass in silence.
    """
    nodes = list(graph)
    by_name = {node.name: node for node in nodes if node.name}
    selected: dict[ir.Node, str] = {}
    for selector in selectors:
        found = _matches(nodes, by_name, selector)
        if not found:
            known = [*by_name, *{node.op_type for node in nodes}]
            raise UsageError(f"--exclude '{selector}' names no node of this model", hint=nearest(selector, known))
        for node in found:
            selected.setdefault(node, selector)
    return selected


def _matches(nodes: list[ir.Node], by_name: dict[str, ir.Node], selector: str) -> list[ir.Node]:
    if selector.startswith("re:"):
        try:
            pattern = re.compile(selector[3:])
        except re.error as error:
            raise UsageError(f"--exclude '{selector}' is not a regular expression: {error}") from error
        return [node for node in nodes if node.name and pattern.search(node.name)]
    if selector in by_name:
        return [by_name[selector]]
    return [node for node in nodes if node.op_type == selector]
