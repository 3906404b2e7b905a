"""Random instances of pools and means: every rank, window, set of axes and kind of factor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer.digits import choose_digits
from qcompiler.quant.integer.pooling import window_shape
from tests.quant.integer.pooling_cases import codes
from tests.runtime.native.cases_requantize import clamp, factors

__all__ = ["case"]


def _window(random: np.random.Generator, rank: int) -> tuple[tuple[int, ...], dict[str, list[int]]]:
    """Spatial sizes, and attributes of windows; some windows lie in the padding altogether."""
    kernel, strides, dilations = (random.integers(1, top, rank, endpoint=True) for top in (5, 4, 3))
    reach = (kernel - 1) * dilations + 1
    pads = random.integers(0, reach + (3 if random.random() < 0.2 else 0), (2, rank))
    if random.random() < 0.3:
        pads[...] = 0
    room = np.maximum(reach - pads.sum(axis=0), 0)
    sizes = room + random.integers(0, 40 if rank == 1 else 9, rank)
    lists = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads.reshape(-1)}
    return tuple(int(size) for size in sizes), {name: [int(item) for item in values] for name, values in lists.items()}


def _digits(random: np.random.Generator, shape: tuple[int, ...], bound: int) -> list[NDArray[Any]]:
    """Digits as a compiler chooses them, or any."""
    if bound < 1 << 32 and random.random() < 0.5:  # greater accumulators leave too few digits
        made = choose_digits(np.exp(random.uniform(-3, 0, shape)) * 100 / max(bound, 100), max(bound, 1))
        return [made.left, made.negative, made.shift]
    count, most = int(random.integers(1, 5)), 44 - int(bound).bit_length() - 3
    left = random.integers(0, most + 1, (*shape, count)).astype(np.uint8)
    return [left, random.random(left.shape) < 0.4, np.array(random.integers(1, 62), np.uint8)]


def _factors(random: np.random.Generator, name: str, shapes: list[tuple[int, ...]], bound: int) -> list[NDArray[Any]]:
    shape = shapes[random.integers(len(shapes))]
    if name.endswith("Shift"):
        return _digits(random, shape, bound)
    multiplier, shift = factors(random, bound, shape)
    return [multiplier, shift if random.random() < 0.8 else np.array(shift.max(initial=1), np.uint8)]


def _max_pool(random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    dtype, to = [(np.int8, 3), (np.int16, 5)][random.integers(2)]
    sizes, lists = _window(random, 1)
    shape = [int(size) for size in random.choice([1, 1, 2, 3, 7, 33, 70], int(random.integers(0, 4)))]
    axis = int(random.integers(len(shape) + 1))
    shape[axis:axis] = sizes
    attributes = {"axis": axis, "begin": lists["pads"][0], "end": lists["pads"][1], "to": to}
    attributes |= {"kernel": lists["kernel_shape"][0], "stride": lists["strides"][0]}
    return [codes(random, dtype, tuple(shape))], {**attributes, "dilation": lists["dilations"][0]}


def _mean(name: str, random: np.random.Generator, dtype: Any) -> tuple[list[NDArray[Any]], dict[str, Any]]:
    least = 2 if "Global" in name else 1
    shape = random.choice([0, 1, 2, 3, 5, 17, 40], int(random.integers(least, 6)), p=[0.02, *[0.98 / 6] * 6])
    shape = np.where(np.cumprod(np.maximum(shape, 1)) > 20000, 1, shape)
    if random.random() < 0.1:
        shape[-1] = random.integers(300, 1200)
    x = codes(random, dtype, tuple(int(size) for size in shape))
    axes = sorted(random.choice(x.ndim, int(random.integers(1, x.ndim + 1)), replace=False).tolist())
    if "Global" in name:
        return [x], {}
    return [x], {"axes": axes, "keepdims": int(random.integers(2))}


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs."""
    if name == "QMaxPool":
        return *_max_pool(random), ()
    dtype = np.int16 if "Wide" in name else np.int8
    positions: list[tuple[int, ...]] = [()]
    if "AveragePool" in name and "Global" not in name:
        rank = int(random.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
        sizes, attributes = _window(random, rank)
        channels = int(random.choice([1, 3, 16, 37, 70, 530], p=[0.2, 0.2, 0.2, 0.2, 0.18, 0.02]))
        found = window_shape(sizes, *attributes.values())
        count = int(np.prod(attributes["kernel_shape"]))
        last = "ChannelsLast" in name
        batch = int(random.integers(1, 3))
        x = codes(random, dtype, (batch, *sizes, channels) if last else (batch, min(channels, 16), *sizes))
        positions.append((*found, 1) if last else found)
        inputs = [x]
    else:
        inputs, attributes = _mean(name, random, dtype)
        count = max(inputs[0].size, 1)
    attributes = {**attributes, "x_zero_point": int(codes(random, dtype, ())[()]), **clamp(random)}
    inputs += _factors(random, name, positions, count * (65535 if "Wide" in name else 255))
    return inputs, attributes, tuple(range(1, len(inputs))) if random.random() < 0.7 else ()
