"""QGemm and QMatMul: matrix products with a constant weight and of two activations."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qcompiler.quant.functions.definition import Dimension, TensorType, broadcast
from qcompiler.quant.functions.linear import JOIN, SPLIT, UNPACK, Family, variants
from qcompiler.quant.integer.linear import gemm_accumulator, matmul_accumulator

__all__ = ["OPERATORS"]

_Shape = tuple[Dimension, ...] | None


def _gemm_body(wide: bool, packed: bool) -> str:
    weight = "matrix" if packed else "w"
    turned = UNPACK + "matrix = Transpose <perm = [1, 0]> (weight)\n" if packed else ""
    if not wide:
        return f"{turned}\nproducts = MatMulInteger (x, {weight})\naccumulator = Add (products, bias)\n"
    return (
        f"{turned}\nwide = Cast <to = 6> (x)\n{SPLIT}"
        f"upper_sum = MatMulInteger (upper, {weight})\n"
        f"lower_sum = MatMulInteger (lower, {weight}, lower_zero)\n"
        f"{JOIN}accumulator = Add (products, bias)\n"
    )


_ZERO_POINTS: Final = """
za = Constant <value_int: int = @a_zero_point> ()
zb = Constant <value_int: int = @b_zero_point> ()
"""


def _matmul_body(wide: bool, packed: bool) -> str:  # noqa: ARG001 - one signature for all families
    if not wide:
        return f"""{_ZERO_POINTS}
zero_a = Cast <to = 3> (za)
zero_b = Cast <to = 3> (zb)
accumulator = MatMulInteger (a, b, zero_a, zero_b)
"""
    return f"""{_ZERO_POINTS}
wide_a = Cast <to = 7> (a)
wide_b = Cast <to = 7> (b)
centred_a = Sub (wide_a, za)
centred_b = Sub (wide_b, zb)
accumulator = MatMul (centred_a, centred_b)
"""


def _gemm_shape(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> _Shape:
    x, weight = types[0].shape, types[1].shape
    if x is None or weight is None:
        return None
    return (*x[:-1], weight[0] if "weight_shape" in attributes else weight[1])


def _matmul_shape(types: Sequence[TensorType], attributes: Mapping[str, Any]) -> _Shape:  # noqa: ARG001
    a, b = types[0].shape, types[1].shape
    if a is None or b is None or not a or not b:
        return None
    batch = broadcast(a[:-2], b[:-2])
    return None if batch is None else (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


OPERATORS: Final = (
    *variants(
        Family(
            name="QGemm",
            formula="requantize(bias + x @ w); the weight's rows are output channels where it is packed",
            inputs={"x": "int8", "w": "int8", "bias": "int32"},
            wide_types={"x": "int16", "bias": "int64"},
            attributes={},
            body=_gemm_body,
            accumulate=gemm_accumulator,
            shape=_gemm_shape,
            accumulate_packed=functools.partial(gemm_accumulator, rows_first=True),
        )
    ),
    *variants(
        Family(
            name="QMatMul",
            formula="requantize((a - za) @ (b - zb))",
            inputs={"a": "int8", "b": "int8"},
            wide_types={"a": "int8 int16", "b": "int8 int16"},
            attributes={"a_zero_point": "int", "b_zero_point": "int"},
            body=_matmul_body,
            accumulate=matmul_accumulator,
            shape=_matmul_shape,
            accumulate_packed=None,
        )
    ),
)
