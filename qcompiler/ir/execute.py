"""Run an in-memory model in ONNX Runtime without copying its weights.

The graph is turned into a small protobuf whose large initializers are declared external; their bytes are handed to
the session as they lie in memory (or in the memory-mapped file). So a session costs the graph plus what ONNX
Runtime itself prepares, whatever the size of the weights.

Every session made here disables ``WeightBiasQuantization``: that level-1 optimizer turns the float weights of
``DQ → Conv → Q`` into int8 per tensor, so a simulation would measure ONNX Runtime's damage, not the candidate's.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from qcompiler.errors import ModelError, first_line
from qcompiler.ir.parts import PartRunner, cut, open_session, weight_cuts, working_bytes
from qcompiler.ir.uses import is_used

__all__ = ["PART_BYTES", "Feed", "Runner", "light_proto", "session_options", "to_light_proto"]

PART_BYTES: Final = 256 << 20
"""A model with more weights than this runs piece by piece."""

STREAM_BYTES: Final = 64 << 20
"""Outputs that a model run piece by piece holds at a time."""

Feed: TypeAlias = dict[str, NDArray[Any]]

_INLINE_BYTES = 1024
"""Initializers up to this size stay in the protobuf: shape operands must be visible to shape inference."""


class Runner:
    """A session on an in-memory or stored model.

    Args:
        model: An ``ir.Model`` or the path of a model file.
        outputs: Names of tensors to return; by default the graph's outputs. Any intermediate value will do.
        threads: Intra-operator threads; 0 takes all processors.
        optimize: Whether ONNX Runtime may optimize the graph.
        layout: Whether it may reorder weights and tensors into its blocked layout. With many intermediate outputs,
            each of which must be put back in order, that gains no time and holds the weights twice.
        pack: Whether it may copy weights into the order its kernels like; not worth it for a few runs.
        reuse: Whether a tensor may take the buffer of one that is done with. In graphs of our functions ONNX Runtime
            1.32 was seen to give buffers of 4 numbers to tensors of 8, and to fail.
    """

    def __init__(
        self,
        model: ir.Model | str | Path,
        outputs: Sequence[str] | None = None,
        *,
        threads: int = 0,
        optimize: bool = True,
        layout: bool = True,
        pack: bool = True,
        reuse: bool = True,
    ) -> None:
        options = functools.partial(
            session_options, threads=threads, optimize=optimize, layout=layout, pack=pack, reuse=reuse
        )
        if not isinstance(model, ir.Model) and _weight_bytes(Path(model)) > PART_BYTES:
            from qcompiler.ir import io

            model = io.load(model)
        if isinstance(model, ir.Model):
            self._open(model, outputs, options)
        else:
            self._session: Any = open_session(str(model), {}, options())
            self._describe(outputs)

    def _open(self, model: ir.Model, outputs: Sequence[str] | None, options: Callable[..., Any]) -> None:
        from qcompiler.ir import io

        proto, weights = light_proto(model, outputs)
        if sum(working_bytes(tensor) for tensor in weights.values()) <= PART_BYTES:
            # The session reads the arrays in place: keep them alive.
            self._arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in weights.items()}
            self._session = open_session(proto.SerializeToString(), self._arrays, options())
            self._describe(outputs)
            return
        self._session = None
        self._parts = PartRunner(
            proto, weights, functools.partial(options, pack=False), functools.partial(io.release, model)
        )
        self._declare(
            {v.name: (_type_text(v), _shape(v)) for v in proto.graph.input}, [v.name for v in proto.graph.output]
        )
        self._cuts = cut(proto.graph, weight_cuts(proto.graph, weights, PART_BYTES), set(self.outputs))

    def _describe(self, outputs: Sequence[str] | None) -> None:
        inputs = {item.name: (item.type, list(item.shape)) for item in self._session.get_inputs()}
        self._declare(inputs, list(outputs) if outputs is not None else [o.name for o in self._session.get_outputs()])

    def _declare(self, inputs: dict[str, tuple[str, list[int | str | None]]], outputs: list[str]) -> None:
        self.inputs = inputs
        self.outputs = outputs

    def run(self, feed: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Run one feed and return the outputs by name: all, or only those in ``outputs``.

        Raises:
            ModelError: ONNX Runtime failed; the text says on which node.
        """
        names = self.outputs if outputs is None else list(outputs)
        if self._session is None:
            sample = dict(feed)
            for part in self._cuts:
                self._parts.run(part, [sample])
            return {name: sample[name] for name in names}
        return self._run_whole(feed, names)

    def stream(self, feeds: Iterable[Feed]) -> Iterator[tuple[Feed, Feed]]:
        """Run many feeds; each comes back with its outputs, in order.

        A model that runs piece by piece takes several feeds through each piece, as many as fit ``STREAM_BYTES`` of
        outputs, because opening a piece costs more than running it.
        """
        together = 1
        source = iter(feeds)
        while chunk := list(itertools.islice(source, together)):
            if self._session is not None:
                results = [self._run_whole(feed, self.outputs) for feed in chunk]
            else:
                samples = [dict(feed) for feed in chunk]
                for part in self._cuts:
                    self._parts.run(part, samples)
                results = [{name: sample[name] for name in self.outputs} for sample in samples]
                size = sum(array.nbytes for array in results[0].values())
                together = max(1, min(64, STREAM_BYTES // max(size, 1)))
            yield from zip(chunk, results, strict=True)

    def _run_whole(self, feed: Mapping[str, NDArray[Any]], names: list[str]) -> dict[str, NDArray[Any]]:
        try:
            results = self._session.run(names, dict(feed))
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed while running the model: {first_line(error)}") from error
        return dict(zip(names, results, strict=True))


def session_options(
    *, threads: int = 0, optimize: bool = True, layout: bool = True, pack: bool = True, reuse: bool = True
) -> Any:
    """Session options for deterministic, quiet runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Left to itself, ONNX Runtime pins threads to cores and spins: the same time for a tenth more work.
    options.intra_op_num_threads = threads or _processors()
    options.use_deterministic_compute = True
    options.enable_mem_reuse = reuse
    # A product with weights of few bits becomes MatMulNBits, which by default rounds its real operand to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not pack:  # a session that runs a few times only: packing weights would copy them
        options.add_session_config_entry("session.disable_prepacking", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif not layout:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        # Such runs alternate with work of our own, during which waiting threads must not burn the processor.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_light_proto(
    model: ir.Model, outputs: Iterable[str] | None = None
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model as a protobuf without its large weights, and those weights by name.

    Args:
        model: The model; it is not changed.
        outputs: Values that become the graph outputs instead of the model's own.

    Returns:
        The protobuf, whose large initializers are marked external, and the arrays to bind to them.
    """
    proto, weights = light_proto(model, outputs)
    return proto, {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in weights.items()}


def light_proto(
    model: ir.Model, outputs: Iterable[str] | None = None
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Like ``to_light_proto``, but the weights are not read: a lazy tensor stays lazy."""
    large: list[tuple[ir.Value, ir.TensorProtocol]] = []
    names = None if outputs is None else list(outputs)
    wanted = set(names or ())
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if value.is_graph_output() or value.name in wanted:
            continue  # a constant result stays in the protobuf
        if tensor is not None and tensor.nbytes > _INLINE_BYTES and tensor.dtype.name.lower() in _ORT_NAMES:
            large.append((value, tensor))
    try:
        for value, tensor in large:
            shape = tensor.shape if isinstance(tensor.shape, ir.Shape) else ir.Shape(tensor.shape.numpy())
            value.const_value = ir.ExternalTensor(
                "weights", 0, tensor.nbytes, tensor.dtype, shape=shape, name=str(value.name)
            )
        proto = ir.to_proto(model)
    finally:
        for value, tensor in large:
            value.const_value = tensor
    if names is not None:
        _set_outputs(proto, model, names)
    # ONNX Runtime drops an initializer that nothing reads before it could be bound.
    idle = {str(value.name) for value, _ in large if not is_used(value)}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in idle]
    if idle:
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
    return proto, {str(value.name): tensor for value, tensor in large if value.name not in idle}


_ORT_NAMES = frozenset(
    {"float", "double", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"}
)


def _set_outputs(proto: onnx.ModelProto, model: ir.Model, names: list[str]) -> None:
    """Make ``names`` the graph outputs of ``proto``; ONNX Runtime infers missing types itself."""
    known = {value.name: value for node in model.graph for value in node.outputs}
    known |= {value.name: value for value in (*model.graph.inputs, *model.graph.initializers.values())}
    del proto.graph.output[:]
    for name in names:
        value = known.get(name)
        if value is None:
            raise ModelError(f"no tensor named '{name}'", where=model.graph.name)
        item = proto.graph.output.add(name=name)
        if value.type is not None:
            item.type.tensor_type.elem_type = int(value.type.dtype)


def _type_text(value: onnx.ValueInfoProto) -> str:
    name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"tensor({name})"


def _shape(value: onnx.ValueInfoProto) -> list[int | str | None]:
    dimensions = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dimensions]


def _weight_bytes(path: Path) -> int:
    """Bytes of a model file and of the external data that it names; a large file is not read for that."""
    size = path.stat().st_size if path.is_file() else 0
    if not size or size > PART_BYTES:
        return size
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, ValueError):  # not a model: the session says so better
        return size
    entries = [item for tensor in graph.initializer for item in tensor.external_data if item.key == "length"]
    return size + sum(int(item.value) for item in entries if item.value.isdigit())
