"""A compiler from a float ONNX model to a quantized one for a hardware target.

``qcompiler.compile(model, target, calibration=…)`` does what the command ``qcompile`` does. Names are loaded when
first used, so that ``import qcompiler`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcompiler.api import CompileResult, compile, front  # noqa: A004 -- the compiler's verb
    from qcompiler.errors import (
        DataError,
        GateError,
        ModelError,
        PassError,
        PipelineError,
        QCompilerError,
        TargetError,
        UsageError,
        VerificationError,
    )

__all__ = [
    "CompileResult",
    "DataError",
    "GateError",
    "ModelError",
    "PassError",
    "PipelineError",
    "QCompilerError",
    "TargetError",
    "UsageError",
    "VerificationError",
    "compile",
    "front",
]

_HOME = {"CompileResult": "qcompiler.api", "compile": "qcompiler.api", "front": "qcompiler.api"}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'qcompiler' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME.get(name, "qcompiler.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
