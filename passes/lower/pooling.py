"""Pooling and reductions: sums of codes with the division in the rescale, maxima of codes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.edit import AttributeValue
from qcompiler.passes.lower._windows import Windows, sizes_of, windows_of
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.operands import finish, moved_to, standard
from qcompiler.passes.lower.site import Codes, Lowering, NoIntegerForm, Site
from qcompiler.quant.integer.digits import choose_digits

__all__ = ["LOWERINGS"]


def average_pool(site: Site, emitter: Emitter) -> ir.Value:
    """AveragePool: a sum of each window; a window that is the whole input is a global one."""
    codes = site.codes(0)
    windows = windows_of(site.node, sizes_of(site.node.inputs[0])[2:])
    if windows.covers_all:
        return _global_sum(site, emitter, math.prod(windows.kernel))
    counts = windows.counts(padding=bool(site.node.attributes.get_int("count_include_pad", 0)))
    if not counts.all():
        raise NoIntegerForm("a window lies in the padding altogether")
    return _sum(
        "QAveragePool",
        site,
        emitter,
        codes.scale / site.output.scale / counts,
        math.prod(windows.kernel),
        {
            "kernel_shape": windows.kernel,
            "strides": windows.strides,
            "dilations": windows.dilations,
            "pads": windows.pads,
        },
    )


def global_average_pool(site: Site, emitter: Emitter) -> ir.Value:
    """GlobalAveragePool over areas of known size."""
    return _global_sum(site, emitter, _count(sizes_of(site.node.inputs[0])[2:]))


def reduce_mean(site: Site, emitter: Emitter) -> ir.Value:
    """ReduceMean over axes of known size."""
    return _reduce(site, emitter, divides=True)


def reduce_sum(site: Site, emitter: Emitter) -> ir.Value:
    """ReduceSum over axes of known size: the accumulator is proven for as many codes."""
    return _reduce(site, emitter, divides=False)


def max_pool(site: Site, emitter: Emitter) -> ir.Value:
    """MaxPool: the standard operator on 8-bit codes; one operator per axis on 16-bit codes."""
    source = site.codes(0)
    if len(site.node.outputs) > 1 and site.node.outputs[1].uses():
        raise NoIntegerForm("the places of its maxima are read")
    if source.dtype is ir.DataType.INT8:
        return finish(site, emitter, standard(site, emitter, [source.value], source))
    sizes = sizes_of(site.node.inputs[0])
    windows = windows_of(site.node, sizes[2:])
    return finish(site, emitter, moved_to(site, source, _max_along_axes(site, emitter, source, windows)))


def global_max_pool(site: Site, emitter: Emitter) -> ir.Value:
    """GlobalMaxPool: ReduceMax over the spatial axes, on 16-bit codes by way of 32 bits."""
    source = site.codes(0)
    spatial = np.arange(2, len(sizes_of(site.node.inputs[0])), dtype=np.int64)
    axes = emitter.constant(f"{site.output.of}_axes", spatial)
    before, after = source.value.shape, site.node.outputs[0].shape

    def emit(
        op_type: str, inputs: list[ir.Value], element: ir.DataType, shape: ir.Shape | None, **settings: int
    ) -> ir.Value:
        return emitter.emit(op_type, inputs, settings, name=site.output.of, dtype=element, shape=shape, domain="")

    if source.dtype is ir.DataType.INT8:
        return finish(
            site, emitter, moved_to(site, source, emit("ReduceMax", [source.value, axes], source.dtype, after))
        )
    widened = emit("Cast", [source.value], ir.DataType.INT32, before, to=ir.DataType.INT32.value)
    greatest = emit("ReduceMax", [widened, axes], ir.DataType.INT32, after)
    value = emit("Cast", [greatest], source.dtype, after, to=source.dtype.value)
    return finish(site, emitter, moved_to(site, source, value))


def _max_along_axes(site: Site, emitter: Emitter, source: Codes, windows: Windows) -> ir.Value:
    value = source.value
    shape = list(source.value.shape) if source.value.shape is not None else None
    result = site.output.value.shape
    steps = zip(
        windows.kernel, windows.strides, windows.dilations, windows.begins, windows.ends, strict=True
    )  # fmt: skip
    for axis, step in enumerate(steps, 2):
        if step == (1, 1, 1, 0, 0) or (step[0] == 1 and step[1] == 1 and not any(step[3:])):
            continue
        if shape is not None:
            shape[axis] = result[axis] if result is not None else ir.SymbolicDim(None)
        value = emitter.emit(
            "QMaxPool",
            [value],
            {
                **dict(zip(("kernel", "stride", "dilation", "begin", "end"), step, strict=True)),
                "axis": axis,
                "to": source.dtype.value,
            },
            name=f"{site.output.of}_greatest",
            dtype=source.dtype,
            shape=None if shape is None else ir.Shape(shape),
        )
    return value


def _global_sum(site: Site, emitter: Emitter, count: int) -> ir.Value:
    return _sum("QGlobalAveragePool", site, emitter, site.codes(0).scale / site.output.scale / count, count, {})


def _reduce(site: Site, emitter: Emitter, *, divides: bool) -> ir.Value:
    codes = site.codes(0)
    sizes = sizes_of(site.node.inputs[0])
    axes = _axes(site, len(sizes))
    count = _count([sizes[axis] for axis in axes])
    factor = codes.scale / site.output.scale / (count if divides else 1)
    keep = site.node.attributes.get_int("keepdims", 1)
    return _sum("QReduceMean", site, emitter, factor, count, {"axes": axes, "keepdims": keep})


def _axes(site: Site, rank: int) -> tuple[int, ...]:
    given = site.node.attributes.get_ints("axes", ())
    if len(site.node.inputs) > 1 and site.node.inputs[1] is not None:
        content = site.constant(1)
        if content is None:
            raise NoIntegerForm("its axes are computed at run time")
        given = [int(axis) for axis in content.reshape(-1)]
    if not given and site.node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise NoIntegerForm("it reduces no axis")
    return tuple(sorted({axis % rank for axis in given})) if given else tuple(range(rank))


def _count(sizes: tuple[int | None, ...] | list[int | None]) -> int:
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        raise NoIntegerForm("how many elements it adds is not known before it runs")
    count = math.prod(known)
    if not count:
        raise NoIntegerForm("it adds no elements")
    return count


def _sum(
    base: str,
    site: Site,
    emitter: Emitter,
    factor: float | NDArray[np.float64],
    count: int,
    attributes: Mapping[str, AttributeValue],
) -> ir.Value:
    """Emit a sum of ``count`` codes: rescaled by a multiplier, or by signed digits where there is none.

    Raises:
        NoIntegerForm: Sum or factor do not fit the target's arithmetic.
    """
    codes, arithmetic = site.codes(0), site.arithmetic
    wide = codes.dtype is ir.DataType.INT16
    width = arithmetic.wide_accumulator_bits if wide else arithmetic.accumulator_bits
    if not width:
        raise NoIntegerForm("the target adds no 16-bit codes")
    bound = codes.magnitude * count
    if bound >= 1 << (width - 1):
        raise NoIntegerForm(f"a sum of {count} codes can reach {bound}, and the target's accumulator has {width} bits")
    operator = f"{base}{'Wide' if wide else ''}"
    completed = {**attributes, "x_zero_point": codes.zero_point}
    if arithmetic.multiplier_bits:
        return emitter.rescaled(operator, [codes.value], factor, bound=bound, site=site, attributes=completed)
    try:
        digits = choose_digits(factor, bound)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from error
    of = site.output.of
    operands = [
        codes.value,
        emitter.constant(f"{of}_left", digits.left),
        emitter.constant(f"{of}_negative", digits.negative),
        emitter.constant(f"{of}_shift", digits.shift),
    ]
    return emitter.codes(f"{operator}Shift", operands, site=site, attributes=completed)


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        "AveragePool": average_pool,
        "GlobalAveragePool": global_average_pool,
        "GlobalMaxPool": global_max_pool,
        "MaxPool": max_pool,
        "ReduceMean": reduce_mean,
        "ReduceSum": reduce_sum,
    }
)
