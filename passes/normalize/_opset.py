"""Lifting or lowering a model to the canonical opset.

Written on the in-memory graph instead of with ``onnx.version_converter``: that one copies every weight through
protobuf, drops metadata and functions, and fails on foreign domains. Between opset 7 and 21 few operators changed
incompatibly; ``_opset_adapters`` holds one function for each.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from qcompiler.errors import ModelError
from qcompiler.ir.edit import Edit
from qcompiler.ir.operators import schema
from qcompiler.passes.normalize._opset_adapters import ADAPTERS, SHAPED

__all__ = [
    "CANONICAL_OPSET",
    "HIGHEST_EMITTED",
    "LOWEST_ACCEPTED",
    "convert",
    "needs_shapes",
    "require",
    "target_opset",
]

LOWEST_ACCEPTED = 7
HIGHEST_ACCEPTED = 26
CANONICAL_OPSET = 21
HIGHEST_EMITTED = 25
_IR_VERSION = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13}

_TYPES_OF_21 = frozenset(
    [
        "FLOAT",
        "DOUBLE",
        "FLOAT16",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "BOOL",
        "STRING",
    ]
)
"""Element types that every operator took at opset 21 already if it takes them at all."""


def source_opset(model: ir.Model) -> int:
    """The model's version of the standard domain.

    Raises:
        ModelError: outside of what is accepted.
    """
    opset = model.opset_imports.get("", CANONICAL_OPSET)
    if not LOWEST_ACCEPTED <= opset <= HIGHEST_ACCEPTED:
        raise ModelError(
            f"opset {opset} is not supported",
            where=model.graph.name,
            hint=f"export the model with an opset between {LOWEST_ACCEPTED} and {HIGHEST_ACCEPTED}",
        )
    return opset


def target_opset(model: ir.Model) -> int:
    """The lowest opset from 21 on that every operator of the model allows.

    Raises:
        ModelError: an operator needs more than opset 25, the newest that the supported runtimes share.
    """
    source = source_opset(model)
    if source <= CANONICAL_OPSET:
        return CANONICAL_OPSET
    needed = CANONICAL_OPSET
    for node in model.graph.all_nodes():
        version = _needed_by(node, source)
        if version > HIGHEST_EMITTED:
            raise ModelError(
                f"{node.op_type} needs opset {version}; the newest that can be emitted is {HIGHEST_EMITTED}",
                where=node.name,
                hint=f"export the model with opset {HIGHEST_EMITTED} or older",
            )
        needed = max(needed, version)
    return needed


def _needed_by(node: ir.Node, source: int) -> int:
    """The lowest opset from 21 on at which this node means the same as at ``source``."""
    if node.domain != "":
        return CANONICAL_OPSET
    new, old = schema(node.op_type, source), schema(node.op_type, CANONICAL_OPSET)
    if new is None or (old is not None and old.since_version == new.since_version):
        return CANONICAL_OPSET
    if old is None or not _fits(node, old):
        return int(new.since_version)
    return CANONICAL_OPSET


def _fits(node: ir.Node, old: onnx.defs.OpSchema) -> bool:
    """Whether the node uses only inputs, attributes and element types that the older schema has."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return (
        len(node.inputs) <= old.max_input
        and set(node.attributes) <= set(old.attributes)
        and all(value.dtype is None or value.dtype.name in _TYPES_OF_21 for value in values)
        and not (node.op_type == "Cast" and ir.DataType(node.attributes.get_int("to", 1)).name not in _TYPES_OF_21)
    )


def needs_shapes(model: ir.Model) -> bool:
    """Whether lifting the model depends on shapes."""
    return any(node.op_type in SHAPED for node in model.graph.all_nodes())


def convert(model: ir.Model, edit: Edit) -> tuple[int, int]:
    """Bring the model to :func:`target_opset`.

    Returns:
        Opset before and after.

    Raises:
        ModelError: the opset is unknown, or an operator has no counterpart.
    """
    source, target = source_opset(model), target_opset(model)
    for node in list(model.graph.all_nodes()):
        if node.domain == "":
            for version, adapt in ADAPTERS.get(node.op_type, ()):
                if source < version <= target:
                    adapt(node, edit)
    if model.opset_imports.get("") != target or model.ir_version != _IR_VERSION[target]:
        _set(model, target, edit)
    return source, target


def require(model: ir.Model, opset: int, edit: Edit) -> None:
    """Raise a model of :data:`CANONICAL_OPSET` or newer to ``opset`` where it is older.

    No operator changed its meaning from 21 to :data:`HIGHEST_EMITTED`: they only learned element types, inputs and
    attributes, so no node changes.
    """
    if model.opset_imports.get("", CANONICAL_OPSET) < opset:
        _set(model, opset, edit)


def _set(model: ir.Model, opset: int, edit: Edit) -> None:
    model.opset_imports[""] = opset
    model.graph.opset_imports[""] = opset
    model.ir_version = _IR_VERSION[opset]
    edit.touch()
