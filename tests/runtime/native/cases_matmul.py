"""Random matrix products, varied more than the catalogue's: tails of panels and steps, broadcast and empty axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant import packing
from qcompiler.quant.integer.dyadic import choose, choose_shift

__all__ = ["case"]


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes and positions of the constant inputs of one instance.

    Args:
        name: Operator type: QGemm or QMatMul with an ending.
        random: Where the choices come from.
    """
    make = _gemm if name.startswith("QGemm") else _matmul
    inputs, attributes, constants, bound = make(name, random)
    depth_bound = max(1, bound)
    factors = _rescale(random, inputs, depth_bound, multiplies=not name.endswith("Shift"), gemm=make is _gemm)
    inputs = [*inputs, *factors]
    last = tuple(range(1, len(inputs))) if constants else ()
    return inputs, attributes | _clamp(random), last


def _gemm(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], bool, int]:
    wide, packed = "Wide" in name, "Packed" in name
    depth, outputs = _size(random), _size(random)
    lead = [(), (1,), (0,), (2,), (5,), (8,), (17,), (50,), (2, 3), (3, 1, 7)][random.integers(10)]
    bits = int(random.choice(packing.BITS)) if packed else 8
    weight = codes(random, (outputs, depth), np.int8) >> (8 - bits)
    x = codes(random, (*lead, depth), np.int16 if wide else np.int8)
    bound = max(depth, 1) << (22 if wide else 14)
    many = (outputs,) if random.random() < 0.8 or outputs == 0 else ()
    bias = np.asarray(random.integers(-bound, bound, many, np.int64 if wide else np.int32))
    attributes = {"bits": bits, "weight_shape": list(weight.shape)} if packed else {}
    operand = packing.pack(weight, bits) if packed else np.ascontiguousarray(weight.T)
    return [x, operand, bias], attributes, random.random() < 0.85, 2 * bound


def _matmul(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], bool, int]:
    wide = "Wide" in name
    rows, depth, columns = (_size(random) for _ in range(3))
    batch = random.choice([1, 2, 3, 0], int(random.integers(0, 4)), p=[0.3, 0.3, 0.35, 0.05]).tolist()
    shapes = [(*_broadcast(random, batch), rows, depth), (*_broadcast(random, batch), depth, columns)]
    kind = random.random()
    if kind < 0.1:
        shapes[0] = (depth,)
    elif kind < 0.2:
        shapes[1] = (depth,)
    dtypes = [random.choice([np.int8, np.int16]) if wide else np.int8 for _ in range(2)]
    a, b = (codes(random, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    zeros = {f"{key}_zero_point": int(codes(random, (), item.dtype)) for key, item in (("a", a), ("b", b))}
    for key in zeros:
        if random.random() < 0.3:
            zeros[key] = 0
    bound = max(depth, 1) << (sum(8 if dtype == np.int8 else 16 for dtype in dtypes))
    return [a, b], zeros, False, bound


def _broadcast(random: np.random.Generator, batch: list[int]) -> tuple[int, ...]:
    """A shape that broadcasts to ``batch`` or a part of it."""
    kept = batch[int(random.integers(0, len(batch) + 1)) if random.random() < 0.4 else 0 :]
    return tuple(1 if random.random() < 0.3 else size for size in kept)


def _size(random: np.random.Generator) -> int:
    kind = random.random()
    if kind < 0.03:
        return 0
    if kind < 0.6:
        return int(random.integers(1, 40))
    return int(random.choice([16, 31, 32, 33, 48, 63, 64, 65, 80, 96, 127, 128, 129, 200, 257]))


def codes(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Uniform codes, sometimes only the least, the greatest, or both."""
    limits = np.iinfo(dtype)
    kind = random.random()
    if kind < 0.2:
        return random.choice(np.array([limits.min, limits.max], dtype), shape)
    if kind < 0.3:
        return np.full(shape, random.choice([limits.min, limits.max]), dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def _rescale(
    random: np.random.Generator, inputs: list[NDArray[Any]], bound: int, *, multiplies: bool, gemm: bool
) -> list[NDArray[Any]]:
    """Factors that spread accumulators over the codes, some that saturate them."""
    many = inputs[2].shape if gemm and random.random() < 0.8 else ()
    factor = np.exp2(random.uniform(3, 9, many)) / bound
    if not multiplies:
        return [np.asarray(choose_shift(np.exp2(np.round(np.log2(factor)))).shift)]
    chosen = choose(factor, 31, bound)
    assert chosen.multiplier is not None
    return [np.asarray(chosen.multiplier), np.asarray(chosen.shift)]


def _clamp(random: np.random.Generator) -> dict[str, int]:
    to, dtype = (3, np.int8) if random.random() < 0.6 else (5, np.int16)
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if random.random() < 0.5 else sorted(random.integers(-100, 100, 2).tolist())
    return {"y_zero_point": int(random.integers(-128, 128)), "to": to, "low": int(low), "high": int(high)}
