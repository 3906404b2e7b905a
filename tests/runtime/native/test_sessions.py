"""Sessions with the execution provider: what it claims, what it says, and what happens without it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import qcompiler.runtime
from qcompiler.errors import ModelError, UsageError
from qcompiler.quant.functions import catalogue
from qcompiler.runtime import sessions
from qcompiler.runtime.library import library_path
from tests.quant.functions.every_case import CASES
from tests.quant.functions.running import one_node_model

needs_library = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")


def requantize_model(constants: tuple[int, ...] = (1, 2)) -> tuple[object, dict[str, object], object]:
    inputs, attributes = CASES["Requantize"]("Requantize", np.random.default_rng(3))
    expected = catalogue.operators()["Requantize"].specification(*inputs, **attributes)
    model = one_node_model("Requantize", inputs, attributes, constants=constants)
    named = dict(zip(("x", "multiplier", "shift"), inputs, strict=True))
    return model, {item.name: named[item.name] for item in model.graph.input}, expected


def recording() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


@needs_library
@pytest.mark.parametrize("constants", [(), (1, 2)])
def test_the_provider_runs_the_node_itself(constants: tuple[int, ...]) -> None:
    model, feed, expected = requantize_model(constants)
    session = qcompiler.runtime.session(model, threads=1, options=recording())
    np.testing.assert_array_equal(session.run(None, feed)[0], expected, strict=True)
    (assigned,) = session.get_provider_graph_assignment_info()
    assert assigned.ep_name == sessions.PROVIDER
    assert [node.op_type for node in assigned.get_nodes()] == ["Requantize"]


@needs_library
def test_an_unknown_instruction_set_is_refused_with_those_that_exist() -> None:
    model, _, _ = requantize_model()
    with pytest.raises(UsageError, match="instruction set 'sse9' is not available here") as caught:
        qcompiler.runtime.session(model, isa="sse9")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("choose auto, reference")


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads: int) -> None:
    model, _, _ = requantize_model()
    with pytest.raises(UsageError, match=f"{threads} threads make no sense"):
        qcompiler.runtime.session(model, threads=threads)


@needs_library
def test_a_wrong_operand_is_refused_with_the_node_and_the_reason() -> None:
    inputs, attributes = CASES["Requantize"]("Requantize", np.random.default_rng(3))
    model = one_node_model("Requantize", inputs, attributes)
    model.graph.node[0].name = "rescale_7"
    session = qcompiler.runtime.session(model)
    shift = np.zeros_like(inputs[2])
    with pytest.raises(Exception, match=r"rescale_7 \(Requantize\): a shift is outside 1 to 62"):
        session.run(None, {"x": inputs[0], "multiplier": inputs[1], "shift": shift})


@needs_library
def test_a_broken_attribute_is_refused_when_the_session_is_made() -> None:
    inputs, attributes = CASES["Requantize"]("Requantize", np.random.default_rng(3))
    model = one_node_model("Requantize", inputs, {**attributes, "low": 40000})
    with pytest.raises(ModelError, match="attribute 'low' is 40000; it lies in -32768 to 32767"):
        qcompiler.runtime.session(model)


def test_without_the_library_the_functions_run_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model, feed, expected = requantize_model()
    monkeypatch.setattr(sessions, "library_path", lambda: None)
    with pytest.warns(RuntimeWarning, match="without its native library"):
        session = qcompiler.runtime.session(model)
    np.testing.assert_array_equal(session.run(None, feed)[0], expected, strict=True)


def test_a_runtime_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    with pytest.raises(UsageError, match=r"needs ONNX Runtime 1\.24; this is 1\.23\.2"):
        qcompiler.runtime.attach(onnxruntime.SessionOptions())


@needs_library
def test_options_serve_several_sessions_of_equal_settings() -> None:
    model, feed, expected = requantize_model()
    options = recording()
    for _ in range(2):
        session = qcompiler.runtime.session(model, threads=1, isa="reference", options=options)
        np.testing.assert_array_equal(session.run(None, feed)[0], expected, strict=True)
        assert [group.ep_name for group in session.get_provider_graph_assignment_info()] == [sessions.PROVIDER]


@needs_library
def test_options_with_other_settings_are_refused_with_a_way_out() -> None:
    model, _, _ = requantize_model()
    options = recording()
    qcompiler.runtime.session(model, isa="reference", options=options)
    with pytest.raises(UsageError, match="carry the provider already, with isa=reference, not defaults") as caught:
        qcompiler.runtime.session(model, options=options)
    assert caught.value.hint == "make new session options for other settings"
