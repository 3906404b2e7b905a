"""``--budget size=0.25x,latency=2ms``: what a plan may take, as text and as numbers.

Plain numbers are bytes (``size``, ``memory``), seconds (``latency``), bit operations (``bops``) and the loss itself
(``loss``). ``0.25x`` is a share of what the float model takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from qcompiler.analysis.group_costs import BOPS, LATENCY, MEMORY, SIZE
from qcompiler.errors import UsageError, nearest

if TYPE_CHECKING:
    from qcompiler.target.schema import Target

__all__ = ["LOSS", "RESOURCES", "Budget", "no_speed", "parse_budgets"]

LOSS: Final = "loss"
RESOURCES: Final = (SIZE, BOPS, LATENCY, MEMORY, LOSS)

_BYTES: Final = MappingProxyType(
    {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3}
)
_SECONDS: Final = MappingProxyType({"s": 1.0, "ms": 1e-3, "us": 1e-6})
_COUNTS: Final = MappingProxyType({"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12})
_UNITS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {SIZE: _BYTES, MEMORY: _BYTES, LATENCY: _SECONDS, BOPS: _COUNTS, LOSS: MappingProxyType({})}
)
_SHARES: Final = (SIZE, BOPS, MEMORY)
"""Resources of which the float model's share can be asked for: its latency on the target is not known."""
_AMOUNT: Final = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)$")


@dataclass(frozen=True, slots=True)
class Budget:
    """Most that a plan may take of one resource.

    Attributes:
        resource: One of ``RESOURCES``.
        amount: In bytes, seconds, bit operations or units of the loss; a share where ``relative``.
        relative: Whether the amount is a share of what the float model takes.
    """

    resource: str
    amount: float
    relative: bool = False

    def of(self, whole: float) -> float:
        """The amount, where the float model takes ``whole``; sizes are rounded down to whole bytes."""
        found = self.amount * whole if self.relative else self.amount
        return float(math.floor(found)) if self.resource in (SIZE, MEMORY) else found


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
        found[resource] = _budget(resource, amount)
    return tuple(found.values())


def no_speed(target: Target) -> UsageError:
    """The refusal of a latency where neither the profile nor a table tells one."""
    return UsageError(
        f"nothing says how fast {target.name} is, so no latency can be asked for", where="--budget latency",
        hint="measure it with 'qcompiler profile' and give --cost-table, add a [cost] table to the profile, or give a "
        "budget of size or bops",
    )  # fmt: skip


def _budget(resource: str, text: str) -> Budget:
    match, units = _AMOUNT.match(text), _UNITS[resource]
    known = [*units, *(["x"] if resource in _SHARES else [])]
    hint = f"write e.g. {resource}={_EXAMPLES[resource]}" + (f"; units are {', '.join(known)}" if known else "")
    if match is None:
        raise UsageError(f"'{text}' is no amount of {resource}", where="--budget", hint=hint)
    amount, unit = float(match[1]), match[2]
    if unit == "x" and resource in _SHARES:
        return _checked(Budget(resource, amount, relative=True), text, hint)
    if unit and unit not in units:
        raise UsageError(f"'{unit}' is no unit of {resource}", where="--budget", hint=hint)
    return _checked(Budget(resource, amount * units.get(unit, 1.0)), text, hint)


def _checked(budget: Budget, text: str, hint: str) -> Budget:
    if not (math.isfinite(budget.amount) and budget.amount > 0):
        raise UsageError(f"a {budget.resource} of {text} leaves room for nothing", where="--budget", hint=hint)
    return budget


_EXAMPLES: Final = MappingProxyType(
    {SIZE: "0.25x or 500kB", MEMORY: "64kB", LATENCY: "2ms", BOPS: "0.05x or 2G", LOSS: "0.05"}
)
