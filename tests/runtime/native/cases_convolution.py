"""Random convolutions, varied more than the catalogue's: tails of panels and runs, depthwise ones, gaps, empty axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant import packing
from qcompiler.quant.integer.dyadic import choose, choose_shift

__all__ = ["case"]


@dataclass(frozen=True, slots=True)
class _Sizes:
    group: int
    inner: int
    outer: int
    kernel: tuple[int, ...]
    spatial: tuple[int, ...]
    batch: int


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes and positions of the constant inputs of one instance.

    Args:
        name: Operator type: QConv, QConvChannelsLast or QConvTranspose with an ending.
        random: Where the choices come from.
    """
    wide, packed, transposed = "Wide" in name, "Packed" in name, "Transpose" in name
    axes = int(random.choice([1, 2, 2, 2, 3]))
    strides = random.choice([1, 1, 2, 3, 5], axes).tolist()
    dilations = random.choice([1, 1, 1, 2, 3], axes).tolist()
    sizes = _sizes(random, axes, dilations, transposed=transposed)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations}
    if transposed:
        attributes |= _transposed_pads(random, strides, dilations, sizes)
    else:
        attributes["pads"] = random.integers(0, 4, 2 * axes).tolist()
    channels = sizes.group * sizes.inner
    shape = (sizes.batch, channels, *sizes.spatial)
    x = _codes(random, shape, np.int16 if wide else np.int8)
    attributes |= {"group": sizes.group, "x_zero_point": int(_codes(random, (), x.dtype))}
    bits = int(random.choice(packing.BITS)) if packed else 8
    weight = _codes(random, (sizes.group * sizes.outer, sizes.inner, *sizes.kernel), np.int8) >> (8 - bits)
    behind = () if "ChannelsLast" in name else (1,) * axes
    rest = _rescale(random, weight, behind, wide=wide, multiplies=not name.endswith("Shift"))
    if packed:
        attributes |= {"bits": bits, "weight_shape": list(weight.shape)}
    if "ChannelsLast" in name:
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    operand = packing.pack(weight, bits) if packed else weight
    inputs: list[NDArray[Any]] = [x, operand, *rest]
    constants = tuple(range(1, len(inputs))) if random.random() < 0.8 else ()
    return inputs, attributes | _clamp(random), constants


def _sizes(random: np.random.Generator, axes: int, dilations: list[int], *, transposed: bool) -> _Sizes:
    most = (0, 24, 9, 5)[axes]
    kernel = tuple(int(random.choice([1, 1, 2, 3, 3, 4, 7][: 7 if axes < 3 else 5])) for _ in range(axes))
    reach = [1 if transposed else d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    spatial = tuple(size + int(random.integers(0, most)) for size in reach)
    batch = int(random.choice([0, 1, 1, 2, 3]))
    kind = random.random()
    if kind < 0.3:  # depthwise
        return _Sizes(int(random.integers(1, 90)), 1, 1, kernel, spatial, batch)
    if kind < 0.4:
        return _Sizes(int(random.integers(1, 20)), 1, int(random.integers(2, 4)), kernel, spatial, batch)
    if kind < 0.6:
        group, inner, outer = random.integers(1, 6, 3).tolist()
        return _Sizes(group, inner, outer, kernel, spatial, batch)
    inner = int(random.integers(1, 70))
    return _Sizes(1, inner, int(random.choice([1, 8, 16, 24, 33, 64, 65, 80, 130])), kernel, spatial, batch)


def _transposed_pads(
    random: np.random.Generator, strides: list[int], dilations: list[int], sizes: _Sizes
) -> dict[str, list[int]]:
    begins, ends, more = [], [], []
    for stride, dilation, kernel, size in zip(strides, dilations, sizes.kernel, sizes.spatial, strict=True):
        length = stride * (size - 1) + dilation * (kernel - 1) + 1
        begins.append(int(random.integers(0, min(4, length))))
        ends.append(int(random.integers(0, min(4, length - begins[-1]))))
        more.append(int(random.integers(0, max(stride, dilation))))
    return {"pads": begins + ends, "output_padding": more}


def _codes(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Uniform codes, sometimes only the least, the greatest, or both."""
    limits = np.iinfo(dtype)
    kind = random.random()
    if kind < 0.2:
        return random.choice(np.array([limits.min, limits.max], dtype), shape)
    if kind < 0.3:
        return np.full(shape, random.choice([limits.min, limits.max]), dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _rescale(
    random: np.random.Generator, weight: NDArray[Any], behind: tuple[int, ...], *, wide: bool, multiplies: bool
) -> list[NDArray[Any]]:
    """Bias and factors that spread accumulators over the codes, some that saturate them."""
    outputs, depth = weight.shape[0], max(1, weight[0].size)
    bound = depth << (22 if wide else 14)
    many = (outputs, *behind)
    bias = random.integers(-bound, bound, many if random.random() < 0.9 else (), np.int64 if wide else np.int32)
    if random.random() < 0.15:
        bias = np.zeros_like(bias)
    factor = np.exp2(random.uniform(3, 9, many if random.random() < 0.7 else ())) / bound
    if not multiplies:
        shift = choose_shift(np.exp2(np.round(np.log2(factor)))).shift
        return [np.asarray(bias), np.asarray(shift)]
    chosen = choose(factor, 31, 2 * bound)
    assert chosen.multiplier is not None
    return [np.asarray(bias), np.asarray(chosen.multiplier), np.asarray(chosen.shift)]


def _clamp(random: np.random.Generator) -> dict[str, int]:
    to, dtype = (3, np.int8) if random.random() < 0.6 else (5, np.int16)
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if random.random() < 0.5 else sorted(random.integers(-100, 100, 2).tolist())
    return {"y_zero_point": int(random.integers(-128, 128)), "to": to, "low": int(low), "high": int(high)}
