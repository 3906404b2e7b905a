"""The installed ONNX Runtime has the tables that the native library is written for (native/abi/runtime.h)."""

from __future__ import annotations

import bisect
import ctypes
import re
from pathlib import Path

import onnxruntime
import pytest

import qcompiler
from qcompiler.runtime.library import library_path

HEADER = Path(qcompiler.__file__).parent / "runtime" / "native" / "abi" / "runtime.h"

pytestmark = [
    pytest.mark.skipif(library_path() is None, reason="the installation has no native library"),
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list its memory"),
]


def number(name: str) -> int:
    """A constant of the header."""
    found = re.search(rf"\b{name} = (\d+)[;,]", HEADER.read_text())
    assert found is not None, name
    return int(found[1])


def library() -> ctypes.CDLL:
    (path,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return ctypes.CDLL(str(path))


def table(level: int) -> int:
    base = library().OrtGetApiBase
    base.restype = ctypes.POINTER(ctypes.c_void_p)
    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(base()[0])
    return get(level) or 0


def executable() -> list[tuple[int, int]]:
    """Ranges of memory that hold code, sorted."""
    lines = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
    ranges = [words[0].split("-") for words in lines if "x" in words[1]]
    return sorted((int(first, 16), int(last, 16)) for first, last in ranges)


def all_code(address: int, slots: int) -> bool:
    ranges = executable()
    starts = [first for first, _ in ranges]
    entries = (ctypes.c_void_p * slots).from_address(address)
    places = [(entry, bisect.bisect_right(starts, entry or 0) - 1) for entry in entries]
    return all(entry is not None and place >= 0 and entry < ranges[place][1] for entry, place in places)


def slot(address: int, index: int, *signature: object) -> object:
    """The function in a slot."""
    entries = (ctypes.c_void_p * (index + 1)).from_address(address)
    return ctypes.CFUNCTYPE(*signature)(entries[index])  # type: ignore[arg-type]


def test_the_level_exists_and_every_slot_up_to_its_end_is_a_function() -> None:
    main = table(number("level"))
    assert main != 0
    assert all_code(main, number("main_slots"))
    provider = slot(main, number("provider_table"), ctypes.c_void_p)()  # type: ignore[operator]
    assert all_code(provider, number("provider_slots"))


def test_no_used_slot_lies_behind_the_end_of_the_level() -> None:
    main, provider = re.findall(r"enum class \w+ : size_t \{(.*?)\};", HEADER.read_text(), re.DOTALL)
    assert max(map(int, re.findall(r"= (\d+)", main))) < number("main_slots")
    assert max(map(int, re.findall(r"= (\d+)", provider))) < number("provider_slots")


def test_a_status_goes_round() -> None:
    main = table(number("level"))
    create = slot(main, number("create_status"), ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p)
    message = slot(main, number("error_message"), ctypes.c_char_p, ctypes.c_void_p)
    release = slot(main, number("release_status"), None, ctypes.c_void_p)
    status = create(2, b"round trip")  # type: ignore[operator]
    assert message(status) == b"round trip"  # type: ignore[operator]
    release(status)  # type: ignore[operator]
