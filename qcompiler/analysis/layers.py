"""Where inside the graph the error arises: SQNR of every tensor that both models have.

The float model's tensor ``v`` is compared with what the consumers of ``v`` read in the quantized model: the output of
its DequantizeLinear, or ``v`` itself where it stayed float. An integer graph has no such nodes inside; its codes say
which real tensor they stand for (``quant/annotations.py``) and are dequantized here. Errors accumulate along the
graph, so the figure of a layer says how far the computation has drifted *up to there*.

Softmax does not see what lies far below the largest entry of its row, and quantization may cut it off: a mask of −1e9
may well become −50. So tensors that go into a Softmax, masks included, are compared after both were cut off at 16
below the largest entry of the float model's row (a probability of 1e-7), which is where calibration lets masks end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.coded import code_meanings, first_codes, real_numbers
from qcompiler.analysis.power import Power
from qcompiler.analysis.sessions import fit
from qcompiler.calibration.masks import MARGIN
from qcompiler.ir import io
from qcompiler.ir.execute import Feed, Runner
from qcompiler.ir.memory import trim
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.operators import LINEAR

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["LayerQuality", "match_layers", "measure_layers"]

_CHUNK_BYTES = 80 << 20
"""Tensors are fetched in groups of about this size, so that memory does not grow with the depth of the model."""

_INVISIBLE = np.float32(MARGIN)
_ENOUGH_BYTES = 96 << 20
_MOST_SAMPLES = 8
_UNKNOWN_BYTES = 1 << 20
_PASS_THROUGH = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu"})
_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast"})


@dataclass(frozen=True, slots=True)
class LayerQuality:
    """The error of one tensor inside the graph.

    Attributes:
        value: Name of the tensor in the float model.
        node: The node that makes it.
        op_type: That node's operator.
        sqnr: dB over all elements of the samples measured.
        max_abs_error: Largest absolute difference; ``None`` where the candidate is not finite.
    """

    value: str
    node: str
    op_type: str
    sqnr: float
    max_abs_error: float | None


def match_layers(reference: ir.Model, candidate: ir.Model, *, everything: bool = False) -> dict[str, str]:
    """Names of float tensors of ``reference`` and of their counterparts in ``candidate``, in graph order.

    Tensors are matched by name.

    Args:
        reference: The float model.
        candidate: The quantized model.
        everything: Also tensors that lie between two points of quantization (a convolution before its Relu). Without
            it: what is quantized, what weighted operators give where they stayed float, and the graph's outputs.
    """
    found: dict[str, str] = {}
    theirs = {str(value.name): value for node in candidate.graph for value in node.outputs if value.name}
    codes = first_codes(candidate)
    for node in reference.graph:
        if node.op_type in _PASS_THROUGH or node.op_type in _MOVES or node.op_type == "Constant":
            continue
        for value in node.outputs:
            other = theirs.get(str(value.name))
            if other is None or not _is_float(value) or not _is_float(other):
                if _is_float(value) and str(value.name) in codes:
                    found[str(value.name)] = codes[str(value.name)]
                continue
            read = _as_read(other)
            if everything or read is not other or _is_end(node, other):
                found[str(value.name)] = str(read.name)
    io.release(reference)
    io.release(candidate)
    return found


def _is_float(value: ir.Value) -> bool:
    return value.dtype in (None, ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _is_end(node: ir.Node, value: ir.Value) -> bool:
    """Whether a tensor that stayed float ends a layer: an output, or a weighted operator without an activation."""
    if value.is_graph_output():
        return True
    readers = {reader.op_type for reader in value.consumers()}
    return node.op_type in LINEAR and not readers <= _ACTIVATIONS


def _as_read(value: ir.Value) -> ir.Value:
    """What consumers of ``value`` read: the dequantized tensor where there is exactly one."""
    quantizers = [reader for reader in value.consumers() if reader.op_type == "QuantizeLinear"]
    codes = [reader for quantize in quantizers for reader in quantize.outputs[0].consumers()]
    # codes of less than 8 bits are clipped first
    codes += [reader for clip in codes if clip.op_type == "Clip" for reader in clip.outputs[0].consumers()]
    pairs = [reader.outputs[0] for reader in codes if reader.op_type == "DequantizeLinear"]
    return pairs[0] if len(pairs) == 1 else value


def measure_layers(
    reference: ir.Model,
    candidate: ir.Model,
    dataset: Dataset,
    pairs: Mapping[str, str],
    *,
    samples: int | None = None,
    threads: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[LayerQuality], int, list[str]]:
    """SQNR of the tensors in ``pairs`` on the first samples.

    Both models run unoptimized: fusion would remove the very tensors asked for, and Q/DQ nodes executed one by one
    compute what the quantized graph means.

    Args:
        reference: The float model.
        candidate: The quantized model.
        dataset: Samples.
        pairs: Float tensor name to the name in the candidate.
        samples: Samples to run; ``None`` takes up to 8, fewer where a sample's tensors are large.
        threads: Intra-operator threads; 0 lets ONNX Runtime choose.
        progress: Called as ``progress("layers", done, total)``.

    Returns:
        Layers in graph order, on how many samples, and notes about tensors that were not compared.
    """
    makers = {str(value.name): (node, value) for node in reference.graph for value in node.outputs if value.name}
    theirs = {str(value.name) for node in candidate.graph for value in node.outputs if value.name}
    usable = [(makers[a][1], b) for a, b in pairs.items() if a in makers and b in theirs]
    notes = [f"{len(pairs) - len(usable)} tensors exist in one model only"] if len(usable) < len(pairs) else []
    groups = list(_groups(usable))
    meanings = code_meanings(candidate)
    powers = {str(value.name): Power() for value, _ in usable}
    axes = {str(value.name): axis for value, _ in usable if (axis := _softmax_axis(value)) is not None}
    say = progress or (lambda *_: None)
    with tempfile.TemporaryFile() as spool:  # on disk: it is as large as all tensors
        ours = _fetch(reference, dataset, [[a for a, _ in group] for group in groups], threads)
        used = _record(ours, spool, len(groups), min(samples or _MOST_SAMPLES, len(dataset)), samples is None)
        spool.seek(0)
        io.release(reference)
        trim()
        theirs_too = _fetch(candidate, islice(dataset, used), [[b for _, b in group] for group in groups], threads)
        for done, tensors in enumerate(theirs_too):
            say("layers", done, used * len(groups))
            for a, b in groups[done % len(groups)]:
                wanted = np.load(spool, allow_pickle=False)
                _update(powers[a], wanted, real_numbers(tensors[b], meanings.get(b)), axes.get(a))
    misshapen = [name for name, power in powers.items() if power.shapes_differ]
    if misshapen:
        notes.append(f"{len(misshapen)} tensors have another shape in the candidate: {_some(misshapen)}")
    layers = [_layer(makers[name][0], name, power) for name, power in powers.items() if not power.shapes_differ]
    return layers, used if layers else 0, notes


def _record(fetched: Generator[Feed, None, None], spool: IO[bytes], groups: int, most: int, by_size: bool) -> int:
    """Keep the tensors of the float model; return on how many samples.

    One sample of a large network says what there is to say about its layers, and takes as long as all the rest. How
    many are run follows from bytes, not from seconds, so that a report comes out the same again.
    """
    size = done = 0
    for done, tensors in enumerate(fetched, 1):
        for array in tensors.values():
            np.save(spool, array, allow_pickle=False)
            size += array.nbytes
        if done % groups == 0 and (done // groups == most or (by_size and size * 2 > _ENOUGH_BYTES)):
            break
    fetched.close()  # the session and its memory
    trim()
    return done // groups if groups else 0


def _fetch(
    model: ir.Model, feeds: Iterable[Feed], groups: Sequence[Sequence[str]], threads: int
) -> Generator[Feed, None, None]:
    """Run every feed once per group of tensors. The session lives no longer than the iteration."""
    if not groups:
        return
    reuse = not any(node.domain == DOMAIN for node in model.graph)
    names = list(dict.fromkeys(chain(*groups)))
    runner = Runner(model, names, threads=threads, optimize=False, pack=False, reuse=reuse)
    io.release(model)
    for feed in feeds:
        ready = fit(feed, runner)
        for group in groups:
            yield runner.run(ready, list(dict.fromkeys(group)))


def _softmax_axis(value: ir.Value, depth: int = 6) -> int | None:
    """The axis of the Softmax that is all a tensor goes into, directly or through additions and moves of the last axis.

    ``depth`` bounds the search; attention needs three steps (mask, Unsqueeze, Add, Softmax).
    """
    readers = list(value.consumers())
    if not readers or depth == 0 or value.is_graph_output():
        return None
    found: set[int | None] = set()
    for node in readers:
        if node.op_type == "Softmax":
            axis = node.attributes.get("axis")
            found.add(-1 if axis is None else axis.as_int())
        elif node.op_type in ("Add", "Unsqueeze", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear"):
            found.add(_softmax_axis(node.outputs[0], depth - 1))
        else:
            return None
    return found.pop() if len(found) == 1 else None


def _update(power: Power, wanted: NDArray[Any], found: NDArray[Any], axis: int | None) -> None:
    if wanted.shape != found.shape:
        power.shapes_differ = True
        return
    if axis is not None and -wanted.ndim <= axis < wanted.ndim and wanted.size:
        floor = wanted.max(axis=axis, keepdims=True) - _INVISIBLE
        wanted, found = np.maximum(wanted, floor), np.maximum(found, floor)
    power.update(wanted, found)


def _groups(pairs: Sequence[tuple[ir.Value, str]]) -> Iterator[list[tuple[str, str]]]:
    group: list[tuple[str, str]] = []
    size = 0
    for value, other in pairs:
        group.append((str(value.name), other))
        size += _bytes(value)
        if size > _CHUNK_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _bytes(value: ir.Value) -> int:
    if value.shape is None:
        return _UNKNOWN_BYTES
    known = 4
    for dimension in value.shape:
        known *= int(dimension) if isinstance(dimension, int) else 1
    return known if value.shape.is_static() else max(known, _UNKNOWN_BYTES)


def _layer(node: ir.Node, name: str, power: Power) -> LayerQuality:
    largest = None if power.broken else power.max_error
    return LayerQuality(name, str(node.name or name), node.op_type, power.sqnr(), largest)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
