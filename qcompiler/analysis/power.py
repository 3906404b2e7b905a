"""Signal and noise of a tensor, summed over samples in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.metrics import SQNR_CEILING, sqnr_of_sums

__all__ = ["Power"]

_BLOCK = 1 << 14


@dataclass(slots=True)
class Power:
    """Sums of squares of a tensor and its error, over samples."""

    signal: float = 0.0
    noise: float = 0.0
    max_error: float = 0.0
    broken: bool = False
    shapes_differ: bool = False

    def update(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Add one sample; shapes are equal."""
        if reference.dtype == candidate.dtype == np.float32 and self._update_blocks(reference, candidate):
            return
        wanted, found = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
        usable = np.isfinite(wanted)
        if not usable.all():
            wanted, found = wanted[usable], found[usable]
        if not np.isfinite(found).all():
            self.broken = True
            return
        error = (wanted - found).reshape(-1)
        flat = wanted.reshape(-1)
        self.signal += float(flat @ flat)
        self.noise += float(error @ error)
        self.max_error = max(self.max_error, float(np.abs(error).max(initial=0.0)))

    def _update_blocks(self, reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> bool:
        """The same in float32, which is four times as fast: sums of blocks in single, their sum in double precision.

        Returns:
            Whether it worked; nothing is added where a sum overflows or something is not finite.
        """
        wanted, found = reference.reshape(-1), candidate.reshape(-1)
        signal = noise = largest = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, wanted.size, _BLOCK):
                block = wanted[start : start + _BLOCK]
                error = block - found[start : start + _BLOCK]
                signal += float(block @ block)
                noise += float(error @ error)
                largest = max(largest, float(np.abs(error).max()))
        # Below 1e-30 squares underflow in single precision.
        if not (math.isfinite(signal) and math.isfinite(noise)) or min(signal, noise) < 1e-30:
            return False
        self.signal, self.noise = self.signal + signal, self.noise + noise
        self.max_error = max(self.max_error, largest)
        return True

    def sqnr(self) -> float:
        """Signal over noise of everything seen, in dB."""
        return -SQNR_CEILING if self.broken else sqnr_of_sums(self.signal, self.noise)
