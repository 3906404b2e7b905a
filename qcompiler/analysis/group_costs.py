"""What groups of nodes cost in each of their formats: the numbers that an allocation of bits adds up.

Costs are by *resource*: ``size`` in bytes of the file, ``bops`` in bit operations, ``latency`` in seconds, and
``memory@NODE`` in bytes of activations that live while that node runs (the peak is the greatest of them). What does not
depend on a choice is ``fixed``, what an option costs adds to it. Some things are paid once, by the first option that
needs them: the body of a function in the file. ``fixed`` holds all of them, so that the plain sum does not fall short;
``total`` takes back those that a choice does not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["BOPS", "LATENCY", "MEMORY", "SIZE", "Choice", "GroupCosts", "SharedCost"]

SIZE: Final = "size"
BOPS: Final = "bops"
LATENCY: Final = "latency"
MEMORY: Final = "memory"

Choice: TypeAlias = Mapping[str, str]
"""A format by group."""


@dataclass(frozen=True, slots=True)
class SharedCost:
    """Something that is paid once.

    Attributes:
        name: What it is.
        resource: Of what it costs.
        amount: How much.
        options: Groups and formats that need it.
    """

    name: str
    resource: str
    amount: float
    options: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class GroupCosts:
    """Costs of a model by group and option.

    Attributes:
        fixed: By resource, what every choice costs, shared costs included.
        options: By group, format and resource, what the option costs.
        shared: What part of ``fixed`` some choices do without.
        unknown: Kinds of nodes that count no latency, because the table says nothing of them.
    """

    fixed: Mapping[str, float]
    options: Mapping[str, Mapping[str, Mapping[str, float]]]
    shared: tuple[SharedCost, ...] = ()
    unknown: tuple[str, ...] = ()

    def bound(self, choice: Choice, resource: str) -> float:
        """What a choice costs at most: ``fixed`` and its options, as a solver adds them."""
        return self.fixed[resource] + sum(self.options[group][form][resource] for group, form in choice.items())

    def total(self, choice: Choice, resource: str) -> float:
        """What a choice costs, without the shared costs that it does not need.

        Args:
            choice: A format for every group.
            resource: Of what.
        """
        chosen = set(choice.items())
        unneeded = (item.amount for item in self.shared if item.resource == resource and not item.options & chosen)
        return self.bound(choice, resource) - sum(unneeded)
