"""Integer arithmetic and comparisons, exact: a result that its element type cannot hold is an overflow.

Floats are left to ONNX Runtime, except where a result is one of the operands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np

from qcompiler.runtime.standard.kernel import Array, ElsewhereError, Inputs, Kernel, Node, fitted, given

__all__ = ["KERNELS"]

_SURELY: Final = 1 - 2.0**-50
"""64-bit results are bounded in float64, whose error is far below this: the very border counts as overflow."""


def _is_integer(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.integer))


def _exact(compute: Callable[[Array, Array], Array], node: Node, inputs: Inputs) -> Array:
    del node
    first, second = given(inputs, 0), given(inputs, 1)
    if not _is_integer(first):
        raise ElsewhereError
    if first.dtype.itemsize < 8:
        return fitted(compute(first.astype(np.int64), second.astype(np.int64)), first.dtype)
    limits = np.iinfo(first.dtype)
    about = compute(first.astype(np.float64), second.astype(np.float64))
    if about.size and (about.max() >= limits.max * _SURELY or about.min() < min(limits.min * _SURELY, -0.5)):
        raise OverflowError(f"a result near {about.flat[np.abs(about).argmax()]:.4g} does not fit {first.dtype.name}")
    return compute(first, second)


def _divide(node: Node, inputs: Inputs) -> Array:
    """Towards zero, as in C."""
    del node
    first, second = given(inputs, 0), given(inputs, 1)
    if not _is_integer(first):
        raise ElsewhereError
    if (second == 0).any():
        raise ZeroDivisionError("integer division by zero")
    quotient = first // second
    inexact = quotient * second != first
    up: Array = inexact & ((first < 0) != (second < 0))
    return np.asarray(quotient + up, first.dtype)


def _remainder(node: Node, inputs: Inputs) -> Array:
    first, second = given(inputs, 0), given(inputs, 1)
    if not _is_integer(first):
        raise ElsewhereError
    if (second == 0).any():
        raise ZeroDivisionError("integer division by zero")
    return np.asarray(np.fmod(first, second) if node.integer("fmod", 0) else np.mod(first, second))


def _negative(node: Node, inputs: Inputs) -> Array:
    zero = np.zeros((), given(inputs, 0).dtype)
    return _exact(np.subtract, node, [zero, inputs[0]])


def _absolute(node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    return _exact(lambda x, _: np.abs(x), node, [data, np.zeros((), data.dtype)])


def _reduce(choose: Callable[[Array, Array], Array], node: Node, inputs: Inputs) -> Array:
    """Min and Max of any number of operands; a NaN anywhere is the result."""
    del node
    return functools.reduce(choose, [given(inputs, index) for index in range(len(inputs))])


def _relu(node: Node, inputs: Inputs) -> Array:
    del node
    data = given(inputs, 0)
    return np.maximum(data, np.zeros((), data.dtype))


def _clip(node: Node, inputs: Inputs) -> Array:
    """``min(max(x, low), high)``: where the bounds cross, the upper one wins."""
    data = given(inputs, 0)
    for index, name, choose in ((1, "min", np.maximum), (2, "max", np.minimum)):
        bound = inputs[index] if index < len(inputs) else node.attributes.get(name)
        if bound is not None:
            data = choose(data, np.asarray(bound, data.dtype).reshape(()))
    return np.asarray(data)


def _shift_bits(node: Node, inputs: Inputs) -> Array:
    """Unsigned only; bits that leave on the left are lost, as ONNX has it."""
    data, amount = given(inputs, 0), given(inputs, 1)
    return data << amount if node.text("direction", "") == "LEFT" else data >> amount


def _compare(compare: Callable[[Array, Array], Array], node: Node, inputs: Inputs) -> Array:
    del node
    return np.asarray(compare(given(inputs, 0), given(inputs, 1)))


def _not(node: Node, inputs: Inputs) -> Array:
    del node
    return np.logical_not(given(inputs, 0))


def _extreme_index(find: Callable[..., Array], node: Node, inputs: Inputs) -> Array:
    data = given(inputs, 0)
    axis = node.integer("axis", 0)
    keep = bool(node.integer("keepdims", 1))
    if node.integer("select_last_index", 0):
        found = data.shape[axis] - 1 - find(np.flip(data, axis), axis=axis, keepdims=keep)
    else:
        found = find(data, axis=axis, keepdims=keep)
    return np.asarray(found).astype(np.int64)


def _reduced(reduce: Callable[..., Array], node: Node, inputs: Inputs) -> Array:
    """ReduceSum, ReduceMax, ReduceMin of integers; axes are an attribute or an operand."""
    data = given(inputs, 0)
    if not _is_integer(data):
        raise ElsewhereError
    if reduce is np.sum and data.dtype.itemsize == 8 and _may_wrap(data):
        raise OverflowError("a sum may leave 64 bits")
    operand = inputs[1] if len(inputs) > 1 else None
    axes = node.integers("axes") if operand is None else [int(axis) for axis in operand.reshape(-1)]
    if not axes and node.integer("noop_with_empty_axes", 0):
        return data
    result = reduce(
        data.astype(np.int64), axis=tuple(axes) if axes else None, keepdims=bool(node.integer("keepdims", 1))
    )
    return fitted(np.asarray(result), data.dtype)


def _may_wrap(data: Array) -> bool:
    return bool(data.size) and float(np.abs(data.astype(np.float64)).sum()) >= 2.0**63 * _SURELY


KERNELS: Final[dict[str, Kernel]] = {
    "Abs": _absolute,
    "Add": functools.partial(_exact, np.add),
    "And": functools.partial(_compare, np.logical_and),
    "ArgMax": functools.partial(_extreme_index, np.argmax),
    "ArgMin": functools.partial(_extreme_index, np.argmin),
    "BitShift": _shift_bits,
    "Clip": _clip,
    "Div": _divide,
    "Equal": functools.partial(_compare, np.equal),
    "Greater": functools.partial(_compare, np.greater),
    "GreaterOrEqual": functools.partial(_compare, np.greater_equal),
    "Less": functools.partial(_compare, np.less),
    "LessOrEqual": functools.partial(_compare, np.less_equal),
    "Max": functools.partial(_reduce, np.maximum),
    "Min": functools.partial(_reduce, np.minimum),
    "Mod": _remainder,
    "Mul": functools.partial(_exact, np.multiply),
    "Neg": _negative,
    "Not": _not,
    "Or": functools.partial(_compare, np.logical_or),
    "ReduceMax": functools.partial(_reduced, np.max),
    "ReduceMin": functools.partial(_reduced, np.min),
    "ReduceSum": functools.partial(_reduced, np.sum),
    "Relu": _relu,
    "Sub": functools.partial(_exact, np.subtract),
    "Xor": functools.partial(_compare, np.logical_xor),
}
