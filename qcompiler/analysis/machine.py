"""Which machine a measurement belongs to."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, fields
from pathlib import Path

__all__ = ["Machine", "this_machine"]

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and what ran on it.

    Attributes:
        cpu: Model of the processor, as the kernel names it.
        system: Operating system and architecture.
        cores: Processors that the process may use.
        onnxruntime: Version of ONNX Runtime.
        library: Version of the native library and the beginning of its digest; ``none`` without one.
    """

    cpu: str
    system: str
    cores: int
    onnxruntime: str
    library: str

    def differences(self, other: Machine) -> tuple[str, ...]:
        """What differs from another machine, as ``cpu: A here, B there``."""
        pairs = [(item.name, getattr(self, item.name), getattr(other, item.name)) for item in fields(self)]
        return tuple(f"{name}: {mine}, not {theirs}" for name, mine, theirs in pairs if mine != theirs)


def this_machine() -> Machine:
    """The machine that this runs on."""
    import onnxruntime

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        _cpu(), f"{platform.system()} {platform.machine()}", allowed, str(onnxruntime.__version__), _library()
    )


def _cpu() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "cpu model", "hardware"):
            return " ".join(value.split())
    return platform.processor() or "unknown"


def _library() -> str:
    from qcompiler.runtime.library import library_path
    from qcompiler.version import version

    path = library_path()
    return "none" if path is None else f"{version()} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
