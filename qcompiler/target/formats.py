"""From a ``--format`` name to what each operator of a target gets.

``w4a8/block=32/asym`` asks for 4-bit weights, 8-bit activations, one scale per 32 weights, free zero points; ``w4``
leaves activations real numbers and stores the weights of matrix products in 4 bits (*weight-only*); ``w8a8/log4``
also keeps the results of those operators whose rule lists ``log4`` in codes of 4 bits along a grid, and
``w8a8/log4=Softmax`` those of Softmax alone. The
request is refused when no operator of the target can follow it. An operator that cannot follow while others can
keeps its least-loss legal format, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from qcompiler.errors import UsageError, nearest
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.operators import LOOKUP
from qcompiler.target.axes import block_axis, channel_axis
from qcompiler.target.schema import FORMAT_NAME, Granularity, OperatorRule, Target, Wide

__all__ = [
    "ActivationChoice",
    "FormatRequest",
    "WeightChoice",
    "activation_format",
    "offers",
    "resolve_format",
    "table_request",
    "weight_format",
    "weight_only_format",
    "widest_first",
]

_MODIFIERS = ("tensor", "channel", "block=N", "sym", "asym", "logN", "logN=OPERATOR")
_LOG = re.compile(r"log(\d{1,2})$")
_REAL_BITS = 32
_BLOCK_SIZE = re.compile(r"([2-9]|[1-9][0-9]{1,8})$")


@dataclass(frozen=True, slots=True)
class FormatRequest:
    """What a ``--format`` text asks for.

    Attributes:
        text: The text itself.
        weight_bits: Bits of a weight.
        activation_bits: Bits of an activation; ``None`` leaves activations real numbers.
        granularity: How weights share scales; ``None`` leaves it to the profile.
        block: Weights per scale where the granularity is block.
        symmetric: Whether weights have no zero point; ``None`` leaves it to the profile.
        log: The format of results that may be kept in codes along a grid; ``None`` keeps them as any activation.
        log_operators: Whose results those are; empty: of all operators that list the format.
    """

    text: str
    weight_bits: int
    activation_bits: int | None
    granularity: Granularity | None = None
    block: int | None = None
    symmetric: bool | None = None
    log: QFormat | None = None
    log_operators: tuple[str, ...] = ()

    @property
    def weight_only(self) -> bool:
        """Whether only weights are stored in few bits."""
        return self.activation_bits is None


@dataclass(frozen=True, slots=True)
class WeightChoice:
    """The weight format an operator gets.

    Attributes:
        format: Bits, sign, symmetry; no axis yet.
        granularity: How weights share scales.
        block: Weights per scale where the granularity is block.
        reason: Why it is not what was asked for; empty when it is.
        short: Whether the last block may be short.
    """

    format: QFormat
    granularity: Granularity
    block: int | None = None
    reason: str = ""
    short: bool = False

    def on(self, node: ir.Node) -> QFormat:
        """The format with the axis that the weight (input 1) of ``node`` has; per tensor where it has none.

        A block that does not divide its axis (unless ``short``), or leaves one block, falls back to the channel axis.
        """
        channel, summed = channel_axis(node), block_axis(node)
        if self.granularity is Granularity.BLOCK and self.block is not None and summed is not None:
            length = _length(node, summed)
            if length is not None and length > self.block and (self.short or length % self.block == 0):
                return self.format.along(summed, self.block)
        return self.format if self.granularity is Granularity.TENSOR else self.format.along(channel)


@dataclass(frozen=True, slots=True)
class ActivationChoice:
    """The activation format an operator gets, and why it is not what was asked for."""

    format: QFormat
    reason: str = ""


def resolve_format(target: Target, text: str | None = None) -> FormatRequest:
    """Read a ``--format`` text and check that the target offers it.

    Args:
        target: The profile.
        text: The text; ``None`` means the profile's default.

    Raises:
        UsageError: The text is no format, or the target does not offer it; says what it offers.
    """
    request = _parse(target, target.default_format if text is None else text)
    if request.log is not None:
        _check_log(target, request, request.log)
    if request.weight_only:
        return _check_weight_only(target, request)
    rules = [rule for rule in target.rules() if rule.weights]
    name = f"w{request.weight_bits}a{request.activation_bits}"
    hint = f"{target.name} offers {', '.join(target.formats)}; {offers(target)}"
    where = f"format '{request.text}'"
    if not any(request.activation_bits in _bits(rule.activations) for rule in target.rules()):
        accepted = _listed(bits for rule in target.rules() for bits in _bits(rule.activations))
        raise UsageError(f"{target.name} takes {accepted}-bit activations only", where=where, hint=hint)
    if not any(request.weight_bits in _bits(rule.weights) for rule in rules):
        accepted = _listed(bits for rule in rules for bits in _bits(rule.weights))
        raise UsageError(f"{target.name} takes {accepted}-bit weights only", where=where, hint=hint)
    if name not in target.formats:
        raise UsageError(f"{target.name} does not offer {name}", where=where, hint=hint)
    if not any(not weight_format(rule, request).reason for rule in rules):
        reasons = dict.fromkeys(weight_format(rule, request).reason for rule in rules)
        raise UsageError(f"no operator of {target.name} can follow: {'; '.join(reasons)}", where=where, hint=hint)
    return request


def widest_first(target: Target, texts: Iterable[str]) -> tuple[str, ...]:
    """Format texts from the most bits to the fewest, of activations before weights; real numbers are wider than codes.

    Equal texts are one, texts of equal bits keep their order.

    Raises:
        UsageError: A text is no format that the target offers.
    """

    def bits(text: str) -> tuple[int, int]:
        request = resolve_format(target, text)
        return -(request.activation_bits or _REAL_BITS), -request.weight_bits

    return tuple(sorted(dict.fromkeys(texts), key=bits))


def weight_format(rule: OperatorRule, request: FormatRequest) -> WeightChoice:
    """The rule's weight format nearest to the request, never with fewer bits where more are possible.

    Raises:
        UsageError: The operator has no weights.
    """
    if not rule.weights:
        raise UsageError(f"{rule.operator} has no weights")
    request, reasons = _of_rows(request) if rule.operator == LOOKUP else request, []
    candidates = _nearest_bits(rule.weights, request.weight_bits)
    if candidates[0].bits != request.weight_bits:
        reasons.append(f"{rule.operator} takes {_listed(_bits(rule.weights))}-bit weights only")
    chosen = candidates[0]
    if request.symmetric is not None and chosen.symmetric != request.symmetric:
        alternative = next((form for form in candidates if form.symmetric == request.symmetric), None)
        if alternative is None:
            kind = "symmetric" if chosen.symmetric else "asymmetric"
            reasons.append(f"{rule.operator} takes {chosen.bits}-bit weights {kind} only")
        chosen = alternative or chosen
    granularity, block, reason = _granularity(rule, request)
    return WeightChoice(chosen, granularity, block, "; ".join([*reasons, reason] if reason else reasons))


def weight_only_format(rule: OperatorRule, request: FormatRequest) -> WeightChoice:
    """The format of a weight beside real activations that is nearest to the request.

    Blocks are the preferred ones, and weights have zero points where the rule lists such a format first. A table that
    is looked up has a scale per row.

    Raises:
        UsageError: The operator has no such kernel.
    """
    if not rule.weight_only:
        raise UsageError(f"{rule.operator} takes no real activations beside weights of few bits")
    kept = replace(
        rule,
        weights=rule.weight_only,
        granularity=(*((Granularity.BLOCK,) if rule.weight_only_blocks else ()), Granularity.CHANNEL),
        block_sizes=rule.weight_only_blocks,
    )
    return replace(weight_format(kept, request), short=True)


def table_request(request: FormatRequest) -> FormatRequest:
    """What a request asks of tables that are looked up: 8 bits at least.

    Nothing is multiplied there, and words that calibration never saw must not be lost; fewer bits are the decision of
    whoever measured them (``choose-formats``).
    """
    return replace(request, weight_bits=max(BYTE, request.weight_bits))


def _of_rows(request: FormatRequest) -> FormatRequest:
    """The request without what it says of scales: rows have one each, and no zero point."""
    return replace(request, granularity=None, block=None, symmetric=None)


def activation_format(rule: OperatorRule, request: FormatRequest, accepted: Sequence[QFormat] = ()) -> ActivationChoice:
    """The activation format nearest to the request; the widest where the rule prefers that.

    Args:
        rule: The operator's rule.
        request: What was asked for.
        accepted: The formats to choose from (``rule.activation_formats(i)``, ``rule.output_formats()``); by default
            ``rule.activations``.
    """
    forms = tuple(accepted) or rule.activations
    widest = max(forms, key=lambda form: form.bits)
    if request.activation_bits is None:
        raise UsageError(f"format '{request.text}' leaves activations real numbers")
    if rule.wide is not Wide.NEVER and widest.bits > request.activation_bits:
        return ActivationChoice(widest, f"{rule.operator} loses too much at {request.activation_bits} bits")
    chosen = _nearest_bits(forms, request.activation_bits)[0]
    if chosen.bits == request.activation_bits:
        return ActivationChoice(chosen)
    return ActivationChoice(chosen, f"{rule.operator} takes {_listed(_bits(forms))}-bit activations only")


def _check_log(target: Target, request: FormatRequest, form: QFormat) -> None:
    """Refuse codes along a grid that no operator of the target writes, or none reads."""
    where, writes = f"format '{request.text}'", {rule.operator: rule.log_results() for rule in target.rules()}
    able = [operator for operator, forms in writes.items() if form in forms]
    if request.weight_only:
        raise UsageError(f"activations stay real numbers, so none is kept in {form}", where=where,
                         hint=f"write w{request.weight_bits}a8/{form}, or leave /{form} out")  # fmt: skip
    if not any(writes.values()) or not any(rule.log_operands() for rule in target.rules()):
        raise UsageError(f"{target.name} keeps no tensor in codes along a grid", where=where,
                         hint=f"leave /{form} out; profiles offer it with log_outputs and log_inputs")  # fmt: skip
    if not able:
        listed = "; ".join(f"{operator}: {', '.join(map(str, forms))}" for operator, forms in writes.items() if forms)
        raise UsageError(f"{target.name} keeps no result in {form}", where=where, hint=f"it offers {listed}")
    for operator in request.log_operators:
        if operator not in able:
            hint = nearest(operator, able) or f"it does so of {', '.join(able)}"
            raise UsageError(f"{target.name} keeps no {form} result of {operator}", where=where, hint=hint)


def _check_weight_only(target: Target, request: FormatRequest) -> FormatRequest:
    """Refuse a weight-only request that the target does not offer."""
    rules = [rule for rule in target.rules() if rule.weight_only and rule.operator != LOOKUP]
    where, hint = f"format '{request.text}'", f"{target.name} offers {', '.join(target.formats)}"
    if not rules:
        message = f"{target.name} computes on codes: it has no kernel for real activations and weights of few bits"
        raise UsageError(message, where=where, hint=f"{hint}; targets with formats such as w4 have one")
    accepted = _listed(form.bits for rule in rules for form in rule.weight_only)
    hint += f"; beside real activations {', '.join(rule.operator for rule in rules)} take {accepted}-bit weights"
    if not any(request.weight_bits in _bits(rule.weight_only) for rule in rules):
        raise UsageError(f"{target.name} takes {accepted}-bit weights only", where=where, hint=hint)
    if f"w{request.weight_bits}" not in target.formats:
        raise UsageError(f"{target.name} does not offer w{request.weight_bits}", where=where, hint=hint)
    reasons = {rule.operator: weight_only_format(rule, request).reason for rule in rules}
    if all(reasons.values()):
        message = f"no operator of {target.name} can follow: {'; '.join(dict.fromkeys(reasons.values()))}"
        raise UsageError(message, where=where, hint=hint)
    return request


def offers(target: Target) -> str:
    """One line: which operator takes weights of how many bits, how they share scales."""
    groups: dict[str, list[str]] = {}
    for rule in target.rules():
        if rule.weights:
            sharing = "/".join(str(item) for item in rule.granularity)
            sizes = f" ({_listed(rule.block_sizes)})" if rule.block_sizes else ""
            kinds = "/".join(sorted({"sym" if form.symmetric else "asym" for form in rule.weights}, reverse=True))
            groups.setdefault(f"{_listed(_bits(rule.weights))}-bit {kinds} weights per {sharing}{sizes}", []).append(
                rule.operator
            )
    parts = [f"{', '.join(operators)}: {what}" for what, operators in groups.items()]
    alone = [name for name in target.formats if "a" not in name]
    return "; ".join([*parts, *([f"{', '.join(alone)} leave activations real numbers"] if alone else [])])


def _parse(target: Target, text: str) -> FormatRequest:
    name, *modifiers = text.strip().lower().split("/")
    match = FORMAT_NAME.match(name)
    if match is None:
        hint = nearest(name, target.formats) or f"{target.name} offers {', '.join(target.formats)}"
        raise UsageError(f"'{text}' is not a format", hint=hint)
    granularity: Granularity | None = None
    block: int | None = None
    symmetric: bool | None = None
    log: QFormat | None = None
    log_operators: tuple[str, ...] = ()
    for modifier in modifiers:
        key, _, value = modifier.partition("=")
        if modifier in ("sym", "asym") and symmetric is None:
            symmetric = modifier == "sym"
        elif modifier in ("tensor", "channel") and granularity is None:
            granularity = Granularity(modifier)
        elif key == "block" and _BLOCK_SIZE.match(value) and granularity is None:
            granularity, block = Granularity.BLOCK, int(value)
        elif _LOG.match(key):
            log, log_operators = _log(modifier, log, text, target)
        else:
            hint = nearest(modifier, _MODIFIERS) or f"modifiers: {', '.join(_MODIFIERS)}, each kind once"
            raise UsageError(f"modifier '{modifier}' in format '{text}' is unknown or contradicts another", hint=hint)
    activation_bits = None if match[2] is None else int(match[2])
    return FormatRequest(text, int(match[1]), activation_bits, granularity, block, symmetric, log, log_operators)


def _log(modifier: str, before: QFormat | None, text: str, target: Target) -> tuple[QFormat, tuple[str, ...]]:
    """The log format of a modifier and whose results get it: operators joined by ``+``, as the profile spells them."""
    key, equals, value = modifier.partition("=")
    what = f"modifier '{modifier}' in format '{text}'"
    if before is not None:
        raise UsageError(f"{what} contradicts '{before}'", hint="one log format for all results: leave one out")
    if not equals:
        return QFormat.parse(key), ()
    if not all(value.split("+")):
        raise UsageError(f"{what} names no operator", hint=f"write {key} for all, or e.g. {key}=Softmax+Gelu")
    known = {name.lower(): name for name in target.operators}
    return QFormat.parse(key), tuple(known.get(name, name) for name in value.split("+"))


def _granularity(rule: OperatorRule, request: FormatRequest) -> tuple[Granularity, int | None, str]:
    """Granularity, block size, and why they are not what was asked for."""
    preferred = rule.granularity[0]
    own_block = rule.block_sizes[0] if preferred is Granularity.BLOCK else None
    if request.granularity is None:
        return preferred, own_block, ""
    if request.granularity not in rule.granularity:
        accepted = ", ".join(str(item) for item in rule.granularity)
        return preferred, own_block, f"{rule.operator} takes weight scales per {accepted} only"
    if request.block is not None and request.block not in rule.block_sizes:
        size = min(rule.block_sizes, key=lambda size: (abs(size - request.block), size))  # type: ignore[operator]
        return Granularity.BLOCK, size, f"{rule.operator} takes blocks of {_listed(rule.block_sizes)} only"
    return request.granularity, request.block, ""


def _nearest_bits(forms: Sequence[QFormat], bits: int) -> list[QFormat]:
    """The formats with those bits, else with the next more, else with the most; the rule's order is kept."""
    enough = [form.bits for form in forms if form.bits >= bits]
    chosen = min(enough) if enough else max(form.bits for form in forms)
    return [form for form in forms if form.bits == chosen]


def _bits(forms: Iterable[QFormat]) -> list[int]:
    return [form.bits for form in forms]


def _listed(numbers: Iterable[int]) -> str:
    return "/".join(str(number) for number in sorted(set(numbers), reverse=True))


def _length(node: ir.Node, axis: int) -> int | None:
    weight = node.inputs[1]
    length = weight.shape[axis] if weight is not None and weight.shape is not None else None
    return length if isinstance(length, int) else None
