"""How fast a target is, for a roofline: the ``[cost]`` table of a profile.

A node takes the time of its products or the time of its bytes, whichever is longer (Williams, Waterman, Patterson,
"Roofline", CACM 2009), and what every node takes besides. These are facts of a data sheet; what ``qcompiler profile``
measured on a device is better wherever there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from qcompiler.errors import TargetError

__all__ = ["FLOAT", "CostFacts"]

FLOAT: Final = "float"
"""The key of products of real numbers in ``macs_per_cycle``."""

_KEY: Final = re.compile(r"w([1-9]\d?)a([1-9]\d?)")
_MOST_BITS: Final = 32
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "clock": (1.0, 1e15), "bandwidth": (1.0, 1e18), "sram": (0, 1 << 60), "node_overhead": (0.0, 1e6),
        "run_overhead": (0.0, 1e6),
    }
)  # fmt: skip
"""Least and most: machines lie far inside, and sums and quotients of such numbers stay finite."""
_RATES: Final = (1e-6, 1e12)


@dataclass(frozen=True, slots=True)
class CostFacts:
    """Rates of a target.

    Attributes:
        clock: Cycles per second.
        macs_per_cycle: Multiply-accumulates per cycle by format: ``w8a8``, ``w4a8`` …, and ``float``. A format without
            an entry runs at the rate of the nearest that has as many bits or more.
        bandwidth: Bytes per second between the memory outside and the compute unit.
        sram: Bytes of fast memory: activations of a node that fit it together cost no bandwidth.
        node_overhead: Seconds that every node takes besides.
        run_overhead: Seconds that every run takes besides.

    Raises:
        TargetError: A format is none, or a number is none of a machine.
    """

    clock: float
    macs_per_cycle: Mapping[str, float]
    bandwidth: float
    sram: int = 0
    node_overhead: float = 0.0
    run_overhead: float = 0.0

    def __post_init__(self) -> None:
        for key, bounds in _BOUNDS.items():
            _check(key, getattr(self, key), bounds)
        if FLOAT not in self.macs_per_cycle or len(self.macs_per_cycle) < 2:
            _refuse("macs_per_cycle", "a rate for float and for one format at least are needed", _EXAMPLE)
        for key, rate in self.macs_per_cycle.items():
            match = _KEY.fullmatch(key)
            if key != FLOAT and (match is None or max(map(int, match.groups())) > _MOST_BITS):
                _refuse(f"macs_per_cycle.{key}", f"'{key}' is not a format of 1 to {_MOST_BITS} bits", _EXAMPLE)
            _check(f"macs_per_cycle.{key}", rate, _RATES)

    def rate(self, weight_bits: int | None, activation_bits: int | None) -> float:
        """Multiply-accumulates per second.

        Args:
            weight_bits: Bits of the second operand; ``None`` for real numbers.
            activation_bits: Bits of the first; ``None`` likewise.
        """
        if weight_bits is None or activation_bits is None:
            return self.clock * self.macs_per_cycle[FLOAT]
        wide = [
            (weights + activations, -self.macs_per_cycle[f"w{weights}a{activations}"])
            for weights, activations in self._formats()
            if weights >= weight_bits and activations >= activation_bits
        ]
        return self.clock * (-min(wide)[1] if wide else self.macs_per_cycle[FLOAT])

    def _formats(self) -> list[tuple[int, int]]:
        found = (_KEY.fullmatch(key) for key in self.macs_per_cycle)
        return [(int(match[1]), int(match[2])) for match in found if match is not None]


_EXAMPLE: Final = "write e.g. macs_per_cycle = { w8a8 = 256, w8a16 = 128, float = 8 }"


def _check(key: str, number: float, bounds: tuple[float, float]) -> None:
    """Refuse what is no number of a machine; NaN and whole numbers beyond any float included."""
    least, most = bounds
    if not least <= number <= most:
        shown = "a number that large" if abs(number) > 1e30 else str(number)
        _refuse(key, f"{shown} is not between {least:g} and {most:g}", None)


def _refuse(key: str, message: str, hint: str | None) -> None:
    raise TargetError(message, where=key, hint=hint)
