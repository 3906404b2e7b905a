"""fold-requantize: two rescales in a row become one.

A rescale behind an operator that ends with a rescale itself rounds a second time. Where nothing else reads what lies
between, the first can write the codes of the second: with factor ``M_1`` to the codes between and ``M_2`` behind them
the new factor is ``M_1 M_2``. What saturated between still does: ``f``, the second rescale, is monotone, so
``f(clip(v, low, high)) = clip(f(v), f(low), f(high))``, and the bounds of the result are the codes that ``f`` gives
the bounds between. Only the rounding between is lost, ``M_2 / 2`` codes of the result before its own rounding: for
``M_2 < 2`` one rescale and two are at most one code apart. Where ``M_2 >= 2`` the coarse codes between are part of what
was decided, and both rescales stay.

Codes of a Requantize that changes nothing are read directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.code_ranges import CodeRanges
from qcompiler.ir.constants import array
from qcompiler.ir.uses import only_use
from qcompiler.passes.lower.emitter import FACTOR
from qcompiler.passes.lower.site import NoIntegerForm
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant.annotations import annotate, annotation
from qcompiler.quant.functions import catalogue
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer import dyadic, elementwise
from qcompiler.target.lowered import why_not_rescales

__all__ = ["FoldRequantize"]

_RESCALES: Final = frozenset({"Requantize", "RequantizeShift"})
_CLAMP: Final = ("y_zero_point", "to", "low", "high")
_FAMILIES: Final = (
    "QAdd", "QAveragePool", "QConv", "QGather", "QGemm", "QGlobalAveragePool", "QMatMul", "QMul", "QReduceMean",
    "QSub", "Requantize",
)  # fmt: skip
"""Operators that end with one rescale of an exact sum or product, by the first letters of their names."""
_COARSE: Final = 2.0
"""Steps of the result in one step of the codes between, from which on the latter's rounding is kept."""


@dataclass(frozen=True)
class FoldRequantize(Pass):
    """Two rescales in a row become one, and rescales that change nothing vanish."""

    name: ClassVar[str] = "fold-requantize"
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.LOWERED})

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Visit every rescale in graph order, so that chains fold from the front."""
        ranges = CodeRanges()
        for node in list(model.graph):
            if node.domain != DOMAIN or node.op_type not in _RESCALES:
                continue
            if _changes_nothing(node, ranges):
                _replace(node, _read(node), ctx)
                continue
            first = _only_feeder(node)
            if first is None:
                continue
            try:
                _fold(first, node, ctx)
            except NoIntegerForm as reason:
                ctx.skip(node, str(reason))


def _read(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None  # noqa: S101 - the first input of our operators is never optional
    return value


def _replace(node: ir.Node, value: ir.Value, ctx: Context) -> None:
    ctx.edit.replace_uses(node.outputs[0], value)
    ctx.edit.remove_unused([node.outputs[0]])


def _factor(node: ir.Node) -> float | None:
    """The factor of a rescale by one constant number."""
    scales = [array(value) for value in node.inputs[1:]]
    if any(item is None or item.size != 1 for item in scales):
        return None
    return float(_dyadic([item for item in scales if item is not None]).value().reshape(()))


def _dyadic(scales: Sequence[NDArray[Any]]) -> dyadic.Dyadic:
    """Multiplier and shift, or the shift alone, as an operator's last inputs have them."""
    return dyadic.Dyadic(scales[0] if len(scales) == 2 else None, scales[-1])


def _changes_nothing(node: ir.Node, ranges: CodeRanges) -> bool:
    source, held = _read(node), ranges.of(node.inputs[0])
    same = node.attributes["x_zero_point"].as_int() == node.attributes["y_zero_point"].as_int()
    if not same or source.dtype is not ir.DataType(node.attributes["to"].as_int()) or _factor(node) != 1.0:
        return False
    low, high = (node.attributes[name].as_int() for name in ("low", "high"))
    return held is not None and low <= held[0] and held[1] <= high


def _only_feeder(node: ir.Node) -> ir.Node | None:
    """The operator of ours whose codes this rescale alone reads, if its own rescale can be another one."""
    source = _read(node)
    feeder = source.producer()
    if feeder is None or feeder.domain != DOMAIN or only_use(source) is None or source.is_graph_output():
        return None
    operator = catalogue.operators().get(feeder.op_type)
    if operator is None or not set(_CLAMP) <= set(operator.attributes):
        return None
    # Means without multipliers divide by digits instead: not by one shift.
    digits = "negative" in operator.inputs
    return feeder if feeder.op_type.startswith(_FAMILIES) and not digits else None


def _fold(first: ir.Node, second: ir.Node, ctx: Context) -> None:
    """Let ``first`` write what ``second`` writes.

    Raises:
        NoIntegerForm: It cannot, or should not.
    """
    factor = _real(second, _factor(second))
    if factor is None or np.size(factor) != 1 or not float(factor):
        raise NoIntegerForm("its factor is not one constant number")
    if float(factor) >= _COARSE:
        raise NoIntegerForm(f"{first.name} writes coarser codes, and their rounding belongs to the result")
    if first.attributes["y_zero_point"].as_int() != second.attributes["x_zero_point"].as_int():
        raise NoIntegerForm(f"{first.name} writes codes with another zero point")
    written = ir.DataType(second.attributes["to"].as_int())
    if ctx.target is not None and (reason := why_not_rescales(first, written, ctx.target)) is not None:
        raise NoIntegerForm(reason)
    scales = _scales(first, float(factor), ctx)
    folded = _written(first, second, scales, _bounds(first, second), ctx)
    if (result := annotation(second.outputs[0])) is not None:
        annotate(folded, result)
    if (node := folded.producer()) is not None and (known := first.meta.get(FACTOR)) is not None:
        node.meta[FACTOR] = known * float(factor)
    _replace(second, folded, ctx)


def _real(node: ir.Node, rounded: float | NDArray[np.float64] | None) -> float | NDArray[np.float64] | None:
    """The factor of a rescale before it was rounded to a dyadic number, where the node still knows it."""
    known: float | NDArray[np.float64] | None = node.meta.get(FACTOR)
    # A pass that changed the multiplier since does not know of the note.
    holds = known is not None and rounded is not None and np.allclose(known, rounded, rtol=2.0**-6, atol=0.0)
    return known if holds else rounded


def _bounds(first: ir.Node, second: ir.Node) -> dict[str, int]:
    """The codes that the second rescale gives the bounds of the first."""
    kind = ir.DataType(first.attributes["to"].as_int()).numpy()
    held = np.array([first.attributes[name].as_int() for name in ("low", "high")], kind)
    operator = catalogue.operators()[second.op_type]
    attributes = {name: second.attributes[name].as_int() for name in operator.attributes}
    codes = operator.specification(held, *(array(value) for value in second.inputs[1:]), **attributes)
    return {"low": int(codes[0]), "high": int(codes[1])}


def _scales(first: ir.Node, factor: float, ctx: Context) -> dict[str, ir.Value]:
    """New constants for the rescale of ``first``, by the name of the input; no multiplier gets wider."""
    names = catalogue.operators()[first.op_type].inputs
    held = {name: array(value) for name, value in zip(names, first.inputs, strict=True) if _is_scale(name)}
    if any(item is None for item in held.values()):
        raise NoIntegerForm(f"the rescale of {first.name} is computed")
    old = {name: item for name, item in held.items() if item is not None}
    try:
        chosen = _common(old, factor) if len(old) == 3 else _single(first, old, factor)
    except ValueError as error:
        raise NoIntegerForm(f"{first.name} cannot write its codes: {error}") from error
    return {name: ctx.edit.constant(f"{first.name}_{name}", item) for name, item in chosen.items()}


def _is_scale(name: str) -> bool:
    return name.endswith(("multiplier", "shift", "left"))


def _single(first: ir.Node, old: Mapping[str, NDArray[Any]], factor: float) -> dict[str, NDArray[Any]]:
    rounded = _dyadic(list(old.values())).value()
    values = np.broadcast_to(np.asarray(_real(first, rounded), np.float64), rounded.shape) * factor
    if "multiplier" not in old:
        return {"shift": dyadic.choose_shift(values).shift}
    # As many bits as before: what the accumulator left room for then, it leaves now.
    chosen = dyadic.choose(values, _bits(old["multiplier"]), 1)
    return {"multiplier": np.asarray(chosen.multiplier), "shift": chosen.shift}


def _common(old: Mapping[str, NDArray[Any]], factor: float) -> dict[str, NDArray[Any]]:
    """Two factors with one shift: those of a sum."""
    shift = int(old["shift"])
    sides = [name for name in old if name != "shift"]
    if sides[0].endswith("left"):
        left, right = elementwise.choose_left([factor * 2.0 ** (int(old[name]) - shift) for name in sides])
        return {
            **dict(zip(sides, (np.asarray(item) for item in left), strict=True)),
            "shift": np.array(right, np.uint8),
        }
    stacked = np.array([int(old[name]) for name in sides])
    factors = (factor * stacked * 2.0**-shift).tolist()
    multipliers, right = dyadic.choose_common(factors, _bits(stacked), 1)
    named = zip(sides, (np.asarray(item) for item in multipliers), strict=True)
    return {**dict(named), "shift": np.array(right, np.uint8)}


def _bits(multipliers: NDArray[Any]) -> int:
    return max(2, int(multipliers.max()).bit_length())


def _written(
    first: ir.Node, second: ir.Node, scales: Mapping[str, ir.Value], bounds: Mapping[str, int], ctx: Context
) -> ir.Value:
    names = catalogue.operators()[first.op_type].inputs
    attributes = {name: item.value for name, item in first.attributes.items()}
    attributes |= {name: second.attributes[name].as_int() for name in ("y_zero_point", "to")}
    node = ctx.edit.insert(
        first.op_type,
        [scales.get(name, value) for name, value in zip(names, first.inputs, strict=True)],
        attributes={**attributes, **bounds},
        domain=DOMAIN,
        name=first.name,
        output_name=second.outputs[0].name,
        before=first,
    )
    written = node.outputs[0]
    written.type, written.shape = second.outputs[0].type, second.outputs[0].shape
    return written
