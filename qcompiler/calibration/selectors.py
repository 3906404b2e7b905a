"""Words that choose calibration samples: ``outliers``, ``clusters:64``, ``stratify:t:128``.

Only the words: what they do is in ``qcompiler.calibration.selection``. Nothing heavy is imported, so that a wrong word
is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from qcompiler.errors import UsageError, nearest

__all__ = ["Clusters", "Outliers", "Selector", "Stratify", "parse", "parse_all"]

_FORMS = "outliers, outliers:DEVIATIONS, clusters:N, stratify:INPUT or stratify:INPUT:N"


@dataclass(frozen=True)
class Outliers:
    """Leave out samples unlike all others.

    Attributes:
        deviations: Distance from the median, in robust standard deviations, beyond which a sample is left out.
    """

    deviations: float = 8.0

    def __str__(self) -> str:
        return "outliers" if self == Outliers() else f"outliers:{self.deviations:g}"


@dataclass(frozen=True)
class Clusters:
    """Keep so many samples, one from each cluster.

    Attributes:
        count: Number of clusters.
    """

    count: int

    def __str__(self) -> str:
        return f"clusters:{self.count}"


@dataclass(frozen=True)
class Stratify:
    """Take samples evenly over the values of an input, such as a time step.

    Attributes:
        name: The input.
        count: Number of samples; ``None`` keeps all, in an order whose every part holds all values.
    """

    name: str
    count: int | None = None

    def __str__(self) -> str:
        return f"stratify:{self.name}" + ("" if self.count is None else f":{self.count}")


Selector: TypeAlias = Outliers | Clusters | Stratify


def parse(text: str) -> Selector:
    """The selector that a word means.

    Raises:
        UsageError: It means none.
    """
    kind, _, rest = text.partition(":")
    if kind == "outliers":
        return Outliers(_deviations(text, rest)) if rest else Outliers()
    if kind == "clusters":
        return Clusters(_count(text, rest))
    if kind == "stratify" and rest:
        name, _, count = rest.rpartition(":")
        # Names of inputs may hold colons ('serving_default_x:0'): a count follows the last one, if it is a number > 0.
        if name and count.isdecimal() and int(count) > 0:
            return Stratify(name, int(count))
        return Stratify(rest)
    hint = nearest(kind, ("outliers", "clusters", "stratify")) or _FORMS
    raise UsageError(f"--select '{text}' is not known", hint=hint if kind != "stratify" else _FORMS)


def parse_all(items: Iterable[str | Selector]) -> tuple[Selector, ...]:
    """Selectors given as words or as they are.

    Raises:
        UsageError: A word means none.
    """
    return tuple(parse(item) if isinstance(item, str) else item for item in items)


def _count(text: str, number: str) -> int:
    if not number.isdecimal() or int(number) < 1:
        raise UsageError(f"--select '{text}' needs a number of samples", hint="such as clusters:64")
    return int(number)


def _deviations(text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 1 <= value < float("inf"):
        raise UsageError(f"--select '{text}': '{number}' is no number of deviations", hint="such as outliers:8")
    return value
