"""``qcompiler diff``: two models side by side, in structure and, given data, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from qcompiler.analysis.layers import LayerQuality, match_layers
from qcompiler.analysis.metrics import Metric
from qcompiler.analysis.quality import Quality, compare
from qcompiler.analysis.size import stored_bytes

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["Change", "Diff", "Fall", "diff"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that both models have, and how much of it."""

    name: str
    first: int | str
    second: int | str


@dataclass(frozen=True, slots=True)
class Fall:
    """Where the error arises: the layer whose SQNR lies furthest below the least of those that feed it."""

    layer: LayerQuality
    before: float


@dataclass(frozen=True, slots=True)
class Diff:
    """The difference between two models.

    Attributes:
        facts: Size, opset, IR version, number of nodes and initializers of both.
        operators: Number of nodes by operator, where it differs.
        weights: Initializers of equal name with different type or shape.
        matched: Tensors that both models have.
        quality: Outputs and layers compared; ``None`` without data.
        falls: Layers that add most error of their own, worst first; empty without data.
    """

    facts: tuple[Change, ...]
    operators: tuple[Change, ...]
    weights: tuple[Change, ...]
    matched: int
    quality: Quality | None
    falls: tuple[Fall, ...] = ()


def diff(
    first: str | Path,
    second: str | Path,
    dataset: Dataset | None = None,
    *,
    metric: str | Metric = "sqnr",
    samples: int | None = None,
    threads: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Diff:
    """Compare two model files; the first is the reference.

    Args:
        first: The reference, usually the float model.
        second: The other model. Tensors are matched by name, outputs by name or position.
        dataset: Samples to run both on; without them only structure is compared.
        metric: The figure of the outputs that matters.
        samples: Samples that layers are measured on; ``None`` takes up to 8, fewer for large networks.
        threads: Intra-operator threads; 0 lets ONNX Runtime choose.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        ModelError: A file cannot be loaded or run.
        VerificationError: The models have different outputs, and data is given.
    """
    from qcompiler.ir import io

    ours, theirs = io.load(first), io.load(second)
    pairs = match_layers(ours, theirs, everything=True)
    quality = None
    if dataset is not None:
        quality = compare(
            first, second, dataset, per_layer=pairs, metric=metric, layer_samples=samples, threads=threads,
            progress=progress,
        )  # fmt: skip
    return Diff(
        facts=_facts(ours, theirs),
        operators=_changes(_census(ours), _census(theirs)),
        weights=_weights(ours, theirs),
        matched=len(pairs),
        quality=quality,
        falls=_falls(ours, quality.layers) if quality is not None else (),
    )


def _facts(first: ir.Model, second: ir.Model) -> tuple[Change, ...]:
    rows: list[Change] = []
    for name, read in _FACTS:
        rows.append(Change(name, read(first), read(second)))
    return tuple(rows)


_FACTS: tuple[tuple[str, Callable[[ir.Model], int]], ...] = (
    ("bytes", stored_bytes),
    ("opset", lambda model: model.opset_imports.get("", 0)),
    ("IR version", lambda model: model.ir_version),
    ("nodes", lambda model: len(model.graph)),
    ("initializers", lambda model: len(model.graph.initializers)),
)


def _census(model: ir.Model) -> Counter[str]:
    return Counter(f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in model.graph)


def _changes(first: Counter[str], second: Counter[str]) -> tuple[Change, ...]:
    names = sorted(first | second)
    return tuple(Change(name, first[name], second[name]) for name in names if first[name] != second[name])


def _weights(first: ir.Model, second: ir.Model) -> tuple[Change, ...]:
    theirs = second.graph.initializers
    rows = [
        Change(name, _text(value), _text(theirs[name]))
        for name, value in first.graph.initializers.items()
        if name in theirs
    ]
    return tuple(row for row in rows if row.first != row.second)


def _text(value: ir.Value) -> str:
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    shape = "×".join(str(item) for item in value.shape) if value.shape is not None else "?"
    return f"{dtype} {shape}"


def _falls(model: ir.Model, layers: tuple[LayerQuality, ...], count: int = 5) -> tuple[Fall, ...]:
    """Layers that lose most against their own inputs, compared as shares of noise.

    A layer is compared with the nearest measured tensors upstream: noise that was there before is not its own. A layer
    that cancels signal (a difference of similar numbers) shows up too, and rightly: it amplifies what comes in.
    """
    measured = {layer.value: layer for layer in layers}
    upstream: dict[ir.Node, float] = {}  # least SQNR among the nearest measured tensors at or above a node
    falls: list[Fall] = []
    for node in model.graph:
        feeding = [upstream[maker] for value in node.inputs if value is not None and (maker := value.producer())]
        before = min(feeding, default=_CLEAN)
        own = [measured[str(value.name)] for value in node.outputs if str(value.name) in measured]
        upstream[node] = min((layer.sqnr for layer in own), default=before)
        falls += [Fall(layer, before) for layer in own if _noise(layer.sqnr) > _noise(before)]
    falls.sort(key=lambda fall: _noise(fall.before) - _noise(fall.layer.sqnr))
    return tuple(falls[:count])


_CLEAN = 200.0


def _noise(sqnr: float) -> float:
    return float(10 ** (-sqnr / 10))
