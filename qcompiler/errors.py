"""The exception tree of the compiler.

    QCompilerError            exit code 1: the work failed
    ├── ModelError            the input model cannot be read, is malformed or unsupported
    ├── DataError             calibration or evaluation data is unusable
    ├── PassError             a pass failed; carries the pass and the node
    ├── VerificationError     a check of our own found a broken promise
    ├── UsageError            exit code 2: wrong option, unknown name, bad configuration
    │   ├── PipelineError     a pipeline that cannot work (unknown pass, missing fact)
    │   └── TargetError       a profile that is malformed or unknown
    └── GateError             exit code 3: the result exists but misses a quality gate

Every error says *where* (pass, node, value, file) and gives a *hint*: the next thing to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from qcompiler.report import Report

__all__ = [
    "DataError",
    "GateError",
    "ModelError",
    "PassError",
    "PipelineError",
    "QCompilerError",
    "TargetError",
    "UsageError",
    "VerificationError",
    "first_line",
    "nearest",
]


class QCompilerError(Exception):
    """Base of every error the compiler raises on purpose.

    Args:
        message: What is wrong, in one sentence.
        where: The pass, node, value or file concerned.
        hint: What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class ModelError(QCompilerError):
    """The model cannot be read, is malformed, or uses what the compiler does not support."""


class DataError(QCompilerError):
    """Calibration or evaluation data is missing, empty, misnamed, misshapen or not finite."""


class PassError(QCompilerError):
    """A pass could not do its work."""


class VerificationError(QCompilerError):
    """A check found that a pass or the result broke a promise."""


class UsageError(QCompilerError):
    """The request itself is wrong: unknown option value, contradictory options."""

    exit_code: ClassVar[int] = 2


class PipelineError(UsageError):
    """The pipeline cannot be built: unknown pass, bad option, missing fact."""


class TargetError(UsageError):
    """The target profile is unknown or malformed."""


class GateError(QCompilerError):
    """The compile worked, but the result misses a quality gate.

    Attributes:
        report: The report of the compile, which says by how much; ``None`` outside a compile.
    """

    exit_code: ClassVar[int] = 3
    report: Report | None = None


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, shortened; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint naming the known word closest to ``name``, or ``None`` when nothing is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean '{matches[0]}'?" if matches else None
