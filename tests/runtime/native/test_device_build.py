"""The kernels as a device has them: built for aarch64 without Python, emulated, equal to the specification."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from qcompiler.quant.functions import catalogue
from tests.runtime.native.any_case import case
from tests.runtime.native.case_file import DeviceCase, read_results, write_cases

NIGHTLY: Final = bool(os.environ.get("QCOMPILER_NIGHTLY"))
CASES: Final = 200 if NIGHTLY else 3
SOURCES: Final = Path(__file__).resolve().parents[3] / "qcompiler" / "runtime"
NEEDED: Final = ("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
MISSING: Final = [name for name in NEEDED if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``qcompiler_cases`` for aarch64; the quick run optimizes little, because that is compiled faster."""
    folder = tmp_path_factory.mktemp("aarch64")
    level = "-O2" if NIGHTLY else "-O1"
    configure = ["cmake", "--preset", "aarch64", "-B", str(folder), f"-DCMAKE_CXX_FLAGS_RELEASE={level}"]
    subprocess.run(configure, cwd=SOURCES, check=True, capture_output=True)
    target = [] if NIGHTLY else ["--target", "qcompiler_cases"]
    subprocess.run(["cmake", "--build", str(folder), "-j2", *target], check=True, capture_output=True)
    return folder / "qcompiler_cases"


def emulated(program: Path, *words: str, feed: bytes = b"", cpu: str = "max") -> subprocess.CompletedProcess[bytes]:
    command = ["qemu-aarch64", "-cpu", cpu, str(program), *words]
    return subprocess.run(command, input=feed, capture_output=True, check=False, timeout=1800)


def cases(name: str, sets: Sequence[str], count: int) -> list[DeviceCase]:
    """Random instances, each on every instruction set, packed or not, on one thread or three."""
    random = np.random.default_rng(sum(name.encode()))
    made = []
    for index in range(count):
        inputs, attributes, constants = case(name, random)
        inputs = [np.asarray(array, order="C") for array in inputs]
        for isa in sets:
            pack, threads = bool(index % 2), 1 + 2 * (index % 3 == 2)
            made.append(DeviceCase(name, inputs, attributes, constants, isa=isa, pack=pack, threads=threads))
    return made


def test_a_processor_says_which_sets_it_has(program: Path) -> None:
    assert emulated(program, "--sets").stdout.split() == [b"reference", b"neon", b"dotprod"]
    assert emulated(program, "--sets", cpu="cortex-a53").stdout.split() == [b"reference", b"neon"]


def test_every_operator_equals_its_specification(program: Path, tmp_path: Path) -> None:
    names = emulated(program, "--operators").stdout.decode().split()
    made = [item for name in names for item in cases(name, ("neon", "dotprod"), CASES)]
    (tmp_path / "cases").write_bytes(write_cases(made))
    done = emulated(program, str(tmp_path / "cases"), str(tmp_path / "results"))
    assert done.returncode == 0, done.stderr.decode()
    found = list(read_results((tmp_path / "results").read_bytes()))
    for item, result in zip(made, found, strict=True):
        assert not isinstance(result, str), f"{item.name}: {result}"
        expected = catalogue.operators()[item.name].specification(*item.inputs, **item.attributes)
        np.testing.assert_array_equal(result, expected, f"{item.name} on {item.isa}", strict=True)


def test_what_is_no_case_is_refused(program: Path) -> None:
    sound = write_cases(cases("QSoftmax", ["auto"], 1))
    for feed, words in (
        (b"", "this is no file of cases"),
        (sound[:-1], "the file of cases ends within elements"),
        (sound[:9], "the file of cases ends within an instruction set"),
        (sound[:8] + b"\xff\xff\xff\xff", "4294967295 is too great for an instruction set"),
    ):
        done = emulated(program, feed=feed)
        assert done.returncode == 2
        assert words in done.stderr.decode()
    unknown = DeviceCase("QNothing", [np.zeros(3, np.int8)], {})
    done = emulated(program, feed=write_cases([unknown]) + sound[8:])
    first, second = read_results(done.stdout)
    assert "QNothing" in str(first)
    assert isinstance(second, np.ndarray)
