"""LayerNorm and RMSNorm on codes: multiplications, additions and shifts, no division and no float.

Derivation. A row is what is normalized together: ``N`` codes ``q_i`` with scale ``s`` and zero point ``z``, so the
numbers are ``s (q_i - z)``.

*LayerNorm.* With ``S = sum q_i`` let ``c_i = N q_i - S`` and ``w = N sum q_i^2 - S^2``: integers, exact, and the zero
point has cancelled. The centred numbers are ``s c_i / N``, their variance is ``s^2 w / N^2``, hence::

    (x_i - mean) / sqrt(variance + eps)  =  c_i / sqrt(w + eps N^2 / s^2)

*RMSNorm.* Let ``c_i = q_i - z`` and ``w = sum c_i^2``; then ``x_i / sqrt(mean(x^2) + eps)  =  sqrt(N) c_i / sqrt(w +
eps N / s^2)``.

Both are a factor times ``c_i / sqrt(w + E)`` with a constant ``E``, which need not be an integer. ``w`` is as small
as ``N - 1`` (LayerNorm, one code off by one; RMSNorm: 1) in a row that is not constant, so ``w + E`` gets binary
places: ``v = floor(w 2^p) + round(E 2^p)``, where ``p`` (``left - right``, negative where ``E`` is enormous) makes
``v`` as long as 62 bits allow. With ``1 / sqrt(v) = r 2^(k - 60)`` (``reciprocal_root``), the normalized number in
binary fixed point is one product and one shift that differs from row to row::

    n_i = (c_i r + 2^(t-1)) >> t,   t = max(root_shift - k, 1)

``n_i`` stays within ``2^30``; ``root_shift`` is chosen for the greatest ``|c_i| / sqrt(v)`` that a row can have: at
most ``2^(-p/2)`` times ``sqrt(N - 1)`` (LayerNorm) or 1 (RMSNorm), and at most ``max |c| / sqrt(E 2^p)``. The maximum
with 1 acts in rows where ``c`` is 0 throughout, and only there. Then gamma, beta and the output scale in one step::

    y_i = clip(((n_i g_i + beta_i + 2^(h-1)) >> h) + z_y, low, high)

with integers ``g_i``, ``beta_i`` and shifts ``h`` per element, whose choice is ``norm_parameters``.

Roundings, in this order: ``floor`` where ``right > 0``; ``floor`` four times in the root; ``half_up`` to ``n_i``;
``half_up`` to the code; one saturation.

Error before the last rounding, in codes of the result, for results that are not clipped. Let ``R`` be the greatest
``|y_i - z_y|`` plus ``|beta_i|`` in codes. ``v`` is off by at most ``d = 1/2`` (3/2 where ``right > 0``; 1 where
epsilon is so small that it is raised to 1), which makes ``R d / (2 v)``. The root: ``R 2^-25``. ``n_i`` is off by half
a unit, which makes ``g 2^-h / 2``. ``g``: ``R 2^-31`` with multipliers of 30 bits or more, ``R 2^-b`` with ``b``. For
16-bit codes, ``N = 4096`` and a 16-bit result around zero (``R = 2^15``, ``v >= 2^18``) that is below ``2^15 (2^-19 +
2^-25 + 2^-31) + g 2^-h / 2 < 0.07 + g 2^-h / 2``. Less than 1 altogether means: at most 1 code from the real result
rounded once. ``norm_parameters`` computes the bound for the case at hand and refuses where it reaches 1 (the part of
narrow multipliers left out).

Ranges: 64 bits hold ``N sum q^2`` and ``S^2`` below ``2^62`` and ``|c_i| < 2^31``: rows of up to 32768 16-bit codes.

Source: I-BERT (Kim et al. 2021), section 3.5, for the idea; the algorithm is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.dyadic import PRODUCT_BITS, Overflow, round_shift, saturate
from qcompiler.quant.integer.reciprocal_root import reciprocal_root

__all__ = ["CENTRED_BITS", "NORMAL_BITS", "layer_normalization", "rms_normalization"]

CENTRED_BITS: Final = 31
"""``|c_i|`` stays below two to this power."""

NORMAL_BITS: Final = 30
"""``|n_i|`` stays within two to this power."""


def layer_normalization(
    x: NDArray[Any],
    signed_multiplier: NDArray[Any],
    bias: NDArray[Any],
    shift: NDArray[Any],
    *,
    axes: Sequence[int],
    size: int,
    left: int,
    right: int,
    epsilon: int,
    root_shift: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """LayerNorm of codes over their last axes; see the module.

    Args:
        x: int8 or int16 of any shape.
        signed_multiplier: int32 ``g``, of any sign; broadcasts against ``x``.
        bias: int64 ``beta`` at the scale of ``n g``; broadcasts against ``x``.
        shift: uint8 ``h``, 1 to 60; broadcasts against ``x``.
        axes: The normalized axes: the last ones, counted from the end.
        size: ``N``, codes in a row.
        left: Bits by which ``w`` is shifted left.
        right: Bits by which it is then shifted right.
        epsilon: ``round(E 2^(left - right))``, at least 1.
        root_shift: Shift behind the root, less the ``k`` of the row.
        y_zero_point: Code of zero in the result.
        to: ONNX element type of the result.
        low: Least code of the result.
        high: Greatest code of the result.

    Raises:
        Overflow: An integer leaves its range.
        ValueError: A parameter is outside its range.
    """
    over = _row(np.shape(x), axes, size)
    codes = np.asarray(x, np.int64)
    if codes.size and size**2 * int(np.abs(codes).max()) ** 2 >= 1 << PRODUCT_BITS:
        raise Overflow(f"a row of {size} codes: the sum of its squares leaves {PRODUCT_BITS} bits")
    total = codes.sum(axis=over, keepdims=True)
    spread = size * np.square(codes).sum(axis=over, keepdims=True) - total * total
    normal = _normalized(size * codes - total, spread, _Root(left, right, epsilon, root_shift))
    return _scaled(normal, signed_multiplier, bias, shift, y_zero_point=y_zero_point, to=to, low=low, high=high)


def rms_normalization(
    x: NDArray[Any],
    signed_multiplier: NDArray[Any],
    shift: NDArray[Any],
    *,
    axes: Sequence[int],
    x_zero_point: int,
    left: int,
    right: int,
    epsilon: int,
    root_shift: int,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """RMSNorm of codes over their last axes; arguments and errors as in :func:`layer_normalization`.

    ``sqrt(N)`` is part of ``signed_multiplier``.
    """
    over = _row(np.shape(x), axes, None)
    centred = np.asarray(x, np.int64) - x_zero_point
    row = int(np.prod([centred.shape[axis] for axis in over]))
    if centred.size and row * int(np.abs(centred).max()) ** 2 >= 1 << PRODUCT_BITS:
        raise Overflow(f"a row of {row} codes: the sum of its squares leaves {PRODUCT_BITS} bits")
    energy = np.square(centred).sum(axis=over, keepdims=True)
    normal = _normalized(centred, energy, _Root(left, right, epsilon, root_shift))
    return _scaled(normal, signed_multiplier, 0, shift, y_zero_point=y_zero_point, to=to, low=low, high=high)


@dataclass(frozen=True, slots=True)
class _Root:
    """The constants of the root, as in :func:`layer_normalization`."""

    left: int
    right: int
    epsilon: int
    root_shift: int

    def __post_init__(self) -> None:
        if not (0 <= self.left <= PRODUCT_BITS and 0 <= self.right <= PRODUCT_BITS):
            raise ValueError(f"shifts of the moment lie in 0 to {PRODUCT_BITS}, not {self.left} and {self.right}")
        if not 1 <= self.epsilon < 1 << PRODUCT_BITS:
            raise ValueError(f"epsilon lies in 1 to 2^{PRODUCT_BITS} - 1, not {self.epsilon}")
        if not 1 <= self.root_shift <= PRODUCT_BITS:
            raise ValueError(f"the shift behind the root lies in 1 to {PRODUCT_BITS}, not {self.root_shift}")


def _row(shape: tuple[int, ...], axes: Sequence[int], size: int | None) -> tuple[int, ...]:
    """The normalized axes, checked."""
    over = tuple(int(axis) for axis in axes)
    if not over or over != tuple(range(-len(over), 0)) or len(over) > len(shape):
        raise ValueError(f"axes {list(over)} are not the last ones of {len(shape)} dimensions")
    if size is not None and int(np.prod([shape[axis] for axis in over])) != size:
        raise ValueError(f"a row has {np.prod([shape[axis] for axis in over])} codes, not {size}")
    return over


def _normalized(centred: NDArray[np.int64], moment: NDArray[np.int64], root: _Root) -> NDArray[np.int64]:
    """``n``: ``centred / sqrt(v)`` in binary fixed point, from ``moment``, one number per row."""
    if centred.size and int(np.abs(centred).max()) >= 1 << CENTRED_BITS:
        raise Overflow(f"a centred code reaches 2^{CENTRED_BITS}")
    if moment.size and int(moment.max()) << root.left >= 1 << PRODUCT_BITS:
        raise Overflow(f"a moment shifted left by {root.left} reaches 2^{PRODUCT_BITS}")
    inverse, pairs = reciprocal_root(((moment << root.left) >> root.right) + root.epsilon)
    amount = root.root_shift - pairs
    if ((amount < 1) & (moment != 0)).any():
        raise Overflow("the shift behind a root is not positive")
    normal = round_shift(centred * inverse, np.maximum(amount, 1))
    if normal.size and int(np.abs(normal).max()) > 1 << NORMAL_BITS:
        raise Overflow(f"a normalized number leaves 2^{NORMAL_BITS}")
    return normal


def _scaled(
    normal: NDArray[np.int64],
    multiplier: NDArray[Any],
    bias: NDArray[Any] | int,
    shift: NDArray[Any],
    *,
    y_zero_point: int,
    to: int,
    low: int,
    high: int,
) -> NDArray[Any]:
    """``clip(((n g + beta + 2^(h-1)) >> h) + z_y, low, high)``."""
    factor, addend = np.asarray(multiplier, np.int64), np.asarray(bias, np.int64)
    if factor.size and int(np.abs(factor).max()) >= 1 << 31:
        raise ValueError("a multiplier leaves 32 bits")
    if addend.size and int(np.abs(addend).max()) > 1 << (PRODUCT_BITS - 1):
        raise ValueError(f"a bias leaves {PRODUCT_BITS - 1} bits")
    return saturate(round_shift(normal * factor + addend, shift) + y_zero_point, to=to, low=low, high=high)
