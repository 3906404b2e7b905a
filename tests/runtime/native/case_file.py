"""Files of cases for ``qcompiler_cases``, and of its results: the format of ``native/device/case_file.h``."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import helper

__all__ = ["DeviceCase", "read_results", "write_cases"]

_CASES: Final = b"QCASES1\n"
_RESULTS: Final = b"QRESULT1"


@dataclass(frozen=True, eq=False)
class DeviceCase:
    """One run of one operator."""

    name: str
    inputs: Sequence[NDArray[Any] | None]
    attributes: Mapping[str, Any]
    constants: Collection[int] = ()
    isa: str = "auto"
    pack: bool = True
    threads: int = 1

    def encoded(self) -> bytes:
        """The case as the file has it."""
        head = [_text(self.isa), _text(self.name), _numbers(int(self.pack), self.threads, len(self.attributes))]
        return b"".join([*head, *self._attributes(), _numbers(len(self.inputs)), *self._operands()])

    def _attributes(self) -> Iterator[bytes]:
        for name, value in self.attributes.items():
            values = np.atleast_1d(np.asarray(value, np.int64)) if np.size(value) else np.zeros(0, np.int64)
            yield _text(name) + _numbers(len(values)) + values.tobytes()

    def _operands(self) -> Iterator[bytes]:
        for index, array in enumerate(self.inputs):
            if array is None:
                yield _numbers(0)
                continue
            element = helper.np_dtype_to_tensor_dtype(array.dtype)
            yield _numbers(element, int(index in self.constants), array.ndim)
            yield np.array(array.shape, np.int64).tobytes() + array.tobytes()


def write_cases(cases: Sequence[DeviceCase]) -> bytes:
    """A file of cases."""
    return _CASES + b"".join(case.encoded() for case in cases)


def read_results(data: bytes) -> Iterator[NDArray[Any] | str]:
    """What the cases gave: arrays, or the texts of refusals."""
    stream = io.BytesIO(data)
    assert stream.read(len(_RESULTS)) == _RESULTS
    while stream.tell() < len(data):
        if _number(stream):
            yield stream.read(_number(stream)).decode()
            continue
        dtype, rank = helper.tensor_dtype_to_np_dtype(_number(stream)), _number(stream)
        shape = tuple(int(size) for size in np.frombuffer(stream.read(8 * rank), np.int64))
        count = int(np.prod(shape, dtype=np.int64))
        yield np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(shape)


def _text(words: str) -> bytes:
    return _numbers(len(words.encode())) + words.encode()


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _number(stream: io.BytesIO) -> int:
    return int(struct.unpack("<I", stream.read(4))[0])
