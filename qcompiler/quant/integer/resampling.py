"""Which input elements an output element of Resize reads, and with which weights: the tables of a resize.

Coordinates follow the text of the ONNX operator (versions 11 to 19), computed in float32 as runtimes do, so that a
nearest neighbour on a tie falls to the same side. Where the scale is no power of two, the last bit decides about ties,
and runtimes order their operations differently: there either neighbour may be copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "coordinates", "nearest", "outside", "taps"]

_Real: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Axis:
    """One resized axis.

    Attributes:
        size: Elements of the input.
        resized: Elements of the output.
        scale: The scale as given; ``resized / size`` where sizes were given.
        roi: Begin and end of the region for ``tf_crop_and_resize``, as shares of the axis.
    """

    size: int
    resized: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


def coordinates(axis: Axis, transformation: str) -> _Real:
    """Position in the input of every output element, float32 ``[resized]``.

    Raises:
        KeyError: The transformation is unknown.
    """
    return _TRANSFORMATIONS[transformation](np.arange(axis.resized, dtype=np.float32), axis)


def outside(axis: Axis, transformation: str) -> NDArray[np.bool_]:
    """Output elements that lie outside the input and take the extrapolation value; only ``tf_crop_and_resize``."""
    position = coordinates(axis, transformation)
    if transformation != "tf_crop_and_resize":
        return np.zeros(position.shape, np.bool_)
    return (position < 0) | (position > axis.size - 1)


def nearest(axis: Axis, transformation: str, rounding: str) -> NDArray[np.int64]:
    """Index of the input element that each output element copies, int64 ``[resized]``.

    Raises:
        KeyError: Transformation or rounding is unknown.
    """
    rounded = _ROUNDINGS[rounding](coordinates(axis, transformation))
    return np.clip(rounded.astype(np.int64), 0, axis.size - 1)


def taps(
    axis: Axis, transformation: str, interpolation: str, *, cubic: float = -0.75, exclude_outside: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices and weights ``[resized, T]`` of ``linear`` (two taps) or ``cubic`` (four) interpolation.

    Rows outside a cropped region have weights 0.

    Raises:
        KeyError: The transformation is unknown.
        ValueError: The interpolation is unknown, or all taps of a row are excluded.
    """
    position = coordinates(axis, transformation)
    if interpolation == "linear":
        position = np.clip(position, 0, axis.size - 1)
        index, weight = _linear(position)
    elif interpolation == "cubic":
        index, weight = _cubic(position, cubic)
    else:
        raise ValueError(f"interpolation '{interpolation}'")
    beyond = outside(axis, transformation)
    if exclude_outside and interpolation == "cubic":
        weight = np.where((index < 0) | (index >= axis.size), 0.0, weight)
        inside = np.where(beyond[:, None], 1.0, weight.sum(axis=1, keepdims=True))
        if not inside.all():
            raise ValueError("an output element reads nothing but what lies outside")
        weight /= inside
    weight[beyond] = 0.0
    return np.clip(index, 0, axis.size - 1), weight


def _linear(position: _Real) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    left = np.floor(position)
    share = position.astype(np.float64) - left
    return np.stack([left, left + 1], axis=1).astype(np.int64), np.stack([1 - share, share], axis=1)


def _cubic(position: _Real, a: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Keys' kernel (1981) with parameter ``a``, four taps."""
    left = np.floor(position)
    share = position.astype(np.float64) - left
    index = left.astype(np.int64)[:, None] + np.arange(-1, 3)
    near = [share, 1 - share]
    inner = [((a + 2) * t - (a + 3)) * t * t + 1 for t in near]
    outer = [((a * t - 5 * a) * t + 8 * a) * t - 4 * a for t in (share + 1, 2 - share)]
    return index, np.stack([outer[0], inner[0], inner[1], outer[1]], axis=1)


def _half_pixel(x: _Real, axis: Axis) -> _Real:
    return (x + np.float32(0.5)) / np.float32(axis.scale) - np.float32(0.5)


def _half_pixel_symmetric(x: _Real, axis: Axis) -> _Real:
    adjustment = np.float32(axis.resized) / (np.float32(axis.scale) * np.float32(axis.size))
    center = np.float32(axis.size) / np.float32(2)
    offset = center * (np.float32(1) - adjustment)
    return offset + (x + np.float32(0.5)) / np.float32(axis.scale) - np.float32(0.5)


def _align_corners(x: _Real, axis: Axis) -> _Real:
    if axis.resized == 1:
        return np.zeros_like(x)
    return x * np.float32(axis.size - 1) / np.float32(axis.resized - 1)


def _crop(x: _Real, axis: Axis) -> _Real:
    begin, end = np.float32(axis.roi[0]), np.float32(axis.roi[1])
    last = np.float32(axis.size - 1)
    if axis.resized == 1:
        return np.full_like(x, np.float32(0.5) * (begin + end) * last)
    return begin * last + x * (end - begin) * last / np.float32(axis.resized - 1)


def _prefer_floor(x: _Real) -> NDArray[np.float64]:
    return np.ceil(x.astype(np.float64) - 0.5)


def _prefer_ceil(x: _Real) -> NDArray[np.float64]:
    return np.floor(x.astype(np.float64) + 0.5)


_TRANSFORMATIONS: Final = MappingProxyType[str, Callable[[_Real, Axis], _Real]](
    {
        "asymmetric": lambda x, axis: x / np.float32(axis.scale),
        "half_pixel": _half_pixel,
        "half_pixel_symmetric": _half_pixel_symmetric,
        "pytorch_half_pixel": lambda x, axis: _half_pixel(x, axis) if axis.resized > 1 else np.zeros_like(x),
        "tf_half_pixel_for_nn": lambda x, axis: (x + np.float32(0.5)) / np.float32(axis.scale),
        "align_corners": _align_corners,
        "tf_crop_and_resize": _crop,
    }
)

_ROUNDINGS: Final = MappingProxyType[str, Callable[[_Real], NDArray[Any]]](
    {
        "round_prefer_floor": _prefer_floor,
        "round_prefer_ceil": _prefer_ceil,
        "floor": np.floor,
        "ceil": np.ceil,
    }
)
