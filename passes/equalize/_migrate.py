"""Factors and shifts of all labels, put into the constants around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.edit import Edit
from qcompiler.passes.equalize._channels import Channels
from qcompiler.passes.equalize._names import rename

__all__ = ["Change", "apply", "done"]

_DONE: Final = "qcompiler.migrated"
"""Key in the meta of a node that makes channels: these were given factors or shifts before."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What becomes of every label: ``(x - shifts) / factors``."""

    factors: NDArray[np.float64]
    shifts: NDArray[np.float64]

    @classmethod
    def none(cls, count: int) -> Change:
        """Nothing."""
        return cls(np.ones(count), np.zeros(count))

    def touches(self, labels: NDArray[np.int64]) -> bool:
        """Whether it changes any of these."""
        return bool((self.factors[labels] != 1).any() or self.shifts[labels].any())


def done(node: ir.Node) -> bool:
    """Whether channels that this node makes were changed before."""
    return bool(node.meta.get(_DONE, False))


def apply(found: Channels, change: Change, edit: Edit, suffix: str) -> None:
    """Change makers, readers and balancing biases; tensors whose content changes get new names.

    What a layer reads is put right first, in units of its own result, which is then divided itself.
    """
    for reader in found.readers:
        if not change.touches(reader.labels):
            continue
        shift = change.shifts[reader.labels]
        if reader.shifted and shift.any():
            reader.layer.add_to_bias(shift @ reader.layer.matrix(), edit)
        reader.layer.multiply_inputs(change.factors[reader.labels], edit)
    for balance in found.balances:
        shift = change.shifts[balance.labels]
        if shift.any():
            balance.layer.add_to_bias(shift, edit)
    for source in found.sources:
        if change.touches(source.labels):
            source.maker.divide_outputs(change.factors[source.labels], change.shifts[source.labels], edit)
            source.maker.node.meta[_DONE] = True
    for value, layout in found.layouts.items():
        labels = layout.all()
        moved = value in found.shifted and change.shifts[labels].any()
        if moved or (change.factors[labels] != 1).any():
            rename(value, suffix, edit)
