"""Figures as short texts, the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["bytes_text", "count_text", "counts_text", "figure_text", "milliseconds", "percent", "speed_text"]

_SQNR_CEILING = 200.0
_NEARLY_ONE = 0.99995


def bytes_text(count: int) -> str:
    """A number of bytes in decimal units: ``25.6 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            return f"{count} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def count_text(count: int, noun: str) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def counts_text(counts: Mapping[str, int]) -> str:
    """``w8a8 3, w4a8 12``: how many there are of each, in the order given."""
    return ", ".join(f"{text} {count}" for text, count in counts.items())


def percent(share: float) -> str:
    """A percentage that never rounds to 100 or 0 unless it is."""
    if 99.95 <= share < 100:
        return "> 99.9 %"
    if 0 < share < 0.05:
        return "< 0.1 %"
    return f"{share:.1f} %".replace(".0 %", " %")


def milliseconds(time: float) -> str:
    """A time given in milliseconds."""
    return f"{time * 1000:.3g} µs" if time < 0.1 else f"{time:.3g} ms"


def speed_text(ratio: float) -> str:
    """``3.2 × faster``, ``1.4 × slower``, ``as fast``."""
    if ratio >= 1.005:
        return f"{ratio:.2f} × faster"
    return "as fast" if ratio > 0.995 else f"{1 / ratio:.2f} × slower"


def figure_text(value: float | None, metric: str = "") -> str:
    """A figure with the digits its metric deserves; a dash where there is none."""
    if value is None:
        return "–"
    if metric == "sqnr":
        return "equal" if value >= _SQNR_CEILING else "useless" if value <= -_SQNR_CEILING else f"{value:.1f}"
    if metric in ("agreement", "top1"):
        return f"{value:.2f}"
    if metric in ("cosine", "worst"):
        return "> 0.9999" if _NEARLY_ONE <= value < 1 else f"{value:.4f}"
    return "0" if value == 0 else f"{value:.3g}"
