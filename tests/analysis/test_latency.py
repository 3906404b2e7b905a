"""Fair timing with a clock of our own, and real latencies of small models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler import runtime
from qcompiler.analysis.bench import bench
from qcompiler.analysis.interleave import Interval, Timing, interleave, ratio, timing
from qcompiler.analysis.latency import Latency, measure_latency, random_feed, slow_nodes, too_large
from qcompiler.errors import UsageError

Parse = Callable[[str], ir.Model]
HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
SMALL = HEAD + "m (float[N,4] x, int64[N,3] ids) => (float[N,4] y, int64[N,3] k) { y = Relu(x) k = Identity(ids) }"


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def run(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.calls.append(name)
            self.now += seconds

        return call


def test_rounds_turn_and_the_budget_is_kept() -> None:
    clock = Clock()
    times = interleave([clock.run("a", 0.01), clock.run("b", 0.03)], budget=1.0, clock=lambda: clock.now)
    assert clock.calls[4:8] == ["a", "b", "b", "a"]
    assert times.mean(0) == pytest.approx([10, 30])
    assert clock.now <= 1.0 + 0.04


def test_a_stopwatch_of_its_own_times_the_runs() -> None:
    clock, watch = Clock(), Clock()

    def work() -> None:
        clock.now += 0.2  # others had the processor for most of it
        watch.now += 0.05

    times = interleave([work], budget=1.0, clock=lambda: clock.now, stopwatch=lambda: watch.now)
    assert times.mean() == pytest.approx(50)
    assert clock.now <= 1.2


def test_slow_models_stop_after_three_rounds() -> None:
    clock = Clock()
    times = interleave([clock.run("a", 2.0), clock.run("b", 2.0)], budget=1.0, clock=lambda: clock.now)
    assert len(times) == 3
    assert len(clock.calls) == 8  # one round to warm up


def test_ratio_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    machine = rng.lognormal(0, 0.2, 200)  # the machine's speed changes, for both alike
    over, under = 30 * machine, 10 * machine * rng.lognormal(0, 0.01, 200)
    interval = ratio(over, under)
    assert interval.low <= 3.0 <= interval.high
    assert interval.high - interval.low < 0.4
    assert timing(over) == Timing(float(np.median(over)), float(over.min()), 200)


@pytest.fixture
def two(parse: Parse, tmp_path: Path) -> list[Path]:
    """A product of matrices, and the same with conversions around nothing."""
    light = HEAD + "m (float[1,256] x) => (float[1,256] y) { y = Relu(x) }"
    heavy = HEAD + """
    m (float[1,256] x) => (float[1,256] y) <float s = {0.01}, uint8 z = {128}> {
      [q] c = QuantizeLinear(x, s, z)
      [d] r = DequantizeLinear(c, s, z)
      [outer] t = Transpose<perm=[1,0]>(r)
      [product] p = MatMul(t, x)
      [row] y = ReduceSum<keepdims=1>(p, k)
    }
    """.replace("uint8 z = {128}>", "uint8 z = {128}, int64[1] k = {0}>")
    paths = [tmp_path / "light.onnx", tmp_path / "heavy.onnx"]
    for path, text in zip(paths, (light, heavy), strict=True):
        onnx.save(ir.to_proto(parse(text)), path)
    return paths


def test_a_slower_result_warns_and_names_the_nodes(two: list[Path]) -> None:
    latency = measure_latency(*two, budget=0.2)
    assert latency.slower
    warning = latency.warning()
    assert warning is not None
    assert "slower than the float model" in warning
    assert "product" in warning
    assert "conversions left (2)" in warning
    faster = measure_latency(two[1], two[0], budget=0.2)
    assert faster.warning() is None
    assert faster.speedup.low > 1


@pytest.mark.skipif(runtime.library_path() is None, reason="needs the native library")
def test_our_kernels_may_run_the_quantized_model(two: list[Path]) -> None:
    assert measure_latency(*two, budget=0.1, provider="qcompiler").slower


def test_doubt_is_said() -> None:
    latency = Latency(Timing(1, 1, 5), Timing(1.01, 1, 5), Interval(0.99, 0.9, 1.1), 1)
    warning = latency.warning()
    assert warning is not None
    assert "within the noise" in warning


def test_made_up_feeds_fit_every_input(parse: Parse) -> None:
    feed = random_feed(parse(SMALL))
    assert {name: (array.dtype.name, array.shape) for name, array in feed.items()} == {
        "x": ("float32", (1, 4)), "ids": ("int64", (1, 3)),
    }  # fmt: skip


def test_bench_compares_with_the_first(two: list[Path]) -> None:
    first, second = bench(two, rounds=6)
    assert first.speedup.value == 1
    assert second.speedup.value < 1
    assert first.timing.rounds == second.timing.rounds == 6
    assert (second.float_nodes, second.conversions) == (1, 2)
    assert first.bytes == two[0].stat().st_size
    assert slow_nodes(two[0]) == ()


def test_models_that_are_too_large_are_not_timed(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert too_large(*two) is None
    monkeypatch.setattr("qcompiler.analysis.latency.LARGEST", 100)
    reason = too_large(*two)
    assert reason is not None
    assert "qcompiler bench" in reason


def test_bench_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        bench([])
