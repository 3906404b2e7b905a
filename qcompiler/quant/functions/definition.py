"""What an operator of ``ai.qcompiler`` is: formula, function body, specification and type inference in one value.

The body is ONNX text (``onnx.parser``) of standard operators, valid in operator sets 18 to 25, so that a runtime that
knows nothing of us inlines and runs it. Attributes are integers or lists of integers and are always written on the
node. A body may call other operators of the set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["DOMAIN", "VERSION", "Dimension", "Operator", "TensorType", "broadcast"]

DOMAIN: Final = "ai.qcompiler"
VERSION: Final = 1

Dimension: TypeAlias = "int | str | None"
"""A size, the name of a symbolic size, or unknown."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape; ``None`` where the rank is unknown."""

    dtype: ir.DataType
    shape: tuple[Dimension, ...] | None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the set.

    Attributes:
        name: Operator type.
        formula: What it computes, in one line, for the reference table.
        inputs: Names of its inputs, in order. None is optional.
        types: What each input may be, by name, for the reference table and legality: ``int8 int16``.
        attributes: Names of its attributes with their kind, ``int`` or ``ints``, in order.
        body: Statements of the function body that compute ``y``, in ONNX text.
        specification: NumPy code that defines the result: inputs by position, attributes by keyword.
        infer: Type of the result from the types of the inputs and the attributes.
        bound: Distance from the real-valued operator rounded once, in codes of the result.
        calls: Operators of the set that the body calls.
    """

    name: str
    formula: str
    inputs: tuple[str, ...]
    types: Mapping[str, str]
    attributes: Mapping[str, str]
    body: str
    specification: Callable[..., NDArray[Any]]
    infer: Callable[[Sequence[TensorType], Mapping[str, Any]], TensorType]
    bound: str
    calls: tuple[str, ...] = field(default=())

    @property
    def real(self) -> bool:
        """Whether activations are real numbers, which the operator quantizes by itself."""
        return "float" in self.types.values()

    def function(self, opset: int) -> onnx.FunctionProto:
        """The ONNX function that defines the operator by standard operators of version ``opset``."""
        imports = [f'"" : {opset}'] + ([f'"{DOMAIN}" : {VERSION}'] if self.calls else [])
        attributes = f"<{', '.join(self.attributes)}> " if self.attributes else ""
        text = (
            f'<domain: "{DOMAIN}", opset_import: [{", ".join(imports)}]>\n'
            f"{self.name} {attributes}({', '.join(self.inputs)}) => (y) {{\n{self.body.strip()}\n}}"
        )
        return onnx.parser.parse_function(text)


def broadcast(*shapes: tuple[Dimension, ...] | None) -> tuple[Dimension, ...] | None:
    """The shape that NumPy broadcasting gives; a size stays unknown where it cannot be told."""
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max((len(shape) for shape in known), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    return tuple(_common([shape[axis] for shape in padded]) for axis in range(rank))


def _common(sizes: Sequence[Dimension]) -> Dimension:
    others = [size for size in sizes if size != 1]
    fixed = next((size for size in others if isinstance(size, int)), None)
    if fixed is not None or not others:
        return fixed if others else 1
    return others[0] if all(size == others[0] for size in others) else None
