"""QFormat: what a quantized tensor is stored as, before any range is known.

A format has a text form, used in profiles, plans and on the command line::

    u8            unsigned 8 bits, asymmetric, one scale for the tensor
    i8            signed 8 bits, asymmetric
    i8/sym        signed 8 bits, symmetric (zero point 0)
    i8/sym/axis=0 ... one scale per slice along axis 0
    i4/sym/block=32/axis=1  one scale per 32 elements along axis 1
    i7/sym        7 bits in 8-bit storage (range -63..63 when narrow, else -64..63)
    i8/sym/narrow the most negative code is not used (-127..127)
    i8/pot        the scale is a power of two, so that rescaling is a shift
    i32/sym       biases
    log4          4-bit codes of 16 values on a grid whose steps may grow (``qcompiler.quant.log_grids``)

The arithmetic is affine, ``real = scale * (q - zero_point)``, but for ``log`` formats, whose codes stand for the
entries of a table: ``real = scale * values[q]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from qcompiler.errors import UsageError

__all__ = ["BYTE", "LOG_BITS", "QFormat"]

_HEAD = re.compile(r"(i|u|log)(\d{1,2})$")
_FLAGS = {"sym": "symmetric", "narrow": "narrow", "pot": "power_of_two"}
_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)
BYTE = 8
"""Bits of a byte. Codes of fewer are packed, and what they are chosen by is worth some work."""
LOG_BITS = (2, 3, 4, 5, 6, 7)
"""Codes of ``log`` formats are int8 from 0 on."""


@dataclass(frozen=True, slots=True)
class QFormat:
    """Storage format of a quantized tensor.

    Attributes:
        bits: Significant bits of a code: 1 to 8, 16, or 32 (biases).
        signed: Whether codes are two's complement.
        symmetric: Zero point fixed at 0 (signed) or at the middle (unsigned).
        narrow: The most negative signed code is left unused, so that the range is balanced.
        axis: The axis along which scales vary; ``None`` means one scale for the tensor.
        block: Elements that share a scale along ``axis``; ``None`` means the whole slice does.
        power_of_two: Every scale is 2^k with a whole k.
        logarithmic: Codes count from 0 along a grid, whose values are a table; one grid for the tensor.
    """

    bits: int
    signed: bool = True
    symmetric: bool = False
    narrow: bool = False
    axis: int | None = None
    block: int | None = None
    power_of_two: bool = False
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise UsageError(f"a format of {self.bits} bits does not exist", hint=f"bits are one of {_BITS}")
        if self.block is not None and (self.block < 2 or self.axis is None):
            raise UsageError(f"block={self.block} needs an axis and at least 2 elements")
        if self.narrow and not self.signed:
            raise UsageError("only a signed format can be narrow")
        if self.logarithmic:
            self._check_logarithmic()

    def _check_logarithmic(self) -> None:
        if self.bits not in LOG_BITS:
            hint = "codes are int8 from 0 on: log2 to log7"
            raise UsageError(f"a format log{self.bits} does not exist", hint=hint)
        modified = (self.symmetric, self.narrow, self.power_of_two, self.axis is not None, not self.signed)
        if any(modified):
            raise UsageError("a log format has no modifiers", hint=f"write log{self.bits}: one grid for the tensor")

    @property
    def minimum(self) -> int:
        """The least code."""
        if not self.signed or self.logarithmic:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.narrow else 0)

    @property
    def maximum(self) -> int:
        """The greatest code."""
        half = self.signed and not self.logarithmic
        return (1 << (self.bits - 1)) - 1 if half else (1 << self.bits) - 1

    @property
    def storage_bits(self) -> int:
        """Bits of the ONNX type that holds one code: 4, 8, 16 or 32; log codes are int8.

        ONNX has 2-bit types from opset 25 on, but ONNX Runtime 1.31 fuses such a weight into a kernel that then
        refuses it, and earlier runtimes know no such type: codes of 1 and 2 bits are stored in 4.
        """
        return 8 if self.logarithmic else next(width for width in (4, 8, 16, 32) if width >= self.bits)

    @property
    def in_bytes(self) -> QFormat:
        """What holds such codes where they are computed at run time: 8 bits at least, of which fewer are used.

        ONNX Runtime's CPU provider has no operators on 4-bit activations and breaks around them: see ``targets``.
        """
        return self if self.storage_bits >= 8 else replace(self, bits=8)

    @property
    def per_tensor(self) -> bool:
        """Whether one scale serves the whole tensor."""
        return self.axis is None

    def along(self, axis: int | None, block: int | None = None) -> QFormat:
        """The same codes with scales along another axis."""
        return replace(self, axis=axis, block=block)

    def __str__(self) -> str:
        parts = [f"{'log' if self.logarithmic else 'i' if self.signed else 'u'}{self.bits}"]
        parts += ["sym"] if self.symmetric else []
        parts += ["narrow"] if self.narrow else []
        parts += ["pot"] if self.power_of_two else []
        parts += [f"axis={self.axis}"] if self.axis is not None else []
        parts += [f"block={self.block}"] if self.block is not None else []
        return "/".join(parts)

    @classmethod
    def parse(cls, text: str) -> QFormat:
        """Read the text form; the inverse of ``str``.

        Raises:
            UsageError: The text names no format.
        """
        head, *modifiers = text.strip().split("/")
        match = _HEAD.match(head)
        if match is None:
            hint = "write e.g. u8, i8/sym/axis=0, i4/sym/axis=1/block=32, log4"
            raise UsageError(f"'{text}' is not a format", hint=hint)
        flags: dict[str, int | bool] = {}
        for modifier in modifiers:
            key, _, value = modifier.partition("=")
            if key in _FLAGS and not value:
                flags[_FLAGS[key]] = True
            elif key in ("axis", "block") and re.fullmatch(r"-?\d+", value):
                flags[key] = int(value)
            else:
                raise UsageError(
                    f"'{modifier}' in format '{text}' is not a modifier", hint="use sym, narrow, pot, axis=N, block=N"
                )
        kind = {"signed": match[1] != "u", "logarithmic": match[1] == "log"}
        return cls(bits=int(match[2]), **kind, **flags)  # type: ignore[arg-type]
