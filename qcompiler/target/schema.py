"""What a target profile says, as frozen dataclasses that refuse to hold nonsense (schema 1).

A profile is a table of facts: which operators run on integers, with which formats, under which conditions. The
compiler derives placement, allocation and legality from it; nothing in here is about one particular chip.
``where`` of every :class:`TargetError` names the table and key; the loader puts the file in front.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from qcompiler.errors import TargetError, nearest
from qcompiler.quant.format import QFormat
from qcompiler.quant.integer.weight_only import BITS, LEAST_BLOCK
from qcompiler.quant.operators import LOOKUP
from qcompiler.target.cost import CostFacts
from qcompiler.target.integer import IntegerArithmetic, Lowering
from qcompiler.target.kinds import (
    Fallback,
    Granularity,
    InputOutput,
    Kind,
    Output,
    Place,
    Provider,
    Role,
    Wide,
    ZeroPoint,
)

__all__ = [
    "SCHEMA",
    "AttributeValue",
    "Constraints",
    "Fallback",
    "Granularity",
    "InputOutput",
    "IntegerArithmetic",
    "Kind",
    "Lowering",
    "OperatorRule",
    "Output",
    "Place",
    "Provider",
    "Role",
    "Target",
    "Wide",
    "ZeroPoint",
]

SCHEMA = 1
"""The version of the profile schema that this code reads."""

AttributeValue: TypeAlias = bool | int | float | str
FORMAT_NAME = re.compile(r"w(\d{1,2})(?:a(\d{1,2}))?$")
"""``w4a8``; without ``a8`` only weights are stored in few bits, activations are real numbers."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_OPERATOR = re.compile(r"([A-Za-z0-9_.]+:)?[A-Za-z_][A-Za-z0-9_]*$")
_NOTHING: Mapping[str, tuple[AttributeValue, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Constraints:
    """Conditions a node must meet before its rule applies.

    Attributes:
        rank: Least and greatest rank of the first input; ``None`` means any.
        constant_inputs: Indices of inputs that must be constant where they are present.
        attributes: Accepted values by attribute name; an absent attribute counts with its ONNX default; of a
            list attribute, every entry must be accepted.
        zero_point: What the zero point of an activation may be.
    """

    rank: tuple[int, int] | None = None
    constant_inputs: tuple[int, ...] = ()
    attributes: Mapping[str, tuple[AttributeValue, ...]] = field(default_factory=lambda: _NOTHING)
    zero_point: ZeroPoint = ZeroPoint.ANY

    def __post_init__(self) -> None:
        if self.rank is not None and not 0 <= self.rank[0] <= self.rank[1] <= 16:
            _refuse("rank", f"{list(self.rank)} is not a range of ranks", "write rank = [least, greatest], 0 to 16")
        if any(index < 0 for index in self.constant_inputs):
            _refuse("constant_inputs", "an input index is negative", "inputs count from 0")
        for name, values in self.attributes.items():
            if not values:
                _refuse(f"attributes.{name}", "no value is accepted", "leave the attribute out to accept every value")


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """How the target runs one operator on integers.

    Attributes:
        operator: ONNX operator type, ``domain:Type`` outside the standard domain.
        kind: Whether it rescales or only moves codes.
        place: When it is worth it.
        inputs: Role of each input; the last repeats.
        activations: Accepted activation formats, preferred first.
        second: Accepted formats of the input in weight role where it is not constant (MatMul of two activations);
            empty means that weights must be constant.
        outputs: Accepted formats of the result; empty means ``activations``.
        log_inputs: ``log`` formats in which an activation may be read, where asked for: the kernel decodes their codes
            by a table of 16-bit integers.
        log_outputs: ``log`` formats in which the result may be kept, where asked for and every reader takes them.
        mixed: Whether activations and result of one node may have different formats of those lists.
        wide: Where it reads the widest activation it accepts.
        weights: Accepted weight formats without axis, preferred first.
        granularity: How weights may share scales, preferred first.
        block_sizes: Accepted block sizes.
        weight_only: Accepted weight formats where activations are real numbers (``QMatMulWeightOnly``), preferred
            first; empty where there is no such kernel. Of Gather: formats of the table that it looks up.
        weight_only_blocks: Weights that share a scale there, preferred first; empty: a row of the weight has one scale.
        tables: Accepted formats of a constant table that Gather looks rows up in, a scale per row, preferred first;
            empty where its codes are those of the result.
        fixed: Scale and zero point that the result has whatever it holds, by format.
        bias: Format of the bias; ``None`` where the kernel takes none.
        output: What the kernel writes.
        fuse: Activation operators absorbed after it.
        constraints: Conditions on the node.
        note: One sentence of explanation for the reader of the profile.
    """

    operator: str
    kind: Kind = Kind.COMPUTE
    place: Place = Place.ALWAYS
    inputs: tuple[Role, ...] = (Role.ACTIVATION,)
    activations: tuple[QFormat, ...] = ()
    second: tuple[QFormat, ...] = ()
    outputs: tuple[QFormat, ...] = ()
    log_inputs: tuple[QFormat, ...] = ()
    log_outputs: tuple[QFormat, ...] = ()
    mixed: bool = False
    wide: Wide = Wide.NEVER
    weights: tuple[QFormat, ...] = ()
    granularity: tuple[Granularity, ...] = ()
    block_sizes: tuple[int, ...] = ()
    weight_only: tuple[QFormat, ...] = ()
    weight_only_blocks: tuple[int, ...] = ()
    tables: tuple[QFormat, ...] = ()
    fixed: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    bias: QFormat | None = None
    output: Output = Output.QUANTIZED
    fuse: tuple[str, ...] = ()
    constraints: Constraints = field(default_factory=Constraints)
    note: str = ""

    def __post_init__(self) -> None:
        if not _OPERATOR.match(self.operator):
            _refuse("", f"'{self.operator}' is not an operator name", "write e.g. Conv or com.microsoft:Gelu")
        self._check_inputs()
        self._check_activations()
        self._check_weights()
        self._check_weight_only()
        self._check_tables()
        self._check_fixed()
        self._check_log()

    def _check_fixed(self) -> None:
        forms = {str(form): form for form in self.output_formats()}
        for name, (scale, zero) in self.fixed.items():
            form = forms.get(name)
            if form is None:
                _refuse(f"fixed.{name}", "it writes no such format", f"it writes {', '.join(forms)}")
            elif not (math.isfinite(scale) and scale > 0):
                _refuse(f"fixed.{name}", f"{scale} is not a scale", "write [scale, zero point]")
            elif zero != int(zero) or not form.minimum <= zero <= form.maximum or (form.symmetric and zero):
                _refuse(f"fixed.{name}", f"{zero} is no zero point of {form}", "write [scale, zero point]")
        if self.fixed and self.kind is Kind.SAME_SCALE:
            _refuse("fixed", "a same-scale operator has its input's scale", None)

    def _check_log(self) -> None:
        for key in ("log_inputs", "log_outputs"):
            for form in getattr(self, key):
                if not form.logarithmic:
                    _refuse(key, f"'{form}' is no log format", 'write e.g. ["log4"]')
                if self.kind is Kind.SAME_SCALE:
                    _refuse(key, "a same-scale operator has no table to decode by", None)

    def _check_inputs(self) -> None:
        if not self.inputs:
            _refuse("inputs", "no role is given", 'write e.g. inputs = ["activation", "weight", "bias"]')
        if Role.ACTIVATION not in self.inputs and not (self.tables and Role.WEIGHT in self.inputs):
            _refuse("inputs", "no input is an activation", "an operator that reads no activation needs no rule")
        if self.kind is Kind.SAME_SCALE and (self.weights or self.bias or Role.WEIGHT in self.inputs):
            _refuse("kind", "a same-scale operator has no weights", 'use kind = "compute"')
        if self.kind is Kind.SAME_SCALE and self.output is not Output.QUANTIZED:
            _refuse("output", "a same-scale operator writes codes", 'use output = "quantized"')
        if (Role.BIAS in self.inputs) != (self.bias is not None):
            _refuse("bias", "an input in bias role and a bias format go together", 'write e.g. bias = "i32/sym"')

    def _check_activations(self) -> None:
        if not self.activations:
            _refuse("activations", "no activation format is accepted", 'write e.g. activations = ["u8"]')
        for key in ("activations", "second", "outputs"):
            for form in getattr(self, key):
                if form.axis is not None or form.bits > 16 or form.logarithmic:
                    hint = "log formats go to log_inputs and log_outputs" if form.logarithmic else None
                    _refuse(key, f"'{form}' is not an activation format", hint or "up to 16 bits, one scale")

    def _check_weights(self) -> None:
        if (Role.WEIGHT in self.inputs) != bool(self.weights):
            _refuse("weights", "a weight role and weight formats go together", 'write e.g. weights = ["i8/sym"]')
        if bool(self.weights) != bool(self.granularity):
            _refuse("granularity", "weights and their granularity go together", 'write e.g. granularity = ["channel"]')
        if (Granularity.BLOCK in self.granularity) != bool(self.block_sizes):
            _refuse("block_sizes", "granularity block and block sizes go together", "write e.g. block_sizes = [32, 64]")
        if self.second and Role.WEIGHT not in self.inputs:
            _refuse("second", "there is no input in weight role", None)
        if any(size < 2 for size in self.block_sizes):
            _refuse("block_sizes", "a block has at least 2 elements", None)
        for form in self.weights:
            if form.axis is not None or form.bits > 16 or form.logarithmic:
                _refuse("weights", f"'{form}' is not a weight format", "give it without axis and block")
        bias = self.bias
        if bias is not None and not (bias.bits in (16, 32) and bias.symmetric and bias.per_tensor):
            _refuse("bias", f"'{self.bias}' is not a bias format", 'use "i32/sym"')

    def _check_weight_only(self) -> None:
        if self.weight_only and Role.WEIGHT not in self.inputs and self.operator != LOOKUP:
            _refuse("weight_only", "there is no input in weight role", None)
        if self.weight_only_blocks and not self.weight_only:
            _refuse("weight_only_blocks", "block sizes go with formats", 'write e.g. weight_only = ["i4"]')
        for form in self.weight_only:
            plain = form.signed and form.axis is None and not (form.power_of_two or form.logarithmic)
            if form.bits not in BITS or not plain:
                _refuse("weight_only", f"'{form}' is no such format", f"signed, one of {BITS} bits, without axis")
        if any(size < LEAST_BLOCK or size % 8 for size in self.weight_only_blocks):
            _refuse("weight_only_blocks", f"blocks are multiples of 8, at least {LEAST_BLOCK}", None)

    def _check_tables(self) -> None:
        if self.tables and self.operator != LOOKUP:
            _refuse("tables", "it looks up no rows", f"tables are those of {LOOKUP}")
        for form in self.tables:
            plain = form.signed and form.symmetric and form.axis is None and not (form.power_of_two or form.logarithmic)
            if form.bits not in BITS or not plain:
                _refuse("tables", f"'{form}' is no such format", f"write e.g. i4/sym: one of {BITS} bits, without axis")

    def in_powers_of_two(self) -> OperatorRule:
        """The same rule with scales that are powers of two; a bias has the product of two of them anyway.

        Grids and rows of tables have free scales.
        """
        return replace(
            self,
            activations=_in_powers_of_two(self.activations),
            second=_in_powers_of_two(self.second),
            outputs=_in_powers_of_two(self.outputs),
            weights=_in_powers_of_two(self.weights),
            tables=(),
            log_inputs=(),
            log_outputs=(),
        )

    def of_tables(self) -> OperatorRule:
        """The rule where rows of a table are looked up: codes with a scale per row are rescaled to the result's.

        What it reads is no activation, so it is worth it where the result is read as codes.
        """
        return replace(
            self,
            kind=Kind.COMPUTE,
            place=Place.BETWEEN,
            inputs=(Role.WEIGHT, Role.FLOAT),
            weights=self.tables,
            granularity=(Granularity.CHANNEL,),
            mixed=True,
        )

    def role(self, index: int) -> Role:
        """The role of input ``index``; the last role repeats."""
        return self.inputs[min(index, len(self.inputs) - 1)]

    def activation_formats(self, index: int) -> tuple[QFormat, ...]:
        """Accepted formats of the activation at input ``index``."""
        return self.second if self.role(index) is Role.WEIGHT else self.activations

    def log_operands(self) -> tuple[QFormat, ...]:
        """``log`` formats that it reads; none where it takes no 16-bit codes, to which they are decoded."""
        return self.log_inputs if any(form.bits == 16 for form in (*self.activations, *self.second)) else ()

    def log_results(self) -> tuple[QFormat, ...]:
        """``log`` formats of its result; none where it writes no free 16-bit codes, of which they are made."""
        free = any(form.bits == 16 and str(form) not in self.fixed for form in self.output_formats())
        return self.log_outputs if free and self.output is Output.QUANTIZED else ()

    def fixed_result(self, form: QFormat) -> tuple[float, int] | None:
        """Scale and zero point of a result in ``form`` that nothing but the kernel decides; ``None`` where free."""
        found = self.fixed.get(str(form))
        return None if found is None else (found[0], int(found[1]))

    def output_formats(self) -> tuple[QFormat, ...]:
        """Accepted formats of the result."""
        return self.outputs or self.activations


@dataclass(frozen=True, slots=True)
class Target:
    """A resolved profile.

    Attributes:
        name: What ``--target`` calls it.
        title: One line for listings.
        description: A paragraph.
        source: Where it was read from, for messages.
        lineage: Names of the profiles it extends, nearest first.
        requires: Expressions over CPU features that make speed on this machine meaningful; all must hold.
        default_format: The ``--format`` used when none is given.
        formats: Accepted ``--format`` names.
        opset: Highest accepted version of the standard operator set.
        ir_version: Highest accepted ONNX IR version.
        scale_floor: Least scale that the target represents.
        power_of_two_scales: Whether every scale must be a power of two; the formats of all rules then say so.
        input_output: What the compiled graph takes and gives.
        fallback: What becomes of a node that cannot run on integers.
        provider: Who runs the compiled model where its speed is measured.
        lowering: The form in which the quantized graph is written unless asked otherwise.
        integer: What its integer arithmetic can do.
        cost: How fast it is; ``None`` where the profile does not say.
        operators: Rules by operator.
    """

    name: str
    title: str
    operators: Mapping[str, OperatorRule]
    default_format: str = "w8a8"
    formats: tuple[str, ...] = ("w8a8",)
    description: str = ""
    source: str = ""
    lineage: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    opset: int = 21
    ir_version: int = 10
    scale_floor: float = 2.0**-100
    power_of_two_scales: bool = False
    input_output: InputOutput = InputOutput.FLOAT
    fallback: Fallback = Fallback.FLOAT
    provider: Provider = Provider.STOCK
    lowering: Lowering = Lowering.QDQ
    integer: IntegerArithmetic = field(default_factory=IntegerArithmetic)
    cost: CostFacts | None = None

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            _refuse("name", f"'{self.name}' is not a name", "letters, digits, '.', '_' and '-', at most 64")
        if not self.title or "\n" in self.title:
            _refuse("title", "a title is one line", None)
        self._check_formats()
        if not 13 <= self.opset <= 26:
            _refuse("opset", f"{self.opset} is outside 13 to 26", "per-channel scales exist from opset 13 on")
        if not 7 <= self.ir_version <= 13:
            _refuse("ir_version", f"{self.ir_version} is outside 7 to 13", None)
        if not (math.isfinite(self.scale_floor) and 0 < self.scale_floor < 1):
            _refuse("scale_floor", f"{self.scale_floor} is not between 0 and 1", None)
        self._check_tables()
        if self.integer.shifts_only:  # what is read of a row is multiplied
            self._change(lambda rule: replace(rule, tables=()))
        if self.power_of_two_scales:
            self._change(OperatorRule.in_powers_of_two)

    def _change(self, change: Callable[[OperatorRule], OperatorRule]) -> None:
        rules = {name: change(rule) for name, rule in self.operators.items()}
        object.__setattr__(self, "operators", MappingProxyType(rules))

    def _check_tables(self) -> None:
        if not self.operators:
            _refuse("operators", "the profile lists no operator", None)
        for name, rule in self.operators.items():
            if name != rule.operator:
                _refuse(f"operators.{name}", f"the rule is about {rule.operator}", None)

    def _check_formats(self) -> None:
        for name in self.formats:
            if not FORMAT_NAME.match(name):
                _refuse("formats", f"'{name}' is not a format name", "write e.g. w8a8, w4a8, w8a16, w4")
        if self.default_format not in self.formats:
            _refuse(
                "default_format",
                f"'{self.default_format}' is not among formats {list(self.formats)}",
                nearest(self.default_format, self.formats),
            )

    def rules(self) -> Iterable[OperatorRule]:
        """Every rule, in the order of the profile."""
        return self.operators.values()


def _in_powers_of_two(forms: Iterable[QFormat]) -> tuple[QFormat, ...]:
    return tuple(replace(form, power_of_two=True) for form in forms)


def _refuse(key: str, message: str, hint: str | None) -> None:
    raise TargetError(message, where=key or None, hint=hint)
