"""fpga-pot: a compiled file rescales by shifts alone, and every scale in it is a power of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import qcompiler
from qcompiler.ir import io
from qcompiler.ir.constants import array
from qcompiler.quant.annotations import annotation
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.legality import check_model
from qcompiler.target.load import load
from qcompiler.target.lowered import family
from tests.target.test_cmsis import network

MULTIPLIES = frozenset({"Mul", "Div", "Mod", "Pow", "MatMul", "Conv", "Gemm"})


@pytest.fixture(scope="module", params=["w8a8", "w3a8"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ir.Model:
    random = np.random.default_rng(1)
    feeds = [{"x": random.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(10)]
    path = tmp_path_factory.mktemp("fpga") / "network.onnx"
    qcompiler.compile(
        network(), "fpga-pot", calibration=feeds, format=request.param, output=path, cache=False, keep=True
    )
    return io.load(Path(path))


def lowered(model: ir.Model) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.domain == DOMAIN)


def test_it_is_legal(compiled: ir.Model) -> None:
    assert check_model(compiled, load("fpga-pot")) == []


def test_no_rescale_multiplies(compiled: ir.Model) -> None:
    kinds = {node.op_type for node in lowered(compiled)}
    assert {family(kind) for kind in kinds} >= {"QConv", "QConvTranspose", "QAdd", "QMul", "QAveragePool", "QGemm"}
    assert {kind for kind in kinds if not kind.endswith("Shift")} <= {"QLookup"}
    assert (DOMAIN, "Requantize", "") not in compiled.functions
    rescale = compiled.functions[DOMAIN, "RequantizeShift", ""]
    assert not MULTIPLIES & {node.op_type for node in rescale}


def test_every_scale_is_a_power_of_two(compiled: ir.Model) -> None:
    scales = [found.scale for node in lowered(compiled) if (found := annotation(node.outputs[0])) is not None]
    for node in compiled.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            content = array(node.inputs[1])
            assert content is not None
            scales.append(float(content))
    assert len(scales) > 12
    assert {float(np.frexp(scale)[0]) for scale in scales} == {0.5}


def test_weights_are_as_narrow_as_asked_for(compiled: ir.Model) -> None:
    widths = {node.attributes.get_int("bits", 8) for node in lowered(compiled) if "weight_shape" in node.attributes}
    assert widths <= {2, 3}
