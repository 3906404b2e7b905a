"""Sessions on specimens with our kernels, and runs of them with everything bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.analysis.specimens import Specimen
from qcompiler.errors import QCompilerError

__all__ = ["best_isa", "bound", "fed", "open_native"]


def open_native(model: bytes, threads: int, isa: str | None) -> Any:
    """A session with our kernels, which runs the nodes as they are.

    Raises:
        QCompilerError: The native library is not installed, or the instruction set is not available here.
    """
    import onnxruntime

    from qcompiler import runtime
    from qcompiler.ir.execute import session_options

    if runtime.library_path() is None:
        hint = "install qcompiler where a C++17 compiler is at hand (pip install --force-reinstall .)"
        raise QCompilerError("the native library is not installed: there is nothing to measure", hint=hint)
    options = session_options(threads=threads)
    # An optimizer would keep one of equal copies, and none whose result nobody reads.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.session(model, threads=threads, isa=isa, options=options)


def best_isa() -> str:
    """The best instruction set that this machine has kernels for; ``none`` without a native library."""
    from qcompiler import runtime

    if runtime.library_path() is None:
        return "none"
    from qcompiler.runtime.native_operator import instruction_sets

    return instruction_sets()[-1]


def bound(session: Any, feed: Mapping[str, NDArray[Any]], one: Specimen, copies: int) -> Callable[[], None]:
    """A run of copies with everything bound: neither input nor result is copied."""
    return fed(session, feed, [f"{name}/{copies - 1}" for name, _, _ in one.outputs], one)


def fed(session: Any, feed: Mapping[str, NDArray[Any]], names: Sequence[str], one: Specimen) -> Callable[[], None]:
    """The same where the results of ``one`` have these names."""
    import onnxruntime

    binding = session.io_binding()
    wrap = onnxruntime.OrtValue.ortvalue_from_numpy
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, wrap(array))
    for name, (_, dtype, shape) in zip(names, one.outputs, strict=True):
        binding.bind_ortvalue_output(name, wrap(np.zeros(shape, dtype.numpy())))

    def call() -> None:
        session.run_with_iobinding(binding)

    return call
