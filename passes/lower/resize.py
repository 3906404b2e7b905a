"""Resize: copied codes by index tables where it takes the nearest, weighted taps per axis where it interpolates.

The tables are constants: which elements are read, with which weights, follows from the sizes when the model is
compiled. Where a size is not known, enlarging by whole numbers still works: each index is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.lower._resized import Resized, resized
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.operands import finish, moved_to
from qcompiler.passes.lower.site import Codes, Lowering, NoIntegerForm, Site
from qcompiler.quant.integer import resampling
from qcompiler.quant.integer.resize import quantized_taps

__all__ = ["LOWERINGS"]

_INT64: Final = ir.DataType.INT64


@dataclass(frozen=True, slots=True)
class _Precision:
    """Bits of the weights, and fraction bits of what lies between two axes."""

    weight: int
    fraction: int


_NARROW: Final = _Precision(12, 10)  # 8-bit codes: two axes fit 32 bits, see quant/integer/resize.py
_WIDE: Final = _Precision(20, 12)
_MULTIPLIER: Final = 31


def resize(site: Site, emitter: Emitter) -> ir.Value:
    """Resize with sizes that are known, or by whole numbers."""
    source, node = site.codes(0), site.node
    form = resized(site)
    mode = node.attributes.get_string("mode", "nearest")
    if mode == "nearest":
        tables = _nearest(site, form)
        if tables is None:
            return _interpolated(site, emitter, _cropped(site, form))
        return finish(site, emitter, moved_to(site, source, _gathered(site, emitter, source, form, tables)))
    if node.attributes.get_int("antialias", 0):
        raise NoIntegerForm("it filters while it makes smaller (antialias)")
    return _interpolated(site, emitter, _taps(site, form, mode))


def _transformation(site: Site) -> str:
    return site.node.attributes.get_string("coordinate_transformation_mode", "half_pixel") or "half_pixel"


def _rounding(site: Site) -> str:
    return site.node.attributes.get_string("nearest_mode", "round_prefer_floor") or "round_prefer_floor"


# -- nearest: codes are copied -----------------------------------------------------------------------------------


def _nearest(site: Site, form: Resized) -> dict[int, NDArray[np.int64] | int] | None:
    """Per axis its index table, or by how much it is repeated; ``None`` where something outside is read."""
    found: dict[int, NDArray[np.int64] | int] = {}
    for axis, item in form.axes.items():
        if isinstance(item, int):
            if not _repeats(_transformation(site), _rounding(site)):
                raise NoIntegerForm(f"the size of axis {axis} is not known, and its coordinates depend on it")
            found[axis] = item
        elif resampling.outside(item, _transformation(site)).any():
            return None
        else:
            found[axis] = resampling.nearest(item, _transformation(site), _rounding(site))
    return found


def _repeats(transformation: str, rounding: str) -> bool:
    """Whether enlarging ``r`` times repeats every element ``r`` times: output ``i`` copies element ``i // r``."""
    centred = transformation in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
    return (transformation == "asymmetric" and rounding == "floor") or (centred and rounding.startswith("round"))


def _gathered(
    site: Site, emitter: Emitter, source: Codes, form: Resized, tables: Mapping[int, NDArray[np.int64] | int]
) -> ir.Value:
    value, of = source.value, site.output.of
    shape: list[int | ir.SymbolicDim] = [] if value.shape is None else list(value.shape)
    for axis, table in tables.items():
        if isinstance(table, int):
            index = _repeated(emitter, value, axis, table, of)
            shape[axis] = ir.SymbolicDim(None)
        else:
            if np.array_equal(table, np.arange(form.shape[axis] or 0)):
                continue
            index = emitter.constant(f"{of}_places_{axis}", table)
            shape[axis] = len(table)
        value = emitter.emit(
            "Gather", [value, index], {"axis": axis}, name=f"{of}_along_{axis}", dtype=source.dtype,
            shape=ir.Shape(shape), domain="",
        )  # fmt: skip
    return value


def _repeated(emitter: Emitter, value: ir.Value, axis: int, times: int, of: str) -> ir.Value:
    """Indices ``0 0 1 1 2 2 ...`` of an axis whose size is known only when the model runs."""

    def index(op_type: str, inputs: Sequence[ir.Value], shape: Sequence[int | None], **attributes: int) -> ir.Value:
        return emitter.emit(
            op_type, inputs, attributes, name=f"{of}_{op_type.lower()}_{axis}", dtype=_INT64, shape=_shape(shape),
            domain="",
        )  # fmt: skip

    def number(name: str, content: int | list[int]) -> ir.Value:
        return emitter.constant(f"{of}_{name}", np.array(content, np.int64))

    rank = len(value.shape) if value.shape is not None else None
    sizes = index("Shape", [value], [rank])
    size = index("Gather", [sizes, number("axis", axis)], [], axis=0)
    places = index("Range", [number("first", 0), size, number("step", 1)], [None])
    column = index("Unsqueeze", [places, number("behind", [1])], [None, 1])
    rows = index("Expand", [column, number("times", [1, times])], [None, times])
    return index("Reshape", [rows, number("flat", [-1])], [None])


# -- interpolation: weighted taps --------------------------------------------------------------------------------

_Taps = Mapping[int, tuple[NDArray[np.int64], NDArray[np.float64]]]


def _taps(site: Site, form: Resized, mode: str) -> _Taps:
    """Indices and weights of every axis that changes.

    Raises:
        NoIntegerForm: A size is not known, or the mode has no taps.
    """
    found = {}
    for axis, item in form.axes.items():
        if isinstance(item, int):
            raise NoIntegerForm(f"the size of axis {axis} is not known; interpolation needs it")
        try:
            index, weight = resampling.taps(
                item,
                _transformation(site),
                mode,
                cubic=site.node.attributes.get_float("cubic_coeff_a", -0.75),
                exclude_outside=bool(site.node.attributes.get_int("exclude_outside", 0)),
            )
        except (KeyError, ValueError) as error:
            raise NoIntegerForm(f"it cannot be written as weighted taps: {error}") from error
        used = np.abs(weight).max(axis=0) > 0
        used[0] |= not used.any()
        if not (used.sum() == 1 and np.array_equal(index[:, used][:, 0], np.arange(item.size)) and weight.all()):
            found[axis] = index[:, used], weight[:, used]
    _check_extrapolation(site, found)
    return found


def _cropped(site: Site, form: Resized) -> _Taps:
    """Nearest neighbours of a region that reaches beyond the input: one tap, or none."""
    found = {}
    for axis, item in form.axes.items():
        if isinstance(item, int):
            raise NoIntegerForm(f"the size of axis {axis} is not known, and its coordinates depend on it")
        inside = ~resampling.outside(item, _transformation(site))
        index = resampling.nearest(item, _transformation(site), _rounding(site))
        found[axis] = index[:, None], inside[:, None].astype(np.float64)
    _check_extrapolation(site, found)
    return found


def _check_extrapolation(site: Site, taps: _Taps) -> None:
    outside = any(not weight.any(axis=1).all() for _, weight in taps.values())
    if outside and site.node.attributes.get_float("extrapolation_value", 0.0) != 0:
        raise NoIntegerForm("it fills what lies outside with a number other than 0")


def _interpolated(site: Site, emitter: Emitter, taps: _Taps) -> ir.Value:
    """A chain of one weighted sum per axis; what makes smaller comes first."""
    source = site.codes(0)
    if not taps:
        return finish(site, emitter, source)
    wide = source.dtype is ir.DataType.INT16
    width = site.arithmetic.wide_accumulator_bits if wide else site.arithmetic.accumulator_bits
    if wide and (width < 62 or not site.arithmetic.multiplier_bits):
        raise NoIntegerForm("the target has no wide weighted sums of 16-bit codes")
    precision = _WIDE if wide else _NARROW
    chain = _Chain(site, emitter, source.value, source.zero_point, source.magnitude, 0, width)
    sizes = [len(index) / (size or 1) for (axis, (index, _)) in taps.items() for size in [_size(source.value, axis)]]
    order = [axis for _, axis in sorted(zip(sizes, taps, strict=True))]
    for axis in order[:-1]:
        chain = chain.through(axis, *taps[axis], precision)
    factor = source.scale / site.output.scale
    if wide and np.frexp(factor)[0] != 0.5:  # 48 bits leave too few for an exact multiplier: rounded to 32 before
        return chain.through(order[-1], *taps[order[-1]], precision).rescaled(factor)
    return chain.ending(order[-1], *taps[order[-1]], precision, factor)


@dataclass(frozen=True, slots=True, eq=False)
class _Chain:
    """What some axes have been resized to.

    Attributes:
        site: The site.
        emitter: Writes the nodes.
        value: Codes with ``fraction`` more bits, less the zero point behind the first axis.
        zero: Code of zero in ``value``.
        magnitude: Greatest distance from it.
        fraction: Bits below the code.
        width: Bits of the accumulator.
    """

    site: Site
    emitter: Emitter
    value: ir.Value
    zero: int
    magnitude: int
    fraction: int
    width: int

    def through(self, axis: int, index: NDArray[np.int64], weight: NDArray[np.float64], of: _Precision) -> _Chain:
        """The next axis, rounded to 32 bits with ``of.fraction`` fraction bits."""
        operands, bound = self._operands(axis, index, weight, of)
        factor = 2.0 ** (of.fraction - self.fraction - of.weight)
        most = int(np.ceil(bound * factor)) + 1
        name = f"{self.site.output.of}_along_{axis}"
        dyadic = self.emitter.dyadic(factor, bound, self.site, name)
        value = self.emitter.emit(
            "QResize" if self.site.arithmetic.multiplier_bits else "QResizeShift",
            [*operands, *dyadic],
            {
                "axis": axis,
                "x_zero_point": self.zero,
                "y_zero_point": 0,
                "to": ir.DataType.INT32.value,
                "low": -most,
                "high": most,
            },
            name=name,
            dtype=ir.DataType.INT32,
            shape=self._shape(axis, len(index)),
        )
        return _Chain(self.site, self.emitter, value, 0, most, of.fraction, self.width)

    def ending(
        self, axis: int, index: NDArray[np.int64], weight: NDArray[np.float64], of: _Precision, factor: float
    ) -> ir.Value:
        """The last axis, rescaled to the site's output."""
        operands, bound = self._operands(axis, index, weight, of)
        return self.emitter.rescaled(
            "QResize", operands, factor * 2.0 ** -(self.fraction + of.weight), bound=bound, site=self.site,
            attributes={"axis": axis, "x_zero_point": self.zero},
        )  # fmt: skip

    def rescaled(self, factor: float) -> ir.Value:
        """What there is, rescaled to the site's output."""
        return self.emitter.rescaled(
            "Requantize", [self.value], factor * 2.0**-self.fraction, bound=self.magnitude, site=self.site,
            attributes={"x_zero_point": 0},
        )  # fmt: skip

    def _operands(
        self, axis: int, index: NDArray[np.int64], weight: NDArray[np.float64], of: _Precision
    ) -> tuple[list[ir.Value], int]:
        codes = quantized_taps(weight, of.weight)
        bound = self.magnitude * int(np.abs(codes.astype(np.int64)).sum(axis=1).max())
        if bound >= 1 << (min(self.width, 62) - 1):
            raise NoIntegerForm(f"a weighted sum can reach {bound}, and the target's accumulator has {self.width} bits")
        rank = len(self.value.shape) if self.value.shape is not None else axis + 1
        of_name = self.site.output.of
        places = self.emitter.constant(f"{of_name}_places_{axis}", index)
        weights = self.emitter.constant(
            f"{of_name}_weights_{axis}", codes.reshape(*codes.shape, *[1] * (rank - axis - 1))
        )
        return [self.value, places, weights], bound

    def _shape(self, axis: int, size: int) -> ir.Shape | None:
        if self.value.shape is None:
            return None
        return ir.Shape([size if index == axis else item for index, item in enumerate(self.value.shape)])


def _size(value: ir.Value, axis: int) -> int | None:
    size = value.shape[axis] if value.shape is not None else None
    return size if isinstance(size, int) else None


def _shape(sizes: Sequence[int | None]) -> ir.Shape:
    return ir.Shape([ir.SymbolicDim(None) if size is None else size for size in sizes])


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType({"Resize": resize})
