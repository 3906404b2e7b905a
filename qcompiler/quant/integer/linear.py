"""Specification of the matrix products: QGemm (constant weight) and QMatMul (two activations).

Derivation. With ``x = s_x (q_x - z_x)`` and ``w = s_w q_w`` (weights are symmetric, ``s_w`` per output channel)::

    sum x w + b = s_x s_w (sum q_x q_w - z_x sum q_w + b / (s_x s_w))

Everything in the brackets but the first sum is constant when the model is compiled: it is the operator's integer
``bias``, rounded once (``half_even``). So the accumulator is exact, ``acc = bias + sum q_x q_w``, and its rescale by
``s_x s_w / s_y`` (:mod:`dyadic`) is the only other rounding. Two activations both have zero points:
``acc = sum (q_a - z_a)(q_b - z_b)``.

Widths. Products of 8-bit codes are summed in 32 bits, and the sum *with* its bias must fit: two's complement makes
the order of the additions irrelevant. Activations of 16 bits are cut into two signed bytes (``ACTIVATION LIMBS``
below), each summed in 32 bits, joined in 64.

ACTIVATION LIMBS. A 16-bit code is ``x = 256 h + l + 128`` with ``h = (x >> 8)`` and ``l = (x & 255) - 128``, both in
``[-128, 127]``. Then ``sum x w = 256 sum h w + sum (l + 128) w``; the second sum is at most ``255 * 128 * depth`` and
fits 32 bits up to a depth of 65 793 products, which is therefore the greatest depth of every Wide operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import Overflow, requantize, requantize_shift
from qcompiler.quant.packing import BITS, unpack

__all__ = [
    "WIDE_DEPTH",
    "Linear",
    "checked_accumulator",
    "checked_codes",
    "exact_matmul",
    "gemm_accumulator",
    "matmul_accumulator",
]

WIDE_DEPTH: Final = ((1 << 31) - 1) // (255 * 128)
"""Greatest number of products in a sum over 16-bit activations: 65 793."""

_CLAMP: Final = ("y_zero_point", "to", "low", "high")


@dataclass(frozen=True, slots=True)
class Linear:
    """The specification of one variant of a linear operator; called like every other.

    Attributes:
        accumulate: Makes the exact accumulator from the activation (and the unpacked weight, and the bias).
        wide: Whether activations have 16 bits and the accumulator 64.
        packed: Whether the weight is packed (:mod:`qcompiler.quant.packing`).
        multiplies: Whether the rescale has a multiplier.
    """

    accumulate: Callable[..., NDArray[np.int64]]
    wide: bool = False
    packed: bool = False
    multiplies: bool = True

    def __call__(self, *inputs: NDArray[Any], **attributes: Any) -> NDArray[Any]:
        """Compute the codes of the result.

        Raises:
            Overflow: The accumulator or a product leaves its width.
            ValueError: An input or parameter is outside its range.
        """
        factors = 2 if self.multiplies else 1
        operands, rescale = list(inputs[:-factors]), inputs[-factors:]
        clamp = {key: attributes.pop(key) for key in _CLAMP}
        if self.packed:
            bits = attributes.pop("bits")
            if bits not in BITS:
                raise ValueError(f"a packed weight has one of {BITS} bits here, not {bits}")
            operands[1] = unpack(operands[1], bits, tuple(attributes.pop("weight_shape")))
        accumulator = self.accumulate(*operands, wide=self.wide, **attributes)
        requantized = requantize if self.multiplies else requantize_shift
        return requantized(accumulator, *rescale, x_zero_point=0, **clamp)


def gemm_accumulator(
    x: NDArray[Any], w: NDArray[np.int8], bias: NDArray[Any], *, wide: bool, rows_first: bool = False
) -> NDArray[np.int64]:
    """``bias + x @ w``.

    Args:
        x: Codes ``[..., depth]``: int8, int16 where ``wide``.
        w: int8 ``[depth, channels]``.
        bias: int32, int64 where ``wide``; broadcasts against the product without widening it.
        wide: Whether activations have 16 bits.
        rows_first: Whether ``w`` is ``[channels, depth]``, as packed weights are.
    """
    checked_codes(x, wide=wide)
    weight = w.T if rows_first else w
    if weight.shape[0] > WIDE_DEPTH and wide:
        raise ValueError(f"a sum of {weight.shape[0]} products of 16-bit codes: at most {WIDE_DEPTH}")
    return checked_accumulator(exact_matmul(x, weight), bias, wide=wide)


def matmul_accumulator(
    a: NDArray[Any], b: NDArray[Any], *, wide: bool, a_zero_point: int, b_zero_point: int
) -> NDArray[np.int64]:
    """``(a - a_zero_point) @ (b - b_zero_point)`` with the broadcasting of MatMul.

    Args:
        a: int8 codes; int16 as well where ``wide``.
        b: int8 codes; int16 as well where ``wide``.
        wide: Whether either may have 16 bits; the sum then has 64.
        a_zero_point: Code of zero in ``a``.
        b_zero_point: Code of zero in ``b``.
    """
    for codes, zero in ((a, a_zero_point), (b, b_zero_point)):
        if not (wide and codes.dtype == np.int8):
            checked_codes(codes, wide=wide)
        if not np.iinfo(codes.dtype).min <= zero <= np.iinfo(codes.dtype).max:
            raise ValueError(f"{zero} is no {codes.dtype} zero point")
    product = exact_matmul(a.astype(np.int32) - a_zero_point, b.astype(np.int32) - b_zero_point)
    return checked_accumulator(product, None, wide=wide)


def checked_codes(codes: NDArray[Any], *, wide: bool) -> None:
    """Activations have the type of the variant.

    Raises:
        ValueError: They have another.
    """
    wanted = np.int16 if wide else np.int8
    if codes.dtype != wanted:
        raise ValueError(f"activations are {np.dtype(wanted)}, not {codes.dtype}")


def checked_accumulator(products: NDArray[np.int64], bias: NDArray[Any] | None, *, wide: bool) -> NDArray[np.int64]:
    """The sum with its bias.

    Raises:
        Overflow: It leaves 32 bits (63 where ``wide``: a bias that large is refused before adding).
        ValueError: The bias has another type, or broadcasting it widens the result.
    """
    total = products
    if bias is not None:
        if bias.dtype != (np.int64 if wide else np.int32):
            raise ValueError(f"the bias is {bias.dtype}")
        if bias.size and max(abs(int(bias.min())), abs(int(bias.max()))) >= 1 << 62:
            raise Overflow("a bias reaches 2^62")
        total = products + bias
        if total.shape != products.shape:
            raise ValueError(f"a bias of shape {bias.shape} widens a result of shape {products.shape}")
    if not wide and total.size and (total.min() < -(1 << 31) or total.max() >= 1 << 31):
        raise Overflow("an accumulator leaves 32 bits")
    return total


def exact_matmul(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """The matrix product of integers, exact.

    Floating-point products are used as a fast integer unit, and only where every partial sum, in any order, is an
    integer that the type holds exactly: below 2^24 in float32, 2^53 in float64.

    Raises:
        Overflow: A sum of magnitudes reaches ``2^62``.
    """
    if not a.size or not b.size:
        empty: NDArray[np.int64] = np.matmul(a.astype(np.int64), b.astype(np.int64))
        return empty
    limit = _magnitude(a) * _magnitude(b) * a.shape[-1]
    if limit < 1 << 24:
        product = np.matmul(a.astype(np.float32), b.astype(np.float32))
    elif limit < 1 << 53:
        product = np.matmul(a.astype(np.float64), b.astype(np.float64))
    elif limit < 1 << 62:
        product = np.matmul(a.astype(np.int64), b.astype(np.int64))
    else:
        raise Overflow("a sum of products reaches 2^62")
    exact: NDArray[np.int64] = product.astype(np.int64)
    return exact


def _magnitude(codes: NDArray[Any]) -> int:
    return max(abs(int(codes.min())), abs(int(codes.max())))
