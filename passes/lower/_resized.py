"""Which axes a Resize changes, from which size to which, whether scales or sizes are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.lower._windows import sizes_of
from qcompiler.passes.lower.site import NoIntegerForm, Site
from qcompiler.quant.integer.resampling import Axis

__all__ = ["Resized", "resized"]

_ROI, _SCALES, _SIZES = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Resized:
    """A resize.

    Attributes:
        shape: Sizes of the input; ``None`` where unknown.
        axes: What changes, by axis: sizes and scale, or a whole number by which an axis of unknown size grows.
    """

    shape: tuple[int | None, ...]
    axes: Mapping[int, Axis | int]


def resized(site: Site) -> Resized:
    """What the Resize node of a site does.

    Raises:
        NoIntegerForm: It depends on numbers that are not known.
    """
    node = site.node
    shape = sizes_of(node.inputs[0])
    named = [axis % len(shape) for axis in node.attributes.get_ints("axes", ())] or list(range(len(shape)))
    regions = _regions(site, len(named))
    scales, sizes = _given(site, _SCALES), _given(site, _SIZES)
    common = None if sizes is None else _common_scale(site, [shape[axis] for axis in named], sizes)
    found: dict[int, Axis | int] = {}
    for place, axis in enumerate(named):
        if scales is not None:
            item = _scaled(shape[axis], float(scales[place]), regions[place], axis)
        elif _unchanged(site, axis):
            item = None
        elif sizes is not None:
            item = _sized(shape[axis], int(sizes[place]), regions[place], axis, common)
        else:
            item = _sized(shape[axis], _known(site, axis), regions[place], axis)
        if item is not None:
            found[axis] = item
    return Resized(shape, found)


def _given(site: Site, index: int) -> NDArray[np.float64] | None:
    content = site.constant(index)
    return None if content is None or not content.size else content.reshape(-1).astype(np.float64)


def _unchanged(site: Site, axis: int) -> bool:
    """Whether input and result have the same symbolic size, say that of the batch."""
    shapes = [value.shape if value is not None else None for value in (site.node.inputs[0], site.node.outputs[0])]
    before, after = (None if shape is None else shape[axis] for shape in shapes)
    symbolic = isinstance(before, ir.SymbolicDim) and before.value is not None
    return symbolic and before == after


def _known(site: Site, axis: int) -> int:
    """The size of the result where shape inference knows it although it is computed."""
    shape = site.node.outputs[0].shape
    size = shape[axis] if shape is not None else None
    if not isinstance(size, int):
        raise NoIntegerForm("its sizes are computed at run time")
    return size


def _regions(site: Site, count: int) -> list[tuple[float, float]]:
    if site.node.attributes.get_string("coordinate_transformation_mode", "") != "tf_crop_and_resize":
        return [(0.0, 1.0)] * count
    region = _given(site, _ROI)
    if region is None or region.size != 2 * count:
        raise NoIntegerForm("the region it crops is computed at run time")
    return [(float(region[place]), float(region[count + place])) for place in range(count)]


def _scaled(size: int | None, scale: float, region: tuple[float, float], axis: int) -> Axis | int | None:
    if scale == 1.0 and region == (0.0, 1.0):
        return None
    if size is None:
        if scale < 1 or scale != int(scale):
            raise NoIntegerForm(f"the size of axis {axis} is not known, and it does not grow by a whole number")
        return int(scale)
    return Axis(size, int(np.floor(np.float32(size) * np.float32(scale))), scale, region)


def _sized(
    size: int | None, result: int, region: tuple[float, float], axis: int, common: float | None = None
) -> Axis | None:
    if size is None:
        raise NoIntegerForm(f"the size of axis {axis} is not known")
    if common is not None:  # the sizes only say how large the result may be
        result = int(np.floor(size * common + 0.5))
    if size == result and region == (0.0, 1.0):
        return None
    return Axis(size, result, float(np.float32(result) / np.float32(size)) if common is None else common, region)


def _common_scale(site: Site, before: list[int | None], sizes: NDArray[np.float64]) -> float | None:
    """The scale of all axes where the ratio of the sides is kept; ``None`` where each has its own."""
    policy = site.node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    known = [size for size in before if size is not None]
    if len(known) < len(before):
        raise NoIntegerForm("it keeps the ratio of sides whose sizes are not known")
    ratios = sizes / np.array(known, np.float64)
    return float(np.float32(ratios.min() if policy == "not_larger" else ratios.max()))
