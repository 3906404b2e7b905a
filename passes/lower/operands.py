"""What lowerings of elementwise operators and movers share: operands as codes, and results at the output's scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import FORMATS, Codes, NoIntegerForm, Site
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.arithmetic import quantize
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import MINIMUM_SCALE, QParams

__all__ = ["at_output", "finish", "limits", "moved_to", "operand", "standard"]

_CONSTANT: Final = QFormat(16, symmetric=True)


def limits(codes: Codes) -> tuple[int, int]:
    """Least and greatest code of the type."""
    form = FORMATS[codes.dtype]
    return form.minimum, form.maximum


def operand(site: Site, emitter: Emitter, index: int, content: NDArray[Any] | None = None) -> Codes:
    """The codes of an input; a constant without codes of one usable scale gets symmetric 16-bit codes.

    Args:
        site: The site.
        emitter: Writes the nodes.
        index: Which input.
        content: Other numbers to take the place of the input.

    Raises:
        NoIntegerForm: The input is neither codes nor a constant, or the constant is not finite.
    """
    if content is None:
        found = site.inputs[index]
        if found is not None and not (site.arithmetic.shifts_only and np.frexp(found.scale)[0] != 0.5):
            return found
        content = site.constant(index)
    return site.codes(index) if content is None else _stored(site, emitter, index, content)


def _stored(site: Site, emitter: Emitter, index: int, content: NDArray[Any]) -> Codes:
    if not np.isfinite(content).all():
        raise NoIntegerForm(f"its constant input {index} is not finite")
    scale = float(np.abs(content).max(initial=0.0)) / _CONSTANT.maximum or 1.0
    if site.arithmetic.shifts_only:
        scale = float(2.0 ** np.ceil(np.log2(scale)))
    params = QParams(np.asarray(max(scale, MINIMUM_SCALE), np.float32), np.asarray(0, np.int32))
    value = site.node.inputs[index]
    name = str(value.name) if value is not None else "constant"
    codes = quantize(np.asarray(content, np.float32), params, _CONSTANT)
    return Codes(emitter.constant(f"{name}_codes", codes), float(params.scale), 0, ir.DataType.INT16, name)


def at_output(site: Site, emitter: Emitter, index: int) -> ir.Value:
    """Input ``index`` as codes of the site's output: as it is, rescaled, or quantized where it is a constant.

    Raises:
        NoIntegerForm: The input is neither codes nor a constant, or its scale cannot be changed.
    """
    out, content = site.output, site.constant(index)
    if content is not None:
        if np.isnan(content).any():
            raise NoIntegerForm(f"its constant input {index} is not a number")
        params = QParams(np.asarray(out.scale, np.float32), np.asarray(out.zero_point, np.int32))
        greatest = np.finfo(np.float32).max  # infinities saturate like everything large
        real = np.clip(content, -greatest, greatest).astype(np.float32)
        return emitter.constant(f"{out.of}_operand", quantize(real, params, FORMATS[out.dtype]))
    source = site.codes(index)
    if source.same_parameters(out):
        return source.value
    return _rescaled(site, emitter, source, replace(out, of=source.of), limits(out))


def standard(
    site: Site,
    emitter: Emitter,
    inputs: Sequence[ir.Value | None],
    moved: Codes,
    *,
    through: ir.DataType | None = None,
    moving: Sequence[int] = (0,),
) -> Codes:
    """Insert the site's operator on codes; its one result has the parameters of ``moved``.

    Args:
        site: The site.
        emitter: Writes the nodes.
        inputs: Inputs of the node.
        moved: The codes that the operator moves or compares.
        through: Element type in which the operator runs, where runtimes lack it for codes: casts around it are exact.
        moving: Which inputs are codes.
    """
    out = site.output
    shape = site.node.outputs[0].shape
    attributes = {name: item.value for name, item in site.node.attributes.items()}
    kind = site.node.op_type

    def emit(op: str, operands: Sequence[ir.Value | None], dtype: ir.DataType, **settings: Any) -> ir.Value:
        like = operands[0].shape if op == "Cast" and operands[0] is not None else shape
        return emitter.emit(op, operands, settings, name=out.of, dtype=dtype, shape=like, domain="")

    if through is None:
        result = emit(kind, inputs, moved.dtype, **attributes)
    else:
        inside = list(inputs)
        for index in moving:
            inside[index] = emit("Cast", [inside[index]], through, to=through.value)
        wide = emit(kind, inside, through, **attributes)
        result = emit("Cast", [wide], moved.dtype, to=moved.dtype.value)
    annotate(result, Annotation(out.of, moved.scale, moved.zero_point))
    return replace(moved, value=result, of=out.of)


def moved_to(site: Site, source: Codes, value: ir.Value) -> Codes:
    """Codes of ``source`` that other nodes moved or compared into ``value``, on the way to the site's output."""
    if value is source.value:
        return source
    annotate(value, Annotation(site.output.of, source.scale, source.zero_point))
    return replace(source, value=value, of=site.output.of)


def finish(
    site: Site, emitter: Emitter, moved: Codes, index: int = 0, clamp: tuple[int, int] | None = None
) -> ir.Value:
    """Bring a result whose codes still have the parameters of an input to the codes of output ``index``.

    Args:
        site: The site.
        emitter: Writes the nodes.
        moved: The result with the input's parameters.
        index: Which output it is.
        clamp: Least and greatest code of the output; by default the absorbed activations decide.

    Raises:
        NoIntegerForm: The scale cannot be changed.
    """
    out = site.outputs[index]
    low, high = clamp if clamp is not None else (site.clamp() if index == 0 else limits(out))
    if not moved.same_parameters(out):
        return _rescaled(site, emitter, moved, out, (low, high))
    if low <= moved.low and high >= moved.high:
        return moved.value
    if out.dtype is not ir.DataType.INT8:  # no runtime clips 16 bits
        return _rescaled(site, emitter, moved, out, (low, high))
    ends = (("least", low), ("greatest", high))
    clips = [emitter.constant(f"{out.of}_{name}", np.array(code, np.int8)) for name, code in ends]
    clipped = emitter.emit(
        "Clip", [moved.value, *clips], name=out.of, dtype=out.dtype, shape=moved.value.shape, domain=""
    )
    annotate(clipped, Annotation(out.of, out.scale, out.zero_point))
    return clipped


def _rescaled(site: Site, emitter: Emitter, source: Codes, to: Codes, clamp: tuple[int, int]) -> ir.Value:
    return emitter.rescaled(
        "Requantize",
        [source.value],
        source.scale / to.scale,
        bound=source.magnitude,
        site=site,
        attributes={"x_zero_point": source.zero_point},
        shape=source.value.shape,
        output=to,
        clamp=clamp,
    )
