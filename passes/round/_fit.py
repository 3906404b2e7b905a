"""What all passes of this family share: visit every layer, choose codes, keep them where samples left out agree.

The last eighth of the samples only judges. There the mean squared error of the layer's outputs, with the inputs that it
will get, must be lower than with its present codes, which are the nearest ones until a pass of this family has run; a
layer where it is not keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from qcompiler.errors import DataError
from qcompiler.passes.round._constraints import ScaleMap
from qcompiler.passes.round._layers import RoundLayer, own_layers, write_codes
from qcompiler.passes.round._problem import Problem
from qcompiler.passes.round._scales import Parts
from qcompiler.passes.round._search import Solution, solution
from qcompiler.passes.round._statistics import Rows, Statistics, take
from qcompiler.passes.round._walk import Walk, as_many_as_fit
from qcompiler.pipeline.base import Context
from qcompiler.quant.params import QParams

__all__ = ["Inputs", "Options", "fit_layers"]

HELD_ROWS: Final = 4096
"""Rows that judge a layer."""
MOST_ROWS: Final = 16384
"""Rows of all samples together that a small layer is fitted on."""
PRODUCTS: Final = 1 << 22
"""Rows times columns that a larger one is fitted on, but not fewer than four rows per column."""

MOST_COLUMNS: Final = 10_000
"""Inputs of one output; their second moments and the factors of these take some copies of the square of that."""

Inputs = Literal["quantized", "float"]
Choose = Callable[[Problem, Parts, Solution], Solution]
"""Better codes, and scales, for a layer's problem, from those it has."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a layer's problem is made.

    Attributes:
        inputs: Whether a layer gets the inputs that it will get, errors of earlier layers included, or real ones.
        damping: Share of the mean diagonal that is added to the diagonal of the Hessian.
        samples: Most samples to look at.
        rows: Most rows of one sample that a layer is fitted on; 0 chooses by the layer's size.
        guard: Whether codes must lower the output error on samples they were not fitted on.
    """

    inputs: Inputs
    damping: float
    samples: int
    rows: int
    guard: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """What was found for a layer; ``params`` is ``None`` where the scales stay."""

    layer: RoundLayer
    codes: NDArray[np.int32]
    params: QParams | None


def fit_layers(model: ir.Model, ctx: Context, options: Options, choose: Choose) -> None:
    """Choose the codes of every layer of the main graph."""
    layers = own_layers(model.graph, ctx, _why_too_large)
    if not layers:
        return
    if ctx.calibration is None:
        raise DataError("rounding by output error needs calibration samples", hint="give --calibration")
    dataset = as_many_as_fit(ctx.calibration, layers, options.samples)
    count, left = len(dataset), dataset.left_out() if options.guard else 0
    chosen: list[_Choice] = []
    shares: list[float] = []
    walk = Walk(model, layers, dataset, ctx, quantized=options.inputs == "quantized")
    # Factorizations of small blocks by several threads that wait for each other take ten times as long as by one.
    with threadpool_limits(limits=1, user_api="blas"):
        for visit in walk:
            for layer in visit.layers:
                ctx.progress("round weights", len(shares) + 1, len(layers))
                statistics = take(visit, layer, count - left, _rows(layer, count - left, options))
                choice, share = _choose(layer, statistics, ctx, options, choose)
                shares.append(share)
                if choice is None:
                    walk.settle(layer, layer.rounded())
                else:
                    walk.settle(layer, layer.grid(choice.params).real(choice.codes))
                    chosen.append(choice)
    for choice in chosen:  # only now: the walk reads the model
        write_codes(choice.layer, choice.codes, ctx, choice.params)
    text = f"; output error on {left} samples left out: {np.median(shares):.3g} of before (median)"
    ctx.note(f"rounded {len(chosen)} of {len(layers)} weights{text if left else ''}")


def _choose(
    layer: RoundLayer, statistics: Statistics, ctx: Context, options: Options, choose: Choose
) -> tuple[_Choice | None, float]:
    """Codes for a layer and their output error in units of the present ones'; ``None`` where those stay."""
    scales = ScaleMap.of(layer, ctx.target)
    problem, parts = statistics.problem(options.damping, layer.quant.format.bits), scales.parts
    present = layer.codes().transpose(0, 2, 1)
    start = solution(problem, parts, present, *scales.read())
    try:
        found = choose(problem, parts, start)
    except np.linalg.LinAlgError as error:
        ctx.skip(layer.node, f"its second moments cannot be factored ({error}): more damping may help")
        return None, 1.0
    share = 1.0
    if statistics.held is not None:
        before, after = (
            statistics.held.error(statistics.weights, parts.grid(item.scale, item.zero).real(item.codes))
            for item in (start, found)
        )
        share = after / before if before > 0 else 1.0
        if not after < before:
            ctx.skip(layer.node, f"output error on samples left out: {before:.4g} before, {after:.4g} rounded")
            return None, 1.0
    same = np.array_equal(found.scale, start.scale) and np.array_equal(found.zero, start.zero)
    params = None if same else scales.write(found.scale, found.zero)
    return _Choice(layer, np.ascontiguousarray(found.codes.transpose(0, 2, 1)), params), share


def _rows(layer: RoundLayer, samples: int, options: Options) -> Rows:
    wanted = max(4 * layer.columns, min(MOST_ROWS, PRODUCTS // layer.columns))
    return Rows(options.rows or -(-wanted // max(1, samples)), HELD_ROWS)


def _why_too_large(layer: RoundLayer) -> str:
    """Why memory cannot hold the second moments of a layer; empty where it can."""
    if layer.columns <= MOST_COLUMNS:
        return ""
    return f"second moments of {layer.columns} inputs take {8 * layer.columns**2 / 2**30:.1f} GB and more"
