"""Accuracy of real pretrained models, compiled to Q/DQ form through the installed command line with ``--effort quick``.

Thresholds are what the project promises; comments give the measured figure and that of ONNX Runtime's own quantizer.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import onnx
import onnxruntime
import pytest

TARGETS = ["cpu-x86", "edge-npu"]
FLOAT_PERPLEXITY = {"ppl_tinystories": 4.33, "ppl_oz": 23.38}

Compile = Callable[..., Path]


@pytest.fixture(scope="module")
def compile_case(zoo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles a zoo model once per target and options; returns the output file."""
    folder = tmp_path_factory.mktemp("zoo")

    @cache
    def run(name: str, target: str, *options: str) -> Path:
        case = zoo.load(name)
        data = folder / f"{name}.npz"
        if not data.exists():
            case.write_npz(data, 128)
        output = folder / f"{name}.{target}{'_'.join(options).replace('/', '_')}.onnx"
        command = [str(Path(sys.executable).with_name("qcompile")), str(case.model), "--target", target]
        command += ["--calibration", str(data), "-o", str(output), "--quiet", "--no-cache", "--no-latency", *options]
        command += ["--lowering", "qdq"]  # integer operators have tests of their own
        command += ["--effort", "quick"]  # what the recipe adds has tests of its own
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return output

    return run


def optimized(path: Path, folder: Path) -> Counter[str]:
    """Operators of ONNX Runtime's own optimized graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def float_products(path: Path) -> list[str]:
    """MatMul and Gemm nodes that read a tensor which is not dequantized."""
    graph = onnx.load(path).graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    return [node.name for node in products if not set(node.input[:2]) <= dequantized]


@pytest.mark.parametrize("target", TARGETS)
def test_mobilenet(zoo, compile_case, target, tmp_path):
    path = compile_case("mobilenetv1_025_imagenet", target)
    found = zoo.load("mobilenetv1_025_imagenet").evaluate(path)
    assert found["agree"] >= 91  # 92.3, 92.5; ONNX Runtime 78.9
    assert found["kl"] <= 0.03  # 0.0147, 0.0140; ONNX Runtime 0.149
    if target == "cpu-x86":
        counts = optimized(path, tmp_path)
        assert counts["QLinearConv"] == 28
        assert counts["Conv"] + counts["FusedConv"] == 0


def test_mobilenet_with_one_scale_per_tensor(zoo, compile_case):
    path = compile_case("mobilenetv1_025_imagenet", "edge-npu-per-tensor")
    found = zoo.load("mobilenetv1_025_imagenet").evaluate(path)
    assert found["top1"] >= 55  # 57.7; ONNX Runtime 0.11, textbook cross-layer equalization 0.2
    assert found["agree"] >= 79


@pytest.mark.parametrize("target", TARGETS)
def test_resnet20(zoo, compile_case, target):
    found = zoo.load("resnet20_cifar10").evaluate(compile_case("resnet20_cifar10", target))
    assert found["kl"] <= 0.0053
    assert found["agree"] >= 98.0


@pytest.mark.parametrize("target", TARGETS)
def test_keyword_spotting(zoo, compile_case, target):
    found = zoo.load("dscnn_kws").evaluate(compile_case("dscnn_kws", target))
    assert found["agree"] >= 98.5 or found["kl"] <= 0.003


@pytest.mark.parametrize("target", TARGETS)
def test_vision_transformer(zoo, compile_case, target):
    path = compile_case("vit_mnist", target)
    assert zoo.load("vit_mnist").evaluate(path)["agree"] >= 99.85
    assert not float_products(path)


@pytest.mark.parametrize("target", TARGETS)
def test_language_model(zoo, compile_case, target, tmp_path):
    path = compile_case("stories260k_lm", target)
    found = zoo.load("stories260k_lm").evaluate(path)
    for text, perplexity in FLOAT_PERPLEXITY.items():
        assert found[text] <= 1.03 * perplexity  # ONNX Runtime: 50.6 on TinyStories
    assert not float_products(path)
    if target == "cpu-x86":
        assert not optimized(path, tmp_path)["MatMul"]


@pytest.mark.parametrize("target", TARGETS)
def test_sentence_embedding(zoo, compile_case, target, tmp_path):
    path = compile_case("minilm_l6_stsb", target)
    found = zoo.load("minilm_l6_stsb").evaluate(path)
    assert found["cosine_mean"] >= 0.98
    assert found["spearman"] >= 0.805  # ONNX Runtime 0.542
    assert not float_products(path)
    if target == "cpu-x86":
        assert not optimized(path, tmp_path)["MatMul"]


@pytest.mark.parametrize("name", ["conv1", "conv_dw_3", "conv_pw_7", "conv_dw_13", "conv_preds"])
def test_excluded_convolution_stays_float(zoo, compile_case, name, tmp_path):
    """Excluding a layer leaves it float in ONNX Runtime's optimized graph and loses nothing (ONNX Runtime: 0.34 %)."""
    path = compile_case("mobilenetv1_025_imagenet", "cpu-x86", "--exclude", name)
    counts = optimized(path, tmp_path)
    assert counts["QLinearConv"] == 27
    assert counts["Conv"] + counts["FusedConv"] == 1
    case = zoo.load("mobilenetv1_025_imagenet")
    everything = case.evaluate(compile_case("mobilenetv1_025_imagenet", "cpu-x86"))["kl"]
    assert case.evaluate(path)["kl"] <= everything + 0.0028  # half a standard error of the figure
