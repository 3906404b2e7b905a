"""Run a model over samples and let observers see the tensors they asked for.

Only observed tensors become outputs, samples are run one after the other and forgotten, observers have constant size:
memory grows neither with the number of samples nor with the size of the model's other intermediates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.calibration.histogram import NotFiniteError
from qcompiler.errors import DataError, ModelError
from qcompiler.ir import constants

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.observers import Collector
    from qcompiler.calibration.row_weights import RowWeights
    from qcompiler.pipeline.base import Context

__all__ = ["collect", "stream"]


def collect(
    model: ir.Model,
    dataset: Dataset,
    observers: Mapping[str, Collector],
    *,
    ctx: Context | None = None,
    row_weights: RowWeights | None = None,
    threads: int | None = None,
) -> None:
    """Feed every sample and update the observers.

    Args:
        model: The model to run; it is not changed.
        dataset: The samples.
        observers: One collector per tensor name; graph inputs and outputs may be observed too.
        ctx: Progress and cache folder.
        row_weights: How much each row counts; padding weighs 0.
        threads: Threads of one run; 0 lets the runtime choose; by default what ``ctx`` allows.

    Raises:
        DataError: A tensor holds NaN or infinity; names tensor and sample.
        ModelError: A weight holds NaN; the model cannot be run, or has no tensor of that name.
    """
    if not observers:
        return
    from qcompiler.calibration import cache
    from qcompiler.calibration.row_weights import tell

    entry = cache.entry(model, dataset, observers, ctx, None if row_weights is None else row_weights.key())
    known = None if entry is None else entry.read(observers)
    if known is None:
        _watch(model, dataset, observers, ctx, row_weights, threads)
        if entry is not None:
            entry.write(observers, () if row_weights is None else sorted(row_weights.doubts))
    elif row_weights is not None:
        row_weights.doubts.update(known)
    tell(row_weights, ctx)


def _watch(
    model: ir.Model,
    dataset: Dataset,
    observers: Mapping[str, Collector],
    ctx: Context | None,
    row_weights: RowWeights | None,
    threads: int | None,
) -> None:
    """Run the model and update the observers; see ``collect``."""
    if threads is None:
        threads = ctx.jobs if ctx is not None else 0
    for number, (feed, tensors) in enumerate(stream(model, dataset, list(observers), threads=threads)):
        rows = row_weights.of_feed(feed, number) if row_weights is not None else None
        for name, observer in observers.items():
            try:
                observer.update(tensors[name], None if rows is None else rows.of(name, tensors[name].shape))
            except NotFiniteError as error:
                raise _overflow(model, name, error, number, dataset) from error
        tensors.clear()  # before the next run: two samples' tensors are never held together
        if ctx is not None:
            ctx.progress("calibrate", number + 1, len(dataset))


def _overflow(model: ir.Model, name: str, error: NotFiniteError, number: int, dataset: Dataset) -> DataError:
    """What to say of a tensor that is not finite in a sample.

    Raises:
        ModelError: A weight is to blame.
    """
    _blame_weights(model)
    return DataError(
        f"tensor '{name}' holds {error} in calibration sample {number}",
        where=dataset.source,
        hint="the float model overflows on this sample: remove it, or look for a bad input value",
    )


def _blame_weights(model: ir.Model) -> None:
    """Look for the weight behind a tensor that is not finite; reading all weights is for this case only.

    Raises:
        ModelError: A weight holds NaN.
    """
    for value in model.graph.initializers.values():
        array = constants.array(value)
        if array is not None and array.dtype.kind == "f" and np.isnan(array).any():
            readers = ", ".join(str(node.name) for node in value.consumers())
            hint = "the float model cannot work either: export it again"
            raise ModelError(f"the weight '{value.name}' of {readers} holds NaN", hint=hint)


def stream(
    model: ir.Model, dataset: Dataset, names: list[str], *, threads: int = 0
) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """Feeds and the named tensors they give, one sample at a time.

    The caller owns the yielded tensors: clearing them before the next step frees their memory for the next run.
    """
    from qcompiler.ir.execute import Runner

    computed = [name for name in names if name not in dataset.inputs]
    runner = Runner(model, computed, threads=threads, layout=False) if computed else None
    runs = runner.stream(dataset) if runner is not None else ((feed, {}) for feed in dataset)
    for feed, tensors in runs:
        tensors.update((name, feed[name]) for name in names if name in feed)
        yield feed, tensors
