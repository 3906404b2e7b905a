"""Whether scales and zero points are what a target computes with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.format import QFormat
from qcompiler.target.qdq import Codes, View
from qcompiler.target.schema import Target, ZeroPoint

__all__ = ["BIAS_TOLERANCE", "bias_reasons", "form_reason", "scale_reasons"]

BIAS_TOLERANCE = 1e-6
"""Relative: float32 products of two scales, rounded in another order, differ by about 1e-7."""


def form_reason(codes: Codes, form: QFormat, rule: ZeroPoint) -> str | None:
    """Why scales or zero points are none of the format; ``None`` when they are."""
    return _zero_point_reason(codes, form, rule) or _power_of_two_reason(codes, form)


def _power_of_two_reason(codes: Codes, form: QFormat) -> str | None:
    if not form.power_of_two or codes.scale is None:
        return None
    return "has a scale that is not a power of two" if (np.frexp(codes.scale)[0] != 0.5).any() else None


def _zero_point_reason(codes: Codes, form: QFormat, rule: ZeroPoint) -> str | None:
    """Why the zero points break the format's symmetry, its range or the rule; ``None`` when they do not."""
    points = codes.zero_point
    if points is None or points.size == 0:
        return None
    middle = 0 if form.signed else (form.maximum + 1) // 2
    if form.symmetric and (points != middle).any():
        return f"has zero point {_first(points, middle)}, {form} has {middle}"
    if rule is ZeroPoint.ZERO and (points != 0).any():
        return f"has zero point {_first(points, 0)}, the target takes 0 only"
    if (points < form.minimum).any() or (points > form.maximum).any():
        return f"has a zero point outside {form.minimum} to {form.maximum}"
    return None


def bias_reasons(seen: View) -> Iterator[str]:
    """The bias must be codes at scale (activation × weight), because it is added to the accumulator as it is."""
    if seen.float_bias and not seen.float_weight:
        yield "its bias is float"
        return
    bias, form = seen.bias, seen.rule.bias
    activation = seen.activations.get(0)
    if bias is None or form is None or seen.weight is None or activation is None:
        return
    if bias.dtype.name != f"INT{form.bits}":
        yield f"its bias is {bias.dtype.name.lower()}, the target takes int{form.bits}"
    if bias.zero_point is not None and bias.zero_point.any():
        yield "its bias has a zero point"
    if bias.scale is None or activation.scale is None or seen.weight.scale is None or activation.scale.size != 1:
        yield "its bias cannot be compared: a scale is not a constant scalar"
    elif seen.weight.block == 0 and (error := _product_error(bias.scale, activation.scale, seen.weight.scale)):
        yield f"its bias scale is not activation scale × weight scale ({error})"


def _product_error(bias: NDArray[Any], activation: NDArray[Any], weight: NDArray[Any]) -> str:
    """How far the bias scales are from the products; empty within the tolerance."""
    product = np.float64(activation.reshape(())) * weight.astype(np.float64).reshape(-1)
    scales = bias.astype(np.float64).reshape(-1)
    if product.size and scales.size % product.size == 0:
        product = np.tile(product, scales.size // product.size)  # groups of a ConvTranspose share their scales
    if scales.size not in (1, product.size):
        return f"{scales.size} scales where the weight has {product.size}"
    usable = np.isfinite(product) & (product > 0)  # the others are reported as broken scales
    error = _relative(np.broadcast_to(scales, product.shape)[usable], product[usable])
    return "" if error <= BIAS_TOLERANCE else f"off by {error:.3g}, relative"


def _relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.max(np.abs(found / expected - 1.0), initial=0.0))


def scale_reasons(seen: View, target: Target) -> Iterator[str]:
    """Scales positive, finite and above the floor; whether they are powers of two is a matter of formats."""
    parts = [(f"input {index}", codes) for index, codes in seen.activations.items()]
    parts += [("weight", seen.weight), ("result", seen.results[0] if seen.results else None)]
    for what, codes in parts:
        if codes is None or codes.scale is None:
            continue
        scales = codes.scale.astype(np.float64).reshape(-1)
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            yield f"its {what} has a scale that is not positive and finite"
        elif scales.size and scales.min() < target.scale_floor:
            yield f"its {what} has scale {scales.min():.3g}, below the target's floor {target.scale_floor:.3g}"


def _first(points: NDArray[Any], expected: int) -> int:
    return int(points[points != expected].reshape(-1)[0])
