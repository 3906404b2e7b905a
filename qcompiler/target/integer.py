"""What a target's integer arithmetic can do between two quantized tensors: the ``[integer]`` table of a profile.

An accumulator becomes codes as ``((x - zero) * b + 2^(c-1)) >> c``. The profile bounds ``b`` (the multiplier), ``c``
(the shift), the accumulator and the tables; lowering chooses within the bounds and legality checks the result.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from qcompiler.errors import TargetError

__all__ = ["IntegerArithmetic", "Layout", "Lowering", "Rounding"]

GREATEST_SHIFT = 62
"""64-bit products: a product and the rounding term 2^(shift - 1) stay below 2^62."""
TABLE_ENTRIES = 256
INTERPOLATED_TABLE_ENTRIES = 513


class Lowering(enum.StrEnum):
    """The form in which the quantized graph is written."""

    QDQ = "qdq"  # float operators between DequantizeLinear and QuantizeLinear: the runtime finds its own kernels
    INTEGER = "integer"  # operators of ai.qcompiler on codes: the arithmetic is fixed to the last bit


class Rounding(enum.StrEnum):
    """How a shift to the right rounds."""

    HALF_UP = "half-up"  # floor(x / 2^c + 1/2), also for negative x


class Layout(enum.StrEnum):
    """Where the channels of images lie inside a graph of integer operators."""

    CHANNELS_FIRST = "channels-first"  # [batch, channels, spatial...], as ONNX has it
    CHANNELS_LAST = "channels-last"  # [batch, spatial..., channels]: the channels of a position side by side


@dataclass(frozen=True, slots=True)
class IntegerArithmetic:
    """Widths and bounds of a target's integer arithmetic.

    Attributes:
        multiplier_bits: Bits of a rescale multiplier: ``0 < b < 2^bits``; 0 means shifts only.
        wide_multiplier_bits: The same behind an accumulator that needs more than ``accumulator_bits``.
        shift: Least and greatest shift to the right of a rescale.
        rounding: How that shift rounds.
        accumulator_bits: Width of the accumulator over products of 8-bit codes, sign included.
        wide_accumulator_bits: Width of the accumulator over products with 16-bit codes; 0: no such products.
        table_entries: Entries of a table over the 8-bit codes; 0: no tables.
        interpolated_table_entries: Entries of a table over 16-bit codes that is interpolated; 0: no such tables.
        layout: Where convolutions want the channels of their images.
    """

    multiplier_bits: int = 31
    wide_multiplier_bits: int = 31
    shift: tuple[int, int] = (1, GREATEST_SHIFT)
    rounding: Rounding = Rounding.HALF_UP
    accumulator_bits: int = 32
    wide_accumulator_bits: int = 64
    table_entries: int = TABLE_ENTRIES
    interpolated_table_entries: int = INTERPOLATED_TABLE_ENTRIES
    layout: Layout = Layout.CHANNELS_FIRST

    def __post_init__(self) -> None:
        if not 0 <= self.multiplier_bits <= 31:
            _refuse("multiplier_bits", f"{self.multiplier_bits} is outside 0 to 31", "0 means shifts only")
        if not 2 <= self.wide_multiplier_bits <= 31:
            _refuse("wide_multiplier_bits", f"{self.wide_multiplier_bits} is outside 2 to 31", None)
        least, greatest = self.shift
        if not 1 <= least <= greatest <= GREATEST_SHIFT:
            _refuse(
                "shift",
                f"{list(self.shift)} is not a range of shifts",
                f"write shift = [least, greatest], 1 to {GREATEST_SHIFT}",
            )
        if not 16 <= self.accumulator_bits <= 32:
            _refuse("accumulator_bits", f"{self.accumulator_bits} is outside 16 to 32", None)
        if self.wide_accumulator_bits and not 32 <= self.wide_accumulator_bits <= 64:
            _refuse(
                "wide_accumulator_bits",
                f"{self.wide_accumulator_bits} is outside 32 to 64",
                "0 means no products of 16-bit codes",
            )
        for key, only in (("table_entries", TABLE_ENTRIES), ("interpolated_table_entries", INTERPOLATED_TABLE_ENTRIES)):
            if getattr(self, key) not in (0, only):
                _refuse(key, f"{getattr(self, key)} is neither 0 nor {only}", "0 means no such table")

    @property
    def shifts_only(self) -> bool:
        """Whether a rescale has no multiplier."""
        return self.multiplier_bits == 0

    def multiplier_bits_for(self, bound: int) -> int:
        """Bits of a multiplier for an accumulator of at most this magnitude; 0 means shifts only."""
        wide = int(bound).bit_length() >= self.accumulator_bits
        return min(self.multiplier_bits, self.wide_multiplier_bits) if wide else self.multiplier_bits


def _refuse(key: str, message: str, hint: str | None) -> None:
    raise TargetError(message, where=key, hint=hint)
