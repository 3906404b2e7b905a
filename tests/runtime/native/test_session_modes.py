"""What a session may be asked for beside running: no packing, saved models, bound memory, other names."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import qcompiler
from qcompiler.models import loaders
from qcompiler.runtime import session, sessions
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import instruction_sets
from tests.runtime.native.foreign_groups import random_group

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native library")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modes") / "digits_cnn.onnx"
    qcompiler.compile("digits_cnn", "edge-npu", output=path)
    return path


@pytest.fixture(scope="module")
def feed() -> dict[str, NDArray[Any]]:
    with np.load(Path(loaders.__file__).parent / "digits_evaluation.npz") as data:
        return {"image": data[next(name for name in data.files if name != "labels")][:16]}


@pytest.fixture(scope="module")
def expected(compiled: Path, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
    stock = onnxruntime.InferenceSession(str(compiled), providers=["CPUExecutionProvider"])
    result: NDArray[Any] = stock.run(None, feed)[0]
    return result


def options(**entries: str) -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for name, value in entries.items():
        made.add_session_config_entry(f"session.{name}", value)
    return made


def native_nodes(made: onnxruntime.InferenceSession) -> int:
    groups = made.get_provider_graph_assignment_info()
    return sum(len(group.get_nodes()) for group in groups if group.ep_name == sessions.PROVIDER)


def test_without_packing_the_result_is_the_same(
    compiled: Path, feed: dict[str, NDArray[Any]], expected: NDArray[Any]
) -> None:
    made = session(compiled, options=options(disable_prepacking="1"))
    assert native_nodes(made) > 0
    np.testing.assert_array_equal(made.run(None, feed)[0], expected)


@pytest.mark.parametrize("pattern", [False, True])
@pytest.mark.parametrize("arena", [False, True])
def test_memory_patterns_and_arenas(
    compiled: Path, feed: dict[str, NDArray[Any]], expected: NDArray[Any], pattern: bool, arena: bool
) -> None:
    chosen = options()
    chosen.enable_mem_pattern, chosen.enable_cpu_mem_arena = pattern, arena
    made = session(compiled, options=chosen)
    for count in (16, 16, 3, 16):  # a pattern is made in the first run and used in the second
        found = made.run(None, {"image": feed["image"][:count]})[0]
        np.testing.assert_array_equal(found, expected[:count])


def test_bound_inputs_and_outputs(compiled: Path, feed: dict[str, NDArray[Any]], expected: NDArray[Any]) -> None:
    made = session(compiled, threads=1, options=options())
    binding = made.io_binding()
    binding.bind_cpu_input("image", feed["image"])
    target = np.full_like(expected, 7)
    name = made.get_outputs()[0].name
    binding.bind_output(name, "cpu", 0, np.float32, target.shape, target.ctypes.data)
    made.run_with_iobinding(binding)
    np.testing.assert_array_equal(target, expected)


def test_every_instruction_set_in_one_process(
    compiled: Path, feed: dict[str, NDArray[Any]], expected: NDArray[Any]
) -> None:
    made = [session(compiled, isa=isa, options=options()) for isa in instruction_sets()]
    for one in [*made, *reversed(made)]:
        np.testing.assert_array_equal(one.run(None, feed)[0], expected)


def test_a_saved_model_runs_again_with_the_provider_and_without(
    compiled: Path, feed: dict[str, NDArray[Any]], expected: NDArray[Any], tmp_path: Path
) -> None:
    chosen = options()
    chosen.optimized_model_filepath = str(tmp_path / "saved.onnx")
    first = session(compiled, options=chosen)
    saved = onnx.load(tmp_path / "saved.onnx")
    assert any(node.domain == "ai.qcompiler" for node in saved.graph.node)
    again = session(tmp_path / "saved.onnx", options=options())
    assert native_nodes(again) == native_nodes(first)
    np.testing.assert_array_equal(again.run(None, feed)[0], expected)
    library = options()
    library.register_custom_ops_library(str(library_path()))
    other = onnxruntime.InferenceSession(str(tmp_path / "saved.onnx"), library, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(other.run(None, feed)[0], expected)


def test_a_model_with_claimed_groups_is_not_saved(tmp_path: Path) -> None:
    """Groups become nodes that exist in the session only; ONNX Runtime says so and writes nothing."""
    chosen = options()
    chosen.optimized_model_filepath = str(tmp_path / "saved.onnx")
    model = random_group(np.random.default_rng(1)).model()
    with pytest.raises(Exception, match="compiled nodes"):
        session(model, claim=["qdq"], options=chosen)


def test_the_library_under_another_name(
    compiled: Path, feed: dict[str, NDArray[Any]], expected: NDArray[Any], tmp_path: Path
) -> None:
    """In a process of its own: the library leaves with the last session."""
    np.savez(tmp_path / "case.npz", image=feed["image"], expected=expected)
    program = f"""
        import gc
        import numpy, onnxruntime
        for name in ("first", "second"):
            onnxruntime.register_execution_provider_library(name, {str(library_path())!r})
            devices = [found for found in onnxruntime.get_ep_devices() if found.ep_name == {sessions.PROVIDER!r}]
            assert len(devices) == 1
            options = onnxruntime.SessionOptions()
            options.add_provider_for_devices(devices, {{}})
            session = onnxruntime.InferenceSession({str(compiled)!r}, options)
            with numpy.load({str(tmp_path / "case.npz")!r}) as case:
                found = session.run(None, {{"image": case["image"]}})[0]
                assert (found == case["expected"]).all()
            del session, options, devices
            gc.collect()
            onnxruntime.unregister_execution_provider_library(name)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("isa", "sse9", "instruction set 'sse9' is not available here; choose auto"),
        ("threads", "many", "provider option 'threads' is 'many'; give a number from 1 to 9999"),
        ("claim", "qdq,", "."),
        ("claim", "gptq", "provider option 'claim' names 'gptq'"),
    ],
)
def test_options_of_the_provider(compiled: Path, name: str, value: str, text: str) -> None:
    chosen = options()
    sessions.attach(chosen)
    chosen.add_session_config_entry(f"ep.{sessions.PROVIDER.lower()}.{name}", value)
    if text == ".":
        onnxruntime.InferenceSession(str(compiled), chosen)
        return
    with pytest.raises(Exception, match=text):
        onnxruntime.InferenceSession(str(compiled), chosen)
