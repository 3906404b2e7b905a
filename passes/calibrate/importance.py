"""How much an error of each weight costs at the output of its layer: mean squares of the calibration inputs.

``error = sum_k h_k (w_k - dequantized_k)^2`` with ``h_k`` the sum of squares of what ``w_k`` is multiplied with
(``calibration/second_moment.py``), the diagonal of the layer's Hessian. Only ratios of ``h`` matter; a share of their
mean is added, so that weights whose inputs were zero in the samples do not become arbitrary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration import row_weights
from qcompiler.calibration.second_moment import Layout, SecondMoments, Window
from qcompiler.ir.constants import is_constant
from qcompiler.ir.patterns import integer, integers
from qcompiler.pipeline.base import Context
from qcompiler.quant.operators import LINEAR, WEIGHT_INPUT

__all__ = ["importance", "observe"]

_DAMPING: Final = 0.01
"""Share of the mean that is added to every weight's importance, as GPTQ damps its Hessian (arXiv:2210.17323)."""


def observe(model: ir.Model, weights: Iterable[ir.Value], ctx: Context) -> dict[str, SecondMoments]:
    """Run the calibration samples and learn what constants are multiplied with.

    Padding rows weigh 0. Where there are no samples nothing is learnt, which is noted.

    Args:
        model: The model, float.
        weights: The constants.
        ctx: Samples, cache and progress.

    Returns:
        What was learnt, by the name of the tensor that is multiplied.
    """
    layouts: dict[str, list[Layout]] = defaultdict(list)
    for weight in weights:
        for name, layout, _ in _readers(weight):
            layouts[name].append(layout)
    if not layouts:
        return {}
    if ctx.calibration is None:
        ctx.note("no calibration samples: errors of all weights count the same (mse)")
        return {}
    from qcompiler.calibration import engine

    seen = {name: SecondMoments(items) for name, items in layouts.items()}
    rows = row_weights.of(ctx.calibration, model.graph)
    engine.collect(model, ctx.calibration, seen, ctx=ctx, row_weights=rows)
    ctx.note(f"errors of weights count by the mean squares of {len(seen)} tensors in {len(ctx.calibration)} samples")
    return seen


def importance(weight: ir.Value, seen: dict[str, SecondMoments]) -> NDArray[np.float32] | None:
    """Importance of every element of a constant, of mean about 1; ``None`` where nothing is known of its readers."""
    shape = tuple(int(size) for size in weight.shape or () if isinstance(size, int))
    total: NDArray[Any] = np.zeros((1,) * len(shape))
    for name, layout, node in _readers(weight):
        sums = seen[name].sums(layout) if name in seen else None
        if sums is not None:
            total = total + _laid_out(node, sums, shape)
    mean = float(total.mean())
    return np.broadcast_to((total / mean + _DAMPING).astype(np.float32), shape) if mean > 0 else None


def _readers(weight: ir.Value) -> list[tuple[str, Layout, ir.Node]]:
    """Linear nodes that multiply something computed with a constant: the name of that, how it is read, the node."""
    found = []
    for use in weight.uses():
        node = use.node
        if use.idx != WEIGHT_INPUT or node.domain or node.op_type not in LINEAR:
            continue
        data, layout = node.inputs[0], _layout(node)
        if data is not None and layout is not None and not is_constant(data):
            found.append((str(data.name), layout, node))
    return found


def _layout(node: ir.Node) -> Layout | None:
    """How a linear node reads its input; ``None`` where the taps of a convolution are not written down."""
    if node.op_type == "MatMul":
        return Layout(-1)
    if node.op_type == "Gemm":
        return Layout(0 if integer(node, "transA", 0) else 1)
    if node.op_type == "ConvTranspose":
        return Layout(1)  # every pixel meets every tap, but for those that are cut off at the border
    weight = node.inputs[WEIGHT_INPUT]
    shape = [] if weight is None or weight.shape is None else list(weight.shape)
    kernel = tuple(size for size in shape[2:] if isinstance(size, int))
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(kernel) != len(shape) - 2:
        return None
    ones, none = (1,) * len(kernel), (0,) * 2 * len(kernel)
    strides, dilations = integers(node, "strides") or ones, integers(node, "dilations") or ones
    return Layout(1, Window(kernel, strides, integers(node, "pads") or none, dilations))


def _laid_out(node: ir.Node, sums: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Sums of squares along the axes of the weight that they belong to."""
    if node.op_type == "MatMul":
        return sums if len(shape) == 1 else sums[:, None]
    if node.op_type == "Gemm":
        return sums[None, :] if integer(node, "transB", 0) else sums[:, None]
    if node.op_type == "ConvTranspose":
        return sums.reshape(-1, *(1,) * (len(shape) - 1))
    group = integer(node, "group", 1)
    grouped = sums.reshape(group, *shape[1:])
    return grouped[0][None] if group == 1 else np.repeat(grouped, shape[0] // group, axis=0)
