"""Models compiled for our own kernels: every node runs natively, and gives the bits of the other two executions.

Files for other integer targets are compared natively as well, in ``test_integer_models.py``.
"""

from __future__ import annotations

import os

import onnx
import onnxruntime
import pytest

from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.runtime import library_path, session
from qcompiler.runtime.sessions import PROVIDER

COMPARED = {"minilm_l6_stsb": 4, "stories260k_lm": 2, "vit_mnist": 50}
"""Samples in a normal run; 25 of every other model, and all at night."""
COMPARED_NIGHTLY = {"minilm_l6_stsb": 200}

NIGHTLY = pytest.mark.skipif(not os.environ.get("QCOMPILER_NIGHTLY"), reason="minutes: QCOMPILER_NIGHTLY=1")
MODELS = [
    ("digits_cnn", "w8a8"),
    ("digits_cnn", "w4a8"),
    ("digits_cnn", "w4a4"),
    ("digits_vit", "w8a8"),
    ("digits_vit", "w4a8"),
    ("digits_vit", "w3a8"),
    ("digits_vit", "w4a4"),
    ("digits_vit", "w8a8/log4"),
    ("resnet20_cifar10", "w8a8"),
    ("resnet20_cifar10", "w4a8"),
    ("mobilenetv1_025_imagenet", "w8a8"),
    ("dscnn_kws", "w8a8"),
    ("vit_mnist", "w8a8"),
    pytest.param("minilm_l6_stsb", "w8a8", marks=NIGHTLY),
    ("stories260k_lm", "w8a8"),
]

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")


@pytest.mark.parametrize(("name", "precision"), MODELS)
def test_three_executions_give_the_same_integers(compiled, bitwise, nightly, name, precision):
    made = compiled(name, "lowbit-cpu", "--format", precision)
    run, count = bitwise(made)
    limit = COMPARED_NIGHTLY.get(name) if nightly else COMPARED.get(name, 25)
    made.subject.evaluate(run, limit=limit)
    assert count.samples > 0
    assert count.integers > 0
    assert count.different == 0


@pytest.mark.parametrize(("name", "precision"), MODELS)
def test_every_node_of_the_operator_set_runs_natively(compiled, name, precision):
    made = compiled(name, "lowbit-cpu", "--format", precision)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    assigned = session(made.path, options=options).get_provider_graph_assignment_info()
    native = [node for part in assigned if part.ep_name == PROVIDER for node in part.get_nodes()]
    ours = [node for node in onnx.load(made.path).graph.node if node.domain == DOMAIN]
    assert len(ours) > 0
    # equal nodes on equal operands are computed once, so a runtime may have fewer, never other ones
    assert {node.op_type for node in native} == {node.op_type for node in ours}
    left = [node.op_type for part in assigned if part.ep_name != PROVIDER for node in part.get_nodes()]
    assert not {"MatMulInteger", "ConvInteger", "BitShift"} & set(left)
