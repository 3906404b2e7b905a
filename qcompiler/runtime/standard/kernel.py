"""What a kernel of the interpreter is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "ElsewhereError", "Inputs", "Kernel", "Node", "fitted", "given"]

Array: TypeAlias = NDArray[Any]
Inputs: TypeAlias = "Sequence[Array | None]"


class ElsewhereError(Exception):
    """A kernel leaves this case (an element type, a rare attribute) to ONNX Runtime."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a kernel knows of its node besides the inputs.

    Attributes:
        attributes: Plain values by name, those written on the node.
        outputs: How many results are wanted.
        opset: Version of the operator set.
    """

    attributes: Mapping[str, Any]
    outputs: int
    opset: int

    def integer(self, name: str, default: int) -> int:
        """An attribute that is one integer."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str) -> list[int] | None:
        """An attribute that is a list of integers; ``None`` where it is not written."""
        found = self.attributes.get(name)
        return None if found is None else [int(item) for item in found]

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        return str(self.attributes.get(name, default))


Kernel: TypeAlias = "Callable[[Node, Inputs], Array | Sequence[Array]]"
"""Computes the results of a node: one array, or one per output."""


def given(inputs: Inputs, index: int) -> Array:
    """An input that the operator cannot do without.

    Raises:
        ValueError: It is missing.
    """
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise ValueError(f"input {index} is missing")
    return np.asarray(found)


def fitted(wide: Array, dtype: np.dtype[Any]) -> Array:
    """Exact integers in another type.

    Raises:
        OverflowError: One does not fit.
    """
    limits = np.iinfo(dtype)
    if wide.size and (int(wide.min()) < limits.min or int(wide.max()) > limits.max):
        worst = int(wide.min()) if int(wide.min()) < limits.min else int(wide.max())
        raise OverflowError(f"a result of {worst} does not fit {dtype.name}")
    stored: Array = wide.astype(dtype)
    return stored
