"""Random instances of the linear operators, extremes included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant import packing
from qcompiler.quant.integer import dyadic


@dataclass(frozen=True)
class Case:
    """One node: operator, inputs, attributes; ``weight`` is the unpacked one."""

    name: str
    inputs: list[NDArray[Any]]
    attributes: dict[str, Any]
    weight: NDArray[np.int8]


@dataclass(frozen=True)
class Variant:
    wide: bool = False
    packed: bool = False
    multiplies: bool = True

    @property
    def ending(self) -> str:
        return ("Wide" if self.wide else "") + ("Packed" if self.packed else "") + ("" if self.multiplies else "Shift")


VARIANTS = [Variant(*flags) for flags in np.ndindex(2, 2, 2)]


def codes(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Uniform codes, sometimes only extremes: sums then reach their bounds."""
    limits = np.iinfo(dtype)
    if random.random() < 0.25:
        return random.choice(np.array([limits.min, limits.max], dtype), shape)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def conv_case(random: np.random.Generator, variant: Variant, *, transposed: bool, rank: int | None = None) -> Case:
    axes = int(random.integers(1, 4)) if rank is None else rank
    group = int(random.integers(1, 4))
    inner, outer = int(random.integers(1, 4)), int(random.integers(1, 4))
    if random.random() < 0.3:
        inner = outer = 1  # depthwise
    kernel = tuple(random.integers(1, 4, axes).tolist())
    strides, dilations = random.integers(1, 4, axes).tolist(), random.integers(1, 3, axes).tolist()
    least = [1 if transposed else d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    spatial = tuple(size + int(random.integers(0, 5)) for size in least)
    bits = int(random.choice(packing.BITS))
    weight = codes(random, (group * outer, inner, *kernel), np.int8) >> (8 - bits if variant.packed else 0)
    x = codes(random, (int(random.integers(1, 3)), group * inner, *spatial), np.int16 if variant.wide else np.int8)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations}
    if transposed:
        lengths = [
            s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in zip(strides, spatial, dilations, kernel, strict=True)
        ]
        begins = [int(random.integers(0, min(3, length))) for length in lengths]
        ends = [int(random.integers(0, min(3, length - begin))) for length, begin in zip(lengths, begins, strict=True)]
        attributes["pads"] = begins + ends
        attributes["output_padding"] = [
            int(random.integers(0, max(s, d))) for s, d in zip(strides, dilations, strict=True)
        ]
    else:
        attributes["pads"] = random.integers(0, 3, 2 * axes).tolist()
    attributes |= {"group": group, "x_zero_point": int(codes(random, (), x.dtype))}
    name = ("QConvTranspose" if transposed else "QConv") + variant.ending
    return _finish(random, variant, name, [x], weight, bits, attributes, (-1, *([1] * axes)))


def channels_last(case: Case) -> Case:
    """The same convolution of the same codes with channels last: bias and factors have one axis."""
    x, weight, *rest = case.inputs
    inputs = [np.ascontiguousarray(np.moveaxis(x, 1, -1)), weight, *(item.reshape(item.shape[:1]) for item in rest)]
    return Case(case.name.replace("QConv", "QConvChannelsLast"), inputs, case.attributes, case.weight)


def channels_last_case(random: np.random.Generator, variant: Variant) -> Case:
    return channels_last(conv_case(random, variant, transposed=False))


def gemm_case(random: np.random.Generator, variant: Variant, *, rank: int | None = None) -> Case:
    axes = int(random.integers(1, 5)) if rank is None else rank
    depth, outputs = int(random.integers(1, 40)), int(random.integers(1, 12))
    bits = int(random.choice(packing.BITS))
    weight = codes(random, (outputs, depth), np.int8) >> (8 - bits if variant.packed else 0)
    shape = (*random.integers(1, 4, axes - 1).tolist(), depth)
    x = codes(random, shape, np.int16 if variant.wide else np.int8)
    return _finish(random, variant, "QGemm" + variant.ending, [x], weight, bits, {}, (-1,))


def matmul_case(random: np.random.Generator, variant: Variant) -> Case:
    rows, depth, columns = random.integers(1, 20, 3).tolist()
    batch = random.integers(1, 3, int(random.integers(0, 3))).tolist()
    operands = []
    for index, shape in enumerate(
        ((*batch, rows, depth), (*batch[int(random.integers(0, len(batch) + 1)) :], depth, columns))
    ):
        dtype = np.int16 if variant.wide and (index == 0 or random.random() < 0.5) else np.int8
        operands.append(codes(random, shape, dtype))
    attributes = {
        f"{name}_zero_point": int(codes(random, (), item.dtype)) for name, item in zip("ab", operands, strict=True)
    }
    bound = depth << (32 if variant.wide else 16)
    return Case(
        "QMatMul" + variant.ending,
        [*operands, *_rescale(random, variant, (), bound)],
        attributes | _clamp(random),
        np.zeros((1, depth), np.int8),
    )


def _finish(
    random: np.random.Generator,
    variant: Variant,
    name: str,
    inputs: list[NDArray[Any]],
    weight: NDArray[np.int8],
    bits: int,
    attributes: dict[str, Any],
    per_channel: tuple[int, ...],
) -> Case:
    depth, outputs = weight[0].size, weight.shape[0]
    bound = depth << (22 if variant.wide else 14)
    bias = random.integers(-bound, bound, (outputs, *per_channel[1:]), np.int64 if variant.wide else np.int32)
    operand: NDArray[Any] = weight
    if variant.packed:
        operand = packing.pack(weight, bits)
        attributes = {**attributes, "bits": bits, "weight_shape": list(weight.shape)}
    elif name.startswith("QGemm"):
        operand = np.ascontiguousarray(weight.T)
    shape = (outputs, *per_channel[1:]) if random.random() < 0.7 else ()
    rescale = _rescale(random, variant, shape, 2 * bound)
    return Case(name, [*inputs, operand, bias, *rescale], {**attributes, **_clamp(random)}, weight)


def _rescale(random: np.random.Generator, variant: Variant, shape: tuple[int, ...], bound: int) -> list[NDArray[Any]]:
    """Factors that spread accumulators over the codes, some that saturate them."""
    factor = np.exp2(random.uniform(3, 9, shape)) / bound
    if not variant.multiplies:
        return [np.asarray(dyadic.choose_shift(np.exp2(np.round(np.log2(factor)))).shift)]
    chosen = dyadic.choose(factor, 31, bound)
    assert chosen.multiplier is not None
    return [np.asarray(chosen.multiplier), np.asarray(chosen.shift)]


def _clamp(random: np.random.Generator) -> dict[str, int]:
    to, dtype = (3, np.int8) if random.random() < 0.6 else (5, np.int16)
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if random.random() < 0.5 else sorted(random.integers(-100, 100, 2).tolist())
    return {"y_zero_point": int(random.integers(-128, 128)), "to": to, "low": int(low), "high": int(high)}
