"""Quality gates: when a result must not pass for a success.

Gates asked for (``--min-sqnr``, ``--min-agreement``, ``--max-fallback``) and one that always holds, the *sanity
gate*: a result that has nothing to do with the float model is a failure, whatever was asked. It fails where

* an output is useless by itself (NaN, infinity, all zeros although the float model's is not),
* the mean cosine of a float output to the float model's is below 0.5,
* fewer than 50 % of the decisions of a classifier output are the float model's. An output is judged so only if it is
  a classifier's (``OutputQuality.decisive``): embeddings, regressions and images are judged by cosine alone, and so
  are classifiers that do not decide anything on the samples,
* fewer than 50 % of the elements of an integer, boolean or string output are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qcompiler.analysis.meters import OutputQuality
from qcompiler.analysis.quality import Quality
from qcompiler.errors import GateError

__all__ = ["SANE_AGREEMENT", "SANE_COSINE", "Gates", "check_gates", "gate_error"]

SANE_COSINE: Final = 0.5
SANE_AGREEMENT: Final = 50.0


@dataclass(frozen=True, slots=True)
class Gates:
    """What the result has to reach.

    Attributes:
        min_sqnr: Least SQNR of every float output, in dB.
        min_agreement: Least agreement of every classifier output, in percent.
        max_fallback: Greatest share of the computation left in float, in percent (``Coverage.fallback_share``).
        sanity: Whether the sanity gate holds.
    """

    min_sqnr: float | None = None
    min_agreement: float | None = None
    max_fallback: float | None = None
    sanity: bool = True


def check_gates(quality: Quality | None, gates: Gates, *, fallback: float | None = None) -> list[str]:
    """What the result misses, as sentences with figures; empty when it passes.

    Args:
        quality: The measured quality; ``None`` where nothing was measured, which no quality gate accepts.
        gates: What it has to reach.
        fallback: Share of the computation left in float, in percent.
    """
    misses = _fallback(gates, fallback)
    if quality is None:
        asked = (("--min-sqnr", gates.min_sqnr), ("--min-agreement", gates.min_agreement))
        unmet = [(name, value) for name, value in asked if value is not None]
        return misses + [f"{name} {value:g} was asked for, but nothing was measured" for name, value in unmet]
    for output in quality.outputs:
        misses += _sanity(output) if gates.sanity else []
        misses += _asked(output, gates)
    if gates.min_agreement is not None and not any(output.agreement is not None for output in quality.outputs):
        misses.append("--min-agreement was asked for, but no output has classes")
    return misses


def gate_error(misses: list[str], *, where: str | None = None, hint: str | None = None) -> GateError:
    """The error that lists all misses."""
    count = "a quality gate is" if len(misses) == 1 else f"{len(misses)} quality gates are"
    return GateError(f"{count} not met: {'; '.join(misses)}", where=where, hint=hint)


def _fallback(gates: Gates, fallback: float | None) -> list[str]:
    if gates.max_fallback is None:
        return []
    if fallback is None:
        return ["--max-fallback was asked for, but the share left in float is not known"]
    if fallback <= gates.max_fallback:
        return []
    return [f"{_digits(fallback)} % of the computation is left in float, {gates.max_fallback:g} % was allowed"]


def _sanity(output: OutputQuality) -> list[str]:
    name = f"output {output.name}"
    misses = [f"{name}: {fault}" for fault in output.faults]
    if output.cosine is not None and output.cosine < SANE_COSINE and not output.faults:
        misses.append(f"{name}: cosine to the float model {output.cosine:.3f}, below {SANE_COSINE} is no result")
    if output.decisive and output.agreement is not None and output.agreement < SANE_AGREEMENT:
        misses.append(
            f"{name}: {output.agreement:.1f} % of the decisions are the float model's, "
            f"below {SANE_AGREEMENT:g} % is no result"
        )
    if output.exact is not None and output.exact < SANE_AGREEMENT:
        misses.append(f"{name}: {output.exact:.1f} % of the elements equal the float model's")
    return misses


def _asked(output: OutputQuality, gates: Gates) -> list[str]:
    misses: list[str] = []
    if gates.min_sqnr is not None and output.sqnr is not None and output.sqnr < gates.min_sqnr:
        misses.append(f"output {output.name}: SQNR {_digits(output.sqnr)} dB, {gates.min_sqnr:g} dB was asked for")
    if gates.min_agreement is not None and output.agreement is not None and output.agreement < gates.min_agreement:
        misses.append(
            f"output {output.name}: agreement {_digits(output.agreement)} %, {gates.min_agreement:g} % was asked for"
        )
    return misses


def _digits(value: float) -> str:
    """Enough digits that a near miss does not read like a hit."""
    return f"{value:.2f}"
