"""Compiled files on machines that have nothing of ours: environments that hold ONNX Runtime only, old and new, and a
processor without dot-product instructions, emulated. What they compute must be what the interpreter says, byte by
byte."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from qcompiler.runtime.interpreter import Interpreter

INSTALLED = onnxruntime.__version__
OLD = "1.24.1"
MODELS = ["digits_cnn", "digits_vit"]
ZOO = ["resnet20_cifar10", "mobilenetv1_025_imagenet", "dscnn_kws", "vit_mnist", "minilm_l6_stsb", "stories260k_lm"]

SCRIPT = """
import importlib.util, sys
import numpy, onnxruntime
present = [name for name in ("qcompiler", "onnx", "onnx_ir") if importlib.util.find_spec(name)]
assert {allowed} or not present, present
feeds = numpy.load(sys.argv[2])
names = sorted(feeds.files)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
results = {{}}
for index in range(len(feeds[names[0]])):
    outputs = session.run(None, {{name: feeds[name][index] for name in names}})
    results.update({{f"{{index}}_{{place}}": output for place, output in enumerate(outputs)}})
numpy.savez(sys.argv[3], **results)
print(onnxruntime.__version__)
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The Python of a new virtual environment with one version of ONNX Runtime; skips where pip cannot get it."""
    folder = tmp_path_factory.mktemp("plain")

    @functools.cache
    def make(version: str) -> Path | str:
        place = folder / version
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        python = place / "bin" / "python"
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*command, "--retries", "1", f"onnxruntime=={version}"], capture_output=True, text=True, check=False
        )
        return python if done.returncode == 0 else done.stderr.strip().splitlines()[-1]

    def get(version: str) -> Path:
        found = make(version)
        if isinstance(found, str):
            pytest.skip(f"pip cannot install onnxruntime {version}: {found}")
        return found

    return get


def write_feeds(made, feeds, path: Path, count: int) -> list[dict[str, np.ndarray]]:
    """Evaluation samples as one file: first axis counts feeds."""
    found = list(feeds(made.subject, limit=count, batch=1))[:count]
    np.savez(path, **{name: np.stack([feed[name] for feed in found]) for name in found[0]})
    return found


def run_elsewhere(command: list[str], made, feeds, folder: Path, *, alone: bool, count: int = 4) -> str:
    """Run the file with ``command`` and compare with the interpreter; returns what the script printed."""
    samples = write_feeds(made, feeds, folder / "feeds.npz", count)
    results = folder / "results.npz"
    done = subprocess.run(
        [*command, "-c", SCRIPT.format(allowed=not alone), str(made.path), str(folder / "feeds.npz"), str(results)],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    interpreter = Interpreter(made.path)
    with np.load(results) as found:
        for index, feed in enumerate(samples):
            for place, expected in enumerate(interpreter.run(feed).values()):
                output = found[f"{index}_{place}"]
                assert output.dtype == expected.dtype
                if made.report["integer"]["after"]:  # float nodes behind the integers: last bits are a runtime's own
                    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
                else:
                    assert output.tobytes() == expected.tobytes()
    return done.stdout


@pytest.mark.parametrize("version", [INSTALLED, OLD])
@pytest.mark.parametrize("name", [*MODELS, *ZOO])
def test_a_runtime_alone_computes_what_the_interpreter_says(compiled, feeds, plain, tmp_path, name, version):
    made = compiled(name)
    printed = run_elsewhere([str(plain(version))], made, feeds, tmp_path, alone=True)
    assert printed.strip() == version


@pytest.mark.parametrize("name", [*MODELS, "resnet20_cifar10", "vit_mnist"])
def test_a_processor_without_dot_products_computes_the_same(compiled, feeds, tmp_path, name):
    """AVX2 adds pairs of u8 × s8 products in 16 bits and saturates: no body may multiply such pairs."""
    emulator = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-user to emulate a processor without VNNI")
    made = compiled(name)
    printed = run_elsewhere([emulator, "-cpu", "Haswell", sys.executable], made, feeds, tmp_path, alone=False, count=2)
    assert printed.strip() == INSTALLED
