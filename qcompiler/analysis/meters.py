"""Accumulator: the quality of one output, gathered sample by sample in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis import metrics
from qcompiler.analysis.metrics import Metric
from qcompiler.analysis.power import Power
from qcompiler.errors import UsageError, VerificationError

__all__ = ["OutputMeter", "OutputQuality"]

_STUCK_SQNR = 20.0
"""dB: an output that is the same for every sample and further from the float model's than this is worthless."""

CLASSES, VECTOR, EXACT = "classes", "vector", "exact"


@dataclass(frozen=True, slots=True)
class OutputQuality:
    """How close one output comes to the float model's.

    Attributes:
        name: The output.
        kind: ``classes`` (rows whose largest entry is a decision), ``vector`` (any other float tensor) or ``exact``
            (integers, booleans, strings: compared for equality).
        samples: Samples measured on.
        rows: Rows along the class axis, over all samples.
        decided: Rows in which the float model has a clear largest entry.
        sqnr: dB over all elements of all samples.
        cosine: Mean over samples.
        cosine_min: The worst sample.
        kl: Nats, mean over rows.
        softened_kl: The same of ``metrics.softened_kl``, where asked for.
        agreement: Percentage of rows with the same largest entry.
        top1: Percentage of labels met by the candidate; ``None`` without labels.
        top1_float: The same of the float model.
        max_abs_error: Largest absolute difference of one element.
        exact: Percentage of equal elements (kind ``exact`` only).
        custom: The plugin metric asked for, mean over samples.
        faults: What makes the output useless whatever the figures say.
        notes: What the reader must know to understand the figures.
    """

    name: str
    kind: str
    samples: int
    rows: int = 0
    decided: int = 0
    sqnr: float | None = None
    cosine: float | None = None
    cosine_min: float | None = None
    kl: float | None = None
    agreement: float | None = None
    top1: float | None = None
    top1_float: float | None = None
    max_abs_error: float | None = None
    exact: float | None = None
    custom: float | None = None
    softened_kl: float | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def figure(self, metric: str) -> float | None:
        """The value of a metric by name; a plugin's is in ``custom``."""
        known = ("sqnr", "cosine", "kl", "agreement", "top1")
        value: float | None = getattr(self, metric) if metric in known else self.custom
        return value

    @property
    def decisive(self) -> bool:
        """Whether agreement means something: a classifier most of whose rows have a clear winner."""
        return self.kind == CLASSES and self.decided > 0 and 2 * self.decided >= self.rows


@dataclass(slots=True)
class OutputMeter:
    """Gathers the quality of one output.

    Attributes:
        name: The output.
        vector: The graph says that this output is no classifier's.
        metric: A plugin metric to gather too.
        softened: Whether to gather ``softened_kl`` too.
    """

    name: str
    vector: bool = False
    metric: Metric | None = None
    softened: bool = False
    samples: int = 0
    rows: int = 0
    decided: int = 0
    power: Power = field(default_factory=Power)
    cosines: list[float] = field(default_factory=list)
    custom: list[float] = field(default_factory=list)
    kl: float = 0.0
    softened_kl: float = 0.0
    agreed: float = 0.0
    equal: list[float] = field(default_factory=list)
    hits: list[tuple[float, float]] = field(default_factory=list)
    is_float: bool = True
    classes: int = 0
    spatial: bool = False
    unit: bool = True
    undefined: int = 0
    not_finite: int = 0
    reference_zero: bool = True
    candidate_zero: bool = True
    constant: bool = True
    candidate_constant: bool = True
    first: NDArray[Any] | None = None
    candidate_first: NDArray[Any] | None = None
    mislabelled: str = ""

    def update(self, reference: NDArray[Any], candidate: NDArray[Any], labels: NDArray[Any] | None = None) -> None:
        """Add one sample (or one fixed batch).

        Raises:
            VerificationError: The candidate's shape differs.
        """
        if reference.shape != candidate.shape:
            raise VerificationError(
                f"the float model gives shape {reference.shape}, the candidate {candidate.shape}",
                where=f"output {self.name}",
            )
        self.samples += len(reference) if reference.ndim >= 2 else 1
        self.is_float = bool(np.issubdtype(reference.dtype, np.floating))
        if not self.is_float:
            self.equal.append(float(np.mean(reference == candidate)) if reference.size else 1.0)
            return
        self._watch(reference, candidate)
        self.power.update(reference, candidate)
        self.cosines.append(metrics.cosine(reference, candidate))
        self._decide(reference, candidate)
        if self.metric is not None:
            self.custom.append(_apply(self.metric, reference, candidate))
        if labels is not None:
            self._label(reference, candidate, labels)

    def _watch(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Look for outputs that are degenerate."""
        usable = np.isfinite(reference)
        self.undefined += int(usable.size - usable.sum())
        self.not_finite += int((usable & ~np.isfinite(candidate)).any())
        self.reference_zero &= not reference[usable].any()
        self.candidate_zero &= not candidate.any()
        if self.first is None or self.candidate_first is None:
            self.first, self.candidate_first = reference, candidate
            return
        same = self.first.shape == reference.shape
        self.candidate_constant &= same and np.array_equal(self.candidate_first, candidate)
        self.constant &= same and bool(np.allclose(self.first, reference, rtol=1e-6, atol=0, equal_nan=True))

    def _decide(self, reference: NDArray[Any], candidate: NDArray[Any]) -> None:
        """Compare rows along the class axis."""
        rows = metrics.class_rows(reference)
        self.classes, self.spatial = rows.shape[1], metrics.class_rank(reference) > 3
        self.unit &= _unit_vectors(rows)
        decided, total = metrics.decided(reference)
        self.rows, self.decided = self.rows + total, self.decided + decided
        self.kl += total * metrics.kl(reference, candidate)
        if self.softened:
            self.softened_kl += total * metrics.softened_kl(reference, candidate)
        self.agreed += total * metrics.agreement(reference, candidate)

    def _label(self, reference: NDArray[Any], candidate: NDArray[Any], labels: NDArray[Any]) -> None:
        count = len(metrics.class_rows(reference))
        if labels.size != count:
            self.mislabelled = f"{labels.size} labels for {count} rows: top-1 is not measured"
            return
        self.hits.append((metrics.top1(reference, labels), metrics.top1(candidate, labels)))

    # -- result --------------------------------------------------------------------------------------------

    def result(self) -> OutputQuality:
        """The figures over all samples."""
        if not self.is_float:
            share = 100 * _mean(self.equal)
            return OutputQuality(self.name, EXACT, self.samples, exact=share)
        rows = self.classes >= 2 and self.rows > 0
        return OutputQuality(
            name=self.name,
            kind=self._kind(),
            samples=self.samples,
            rows=self.rows,
            decided=self.decided,
            sqnr=self.power.sqnr(),
            cosine=_mean(self.cosines),
            cosine_min=min(self.cosines, default=1.0),
            kl=self.kl / self.rows if rows else None,
            agreement=self.agreed / self.rows if rows else None,
            top1=_mean([hit[1] for hit in self.hits]) if self.hits else None,
            top1_float=_mean([hit[0] for hit in self.hits]) if self.hits else None,
            max_abs_error=None if self.power.broken else self.power.max_error,
            custom=_mean(self.custom) if self.custom else None,
            softened_kl=self.softened_kl / self.rows if rows and self.softened else None,
            faults=self._faults(),
            notes=self._notes(),
        )

    def _kind(self) -> str:
        """Not a classifier: normalised at its end, spatial axes, fewer than 2 classes, rows of length 1."""
        return VECTOR if self.vector or self.spatial or self.classes < 2 or self.unit else CLASSES

    def _faults(self) -> tuple[str, ...]:
        checks: list[tuple[bool, str]] = [
            (self.not_finite > 0, f"NaN or infinity in {self.not_finite} of {len(self.cosines)} samples"),
            (self.candidate_zero and not self.reference_zero, "all zeros, where the float model's is not"),
            (self._stuck(), "the same for every sample, where the float model's is not"),
        ]
        return tuple(text for wrong, text in checks if wrong)

    def _stuck(self) -> bool:
        """Whether the candidate ignores its input. A right answer that hardly varies is no fault: hence the ratio."""
        varies = len(self.cosines) > 1 and not self.constant
        return varies and self.candidate_constant and not self.candidate_zero and self.power.sqnr() < _STUCK_SQNR

    def _notes(self) -> tuple[str, ...]:
        several = len(self.cosines) > 1
        checks: list[tuple[bool, str]] = [
            (self.reference_zero, "the float model gives only zeros: figures say nothing but 'equal' or 'not'"),
            (
                self.constant and several and not self.reference_zero,
                "the float model gives the same values for every sample: the figures rest on one case",
            ),
            (self.undefined > 0, f"{self.undefined} elements are NaN or infinite in the float model and left out"),
            (
                self._kind() == CLASSES and 2 * self.decided < self.rows,
                f"the float model decides clearly in {self.decided} of {self.rows} rows: agreement is not judged",
            ),
            (bool(self.mislabelled), self.mislabelled),
        ]
        return tuple(text for applies, text in checks if applies)


def _unit_vectors(rows: NDArray[Any]) -> bool:
    """Whether all rows have length 1, as embeddings do; saturated probabilities have it too and are none."""
    rows = np.nan_to_num(rows.astype(np.float64))
    return not metrics.are_probabilities(rows) and bool(np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3))


def _apply(metric: Metric, reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Call a metric that somebody else wrote."""
    try:
        value = float(metric(reference, candidate))
    except Exception as error:
        raise UsageError(f"metric '{metric.name}' failed: {type(error).__name__}: {error}") from error
    if not math.isfinite(value):
        raise UsageError(f"metric '{metric.name}' gave {value}", hint="a metric is a finite number for every sample")
    return value


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0
