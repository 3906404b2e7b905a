"""QAdd, QSub, QMul, QConcat: two tensors of codes, each at its own scale, become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.definition import Dimension, Operator, TensorType, broadcast
from qcompiler.quant.functions.rescale import CLAMP, ROUND_AND_CLAMP, call, infer_rescaled
from qcompiler.quant.integer import elementwise

__all__ = ["OPERATORS"]

_CODES: Final = "int8 int16"
_ZERO_POINTS: Final = {"a_zero_point": "int", "b_zero_point": "int"}

_CENTRED: Final = """
za = Constant <value_int: int = @a_zero_point> ()
zb = Constant <value_int: int = @b_zero_point> ()
wide_a = Cast <to = 7> (a)
wide_b = Cast <to = 7> (b)
centred_a = Sub (wide_a, za)
centred_b = Sub (wide_b, zb)
"""

_RESULT: Final = """
zy = Constant <value_int: int = @y_zero_point> ()
least = Constant <value_int: int = @low> ()
most = Constant <value_int: int = @high> ()
c = Cast <to = 13> (shift)
"""

_MULTIPLIED: Final = """
factor_a = Cast <to = 7> (a_multiplier)
factor_b = Cast <to = 7> (b_multiplier)
term_a = Mul (centred_a, factor_a)
term_b = Mul (centred_b, factor_b)
"""

# Bits shifted out to the left are copies of the sign: the pattern read as int64 is the exact product.
_SHIFTED: Final = """
pattern_a = Cast <to = 13> (centred_a)
pattern_b = Cast <to = 13> (centred_b)
places_a = Cast <to = 13> (a_left)
places_b = Cast <to = 13> (b_left)
moved_a = BitShift <direction = "LEFT"> (pattern_a, places_a)
moved_b = BitShift <direction = "LEFT"> (pattern_b, places_b)
term_a = Cast <to = 7> (moved_a)
term_b = Cast <to = 7> (moved_b)
"""


def _sum_body(operator: str, terms: str) -> str:
    return f"{_CENTRED}{_RESULT}{terms}product = {operator} (term_a, term_b)\n{ROUND_AND_CLAMP}"


def _product_body(*, multiplies: bool) -> str:
    return f"{_CENTRED}accumulator = Mul (centred_a, centred_b)\n{call('accumulator', multiplies=multiplies)}"


def _concat_body(*, multiplies: bool) -> str:
    name = "Requantize" if multiplies else "RequantizeShift"
    passed = ", ".join(f"{key}: int = @{key}" for key in CLAMP)
    lines = [
        f"codes_{side} = ai.qcompiler.{name} <x_zero_point: int = @{side}_zero_point, {passed}> "
        f"({side}, {f'{side}_multiplier, ' if multiplies else ''}{side}_shift)"
        for side in ("a", "b")
    ]
    return "\n".join([*lines, "y = Concat <axis: int = @axis> (codes_a, codes_b)"])


def _infer_broadcast(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    return infer_rescaled(broadcast(types[0].shape, types[1].shape), attributes)


def _infer_concat(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> TensorType:
    return infer_rescaled(_joined(types[0].shape, types[1].shape, int(attributes["axis"])), attributes)


def _joined(
    first: tuple[Dimension, ...] | None, second: tuple[Dimension, ...] | None, axis: int
) -> tuple[Dimension, ...] | None:
    if first is None or second is None:
        return None
    along = axis % len(first)
    shape: list[Dimension] = [_agreed(one, other) for one, other in zip(first, second, strict=True)]
    parts = first[along], second[along]
    shape[along] = parts[0] + parts[1] if isinstance(parts[0], int) and isinstance(parts[1], int) else None
    return tuple(shape)


def _agreed(one: Dimension, other: Dimension) -> Dimension:
    """Of two sizes that are equal when the model runs: the one that says more."""
    return next((size for size in (one, other) if isinstance(size, int)), one if one is not None else other)


def _sum(name: str, sign: str, operator: str, exact: Any, shifting: Any) -> tuple[Operator, Operator]:
    return (
        Operator(
            name=name,
            formula=f"clip((((a - za) * ba {sign} (b - zb) * bb + 2^(c-1)) >> c) + zy, low, high)",
            inputs=("a", "b", "a_multiplier", "b_multiplier", "shift"),
            types={"a": _CODES, "b": _CODES, "a_multiplier": "int32", "b_multiplier": "int32", "shift": "uint8"},
            attributes={**_ZERO_POINTS, **CLAMP},
            body=_sum_body(operator, _MULTIPLIED),
            specification=exact,
            infer=_infer_broadcast,
            bound="1",
        ),
        Operator(
            name=f"{name}Shift",
            formula=f"clip(((((a - za) << la) {sign} ((b - zb) << lb) + 2^(c-1)) >> c) + zy, low, high)",
            inputs=("a", "b", "a_left", "b_left", "shift"),
            types={"a": _CODES, "b": _CODES, "a_left": "uint8", "b_left": "uint8", "shift": "uint8"},
            attributes={**_ZERO_POINTS, **CLAMP},
            body=_sum_body(operator, _SHIFTED),
            specification=shifting,
            infer=_infer_broadcast,
            bound="1/2",
        ),
    )


def _product(name: str, *, multiplies: bool) -> Operator:
    factors = {"multiplier": "int32", "shift": "uint8"} if multiplies else {"shift": "uint8"}
    return Operator(
        name=name,
        formula="requantize((a - za) * (b - zb))",
        inputs=("a", "b", *factors),
        types={"a": _CODES, "b": _CODES, **factors},
        attributes={**_ZERO_POINTS, **CLAMP},
        body=_product_body(multiplies=multiplies),
        specification=elementwise.multiply if multiplies else elementwise.multiply_shift,
        infer=_infer_broadcast,
        bound="1" if multiplies else "1/2",
        calls=("Requantize" if multiplies else "RequantizeShift",),
    )


def _concat(name: str, *, multiplies: bool) -> Operator:
    factors = {
        f"{side}_{part}": kind
        for side in ("a", "b")
        for part, kind in (("multiplier", "int32"), ("shift", "uint8"))
        if multiplies or part == "shift"
    }
    return Operator(
        name=name,
        formula="requantize(a) and requantize(b), joined along axis",
        inputs=("a", "b", *factors),
        types={"a": _CODES, "b": _CODES, **factors},
        attributes={"axis": "int", **_ZERO_POINTS, **CLAMP},
        body=_concat_body(multiplies=multiplies),
        specification=elementwise.concat if multiplies else elementwise.concat_shift,
        infer=_infer_concat,
        bound="1" if multiplies else "1/2",
        calls=("Requantize" if multiplies else "RequantizeShift",),
    )


OPERATORS: Final = (
    *_sum("QAdd", "+", "Add", elementwise.add, elementwise.add_shift),
    *_sum("QSub", "-", "Sub", elementwise.subtract, elementwise.subtract_shift),
    _product("QMul", multiplies=True),
    _product("QMulShift", multiplies=False),
    _concat("QConcat", multiplies=True),
    _concat("QConcatShift", multiplies=False),
)
