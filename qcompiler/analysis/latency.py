"""Is the quantized model faster here? Measured side by side with the float model, and said aloud if it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.census import FLOAT_COMPUTE, optimized_nodes
from qcompiler.analysis.interleave import Interval, Timing, interleave, ratio, timing
from qcompiler.analysis.sessions import Runs, StockRunner, fit
from qcompiler.analysis.size import stored_bytes
from qcompiler.ir.execute import Feed, Runner
from qcompiler.ir.memory import trim

__all__ = ["BUDGET", "LARGEST", "Latency", "measure_latency", "random_feed", "slow_nodes", "too_large"]

BUDGET: Final = 1.5
"""Seconds spent on running both models."""

LARGEST: Final = 512 << 20
"""Bytes of both models together up to which a compile times them."""

@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of the float and the quantized model.

    Attributes:
        float: Times of the float model.
        quantized: Times of the quantized model.
        speedup: Float over quantized; above 1 the quantized model is faster.
        threads: Threads of each run.
        slow: Nodes that keep the quantized model slow, named where it is slower.
    """

    float: Timing
    quantized: Timing
    speedup: Interval
    threads: int
    slow: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether the quantized model is slower, beyond doubt or on balance."""
        return self.speedup.value < 1.0

    def warning(self) -> str | None:
        """What the user must be told; ``None`` when the quantized model is not slower."""
        if not self.slower:
            return None
        sure = "" if self.speedup.high < 1.0 else " (within the noise of the measurement)"
        text = (
            f"the quantized model is slower than the float model here: {_time(self.quantized.median)} against "
            f"{_time(self.float.median)}{sure}"
        )
        return f"{text}; {'; '.join(self.slow)}" if self.slow else text


def _time(milliseconds: float) -> str:
    return f"{1000 * milliseconds:.3g} µs" if milliseconds < 0.1 else f"{milliseconds:.3g} ms"


def too_large(*paths: str | Path) -> str | None:
    """Why models are not timed during a compile: both would lie in memory as a whole; ``None`` when they may."""
    total = sum(stored_bytes(path) for path in paths)
    if total <= LARGEST:
        return None
    return f"both models have {total / 1e9:.1f} GB, which would have to be in memory at once; use 'qcompiler bench'"


def measure_latency(
    float_model: ir.Model | str | Path,
    quantized_path: str | Path,
    feed: Mapping[str, NDArray[Any]] | None = None,
    *,
    budget: float = BUDGET,
    threads: int = 1,
    provider: str = "stock",
) -> Latency:
    """Time both models in turns.

    Args:
        float_model: The float model, in memory or as a path.
        quantized_path: The quantized model.
        feed: One sample; made up where none is given.
        budget: Seconds for the runs; loading comes on top.
        threads: Threads of each run.
        provider: Who runs the quantized model, as ``contestants.PROVIDERS`` has it; the float model runs on ``stock``.

    Raises:
        ModelError: A model cannot be loaded or run.
        QCompilerError: Our kernels are to run it and are not installed.
    """
    from qcompiler.analysis.contestants import Contestant

    trim()
    runners: list[Runs] = [_runner(float_model, threads), Contestant(Path(quantized_path), provider).open(threads)]
    sample = dict(feed) if feed is not None else random_feed(float_model)
    calls = [_call(runner, fit(sample, runner)) for runner in runners]
    times = interleave(calls, budget=budget)
    speedup = ratio(times[:, 0], times[:, 1])
    slow = slow_nodes(quantized_path) if speedup.value < 1 and provider == "stock" else ()
    return Latency(timing(times[:, 0]), timing(times[:, 1]), speedup, threads, slow)


def _runner(model: ir.Model | str | Path, threads: int) -> Runs:
    return Runner(model, threads=threads) if isinstance(model, ir.Model) else StockRunner(model, threads=threads)


def _call(runner: Runs, feed: Mapping[str, NDArray[Any]]) -> Any:
    return lambda: runner.run(feed)


def slow_nodes(path: str | Path) -> tuple[str, ...]:
    """What slows a quantized model in ONNX Runtime: float nodes and conversions left over."""
    nodes = optimized_nodes(path)
    compute = [name or op_type for op_type, name in nodes if op_type in FLOAT_COMPUTE]
    pairs = [name or op_type for op_type, name in nodes if op_type in ("QuantizeLinear", "DequantizeLinear")]
    texts: list[str] = []
    if compute:
        texts.append(f"nodes computing in float ({len(compute)}): {_some(compute)}")
    if pairs:
        texts.append(f"conversions left ({len(pairs)}): {_some(pairs)}")
    return tuple(texts)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def random_feed(model: ir.Model | str | Path, *, seed: int = 0) -> Feed:
    """One made-up sample for a model.

    Raises:
        DataError: An input is no tensor of numbers.
    """
    from qcompiler.calibration.data import inputs_of, random
    from qcompiler.ir import io

    loaded = model if isinstance(model, ir.Model) else io.load(model)
    return next(iter(random(inputs_of(loaded), 1, seed)))
