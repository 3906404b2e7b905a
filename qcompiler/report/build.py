"""From what the analyses found to the parts of a report."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from qcompiler.report.measured import (
    CoveragePart,
    FallbackPart,
    FloatNodePart,
    IntegerPart,
    IntervalPart,
    IslandPart,
    LatencyPart,
    LayerPart,
    OperatorPart,
    OutputPart,
    QualityPart,
    SizePart,
    TimesPart,
)
from qcompiler.report.parts import DataPart, FilePart, ModelPart, NotePart, PassPart, SkipPart, TrialPart

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.analysis.coverage import Coverage
    from qcompiler.analysis.integer_only import FloatNode, IntegerOnly
    from qcompiler.analysis.latency import Latency
    from qcompiler.analysis.quality import Quality
    from qcompiler.calibration.data import Dataset
    from qcompiler.pipeline.base import PassRecord

__all__ = [
    "coverage_part",
    "data_part",
    "integer_part",
    "latency_part",
    "model_part",
    "pass_parts",
    "pass_warnings",
    "quality_part",
    "quality_warnings",
    "size_part",
]

_WORST = 5
_CHUNK_BYTES = 1 << 20
_T = TypeVar("_T")


def model_part(path: str | Path, name: str | None = None, model: ir.Model | None = None) -> ModelPart:
    """Describe a model file.

    Args:
        path: The file.
        name: What the user called it; by default the file's name.
        model: The model as loaded from there, where the caller has it at hand.

    Raises:
        ModelError: The file is no model.
    """
    from qcompiler.ir import io

    model = io.load(path) if model is None else model
    files = tuple(_file_part(item) for item in io.files(model))
    part = ModelPart(
        name=name or Path(path).name,
        files=files,
        bytes=sum(item.bytes for item in files),
        opset=model.opset_imports.get("", 0),
        ir_version=int(model.ir_version),
        nodes=len(model.graph),
    )
    io.release(model)
    return part


def _file_part(path: Path) -> FilePart:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return FilePart(path.name, path.stat().st_size, digest.hexdigest())


def data_part(
    dataset: Dataset, *, held_out: bool = False, digest: str | None = None, notes: Iterable[str] = ()
) -> DataPart:
    """Describe a data set; its digest is not computed here, because that reads every sample."""
    count = len(dataset.order)
    return DataPart(dataset.source, count, digest, held_out, dataset.labels is not None, (*dataset.notes, *notes))


def pass_parts(records: Sequence[PassRecord]) -> tuple[PassPart, ...]:
    """What the passes did."""
    return tuple(
        PassPart(
            record.text,
            record.edits,
            tuple(SkipPart(skip.node, skip.reason) for skip in record.skips),
            tuple(NotePart(note.level, note.text) for note in record.notes),
            tuple(_same(TrialPart, trial) for trial in record.trials),
        )
        for record in records
    )


def pass_warnings(records: Sequence[PassRecord]) -> tuple[str, ...]:
    """Warnings of the passes, each once."""
    return tuple(
        dict.fromkeys(note.text for record in records for note in record.notes if note.level == "warning")
    )


def coverage_part(
    coverage: Coverage, *, weights_only: bool = False, formats: Mapping[str, int] = MappingProxyType({})
) -> CoveragePart:
    """What runs on integers.

    Args:
        coverage: What is known.
        weights_only: Whether only weights have few bits.
        formats: How many layers have each format.
    """
    return CoveragePart(
        integer_nodes=coverage.integer_nodes,
        float_nodes=coverage.float_nodes,
        share_nodes=coverage.share_nodes,
        share_macs=coverage.share_macs,
        fallback_share=coverage.fallback_share,
        by_operator=tuple(_same(OperatorPart, item) for item in coverage.by_operator),
        fallbacks=tuple(_same(FallbackPart, item) for item in coverage.fallbacks),
        weights_only=weights_only,
        formats=dict(formats),
    )


def integer_part(found: IntegerOnly) -> IntegerPart:
    """What is float in an integer graph."""
    return IntegerPart(
        holds=found.holds,
        float_tensors=len(found.tensors),
        islands=tuple(
            IslandPart(_float_nodes(island.nodes), island.tensors, island.reasons) for island in found.islands
        ),
        before=_float_nodes(found.head),
        after=_float_nodes(found.tail),
        divisions=found.divisions,
        float_attributes=found.attributes,
        functions=found.functions,
    )


def _float_nodes(nodes: Iterable[FloatNode]) -> tuple[FloatNodePart, ...]:
    return tuple(_same(FloatNodePart, node) for node in nodes)


def quality_part(quality: Quality) -> QualityPart:
    """How close the result is."""
    return QualityPart(
        metric=quality.metric.name,
        unit=quality.metric.unit,
        higher_is_better=quality.metric.higher_is_better,
        value=quality.value,
        samples=quality.samples,
        outputs=tuple(_same(OutputPart, item) for item in quality.outputs),
        layers=tuple(_same(LayerPart, item) for item in quality.layers),
        worst_layers=tuple(layer.value for layer in quality.worst_layers(_WORST)),
        layer_samples=quality.layer_samples,
        notes=quality.notes,
    )


def quality_warnings(quality: Quality) -> tuple[str, ...]:
    """What the figures themselves cannot say."""
    return tuple(
        f"output {output.name}: {text}" for output in quality.outputs for text in (*output.faults, *output.notes)
    )


def latency_part(latency: Latency) -> LatencyPart:
    """Both models' latency."""
    return LatencyPart(
        float=_same(TimesPart, latency.float),
        quantized=_same(TimesPart, latency.quantized),
        speedup=_same(IntervalPart, latency.speedup),
        threads=latency.threads,
        slower=latency.slower,
        warning=latency.warning(),
    )


def size_part(float_bytes: int, compiled_bytes: int) -> SizePart:
    """Sizes and their ratio."""
    return SizePart(float_bytes, compiled_bytes, float_bytes / compiled_bytes if compiled_bytes else 0.0)


def _same(kind: type[_T], source: Any) -> _T:
    """A part whose fields are attributes of ``source`` by the same names."""
    names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(source, name) for name in names})
