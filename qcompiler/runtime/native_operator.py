"""One operator run by its native kernel, without ONNX Runtime: for tests, and to try a kernel on an array.

The C interface is that of ``native/interface/operator_interface.cc``.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from qcompiler.errors import ModelError
from qcompiler.runtime.library import library_path
from qcompiler.runtime.sessions import checked_threads

__all__ = ["NativeOperator", "instruction_sets", "native_operators"]

_ROOM: Final = 1 << 14
_MOST_AXES: Final = 8


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int32),
        ("constant", ctypes.c_int32),
        ("rank", ctypes.c_uint64),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("data", ctypes.c_void_p),
    )


class _Attribute(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("values", ctypes.POINTER(ctypes.c_int64)),
        ("count", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    path = library_path()
    if path is None:
        hint = "install the project where a C++ compiler is available"
        raise ModelError("the native kernels are not part of this installation", hint=hint)
    library = ctypes.CDLL(str(path))
    library.qcompiler_operator_release.argtypes = [ctypes.c_void_p]
    library.qcompiler_operator_release.restype = None
    return library


def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that have kernels and that this processor runs, the best last."""
    return _words("qcompiler_instruction_sets")


def native_operators() -> tuple[str, ...]:
    """Operator types that have native kernels, sorted."""
    return _words("qcompiler_operators")


def _words(function: str) -> tuple[str, ...]:
    text = ctypes.create_string_buffer(_ROOM)
    getattr(_library(), function)(text, ctypes.c_uint64(_ROOM))
    return tuple(text.value.decode().split())


class NativeOperator:
    """An operator as a session makes it: constants are packed once, then it runs any number of times.

    Args:
        name: Operator type.
        attributes: Its attributes, integers or lists of integers.
        constants: Constant inputs by position.
        isa: Instruction set; ``auto`` is the best here.
        pack: Whether constants are packed; without, they are used as they are, as in a session without pre-packing.
        node: Name of the node, for messages.

    Raises:
        ModelError: The operator cannot be made, with the kernel's own words.
    """

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, Any],
        constants: Mapping[int, NDArray[Any]] | None = None,
        *,
        isa: str = "auto",
        pack: bool = True,
        node: str = "node",
    ) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        self._constants = {index: np.asarray(array, order="C") for index, array in (constants or {}).items()}
        count = max(self._constants, default=-1) + 1
        inputs = _tensors([self._constants.get(index) for index in range(count)], self._constants)
        given = _attributes(attributes)
        self._call(
            "qcompiler_operator_make",
            *(ctypes.c_char_p(text.encode()) for text in (isa, node, name)),
            given,
            ctypes.c_uint64(len(attributes)),
            inputs,
            ctypes.c_uint64(count),
            ctypes.c_int32(pack),
            ctypes.byref(self._handle),
        )

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.qcompiler_operator_release(self._handle)

    def run(self, *inputs: NDArray[Any] | None, threads: int = 1) -> NDArray[Any]:
        """Compute the result.

        Args:
            inputs: All operands in order, the constant ones too; ``None`` where an optional one is absent.
            threads: Threads to divide the work among.

        Raises:
            ModelError: The operands do not fit, with the kernel's own words.
            UsageError: The number of threads makes no sense.
        """
        dtype, shape = self._result(inputs)
        arrays, tensors = self._operands(inputs)
        output = np.empty(shape, dtype)
        address = ctypes.c_void_p(output.ctypes.data)
        count = ctypes.c_uint64(len(arrays))
        checked_threads(threads)
        self._call("qcompiler_operator_run", self._handle, tensors, count, address, ctypes.c_uint64(threads))
        return output

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed constants that the operator holds; in a session the originals are freed."""
        found = self._library.qcompiler_operator_packed_bytes
        found.restype = ctypes.c_uint64
        return int(found(self._handle))

    def elements(self, *inputs: NDArray[Any] | None) -> int:
        """Number of elements of the result, without computing it; arguments and errors as :meth:`run`."""
        return math.prod(self._result(inputs)[1])

    def _operands(self, inputs: Sequence[NDArray[Any] | None]) -> tuple[list[NDArray[Any] | None], Any]:
        arrays = [None if array is None else np.asarray(array, order="C") for array in inputs]
        return arrays, _tensors(arrays, self._constants)

    def _result(self, inputs: Sequence[NDArray[Any] | None]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        arrays, tensors = self._operands(inputs)
        element, rank, sizes = ctypes.c_int32(), ctypes.c_uint64(), (ctypes.c_int64 * _MOST_AXES)()
        found = ctypes.byref(element), sizes, ctypes.byref(rank)
        self._call("qcompiler_operator_result", self._handle, tensors, ctypes.c_uint64(len(arrays)), *found)
        return helper.tensor_dtype_to_np_dtype(element.value), tuple(sizes[: rank.value])

    def _call(self, function: str, *arguments: Any) -> None:
        message = ctypes.create_string_buffer(_ROOM)
        if getattr(self._library, function)(*arguments, message, ctypes.c_uint64(_ROOM)):
            raise ModelError(message.value.decode())


def _tensors(arrays: Sequence[NDArray[Any] | None], constants: Collection[int]) -> Any:
    made = (_Tensor * max(len(arrays), 1))()
    for index, array in enumerate(arrays):
        if array is None:
            continue
        made[index].type = helper.np_dtype_to_tensor_dtype(array.dtype)
        made[index].constant = int(index in constants)
        made[index].rank = array.ndim
        made[index].sizes = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
        made[index].data = array.ctypes.data
    return made


def _attributes(attributes: Mapping[str, Any]) -> Any:
    made = (_Attribute * max(len(attributes), 1))()
    for index, (name, value) in enumerate(attributes.items()):
        values = [int(item) for item in np.atleast_1d(np.asarray(value, np.int64))] if np.size(value) else []
        made[index].name = name.encode()
        made[index].values = (ctypes.c_int64 * max(len(values), 1))(*values)
        made[index].count = len(values)
    return made
