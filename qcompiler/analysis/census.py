"""What ONNX Runtime really runs: operators of its own optimized graph."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from qcompiler.analysis.sessions import StockRunner
from qcompiler.errors import ModelError

__all__ = ["FLOAT_COMPUTE", "INTEGER_OPERATORS", "float_nodes", "left", "optimized_census", "optimized_nodes"]

INTEGER_OPERATORS = frozenset(
    {
        "ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm",
        "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool",
        "QLinearLeakyRelu", "QLinearMatMul", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere",
    }
)  # fmt: skip
"""Operators whose kernels read and compute integer codes."""

FLOAT_COMPUTE = frozenset({"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"})
"""Operators with multiply-accumulates that run in float."""


def optimized_census(path: str | Path, opened: Callable[[Path], object] | None = None) -> dict[str, int]:
    """Number of nodes by operator in the graph that ONNX Runtime runs, sorted by operator.

    Args:
        path: The model file.
        opened: As ``optimized_nodes`` takes it.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    return dict(sorted(Counter(op_type for op_type, _ in optimized_nodes(path, opened)).items()))


def float_nodes(path: str | Path) -> list[str]:
    """Names of nodes with multiply-accumulates that ONNX Runtime runs in float."""
    return [name for op_type, name in optimized_nodes(path) if op_type in FLOAT_COMPUTE]


def optimized_nodes(path: str | Path, opened: Callable[[Path], object] | None = None) -> list[tuple[str, str]]:
    """Operator and name of every node of ONNX Runtime's optimized graph.

    Args:
        path: The model file.
        opened: Opens a session that writes its optimized graph to the given file; a stock session by default.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        if opened is None:
            StockRunner(path, optimized_path=target)
        else:
            opened(target)
        if not target.exists():
            raise ModelError("ONNX Runtime did not write its optimized graph", where=str(path))
        graph = onnx.load(str(target), load_external_data=False).graph
    return [(node.op_type, node.name) for node in graph.node]


def left(census: Mapping[str, int]) -> int:
    """QuantizeLinear and DequantizeLinear nodes that no kernel absorbed."""
    return census.get("QuantizeLinear", 0) + census.get("DequantizeLinear", 0)
