"""Compare a candidate with the float model on samples that nothing was fitted on.

Samples are streamed, one feed at a time. The float model runs first and its outputs wait in a temporary file (in
memory up to 64 MB), so only one session is alive at any moment. A candidate given as a path is run as its user will
run it: what was written is what is measured. Only files beyond ``PART_BYTES`` run piece by piece instead, without
optimization across pieces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.layers import LayerQuality, measure_layers
from qcompiler.analysis.meters import OutputMeter, OutputQuality
from qcompiler.analysis.metrics import BUILTIN, Metric, agreement, cosine, kl, sqnr, top1
from qcompiler.analysis.sessions import Runs, StockRunner, fit
from qcompiler.analysis.size import stored_bytes
from qcompiler.errors import DataError, UsageError, VerificationError, nearest
from qcompiler.ir import io
from qcompiler.ir.execute import PART_BYTES, Feed, Runner
from qcompiler.ir.memory import trim

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = [
    "LayerQuality",
    "OutputQuality",
    "Quality",
    "agreement",
    "compare",
    "cosine",
    "kl",
    "metric",
    "sqnr",
    "top1",
    "vector_outputs",
]

Model: TypeAlias = "ir.Model | str | Path"

_SPOOL_BYTES = 64 << 20
_TOP1 = Metric("top1", lambda _, __: 0.0, True, "%", 0.0)
_NORMALISING = frozenset(
    {"LayerNormalization", "RMSNormalization", "LpNormalization", "Tanh", "ReduceMean", "Div", "Mul"}
)
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_MOVES = _QDQ | {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose"}


@dataclass(frozen=True, slots=True)
class Quality:
    """The comparison of two models.

    Attributes:
        metric: The metric asked for.
        samples: Samples measured on.
        outputs: One entry per output, in graph order.
        layers: One entry per tensor inside, in graph order; empty where not measured.
        layer_samples: Samples the layers were measured on.
        notes: What the reader must know.
    """

    metric: Metric
    samples: int
    outputs: tuple[OutputQuality, ...]
    layers: tuple[LayerQuality, ...] = ()
    layer_samples: int = 0
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float | None:
        """The metric asked for, of the output where it is worst; ``None`` where no output has it."""
        figures = [figure for output in self.outputs if (figure := output.figure(self.metric.name)) is not None]
        if not figures:
            return None
        return min(figures) if self.metric.higher_is_better else max(figures)

    def worst_layers(self, count: int = 5) -> tuple[LayerQuality, ...]:
        """The layers of least SQNR, worst first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.sqnr)[:count])


def metric(name: str | Metric, plugins: Iterable[Metric] = ()) -> Metric:
    """The metric called ``name``: built in, from ``plugins``, or from the entry point group ``qcompiler.metrics``.

    Raises:
        UsageError: There is none; the hint gives the nearest name.
    """
    if isinstance(name, Metric):
        return name
    known = {item.name: item for item in (*plugins, *BUILTIN, _TOP1)}
    if name not in known:
        known |= {item.name: item for item in _installed()}
    if name not in known:
        hint = nearest(name, known) or f"one of {', '.join(sorted(known))}"
        raise UsageError(f"there is no metric '{name}'", hint=hint)
    return known[name]


def _installed() -> Iterable[Metric]:
    from importlib.metadata import entry_points

    for point in entry_points(group="qcompiler.metrics"):
        found = point.load()
        if isinstance(found, Metric):
            yield found


def compare(
    reference: Model,
    candidate: Model,
    dataset: Dataset,
    *,
    per_layer: Mapping[str, str] | None = None,
    metric: str | Metric = "sqnr",
    layer_samples: int | None = None,
    softened: bool = False,
    threads: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Quality:
    """Measure how close ``candidate`` comes to ``reference`` on ``dataset``.

    Args:
        reference: The float model, in memory or as a path.
        candidate: The quantized model; a path is loaded with ONNX Runtime's default options.
        dataset: Held-out samples, with labels where there are any.
        per_layer: Float tensor name to the candidate's tensor name; those get figures of their own.
        metric: The figure asked for.
        layer_samples: Samples that the layers are measured on; ``None`` takes up to 8, fewer for large networks.
        softened: Whether outputs get the divergence that sensitivity predicts, too (``metrics.softened_kl``).
        threads: Intra-operator threads; 0 lets ONNX Runtime choose.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        DataError: ``dataset`` is empty, or ``top1`` is asked for without labels.
        VerificationError: The models have different outputs.
        ModelError: A model cannot be loaded or run.
    """
    chosen = _lookup(metric)
    if len(dataset) == 0:
        raise DataError("there are no samples to measure on", where=dataset.source)
    if chosen.name == "top1" and dataset.labels is None:
        raise DataError(
            "metric top1 needs labels", where=dataset.source, hint="add an array 'labels' to the evaluation data"
        )
    report = progress or _silent
    outputs, notes = _outputs(reference, candidate, dataset, (chosen, softened), threads, report)
    layers: list[LayerQuality] = []
    used = 0
    if per_layer:
        models = _loaded(reference), _loaded(candidate)
        trim()
        layers, used, more = measure_layers(
            *models, dataset, per_layer, samples=layer_samples, threads=threads, progress=progress
        )
        notes += more
    return Quality(chosen, len(dataset), tuple(outputs), tuple(layers), used, tuple(notes))


_lookup = metric


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def _loaded(model: Model) -> ir.Model:
    return model if isinstance(model, ir.Model) else io.load(model)


def _runner(model: Model, loaded: ir.Model | None, threads: int) -> Runs:
    """A stored model runs as its user will run it, unless it is so large that it must be run piece by piece.

    ``loaded`` is the model as loaded from its path, for a caller who releases its pages afterwards.
    """
    if isinstance(model, ir.Model) or stored_bytes(model) > PART_BYTES:
        return Runner(model if loaded is None else loaded, threads=threads)
    return StockRunner(model, threads=threads)


def _outputs(
    reference: Model,
    candidate: Model,
    dataset: Dataset,
    figures: tuple[Metric, bool],
    threads: int,
    progress: Callable[[str, int, int], None],
) -> tuple[list[OutputQuality], list[str]]:
    """Run the float model, then the candidate, and compare their outputs sample by sample.

    ``figures``: the metric asked for, and whether the softened divergence is.
    """
    chosen, softened = figures
    graph = _loaded(reference)
    vectors = vector_outputs(graph)
    io.release(graph)
    trim()
    plugin = chosen if chosen.name not in {item.name for item in (*BUILTIN, _TOP1)} else None
    count = len(dataset)
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
        names = _record(
            _runner(reference, graph, threads), dataset, spool, lambda done: progress("float", done, count)
        )
        spool.seek(0)
        io.release(graph)
        trim()
        meters = {name: OutputMeter(name, name in vectors, plugin, softened) for name in names}
        skipped = _metered(names, meters, _runner(candidate, None, threads), dataset, spool, progress)
    trim()
    notes = [f"output {name} is no tensor and is not compared" for name in names if name in skipped]
    return [meters[name].result() for name in names if name not in skipped], notes


def _metered(
    names: list[str],
    meters: Mapping[str, OutputMeter],
    runner: Runs,
    dataset: Dataset,
    spool: IO[bytes],
    progress: Callable[[str, int, int], None],
) -> set[str]:
    """Run the candidate and meter its outputs against those in ``spool``; the names of outputs that are no tensors."""
    pairs, labels, skipped = _pairs(names, runner.outputs), dataset.labels, set[str]()
    for index, (_, found) in enumerate(runner.stream(fit(feed, runner) for feed in dataset)):
        progress("quantized", index, len(dataset))
        label = None if labels is None else np.asarray(labels[index])
        for name in names:
            wanted = _read(spool)
            if wanted is None or not isinstance(found[pairs[name]], np.ndarray):
                skipped.add(name)
            else:
                meters[name].update(wanted, found[pairs[name]], label)
    return skipped


def _record(runner: Runs, dataset: Iterable[Feed], spool: IO[bytes], progress: Callable[[int], None]) -> list[str]:
    """Write the outputs of every sample to ``spool``; return their names in order."""
    for index, (_, found) in enumerate(runner.stream(fit(feed, runner) for feed in dataset)):
        progress(index)
        for name in runner.outputs:
            _write(spool, found[name])
    return list(runner.outputs)


def _write(spool: IO[bytes], array: Any) -> None:
    tensor = isinstance(array, np.ndarray)
    spool.write(b"\1" if tensor else b"\0")
    if tensor:
        np.save(spool, array.astype(str) if array.dtype == object else array, allow_pickle=False)


def _read(spool: IO[bytes]) -> NDArray[Any] | None:
    if spool.read(1) == b"\0":
        return None
    array: NDArray[Any] = np.load(spool, allow_pickle=False)
    return array


def _pairs(ours: list[str], theirs: list[str]) -> dict[str, str]:
    """Outputs that belong together: by name, or by position where the candidate renamed them all."""
    if set(ours) <= set(theirs):
        return {name: name for name in ours}
    if len(ours) == len(theirs):
        return dict(zip(ours, theirs, strict=True))
    missing = sorted(set(ours) - set(theirs))
    raise VerificationError(f"the candidate lacks outputs {', '.join(missing)}; it has {', '.join(theirs)}")


def vector_outputs(model: ir.Model) -> frozenset[str]:
    """Outputs that the graph says are embeddings or states, not the scores of a classifier.

    Looking back through nodes that only move data, such an output ends in a normalisation, Tanh, a mean or an
    element-wise product. What ends in Softmax, Gemm, MatMul or a convolution may be a classifier's.
    """
    return frozenset(str(output.name) for output in model.graph.outputs if output.name and _is_vector(output))


def _is_vector(output: ir.Value) -> bool:
    value: ir.Value | None = output
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Add":  # a bias, or the shift at the end of a decomposed normalisation
            computed = [item for item in node.inputs if item is not None and item.producer() is not None]
            value = computed[0] if len(computed) == 1 else None
            if len(computed) > 1:
                return False
        elif node.op_type in _MOVES:
            value = node.inputs[0]
        else:
            return node.op_type in _NORMALISING
    return False
