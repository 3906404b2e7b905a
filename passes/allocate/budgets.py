"""``--budget size=0.25x,latency=2ms``: what a plan may take, as text and as numbers.

Plain numbers are bytes (``size``, ``memory``), seconds (``latency``), bit operations (``bops``) and the loss itself
(``loss``). ``0.25x`` is a share of what the float model takes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qcompiler.analysis.amounts import SHARE, UNITS, unit_of
from qcompiler.analysis.group_costs import BOPS, LATENCY, MEMORY, SIZE
from qcompiler.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qcompiler.analysis.allocation.problem import InfeasibleError
    from qcompiler.target.schema import Target

__all__ = ["LOSS", "RESOURCES", "Budget", "in_words", "least_words", "no_speed", "parse_budgets"]

LOSS: Final = "loss"
RESOURCES: Final = (SIZE, BOPS, LATENCY, MEMORY, LOSS)

_SHARES: Final = (SIZE, BOPS, MEMORY)
"""Resources of which the float model's share can be asked for: its latency on the target is not known."""
_SHARE_DIGITS: Final = 4
_DIGITS: Final = 6
"""Digits of amounts that refusals name."""
_AMOUNT: Final = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)$")


@dataclass(frozen=True, slots=True)
class Budget:
    """Most that a plan may take of one resource.

    Attributes:
        resource: One of ``RESOURCES``.
        amount: In bytes, seconds, bit operations or units of the loss; a share where ``relative``.
        relative: Whether the amount is a share of what the float model takes.
        text: The amount as the user wrote it; empty where it was not written.
    """

    resource: str
    amount: float
    relative: bool = False
    text: str = ""

    def of(self, whole: float) -> float:
        """The amount, where the float model takes ``whole``; sizes are rounded down to whole bytes."""
        found = self.amount * whole if self.relative else self.amount
        return float(math.floor(found)) if self.resource in (SIZE, MEMORY) else found

    def asked(self, whole: float) -> str:
        """What was asked for, as the user wrote it; a share also as the amount, of a float model of ``whole``."""
        exact = f" ({_exact(self.resource, self.of(whole))})" if self.relative else ""
        return f"{self.resource}={self.text or f'{self.amount:.10g}'}{exact}"

    def at_least(self, amount: float, whole: float) -> str:
        """A budget in the unit of this one that a plan of ``amount`` keeps, as near to it as six digits come.

        Args:
            amount: In bytes, seconds or bit operations.
            whole: What the float model takes, for shares.
        """
        if amount <= 0:
            return f"{self.resource}={amount:.10g}"
        unit = SHARE if self.relative else unit_of(self.text)
        factor = whole if self.relative else UNITS.get(self.resource, {}).get(unit.lower(), 1.0)
        number = Decimal(amount) / Decimal(factor)
        digits = _SHARE_DIGITS if self.relative else _DIGITS
        step = Decimal(1).scaleb(min(number.adjusted() - digits + 1, 0))
        number = number.quantize(step, ROUND_CEILING)
        while _budget(self.resource, f"{number:f}{unit.lower()}").of(whole) < amount:
            number += step  # floats round: 0.3 of 1e3 bytes may be 299.99…
        text = f"{number:f}".rstrip("0").rstrip(".") if "." in f"{number:f}" else f"{number:f}"
        exact = f" ({_exact(self.resource, amount)})" if self.relative else ""
        return f"{self.resource}={text}{unit}{exact}"


def _exact(resource: str, amount: float) -> str:
    return f"{amount:.10g}{' bytes' if resource in (SIZE, MEMORY) else ' bit operations'}"


def parse_budgets(text: str) -> tuple[Budget, ...]:
    """The budgets of a text, in its order.

    Raises:
        UsageError: A resource is unknown or named twice, or an amount is none.
    """
    found: dict[str, Budget] = {}
    for part in text.split(","):
        resource, equals, amount = (item.strip().lower() for item in part.partition("="))
        if not equals or resource not in RESOURCES:
            hint = nearest(resource, RESOURCES) or f"write RESOURCE=AMOUNT; resources are {', '.join(RESOURCES)}"
            raise UsageError(f"budget '{part.strip()}' names no resource", where="--budget", hint=hint)
        if resource in found:
            raise UsageError(f"'{resource}' has two budgets", where="--budget", hint="leave one out")
        found[resource] = replace(_budget(resource, amount), text=part.partition("=")[2].strip())
    return tuple(found.values())


def in_words(error: InfeasibleError, budgets: Iterable[Budget], whole: Mapping[str, float]) -> None:
    """Let a refusal speak of budgets as they were asked for.

    Args:
        error: The refusal.
        budgets: As the user gave them.
        whole: What the float model takes of resources of which a share was asked for.
    """
    own = [item for item in budgets if item.resource in error.bounds]
    names, asked = [item.resource for item in own], [item.asked(whole.get(item.resource, 0.0)) for item in own]
    least = least_words(error, own, whole)
    error.reword(dict(zip(names, asked, strict=True)), dict(zip(names, least, strict=True)))


def least_words(error: InfeasibleError, budgets: Iterable[Budget], whole: Mapping[str, float]) -> list[str]:
    """The smallest amounts of a refusal as budgets to ask for; arguments as for ``in_words``."""
    own = [item for item in budgets if item.resource in error.bounds]
    return [item.at_least(error.least[item.resource], whole.get(item.resource, 0.0)) for item in own]


def no_speed(target: Target) -> UsageError:
    """The refusal of a latency where neither the profile nor a table tells one."""
    return UsageError(
        f"nothing says how fast {target.name} is, so no latency can be asked for", where="--budget latency",
        hint="measure it with 'qcompiler profile' and give --cost-table, add a [cost] table to the profile, or give a "
        "budget of size or bops",
    )  # fmt: skip


def _budget(resource: str, text: str) -> Budget:
    match, units = _AMOUNT.match(text), UNITS.get(resource, {})
    known = [*units, *([SHARE] if resource in _SHARES else [])]
    hint = f"write e.g. {resource}={_EXAMPLES[resource]}" + (f"; units are {', '.join(known)}" if known else "")
    if match is None:
        raise UsageError(f"'{text}' is no amount of {resource}", where="--budget", hint=hint)
    amount, unit = float(match[1]), match[2]
    if unit == SHARE and resource in _SHARES:
        return _checked(Budget(resource, amount, relative=True), text, hint)
    if unit and unit not in units:
        raise UsageError(f"'{unit}' is no unit of {resource}", where="--budget", hint=hint)
    return _checked(Budget(resource, amount * units.get(unit, 1.0)), text, hint)


def _checked(budget: Budget, text: str, hint: str) -> Budget:
    if not (math.isfinite(budget.amount) and budget.amount > 0):
        raise UsageError(f"a {budget.resource} of {text} leaves room for nothing", where="--budget", hint=hint)
    if budget.resource in (SIZE, MEMORY) and not budget.relative and budget.amount < 1:
        share = f"{budget.resource}={text}{SHARE} is that share of the float model" if text[-1].isdigit() else hint
        raise UsageError(f"a {budget.resource} of {text} is less than a byte", where="--budget", hint=share)
    return budget


_EXAMPLES: Final = MappingProxyType(
    {SIZE: "0.25x or 500kB", MEMORY: "64kB", LATENCY: "2ms", BOPS: "0.05x or 2G", LOSS: "0.05"}
)
