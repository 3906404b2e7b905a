"""Plugin files: further passes and metrics from Python files that the user names."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcompiler.analysis.metrics import Metric

__all__ = ["load_plugins"]


def load_plugins(paths: Iterable[str | Path]) -> tuple[Metric, ...]:
    """Make the passes of the files known and return their metrics.

    Raises:
        UsageError: A file is missing or fails.
    """
    from qcompiler.analysis.metrics import Metric
    from qcompiler.pipeline import registry

    wanted = {str(Path(path).resolve()) for path in paths}
    for path in sorted(wanted):
        registry.load_plugin(path)
    modules = [module for module in list(sys.modules.values()) if getattr(module, "__file__", None) in wanted]
    return tuple(item for module in modules for item in vars(module).values() if isinstance(item, Metric))
