"""All operators of ``ai.qcompiler``, and how a model gets the functions of those it uses."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import onnx_ir as ir

from qcompiler.quant import functions
from qcompiler.quant.functions.definition import DOMAIN, VERSION, Operator

__all__ = ["attach", "needed", "on_codes", "operators"]


@functools.cache
def operators() -> Mapping[str, Operator]:
    """Operators by name, sorted. Every module beside this one may define some in ``OPERATORS``."""
    found: dict[str, Operator] = {}
    for module in sorted(pkgutil.iter_modules(functions.__path__), key=lambda item: item.name):
        for operator in getattr(importlib.import_module(f"{functions.__name__}.{module.name}"), "OPERATORS", ()):
            if operator.name in found:
                raise ValueError(f"{operator.name} is defined twice")
            found[operator.name] = operator
    return MappingProxyType(dict(sorted(found.items())))


def on_codes(domain: str, op_type: str) -> bool:
    """Whether an operator type is one of the set whose activations are codes."""
    found = operators().get(op_type) if domain == DOMAIN else None
    return domain == DOMAIN and (found is None or not found.real)


def attach(model: ir.Model) -> int:
    """Give a model the functions of the operators that it uses, those that bodies call included.

    Bodies import the model's own version of the standard operators.

    Returns:
        The number of functions added.
    """
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    if not used:
        return 0
    opset = model.opset_imports.get("", 21)
    model.graph.opset_imports[DOMAIN] = VERSION
    added = 0
    for name in sorted(needed(used)):
        key = (DOMAIN, name, "")
        if key not in model.functions:
            model.functions[key] = ir.serde.deserialize_function(operators()[name].function(opset))
            added += 1
    return added


def needed(names: Iterable[str]) -> set[str]:
    """Operators of these names and all that their bodies call."""
    found: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names.extend(operators()[name].calls)
    return found
