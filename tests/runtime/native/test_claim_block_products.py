"""MatMulNBits of com.microsoft, claimed where the option asks for it."""

from __future__ import annotations

import concurrent.futures
import os
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import qcompiler.runtime
from qcompiler.runtime import sessions
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import instruction_sets

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")

NIGHTLY = bool(os.environ.get("QCOMPILER_NIGHTLY"))


class Product:
    """A random MatMulNBits: operands, attributes and what float arithmetic makes of them."""

    def __init__(self, seed: int, **fixed: Any) -> None:
        random = np.random.default_rng(seed)
        self.bits = int(fixed.get("bits", random.choice([2, 4, 8])))
        self.block = int(fixed.get("block", random.choice([16, 32, 64, 128])))
        self.depth, self.outputs, rows = (int(value) for value in random.integers(1, [300, 150, 12]))
        blocks = -(-self.depth // self.block)
        weights = random.integers(0, 1 << self.bits, (self.outputs, blocks, self.block))
        zeros = random.integers(0, 1 << self.bits, (self.outputs, blocks))
        scales = random.uniform(0.001, 0.01, (self.outputs, blocks)).astype(np.float32)
        self.constants = {"B": packed(weights, self.bits), "scales": scales}
        if fixed.get("zero_points", random.integers(2)):
            self.constants["zero_points"] = packed(zeros, self.bits)
        else:
            zeros[:] = 1 << (self.bits - 1)
        self.attributes = {"K": self.depth, "N": self.outputs, "bits": self.bits, "block_size": self.block}
        if random.integers(2):
            self.attributes["accuracy_level"] = 4
        lead = (2, rows) if random.integers(2) else (rows,)
        self.x = (random.normal(size=(*lead, self.depth)) * np.exp(random.normal(size=(*lead, 1)))).astype(np.float32)
        real = (weights - zeros[..., None]) * scales[..., None].astype(np.float64)
        self.weight = real.reshape(self.outputs, -1)[:, : self.depth]

    def model(self) -> onnx.ModelProto:
        """The model of the one node."""
        node = helper.make_node(
            "MatMulNBits", ["x", *self.constants], ["y"], "product", domain="com.microsoft", **self.attributes
        )
        shape = [None] * (self.x.ndim - 1)
        held = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [*shape, self.depth])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape, self.outputs])
        graph = helper.make_graph([node], "product", [x], [y], held)
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def exact(self) -> NDArray[np.float64]:
        """The product in float64."""
        return np.asarray(self.x.astype(np.float64) @ self.weight.T)

    def tolerance(self) -> NDArray[np.float64]:
        """What rounding activations to int8 per row and block may cost, and float32 sums."""
        padding = -self.depth % self.block
        x = np.pad(np.abs(self.x), [*[(0, 0)] * (self.x.ndim - 1), (0, padding)])
        steps = x.reshape(*x.shape[:-1], -1, self.block).max(axis=-1) / 254
        weights = np.pad(np.abs(self.weight), [(0, 0), (0, padding)]).reshape(self.outputs, -1, self.block).sum(axis=-1)
        return np.asarray((steps @ weights.T) * 1.001 + 1e-6 * (np.abs(self.x) @ np.abs(self.weight).T))


def packed(values: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Codes along the last axis in bytes, low bits first."""
    per_byte = 8 // bits
    padded = np.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, -values.shape[-1] % per_byte)])
    groups = padded.reshape(*values.shape[:-1], -1, per_byte) << (np.arange(per_byte) * bits)
    return np.asarray(groups.sum(axis=-1).astype(np.uint8))


def claiming(model: onnx.ModelProto, isa: str = "auto", threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return qcompiler.runtime.session(model, threads=threads, isa=isa, claim=["matmulnbits"], options=options)


def is_claimed(session: onnxruntime.InferenceSession) -> bool:
    return [group.ep_name for group in session.get_provider_graph_assignment_info()] == [sessions.PROVIDER]


@pytest.mark.parametrize("seed", range(500 if NIGHTLY else 40))
def test_products_stay_within_the_rounding_of_activations(seed: int) -> None:
    product = Product(seed)
    results = []
    for isa in instruction_sets():
        session = claiming(product.model(), isa, threads=1 + seed % 2)
        assert is_claimed(session)
        results.append(session.run(None, {"x": product.x})[0])
    assert (np.abs(results[0] - product.exact()) <= product.tolerance()).all()
    for found in results[1:]:  # the same float on every instruction set
        np.testing.assert_array_equal(found, results[0])


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zero_points", [False, True])
def test_the_runtime_rounds_in_the_same_way(bits: int, zero_points: bool) -> None:
    """At accuracy level 4 ONNX Runtime quantizes rows per block too: float sums in another order remain."""
    product = Product(3, bits=bits, block=32, zero_points=zero_points)
    product.attributes["accuracy_level"] = 4
    stock = onnxruntime.InferenceSession(product.model().SerializeToString(), providers=["CPUExecutionProvider"])
    expected = stock.run(None, {"x": product.x})[0]
    found = claiming(product.model()).run(None, {"x": product.x})[0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_rows_that_are_not_finite_give_nan_and_touch_no_other() -> None:
    product = Product(5)
    clean = claiming(product.model()).run(None, {"x": product.x})[0]
    x = product.x.copy().reshape(-1, product.depth)
    x[0, 0], x[-1, -1] = np.nan, np.inf
    found = claiming(product.model()).run(None, {"x": x.reshape(product.x.shape)})[0].reshape(-1, product.outputs)
    assert np.isnan(found[[0, -1]]).all()
    np.testing.assert_array_equal(found[1:-1], clean.reshape(-1, product.outputs)[1:-1])


def test_workers_on_one_session_agree() -> None:
    product = Product(11)
    x = product.x.reshape(-1, product.depth)
    product.x = x
    session = claiming(product.model(), threads=2)
    expected = session.run(None, {"x": x})[0]

    def work(worker: int) -> bool:
        rows = [slice(first % len(x), first % len(x) + 1 + worker) for first in range(100)]
        return all((session.run(None, {"x": x[some]})[0] == expected[some]).all() for some in rows)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_no_rows() -> None:
    product = Product(6)
    product.x = product.x.reshape(-1, product.depth)
    found = claiming(product.model()).run(None, {"x": product.x[:0]})[0]
    assert found.shape == (0, product.outputs)


@pytest.mark.parametrize("change", [{"accuracy_level": 1}, {"accuracy_level": 2}])
def test_another_accuracy_stays_with_the_runtime(change: dict[str, int]) -> None:
    product = Product(7)
    product.attributes |= change
    assert not is_claimed(claiming(product.model()))


def test_float_zero_points_stay_with_the_runtime() -> None:
    product = Product(8, bits=4, zero_points=True)
    product.constants["zero_points"] = np.full(product.constants["scales"].shape, 8, np.float32)
    session = claiming(product.model())
    assert not is_claimed(session)
    session.run(None, {"x": product.x})


def test_activations_that_do_not_fit_are_refused_with_the_node() -> None:
    product = Product(9)
    model = product.model()
    model.graph.input[0].type.tensor_type.shape.dim[-1].Clear()
    with pytest.raises(Exception, match=r"product \(MatMulNBits\): activations of shape .* do not end in"):
        claiming(model).run(None, {"x": np.concatenate([product.x, product.x], axis=-1)})
