"""Integer-only compilation of shipped samples and pretrained models, judged on the files that the command line writes.

Thresholds are what the project promises. A normal run compares the interpreter with ONNX Runtime on some samples of
every evaluation set; ``QCOMPILER_NIGHTLY=1`` takes all of them.
"""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

from qcompiler.analysis.accumulators import accumulators
from qcompiler.analysis.integer_only import integer_only
from qcompiler.ir import io
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.load import load

SAMPLES = ["digits_cnn", "digits_vit"]
CLASSIFIERS = ["resnet20_cifar10", "mobilenetv1_025_imagenet", "dscnn_kws", "vit_mnist"]
SENTENCES, STORIES = "minilm_l6_stsb", "stories260k_lm"
EVERYTHING = [*SAMPLES, *CLASSIFIERS, SENTENCES, STORIES]

AGREEMENT = {"vit_mnist": 99.7, "digits_vit": 99.7}
"""Decisions shared with the Q/DQ form, in per cent; convolutional networks: 99.5."""

COMPARED = {SENTENCES: 8, STORIES: 4}
"""Samples (pairs) compared bit by bit in a normal run; 50 of every other model."""
COMPARED_NIGHTLY = {SENTENCES: 200}
"""Pairs compared at night; of every other model all samples."""


DECIDED = {"vit_mnist": 600, "mobilenetv1_025_imagenet": 200, "resnet20_cifar10": 1000}
"""Samples whose decisions are compared in a normal run; all of every other model, and all at night."""


@pytest.mark.parametrize("name", [*SAMPLES, *CLASSIFIERS])
def test_nothing_inside_is_float(compiled, name):
    made = compiled(name)
    found = integer_only(io.load(made.path))
    assert found.tensors == ()
    assert found.holds, found
    assert made.report["integer"]["float_tensors"] == 0


def test_the_sentence_model_is_float_only_where_the_report_says(compiled):
    """Integer from the embeddings to the last hidden state; its final pooling and normalization are float."""
    made = compiled(SENTENCES)
    part = made.report["integer"]
    assert part["float_tensors"] == 0, part["islands"]
    named = {node["op_type"] for node in (*part["before"], *part["after"])}
    assert named <= {"Gather", "Cast", "ReduceSum", "ReduceL2", "Clip", "Mul", "Div", "Expand", "Shape", "Unsqueeze"}


def test_every_float_island_of_the_language_model_has_a_reason(compiled):
    made = compiled(STORIES)
    for island in made.report["integer"]["islands"]:
        assert island["nodes"]
        assert island["reasons"], island
    assert made.report["coverage"]["share_macs"] == 100


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_interpreter_and_the_runtime_agree_on_every_integer(compiled, bitwise, nightly, name):
    made = compiled(name)
    run, count = bitwise(made)
    limit = COMPARED_NIGHTLY.get(name) if nightly else COMPARED.get(name, 50)
    made.subject.evaluate(run, limit=limit)
    assert count.samples > 0
    assert count.integers > 0
    assert count.different == 0


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_accumulator_can_overflow(compiled, name):
    made = compiled(name)
    found = accumulators(io.load(made.path), load("edge-npu").integer)
    assert found
    assert [item for item in found if not item.safe] == []
    part = made.report["accumulators"]
    assert len(part["nodes"]) == len(found)
    assert part["least_head_room"] == min(item.head_room for item in found) >= 0


@pytest.mark.parametrize("name", [*SAMPLES, *CLASSIFIERS])
def test_decisions_are_those_of_the_same_plan_in_floats(compiled, nightly, name):
    made, other = compiled(name), compiled(name, "edge-npu", "--lowering", "qdq")
    assert made.plan == other.plan
    same, samples = 0, 0
    integers, floats = (
        onnxruntime.InferenceSession(str(item.path), providers=["CPUExecutionProvider"]) for item in (made, other)
    )

    def both(feed):
        nonlocal same, samples
        found, expected = integers.run(None, feed), floats.run(None, feed)
        decided = [outputs[0].reshape(len(outputs[0]), -1).argmax(1) for outputs in (found, expected)]
        same, samples = same + int((decided[0] == decided[1]).sum()), samples + len(decided[0])
        return found

    made.subject.evaluate(both, limit=None if nightly else DECIDED.get(name))
    assert 100 * same / samples >= AGREEMENT.get(name, 99.5)


def test_sentences_stay_close_to_the_float_model(compiled, nightly):
    found = compiled(SENTENCES).subject.evaluate(compiled(SENTENCES).path, limit=None if nightly else 60)
    assert found["cosine_mean"] >= 0.98


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_file_is_no_larger_than_the_form_in_floats(compiled, name):
    made, other = compiled(name), compiled(name, "edge-npu", "--lowering", "qdq")
    assert made.path.stat().st_size <= 1.05 * other.path.stat().st_size + 64 * 1024


@pytest.mark.parametrize("name", [*SAMPLES, "resnet20_cifar10", "vit_mnist"])
def test_the_same_request_gives_the_same_bytes(compiled, name):
    made = compiled(name)
    again = compiled(name, "edge-npu", "--no-cache")  # the same request, made a second time
    assert made.path.read_bytes() == again.path.read_bytes()


@pytest.mark.parametrize("name", [*SAMPLES, "resnet20_cifar10", "dscnn_kws"])
@pytest.mark.parametrize("target", ["mcu", "fpga-pot"])
def test_other_integer_targets(compiled, bitwise, target, name):
    """What the profile demands is checked by the compile itself; here it is what comes out that is."""
    if target == "mcu" and name == "digits_vit":
        pytest.skip("no transformers on microcontrollers")
    made = compiled(name, target)
    model = onnx.load(made.path)
    if target == "fpga-pot":
        multiplying = [
            node.op_type for node in model.graph.node if node.domain == DOMAIN and not node.op_type.endswith("Shift")
        ]
        assert [item for item in multiplying if not item.startswith("QLookup")] == []
    islands = made.report["integer"]["islands"]
    assert name not in ("digits_cnn", "dscnn_kws") or not islands  # others have operators that these targets lack
    assert all(island["reasons"] for island in islands)
    run, count = bitwise(made)
    made.subject.evaluate(run, limit=50)
    assert count.integers > 0
    assert count.different == 0
