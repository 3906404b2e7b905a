"""Weights that stay on disk: tensors backed by one shared memory map per file.

Every tensor of a file shares one map (a map per tensor would meet the kernel's limit on maps at 65,530 weights).
Pages that were read stay resident until somebody says otherwise, so a compile that looks at every weight once
would end up holding all of them; a map therefore counts what it has handed out and tells the kernel to drop the
pages after every ``BUDGET`` bytes. Arrays handed out before stay valid: their pages are read again when touched.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["MappedFile", "mapped_tensor"]

BUDGET: Final = 128 << 20
"""Bytes handed out by one file before its pages are dropped."""


class MappedFile:
    """A file mapped for reading; mapped once, on first use.

    Args:
        path: The file. It must not shrink while it is in use; replacing it by renaming is fine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self.size = file.seek(0, 2)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else None
        self._handed_out = 0

    def view(self) -> memoryview:
        """The whole content."""
        return memoryview(self._map) if self._map is not None else memoryview(b"")

    def array(self, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
        """``count`` elements from ``offset`` on, read-only.

        Nothing is copied, unless ``offset`` is no multiple of the element size (weights inside a protobuf lie
        anywhere): kernels may not be handed misaligned arrays.
        """
        if count == 0 or self._map is None:
            return np.empty(0, dtype)
        if self._handed_out > BUDGET:
            self.release()
        self._handed_out += count * dtype.itemsize
        array = np.frombuffer(self._map, dtype, count, offset)
        if not array.flags.aligned:
            array = array.copy()
            array.flags.writeable = False
        return array

    def release(self) -> None:
        """Drop the resident pages; they are read again from the file when next touched."""
        self._handed_out = 0
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def mapped_tensor(
    file: MappedFile,
    offset: int,
    dtype: ir.DataType,
    shape: ir.Shape,
    *,
    name: str | None = None,
    doc_string: str | None = None,
    metadata_props: dict[str, str] | None = None,
) -> ir.LazyTensor:
    """A tensor whose bytes lie in ``file`` from ``offset`` on; each look at it maps them anew.

    The caller has checked that the bytes exist. Serialised by the library it becomes an ordinary inline tensor, so
    a model loaded here can be handed to code that knows nothing about where the weights are.
    """
    bits = dtype.bitwidth
    size = math.prod(shape.numpy())

    def read() -> ir.TensorProtocol:
        if bits < 8:  # several codes per byte: hand out the packed bytes
            packed = file.array(np.dtype(np.uint8), (size * bits + 7) // 8, offset)
            return ir.PackedTensor(packed, dtype, shape=shape, name=name)
        array = file.array(dtype.numpy().newbyteorder("<"), size, offset)
        return ir.Tensor(array.reshape(shape.numpy()), dtype, name=name)

    return ir.LazyTensor(
        read, dtype, shape, name=name, doc_string=doc_string, metadata_props=metadata_props, cache=False
    )
