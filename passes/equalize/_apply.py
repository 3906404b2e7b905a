"""Divide channels by factors: change the constants around them, rename what holds them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants, patterns
from qcompiler.ir.edit import Edit
from qcompiler.passes.equalize._labels import Names, vector
from qcompiler.passes.equalize._layers import scale_layer
from qcompiler.passes.equalize._names import rename
from qcompiler.passes.equalize._scaling import Scaling
from qcompiler.passes.equalize._upper_bounds import set_bounds
from qcompiler.passes.normalize._affine import Affine, keep_statistics
from qcompiler.passes.normalize._rewrite import own_constant

__all__ = ["APPLIED", "SUFFIX", "divide"]

APPLIED: Final = "qcompiler.equalized"
"""Key in the meta of a layer's result: the factors it was divided by."""
SUFFIX: Final = "_equalized"


def divide(found: Scaling, factors: dict[int, float], edit: Edit) -> None:
    """Divide every channel by the factor of its label's root.

    Args:
        found: The channels of the graph.
        factors: By root; what is missing keeps its size.
        edit: The mutation interface.
    """

    def of(names: Names) -> NDArray[np.float64]:
        roots = found.labels.roots(names)
        return np.array([factors.get(int(root), 1.0) for root in roots.ravel()]).reshape(names.shape)

    # Names and statistics first: what replaces a Clip takes them over.
    for value in found.labels.values():
        divisor = of(found.labels.of(value))
        if (divisor != 1).any():
            _keep_account(value, found, divisor, edit)
    for node in dict.fromkeys((*found.makers, *found.readers)):
        after, before = of(found.makers[node]), of(found.readers[node])
        if (after != 1).any():
            value = node.outputs[0]
            value.meta[APPLIED] = value.meta.get(APPLIED, 1.0) * after
        if (after != 1).any() or (before != 1).any():
            scale_layer(node, before, 1 / after, edit)
    for node, index, names in found.added:
        _divide_constant(node, index, of(names), edit)
    for bound in found.bounds:
        divisor = of(bound.names)
        if (divisor != 1).any():
            set_bounds(bound.node, bound.values / divisor, edit)


def _keep_account(value: ir.Value, found: Scaling, divisor: NDArray[np.float64], edit: Edit) -> None:
    """Divide what statistics say of a tensor, and give it another name."""
    shape = patterns.static_shape(value)
    size = None if shape is None or len(shape) < 2 else shape[1]
    along = None if size is None else vector(found.labels.of(value), 1, size)
    if size is not None and along is not None:
        shrink = 1 / np.broadcast_to(divisor.reshape(-1), (size,))
        keep_statistics(value, Affine(shrink, np.zeros(size)))
    rename(value, SUFFIX, edit)


def _divide_constant(node: ir.Node, index: int, divisor: NDArray[np.float64], edit: Edit) -> None:
    """Divide a constant that is added; it grows where it was one number for channels that now differ."""
    content = constants.array(node.inputs[index])
    if content is None or not content.any() or (divisor == 1).all():
        return
    changed: NDArray[Any] = content.astype(np.float64) / divisor
    edit.set_constant(own_constant(edit, node, index), changed.astype(content.dtype))
