"""Memory of large compiles, and what ONNX Runtime makes of a compiled ResNet-50. Seconds are never asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

QCOMPILE = str(Path(sys.executable).with_name("qcompile"))
PEAK = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"code": done.returncode, "error": done.stderr, "peak": peak}))
"""


NIGHTLY = pytest.mark.skipif(not os.environ.get("QCOMPILER_NIGHTLY"), reason="minutes: QCOMPILER_NIGHTLY=1")


def run_measured(*command: str) -> dict[str, object]:
    """Exit code, errors and peak resident bytes of a command."""
    done = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def write_chain(path: Path, layers: int, width: int = 4096) -> None:
    """A chain of MatMul and Relu whose weights lie in a file beside the model."""
    rng = np.random.default_rng(0)
    nodes, weights, offset, name = [], [], 0, "x"
    with path.with_suffix(".data").open("wb") as file:
        for index in range(layers):
            weight = rng.standard_normal((width, width), dtype=np.float32) * np.float32((2 / width) ** 0.5)
            file.write(weight.tobytes())
            tensor = onnx.TensorProto(name=f"w{index}", data_type=1, dims=weight.shape, data_location=1)
            place = {"location": path.with_suffix(".data").name, "offset": str(offset), "length": str(weight.nbytes)}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)
            offset += weight.nbytes
            weights.append(tensor)
            nodes += [
                helper.make_node("MatMul", [name, f"w{index}"], [f"m{index}"], name=f"product{index}"),
                helper.make_node("Relu", [f"m{index}"], [f"r{index}"], name=f"relu{index}"),
            ]
            name = f"r{index}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "chain", [info("x", 1, ["N", width])], [info(name, 1, ["N", width])], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(path.with_suffix(".npz"), x=rng.standard_normal((16, width), dtype=np.float32))


@pytest.mark.parametrize("layers", [25, pytest.param(34, marks=NIGHTLY)], ids=["1.6GB", "2.3GB"])
def test_gigabytes_of_weights_compile_in_less_than_one(layers: int, tmp_path: Path) -> None:
    path, output = tmp_path / "chain.onnx", tmp_path / "out.onnx"
    write_chain(path, layers)
    options = ("--target", "cpu-x86", "--calibration", str(path.with_suffix(".npz")), "--quiet", "--no-cache")
    result = run_measured(QCOMPILE, str(path), *options, "-o", str(output))
    path.with_suffix(".data").unlink()
    assert result["code"] == 0, result["error"]
    assert isinstance(result["peak"], int)
    assert result["peak"] < 1_000_000_000  # 0.82 GB
    written = onnx.load(output)
    assert (
        sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2 for tensor in written.graph.initializer)
        == layers
    )


def test_resnet50_is_integer_throughout(zoo_folder: Path, tmp_path: Path) -> None:
    path, output, data = tmp_path / "resnet50.onnx", tmp_path / "out.onnx", tmp_path / "data.npz"
    subprocess.run([sys.executable, str(zoo_folder / "make_resnet50.py"), str(path)], check=True, capture_output=True)
    np.savez(data, **{"gpu_0/data_0": np.random.default_rng(0).standard_normal((8, 3, 224, 224), dtype=np.float32)})
    options = ("--target", "cpu-x86", "--calibration", str(data), "--no-bias-correction", "--quiet", "--no-cache")
    result = run_measured(QCOMPILE, str(path), *options, "--no-latency", "-o", str(output))
    assert result["code"] == 0, result["error"]
    assert isinstance(result["peak"], int)
    assert result["peak"] < 600_000_000  # 0.47 GB; ONNX Runtime's quantizer 0.75 GB
    assert output.stat().st_size <= 27_000_000
    session_options = onnxruntime.SessionOptions()
    session_options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session_options.log_severity_level = 4
    onnxruntime.InferenceSession(str(output), session_options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert counts["QLinearConv"] == 53
    assert counts["QuantizeLinear"] + counts["DequantizeLinear"] <= 2
    assert not counts["Conv"] + counts["FusedConv"] + counts["Add"] + counts["Gemm"]
