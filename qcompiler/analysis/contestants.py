"""What takes part in a benchmark: a model file on an execution provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qcompiler.analysis.sessions import SessionRunner, StockRunner, watched_options
from qcompiler.errors import ModelError, QCompilerError, UsageError, first_line, nearest

__all__ = ["PROVIDERS", "Contestant", "contestants", "native_runner"]

PROVIDERS: Final = ("stock", "qcompiler")
"""``stock`` is ONNX Runtime as installed, on its CPU provider; ``qcompiler`` adds our native kernels to it."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model file on a provider.

    Attributes:
        path: The file.
        provider: One of ``PROVIDERS``.
        isa: Instruction set of our kernels; ``None`` takes the best that the machine has.
    """

    path: Path
    provider: str = "stock"
    isa: str | None = None

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            hint = nearest(self.provider, PROVIDERS) or f"one of {', '.join(PROVIDERS)}"
            raise UsageError(f"there is no provider '{self.provider}'", hint=hint)

    @property
    def where(self) -> str:
        """Provider and instruction set for people: ``qcompiler (avx2)``."""
        return f"{self.provider} ({self.isa})" if self.isa is not None else self.provider

    def open(
        self, threads: int, *, optimized_path: Path | None = None, profile_prefix: Path | None = None
    ) -> SessionRunner:
        """Open a session; arguments as ``StockRunner``'s.

        Raises:
            ModelError: ONNX Runtime cannot load the file.
            QCompilerError: The native library is not installed.
            UsageError: There is no such instruction set.
        """
        if self.provider == "stock":
            return StockRunner(self.path, threads=threads, optimized_path=optimized_path, profile_prefix=profile_prefix)
        return native_runner(self.path, threads, self.isa, watched_options(threads, optimized_path, profile_prefix))


def contestants(
    paths: Sequence[str | Path], providers: Sequence[str] = ("stock",), isa: str | None = None
) -> tuple[Contestant, ...]:
    """Models with their providers.

    Args:
        paths: Model files.
        providers: One for all models, or one for each, in their order.
        isa: Instruction set of our kernels, where they take part.

    Raises:
        UsageError: The numbers do not fit, a provider is unknown, or an instruction set is given to none of ours.
    """
    if len(providers) not in (1, len(paths)):
        hint = "give one provider for all models, or one per model in the order of the models"
        raise UsageError(f"{len(paths)} models and {len(providers)} providers do not go together", hint=hint)
    named = list(providers) * (len(paths) if len(providers) == 1 else 1)
    if isa is not None and "qcompiler" not in named:
        hint = "add --provider qcompiler"
        raise UsageError(f"the instruction set '{isa}' is that of our kernels, and none take part", hint=hint)
    return tuple(
        Contestant(Path(path), provider, isa if provider == "qcompiler" else None)
        for path, provider in zip(paths, named, strict=True)
    )


def native_runner(path: Path, threads: int, isa: str | None, options: Any) -> SessionRunner:
    """A session with our provider attached.

    Raises:
        ModelError: ONNX Runtime cannot load the file.
        QCompilerError: The native library is not installed.
    """
    from qcompiler import runtime

    if runtime.library_path() is None:
        hint = "install qcompiler where a C++17 compiler is at hand (pip install --force-reinstall .)"
        raise QCompilerError("the native library of the qcompiler provider is not installed", hint=hint)
    try:
        session = runtime.session(path, threads=threads or None, isa=isa, options=options)
    except QCompilerError:
        raise
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise ModelError(f"ONNX Runtime cannot load the model: {first_line(error)}", where=str(path)) from error
    return SessionRunner(session)
