"""Whether the functions that a model defines ``ai.qcompiler`` operators by are those of the operator set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN, VERSION

__all__ = ["definition_reasons"]


def definition_reasons(model: ir.Model) -> Iterator[str]:
    """What is wrong with the model's import of the operator set and with its functions, in sentences."""
    version = model.graph.opset_imports.get(DOMAIN)
    if version != VERSION:
        found = "is not imported" if version is None else f"is imported in version {version}"
        yield f"{DOMAIN} {found}, version {VERSION} is known"
    opset = model.graph.opset_imports.get("", 0)
    defined = {key[1]: function for key, function in model.functions.items() if key[0] == DOMAIN}
    for name in sorted(_needed({node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN})):
        if name not in defined:
            yield f"the function of {name} is missing: no runtime could run it"
    for name, function in defined.items():
        if name not in operators():
            yield f"the function {name} is no operator of {DOMAIN}"
        elif _essence(ir.serde.serialize_function(function)) != _reference(name, opset):
            yield f"the function {name} is not the one of {DOMAIN} version {VERSION}"


def _needed(names: Iterable[str]) -> set[str]:
    """The operators used and those that their functions call."""
    found: set[str] = set()
    waiting = [name for name in names if name in operators()]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(operators()[name].calls)
    return found


def _reference(name: str, opset: int) -> bytes:
    """The function of the operator set, through the same reading and writing as one that comes from a file."""
    return _essence(ir.serde.serialize_function(ir.serde.deserialize_function(operators()[name].function(opset))))


def _essence(function: onnx.FunctionProto) -> bytes:
    """All of a function that decides what it computes; names of nodes and comments are left out."""
    kept = onnx.FunctionProto()
    kept.CopyFrom(function)
    for field in ("doc_string", "value_info", "metadata_props"):
        kept.ClearField(field)
    for node in kept.node:
        for field in ("name", "doc_string", "metadata_props"):
            node.ClearField(field)
    content: bytes = kept.SerializeToString(deterministic=True)
    return content
