"""Where the samples of one input come from, read one at a time.

A column is the sequence of one input's samples. It knows their number and element type without reading them, and
yields any increasing choice of them with the memory of one sample: arrays are sliced, uncompressed ``.npz`` members
and ``.npy`` files are mapped, compressed members are decompressed as a stream.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import DataError

__all__ = ["ArrayColumn", "Column", "Header", "StreamColumn", "map_npy", "npz_column", "read_header"]


class Column(Protocol):
    """Samples of one input."""

    @property
    def count(self) -> int:
        """Number of samples."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type in the source."""

    @property
    def origin(self) -> str:
        """File (or argument) the samples come from, for messages."""

    def shapes(self) -> set[tuple[int, ...]]:
        """Every shape a sample may have; cheap, from headers."""

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """The samples at ``indices`` in that order, one at a time."""


@dataclass(frozen=True)
class ArrayColumn:
    """Samples along the first axis of an array, which may be memory-mapped."""

    array: NDArray[Any]
    origin: str

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.array)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type in the source."""
        return self.array.dtype

    def shapes(self) -> set[tuple[int, ...]]:
        """The one shape."""
        return {self.array.shape[1:]}

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Views of the samples."""
        for index in indices:
            yield np.asarray(self.array[index])


@dataclass(frozen=True)
class Header:
    """The head of a ``.npy`` stream: what follows is ``count * row_bytes`` bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int


@dataclass(frozen=True)
class StreamColumn:
    """Samples in a compressed member of an ``.npz`` file, decompressed as they are asked for."""

    path: Path
    member: str
    header: Header

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.header.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type in the source."""
        return self.header.dtype

    @property
    def origin(self) -> str:
        """The file."""
        return str(self.path)

    def shapes(self) -> set[tuple[int, ...]]:
        """The one shape."""
        return {self.header.shape[1:]}

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Copies of the samples; a step back in ``indices`` starts the stream again."""
        shape = self.header.shape[1:]
        size = self.dtype.itemsize * int(np.prod(shape))
        with zipfile.ZipFile(self.path) as archive:
            stream, position = archive.open(self.member), self.count
            try:
                for index in indices:
                    if index < position:
                        stream.close()
                        stream, position = archive.open(self.member), 0
                        stream.read(self.header.offset)
                    _skip(stream, (index - position) * size)
                    data = stream.read(size)
                    if len(data) != size:
                        raise DataError(f"'{self.member}' ends early", where=str(self.path))
                    position = index + 1
                    yield np.frombuffer(data, self.dtype).reshape(shape)
            except (zipfile.BadZipFile, EOFError, zlib.error) as error:
                raise DataError(f"'{self.member}' is damaged: {error}", where=str(self.path)) from error
            finally:
                stream.close()


def _skip(stream: IO[bytes], size: int) -> None:
    while size > 0 and (data := stream.read(min(size, 1 << 20))):
        size -= len(data)


def read_header(stream: IO[bytes], origin: str) -> Header:
    """Read the head of a ``.npy`` stream.

    Raises:
        DataError: Not a ``.npy`` stream, or one that holds Python objects (which would need pickle).
    """
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"not an array file: {error}", where=origin) from error
    if dtype.hasobject:
        raise DataError("holds Python objects, which are never unpickled", where=origin, hint="save a numeric array")
    return Header(tuple(shape), dtype, fortran, stream.tell())


def map_npy(path: Path) -> NDArray[Any]:
    """Map a ``.npy`` file without reading it.

    Raises:
        DataError: Not a numeric array file, or shorter than its head says.
    """
    try:
        with path.open("rb") as stream:
            header = read_header(stream, str(path))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return _map(path, header, header.offset)


def _map(path: Path, header: Header, offset: int) -> NDArray[Any]:
    if path.stat().st_size < offset + header.dtype.itemsize * int(np.prod(header.shape)):
        raise DataError("is shorter than its head says: truncated?", where=str(path))
    if not header.shape or 0 in header.shape:
        return np.zeros(header.shape, header.dtype)
    order: Any = "F" if header.fortran else "C"
    return np.memmap(path, header.dtype, "r", offset, header.shape, order)


def npz_column(path: Path, archive: zipfile.ZipFile, member: str) -> Column:
    """The column in one member of an open ``.npz`` file, mapped where the member is stored uncompressed.

    Raises:
        DataError: The member is no numeric array.
    """
    info = archive.getinfo(member)
    origin = f"{path}, {member.removesuffix('.npy')}"
    with archive.open(info) as stream:
        header = read_header(stream, origin)
    if not header.shape:
        raise DataError("is a single number; the first axis must be samples", where=origin)
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as raw:
            raw.seek(info.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", raw.read(4))
        start = info.header_offset + 30 + name_length + extra_length
        return ArrayColumn(_map(path, header, start + header.offset), origin)
    if header.fortran:
        with archive.open(info) as stream:
            return ArrayColumn(np.lib.format.read_array(stream, allow_pickle=False), origin)
    return StreamColumn(path, member, header)
