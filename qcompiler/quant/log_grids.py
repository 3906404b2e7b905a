"""Grids of few bits for tensors whose values crowd near zero: the table behind a ``log`` format.

A grid is ``2^bits`` ascending values that codes stand for; every number goes to the nearest one. Four families, with
``n = 2^bits - 1`` and ``i = 0 ... n``::

    uniform              v = floor + span * i / n                     what the others must beat
    log2                 v = floor + span * 2^-(n - i)
    searched-base        v = floor + span * 2^(-step * (n - i))
    shift-uniform-log2   v = floor + (span + shift) * r^(n - i) - shift,   r = (shift / (span + shift))^(1 / n)

The last one is uniform in ``log(x + shift)`` between the ends: it holds its floor exactly, and its steps grow with
``x + shift``. ``floor`` is 0 for probabilities and the least value of a Gelu; log2 and searched-base never reach it.

In integers. All values are multiples of one scale, int16: ``v[i] ~ scale * values[i]``, where the value of greatest
magnitude is 32767 (rounding ``half_even``). So a product of what is decoded needs no float. What is encoded has the
same scale and zero point 0, and the border between two neighbours is ``ceil((values[i] + values[i + 1]) / 2)``: with it
``QLogQuantize`` finds the nearest value, ties going upwards.

Sources: I&S-ViT (arXiv:2311.10126, section 3.2) for the shift, AdaLog (arXiv:2407.12951, section 3.2) for the base.
Rounding differs from both: to the nearest value and not to the nearest exponent, which never errs more.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UsageError, nearest
from qcompiler.quant.format import LOG_BITS, QFormat

__all__ = ["GREATEST", "KINDS", "Grid"]

KINDS: Final = ("uniform", "log2", "searched-base", "shift-uniform-log2")

GREATEST: Final = 32767
"""The decoded value of greatest magnitude."""

_LARGEST: Final = 2.0**100
_SMALLEST: Final = 2.0**-80
"""Of a span: its scale, a 32767th, stays above the least one."""
_GREATEST_STEP: Final = 16.0


@dataclass(frozen=True, slots=True)
class Grid:
    """Values that codes stand for, as the few numbers that determine them.

    Attributes:
        kind: One of ``KINDS``.
        bits: Bits of a code, 2 to 7.
        span: Greatest value less ``floor``.
        step: Of log2 (always 1) and searched-base: octaves between neighbours. 0 elsewhere.
        shift: Of shift-uniform-log2: what is added before the logarithm. 0 elsewhere.
        floor: Where values are counted from.
    """

    kind: str
    bits: int
    span: float
    step: float = 0.0
    shift: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            hint = nearest(self.kind, KINDS) or f"kinds are {', '.join(KINDS)}"
            raise UsageError(f"'{self.kind}' is no kind of grid", hint=hint)
        if self.bits not in LOG_BITS:
            raise UsageError(f"grids have 2 to 7 bits, not {self.bits}")
        if not _SMALLEST <= self.span <= _LARGEST:
            raise UsageError(f"a grid spans 2^-80 to 2^100, not {self.span}")
        if not abs(self.floor) <= _LARGEST:
            raise UsageError(f"the floor {self.floor} of a grid is no number up to 2^100")
        least, most = {"log2": (1.0, 1.0), "searched-base": (_SMALLEST, _GREATEST_STEP)}.get(self.kind, (0.0, 0.0))
        if not least <= self.step <= most:
            raise UsageError(f"a step of {self.step} octaves does not go with {self.kind}")
        shifted = self.kind == "shift-uniform-log2"
        if not (self.span * 2.0**-30 <= self.shift <= self.span * 2.0**30 if shifted else self.shift == 0):
            raise UsageError(f"a shift of {self.shift} does not go with {self.kind} and a span of {self.span}")

    @property
    def format(self) -> QFormat:
        """The format whose codes count along the grid."""
        return QFormat(self.bits, logarithmic=True)

    def values(self) -> NDArray[np.float64]:
        """The values, ascending, before they are rounded to multiples of the scale."""
        last = (1 << self.bits) - 1
        index = np.arange(last + 1, dtype=np.float64)
        if self.kind == "uniform":
            return self.floor + self.span * index / last
        if self.kind != "shift-uniform-log2":
            return np.asarray(self.floor + self.span * np.exp2(-self.step * index[::-1]), np.float64)
        ratio = (self.shift / (self.span + self.shift)) ** (1 / last)
        # From above: r^i of the greatest value first, so that the floor comes out nearly exactly.
        above: NDArray[np.float64] = (self.span + self.shift) * ratio ** index[::-1] - self.shift
        return self.floor + np.maximum(above, 0.0)

    @property
    def scale(self) -> np.float32:
        """What one unit of the decoded integers is worth."""
        return np.float32(max(abs(self.floor), abs(self.floor + self.span)) / GREATEST)

    def decoded(self) -> NDArray[np.int16]:
        """The values in units of the scale: the table of ``QLogDequantize``. Equal ones may repeat."""
        units = np.rint(self.values() / np.float64(self.scale))
        return np.clip(units, -GREATEST, GREATEST).astype(np.int16)

    def thresholds(self) -> NDArray[np.int16]:
        """Borders between neighbours in units of the scale: the constant of ``QLogQuantize``."""
        units = self.decoded().astype(np.int32)
        return ((units[1:] + units[:-1] + 1) >> 1).astype(np.int16)

    def parameters(self) -> dict[str, Any]:
        """What a plan says of the grid: the kind and those numbers that it has."""
        numbers = {"span": self.span, "step": self.step, "shift": self.shift, "floor": self.floor}
        needless = ("step",) if self.kind == "log2" else ()
        return {"kind": self.kind} | {key: item for key, item in numbers.items() if item and key not in needless}

    def __str__(self) -> str:
        numbers = [f"{key} {item:.4g}" for key, item in self.parameters().items() if key != "kind"]
        return f"{self.kind} ({', '.join(numbers)})"

    @classmethod
    def of(cls, bits: int, parameters: dict[str, Any]) -> Grid:
        """The inverse of :meth:`parameters`.

        Raises:
            UsageError: A key is unknown or missing, or a value is no number that the kind can have.
        """
        known = ("kind", "span", "step", "shift", "floor")
        for key, item in parameters.items():
            if key not in known:
                raise UsageError(f"'{key}' is not known of a grid", hint=nearest(key, known) or f"known: {known}")
            if not (isinstance(item, str) if key == "kind" else _is_finite(item)):
                hint = f"kinds are {', '.join(KINDS)}" if key == "kind" else "write a number up to 2^100, e.g. 1.0"
                raise UsageError(f"'{key}' of a grid cannot be {reprlib.repr(item)}", hint=hint)
        missing = [key for key in known[:2] if key not in parameters]
        if missing:
            raise UsageError(f"a grid needs '{missing[0]}'")
        numbers = {key: float(item) for key, item in parameters.items() if key != "kind"}
        octave = {"step": 1.0} if parameters["kind"] == "log2" else {}
        return cls(parameters["kind"], bits, **(octave | numbers))


def _is_finite(item: Any) -> bool:
    """Whether what a file says is a number that a float can hold."""
    if isinstance(item, bool) or not isinstance(item, int | float):
        return False
    try:
        return math.isfinite(item)
    except OverflowError:  # whole numbers have no bound
        return False
