"""Keep what observers learnt, so that the same compile need not run the model again.

The key is a hash of the graph, its weights, the samples and the observers' settings: whatever changes the outcome
changes the key, so nothing is ever invalid. Files are ``.npz`` without pickle, written to a temporary file and
renamed. A damaged or foreign file is ignored with a note, and replaced.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.observers import Collector
    from qcompiler.pipeline.base import Context

__all__ = ["Entry", "entry", "model_digest"]

_VERSION = "2"
_NAMES, _DOUBTS = "names", "doubts"
_HASHED_WHOLE = 64 << 20
"""External weights above this are known by file, size and time of change: hashing would page all of them in."""


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    path: Path
    ctx: Context

    def read(self, observers: Mapping[str, Collector]) -> tuple[str, ...] | None:
        """Restore the observers; ``None`` when there is nothing usable.

        Returns:
            Tensors that weights of positions did not reach.
        """
        if not self.path.exists():
            return None
        try:
            states, doubts = _load(self.path, list(observers))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            self.ctx.note(f"ignored a damaged calibration cache file {self.path.name}: {error}")
            return None
        for name, observer in observers.items():
            observer.restore(states[name])
        self.ctx.note(f"calibration results came from the cache ({self.path.name})")
        return doubts

    def write(self, observers: Mapping[str, Collector], doubts: Sequence[str] = ()) -> None:
        """Store the observers' state and what ``read`` returns, whole or not at all."""
        arrays: dict[str, Any] = {
            key: np.array(list(texts), np.str_) for key, texts in ((_NAMES, observers), (_DOUBTS, doubts))
        }
        for index, observer in enumerate(observers.values()):
            arrays |= {f"{index}/{key}": array for key, array in observer.state().items()}
        temporary = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, suffix=".tmp", delete=False) as file:
                temporary = Path(file.name)
                np.savez_compressed(file, allow_pickle=False, **arrays)
            temporary.replace(self.path)
        except OSError as error:
            self.ctx.note(f"calibration results could not be cached: {error.strerror or error}")
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _load(path: Path, names: list[str]) -> tuple[dict[str, dict[str, np.ndarray[Any, Any]]], tuple[str, ...]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        if stored[_NAMES].tolist() != names:
            raise ValueError("it holds other tensors")
        states: dict[str, dict[str, np.ndarray[Any, Any]]] = {name: {} for name in names}
        for key in stored.files:
            if key not in (_NAMES, _DOUBTS):
                index, _, part = key.partition("/")
                states[names[int(index)]][part] = stored[key]
        return states, tuple(map(str, stored[_DOUBTS]))


def entry(
    model: ir.Model, dataset: Dataset, observers: Mapping[str, Collector], ctx: Context | None, extra: object = None
) -> Entry | None:
    """The cache file of this calibration; ``None`` when the cache is off.

    Args:
        model: The model to be run.
        dataset: Its samples.
        observers: Their settings are part of the key.
        ctx: Holds the folder; results are noted there.
        extra: Anything else the outcome depends on; its ``repr`` is hashed.
    """
    if ctx is None or ctx.cache_dir is None:
        return None
    import onnxruntime

    state = hashlib.blake2b(digest_size=16)
    settings = [f"{name}\0{observer.settings()}" for name, observer in observers.items()]
    for part in (_VERSION, onnxruntime.__version__, repr(extra), dataset.digest(), *settings):
        state.update(part.encode() + b"\n")
    state.update(model_digest(model, list(observers)))
    return Entry(Path(ctx.cache_dir) / "calibration" / f"{state.hexdigest()}.npz", ctx)


def model_digest(model: ir.Model, outputs: list[str]) -> bytes:
    """A hash of the graph with these outputs, and of its weights."""
    from qcompiler.ir.execute import to_light_proto

    computed = {value.name for node in model.graph for value in node.outputs}
    proto, arrays = to_light_proto(model, [name for name in outputs if name in computed])
    state = hashlib.blake2b(proto.SerializeToString(deterministic=True), digest_size=16)
    for name, array in arrays.items():
        tensor = model.graph.initializers[name].const_value
        state.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes > _HASHED_WHOLE:
            known = Path(tensor.path).stat()
            text = f"{tensor.location}\0{tensor.offset}\0{tensor.length}\0{known.st_size}\0{known.st_mtime_ns}"
            state.update(text.encode())
            state.update(_bytes(array)[: 1 << 16])
        else:
            state.update(_bytes(array))
    return state.digest()


def _bytes(array: np.ndarray[Any, Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
