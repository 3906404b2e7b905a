"""How the normalize family scales: ``python tests/benchmarks/normalize_scaling.py [NODES] [PIPELINE]``.

Measured, never asserted: a synthetic residual network of NODES nodes (default 100,000) goes through the pipeline;
printed are seconds and edits per pass, loading and saving, and peak memory.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.instruments.timing import Timing
from qcompiler.pipeline.instruments.verify import Verify
from qcompiler.pipeline.manager import Pipeline


def network(count: int) -> ir.Model:
    """Blocks of Conv, BatchNormalization, Relu and a residual Sum."""
    shape = ir.Shape(["N", 4, 2, 2])
    last = x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    nodes, weights = [], []

    def weight(name: str, array: np.ndarray) -> ir.Value:
        value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
        weights.append(value)
        return value

    for index in range(count // 4):
        kernel = weight(f"w{index}", np.full((4, 4, 1, 1), 0.1, np.float32))
        conv = ir.node("Conv", [last, kernel], name=f"conv{index}")
        parts = [weight(f"{kind}{index}", np.ones(4, np.float32)) for kind in ("scale", "bias", "mean", "var")]
        norm = ir.node("BatchNormalization", [conv.outputs[0], *parts], name=f"norm{index}")
        relu = ir.node("Relu", [norm.outputs[0]], name=f"relu{index}")
        total = ir.node("Sum", [relu.outputs[0], last], name=f"sum{index}")
        for node, label in zip((conv, norm, relu, total), "cnrs", strict=True):
            node.outputs[0].name = f"{label}{index}"
            nodes.append(node)
        last = total.outputs[0]
    last.type, last.shape = ir.TensorType(ir.DataType.FLOAT), shape
    graph = ir.Graph([x], [last], nodes=nodes, initializers=weights, opset_imports={"": 13}, name="network")
    return ir.Model(graph, ir_version=7)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    text = sys.argv[2] if len(sys.argv) > 2 else "normalize"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        io.save(network(count), path)
        start = time.perf_counter()
        model = io.load(path)
        loaded = time.perf_counter()
        timing = Timing()
        Pipeline(spec.parse(text)).run(model, Context(Edit(model)), [timing, Verify("facts")])
        ran = time.perf_counter()
        io.save(model, path)
        saved = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sys.stdout.write(
        f"{timing.table()}\n{count} nodes: load {loaded - start:.1f} s, "
        f"pipeline with fact checks {ran - loaded:.1f} s, save {saved - ran:.1f} s, peak {peak} MB\n"
    )


if __name__ == "__main__":
    main()
