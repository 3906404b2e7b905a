"""Whether samples fit the model's inputs: names, shapes, element types, finite values.

Every refusal names the tensor and the file, and says what would fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import DataError, nearest

__all__ = [
    "Dimension",
    "InputSpec",
    "cast",
    "check_dtype",
    "check_finite",
    "check_names",
    "fits",
    "inputs_of",
    "spec_text",
]

Dimension: TypeAlias = int | str | None


class InputSpec(NamedTuple):
    """What a model declares about one input.

    Attributes:
        dtype: Element type.
        shape: One entry per axis, ``None`` or a name where it is dynamic; ``None`` for an unknown rank.
    """

    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...] | None


def inputs_of(model: ir.Model) -> dict[str, InputSpec]:
    """The inputs that a caller must feed: graph inputs without a default, in graph order."""
    specs: dict[str, InputSpec] = {}
    for value in model.graph.inputs:
        if value.name is None or value.name in model.graph.initializers:
            continue
        dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else np.dtype(np.float32)
        shape = None
        if value.shape is not None:
            shape = tuple(item if isinstance(item, int) else item.value for item in value.shape)
        specs[value.name] = InputSpec(dtype, shape)
    return specs


def spec_text(spec: InputSpec) -> str:
    """``float32[batch, 3, 32, 32]``."""
    if spec.shape is None:
        return f"{spec.dtype}[…]"
    return f"{spec.dtype}[{', '.join('?' if item is None else str(item) for item in spec.shape)}]"


def check_names(given: Iterable[str], inputs: Mapping[str, InputSpec], source: str) -> None:
    """Refuse data that lacks an input.

    Raises:
        DataError: Names the missing input, with the nearest name given.
    """
    known = list(given)
    for name in inputs:
        if name not in known:
            unused = [item for item in known if item not in inputs]
            listing = ", ".join(f"'{item}'" for item in known[:8]) or "nothing"
            found = _closest(name, unused)
            hint = f"rename '{found}' to '{name}'" if found else f"name the array '{name}'"
            raise DataError(f"has no samples for input '{name}' (it holds {listing})", where=source, hint=hint)


def _closest(name: str, candidates: list[str]) -> str | None:
    hint = nearest(name, candidates)
    if hint is not None:
        return hint.split("'")[1]
    return candidates[0] if len(candidates) == 1 else None


def fits(shape: tuple[int, ...], declared: tuple[Dimension, ...] | None, *, batch_free: bool = False) -> bool:
    """Whether an array of ``shape`` can be fed where ``declared`` is expected.

    Args:
        shape: Shape of the array.
        declared: Declared shape; ``None`` accepts any rank.
        batch_free: Ignore the first axis, whose samples are regrouped.
    """
    if declared is None:
        return True
    if len(shape) != len(declared):
        return False
    first = 1 if batch_free else 0
    pairs = zip(shape[first:], declared[first:], strict=True)
    return all(not isinstance(want, int) or have == want for have, want in pairs)


def check_dtype(name: str, given: np.dtype[Any], wanted: np.dtype[Any], source: str) -> None:
    """Refuse element types whose conversion could change the meaning of the data.

    A float may become another float, an integer (or a truth value) another integer: values are checked when they
    are cast. An integer is never taken for a float: it is usually an image that was not preprocessed.

    Raises:
        DataError: Names the tensor, both types and what to do.
    """
    if given == wanted:
        return
    kinds = (_kind(given), _kind(wanted))
    if kinds in {("float", "float"), ("int", "int"), ("bool", "int")}:
        return
    raise DataError(
        f"input '{name}' is {given}, the model takes {wanted}",
        where=source,
        hint=f"convert it with .astype('{wanted}')" + (" after preprocessing" if kinds == ("int", "float") else ""),
    )


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype == np.bool_:
        return "bool"
    if np.issubdtype(dtype, np.integer):
        return "int"
    return "float" if np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16" else dtype.name


def cast(array: NDArray[Any], wanted: np.dtype[Any], name: str, source: str) -> NDArray[Any]:
    """``array`` in the element type ``wanted``, when every value survives.

    Raises:
        DataError: An integer does not fit, or a float becomes infinite.
    """
    if array.dtype == wanted:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(wanted)
    exact = np.array_equal(result, array) if _kind(wanted) == "int" else True
    if not exact or (_kind(wanted) == "float" and not np.array_equal(np.isfinite(result), np.isfinite(array))):
        raise DataError(f"input '{name}' holds values of {array.dtype} that do not fit into {wanted}", where=source)
    return result


def check_finite(array: NDArray[Any], name: str, sample: int, source: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        DataError: Names tensor, sample and file.
    """
    if _kind(array.dtype) != "float" or np.isfinite(array).all():
        return
    what = "NaN" if np.isnan(array).any() else "infinity"
    hint = "remove the sample, or repair its preprocessing"
    raise DataError(f"input '{name}' holds {what} in sample {sample}", where=source, hint=hint)
