"""Every function body on a processor that has AVX2 and no dot-product instructions, emulated.

There the products of unsigned and signed bytes saturate (``vpmaddubsw``, microsoft/onnxruntime#5849).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from qcompiler.quant.functions import catalogue
from tests.quant.functions.every_case import CASES, Instance, family, long_sums
from tests.quant.functions.running import one_node_model

EMULATOR = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
INSTANCES = 2

RUN = """
import pathlib, sys
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3
folder = pathlib.Path(sys.argv[1])
found = {}
for path in sorted(folder.glob("*.onnx")):
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with np.load(path.with_suffix(".npz")) as held:
        fed = {item.name: held[item.name] for item in session.get_inputs()}
    found[path.stem] = session.run(None, fed)[0]
np.savez(folder / "found.npz", **found)
"""

SATURATING = """
<ir_version: 10, opset_import: ["" : 21]>
g (uint8[4,64] x, int8[64,32] w) => (int32[4,32] y) { y = MatMulInteger (x, w) }
"""


def emulated(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Run all models of a folder, each with the inputs beside it, in one emulated process."""
    assert EMULATOR is not None
    command = [EMULATOR, "-cpu", "Haswell", sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "found.npz") as found:
        return {name: found[name] for name in found}


def instances() -> list[tuple[str, Instance]]:
    """What to run: some of every operator, then long sums."""
    found = []
    for name in catalogue.operators():
        random = np.random.default_rng(list(name.encode()))  # no other operator changes these
        found += [(name, CASES[family(name)](name, random)) for _ in range(INSTANCES)]
    return found + long_sums(np.random.default_rng(20))


def test_every_operator_has_instances() -> None:
    assert {family(name) for name in catalogue.operators()} == set(CASES)


@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-user (Debian: qemu-user-static)")
def test_every_body_is_exact_without_dot_product_instructions(tmp_path: Path) -> None:
    wanted, names = {}, {}
    for number, (name, (inputs, attributes)) in enumerate(instances()):
        key = f"{number:04}"
        operator = catalogue.operators()[name]
        wanted[key] = operator.specification(*inputs, **attributes)
        names[key] = name
        constants = range(1, len(inputs)) if number % 2 else ()
        model = one_node_model(name, inputs, attributes, constants=constants)
        onnx.save(model, tmp_path / f"{key}.onnx")
        np.savez(tmp_path / f"{key}.npz", **dict(zip(operator.inputs, inputs, strict=True)))
    found = emulated(tmp_path)
    wrong = sorted({names[key] for key, codes in wanted.items() if not np.array_equal(found[key], codes)})
    assert found.keys() == wanted.keys()
    assert wrong == []


@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-user (Debian: qemu-user-static)")
def test_the_emulated_processor_does_saturate(tmp_path: Path) -> None:
    """Without this the test above would prove nothing."""
    x, w = np.full((4, 64), 255, np.uint8), np.full((64, 32), 127, np.int8)
    onnx.save(onnx.parser.parse_model(SATURATING), tmp_path / "0.onnx")
    np.savez(tmp_path / "0.npz", x=x, w=w)
    assert not np.array_equal(emulated(tmp_path)["0"], x.astype(np.int32) @ w)
