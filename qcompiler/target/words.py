"""What a resolved profile says, in words: the placement rules a user reads before asking why a node stayed float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qcompiler.quant.format import QFormat
from qcompiler.quant.operators import LOOKUP
from qcompiler.target.integer import IntegerArithmetic, Layout, Lowering
from qcompiler.target.rules import LEAST_TABLE
from qcompiler.target.runs_here import runs_here
from qcompiler.target.schema import (
    Constraints,
    InputOutput,
    Kind,
    OperatorRule,
    Output,
    Place,
    Provider,
    Role,
    Target,
    Wide,
    ZeroPoint,
)

__all__ = ["OperatorWords", "TargetWords", "describe", "format_words", "sentences"]

_TABLE: Final = f"a constant table of {LEAST_TABLE} numbers and more"


@dataclass(frozen=True, slots=True)
class OperatorWords:
    """One row of the table of operators; every field is text for a reader.

    Attributes:
        operator: The operator.
        kind: How its result gets its scale.
        place: When it runs on integers.
        activations: Formats it reads and writes.
        weights: Formats of its weights and how they share scales; empty without weights.
        rules: Everything else, as sentences.
    """

    operator: str
    kind: str
    place: str
    activations: str
    weights: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetWords:
    """A profile in words.

    Attributes:
        name: Its name.
        title: Its title.
        description: Its description.
        facts: Pairs of what and value, in reading order.
        runs_here: Whether speed on this machine means anything.
        operators: One entry per operator, in the order of the profile.
    """

    name: str
    title: str
    description: str
    facts: tuple[tuple[str, str], ...]
    runs_here: bool
    operators: tuple[OperatorWords, ...]


def describe(target: Target) -> TargetWords:
    """Put a profile into words."""
    here, why = runs_here(target)
    default = target.default_format
    facts = [
        ("extends", " → ".join(target.lineage)),
        ("speed here", why),
        ("requires", "; ".join(target.requires)),
        ("formats", ", ".join(f"{name} (default)" if name == default else name for name in target.formats)),
        ("formats without activations", _without_activations(target)),
        ("limits", f"opset {target.opset}, IR version {target.ir_version}, scales from {target.scale_floor:.3g} up"),
        ("scales", "powers of two only" if target.power_of_two_scales else ""),
        ("graph inputs and outputs", "codes" if target.input_output is InputOutput.QUANTIZED else "real numbers"),
        ("a node without an integer kernel", f"{_fallback(target)}"),
        ("run by", "our kernels in ONNX Runtime" if target.provider is Provider.QCOMPILER else ""),
        ("form of the graph", _lowering(target.lowering)),
        *_arithmetic(target.integer),
    ]
    return TargetWords(
        target.name,
        target.title,
        target.description.strip(),
        tuple((what, value) for what, value in facts if value),
        here,
        tuple(_operator(rule) for rule in target.rules()),
    )


def sentences(rule: OperatorRule) -> tuple[str, ...]:
    """The placement rules of one operator as sentences, without its formats."""
    found = _scales(rule)
    if rule.output is Output.OPTIONAL:
        found.append("it may also write real numbers")
    if rule.output is Output.FLOAT:
        found.append("it writes real numbers")
    found += _wide(rule)
    asked = "where asked for (--format w8a8/log4)"
    found += (
        [f"it reads {_span(rule.log_operands())} {asked}, decoded to 16 bits by a table"]
        if rule.log_operands()
        else []
    )
    found += [f"its result may be kept in {_span(rule.log_results())} {asked}"] if rule.log_results() else []
    found += [
        f"its {name} result has scale {scale:g}, zero point {zero:g}" for name, (scale, zero) in rule.fixed.items()
    ]
    if rule.second:
        found.append(f"where the weight is not constant it is an activation: {_listed(rule.second)}")
    elif Role.WEIGHT in rule.inputs:
        found.append("its weight must be constant")
    if rule.weight_only:
        found.append(f"in formats without activations (w4) {_weight_only(rule)}")
    if rule.bias is not None:
        found.append(f"its bias is {format_words(rule.bias)} at scale activation × weight")
    if rule.fuse:
        found.append(f"it absorbs a following {' or '.join(rule.fuse)}")
    return (*found, *_constraints(rule.constraints), *([rule.note] if rule.note else []))


def _scales(rule: OperatorRule) -> list[str]:
    """What the scales of operands and result have to do with each other."""
    found = []
    if rule.kind is Kind.SAME_SCALE:
        found.append("its data inputs and outputs share scale and zero point")
    elif rule.mixed and len({*rule.activations, *rule.output_formats()}) > 1:
        found.append("inputs and output may have different formats of those listed")
    if rule.tables:
        found.append(f"rows of {_TABLE} are {_listed(rule.tables)}, one scale each, and are rescaled")
    return found


def format_words(form: QFormat) -> str:
    """A format in words, e.g. ``signed 8 bits, symmetric``."""
    if form.logarithmic:
        return f"{form.bits}-bit codes of a grid of {1 << form.bits} values, decoded to 16 bits"
    words = [f"{'signed' if form.signed else 'unsigned'} {form.bits} bits"]
    words += ["symmetric" if form.symmetric else "asymmetric"]
    words += ["scale a power of two"] if form.power_of_two else []
    words += [f"codes {form.minimum} to {form.maximum}"] if form.narrow or form.bits != form.storage_bits else []
    return ", ".join(words)


def _operator(rule: OperatorRule) -> OperatorWords:
    kinds = {Kind.COMPUTE: "rescales to its own scale", Kind.SAME_SCALE: "keeps its input's scale"}
    places = {
        Place.ALWAYS: "wherever it stands",
        Place.BETWEEN: "only between integer operators",
    }
    reads = _listed(rule.activations)
    writes = f"; writes {_listed(rule.outputs)}" if rule.outputs else ""
    weights = ""
    if rule.weights:
        sharing = " or ".join(str(item) for item in rule.granularity)
        blocks = f" (blocks of {', '.join(map(str, rule.block_sizes))})" if rule.block_sizes else ""
        weights = f"{_listed(rule.weights)}; one scale per {sharing}{blocks}"
    return OperatorWords(rule.operator, kinds[rule.kind], places[rule.place], reads + writes, weights, sentences(rule))


def _weight_only(rule: OperatorRule) -> str:
    if rule.operator == LOOKUP:
        return f"{_TABLE} is {_listed(rule.weight_only)}, one scale per row"
    sizes = ", ".join(map(str, rule.weight_only_blocks))
    sharing = f"one scale per block ({sizes}) or channel" if sizes else "one scale per channel"
    return f"its weight is {_listed(rule.weight_only)}, {sharing}, and activations stay real numbers"


def _wide(rule: OperatorRule) -> list[str]:
    widest = max(rule.activations, key=lambda form: form.bits)
    if rule.wide is Wide.NEVER:
        return []
    when = " where what it reads or who reads it is wide" if rule.wide is Wide.STREAM else ""
    return [f"it reads {widest.bits} bits by preference{when}: 8 lose too much here"]


def _constraints(constraints: Constraints) -> list[str]:
    found = []
    if constraints.rank is not None:
        least, most = constraints.rank
        found.append(f"input of rank {least}" if least == most else f"input of rank {least} to {most}")
    found += [f"input {index} constant" for index in constraints.constant_inputs]
    for name, values in constraints.attributes.items():
        found.append(f"attribute {name} {' or '.join(str(value) for value in values)}")
    if constraints.zero_point is ZeroPoint.ZERO:
        found.append("zero points are 0")
    return [f"only with {item}" for item in found]


def _span(forms: Sequence[QFormat]) -> str:
    """``log2 to log7`` where no width between is missing."""
    bits = sorted(form.bits for form in forms)
    whole = len(bits) > 2 and bits == list(range(bits[0], bits[-1] + 1))
    return f"log{bits[0]} to log{bits[-1]}" if whole else _listed(forms)


def _listed(forms: Iterable[QFormat]) -> str:
    return " or ".join(str(form) for form in forms)


def _without_activations(target: Target) -> str:
    """What ``w4`` means, where the target offers such formats."""
    names = [name for name in target.formats if "a" not in name]
    if not names:
        return ""
    words = "only weights of matrix products are stored in few bits, activations stay real numbers, no calibration"
    return f"{', '.join(names)}: {words}"


def _fallback(target: Target) -> str:
    return "stays float" if target.fallback == "float" else "is refused"


def _lowering(lowering: Lowering) -> str:
    if lowering is Lowering.INTEGER:
        return "integer operators on codes (--lowering qdq for Q/DQ pairs)"
    return "Q/DQ pairs around float operators"


_SHAPES: Final = {
    Layout.CHANNELS_FIRST: "[batch, channels, spatial...]",
    Layout.CHANNELS_LAST: "[batch, spatial..., channels]",
}


def _arithmetic(integer: IntegerArithmetic) -> list[tuple[str, str]]:
    """The facts of the ``[integer]`` table."""
    least, most = integer.shift
    shift = f"a shift of {least} to {most} that rounds {integer.rounding}"
    multiplier = f"a multiplier of {integer.multiplier_bits} bits, then {shift}"
    wide = f"{integer.wide_accumulator_bits} bits with 16-bit codes" if integer.wide_accumulator_bits else ""
    if not integer.shifts_only and integer.wide_multiplier_bits < integer.multiplier_bits:
        multiplier += f"; of {integer.wide_multiplier_bits} bits behind wider accumulators"
    tables = [f"{integer.table_entries} entries over 8-bit codes"] if integer.table_entries else []
    if integer.interpolated_table_entries:
        tables.append(f"{integer.interpolated_table_entries} entries, interpolated, over 16-bit codes")
    return [
        ("rescaling in integers", f"{shift}, no multiplier" if integer.shifts_only else multiplier),
        ("accumulators", f"{integer.accumulator_bits} bits, {wide or 'no products with 16-bit codes'}"),
        ("tables", "; ".join(tables) or "none"),
        ("images of integer operators", f"{integer.layout}: {_SHAPES[integer.layout]}"),
    ]
