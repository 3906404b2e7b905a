"""Run a model piece by piece, so that memory is bounded by a piece and not by the model.

A topologically sorted graph is cut behind chosen nodes. What is alive at a cut (made before it, read after it) is
carried over; a piece becomes a small model with a session of its own. Two uses:

* a model with gigabytes of weights is cut where enough weights have come together (``weight_cuts``), and each piece's
  weights are mapped, used and dropped before the next;
* sequential methods stop behind one layer after another (``SegmentedRun``): the samples' live tensors wait at the
  cut, may be changed there, and every node still runs only once per sample.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import ModelError, first_line

__all__ = [
    "Part",
    "PartRunner",
    "SegmentedRun",
    "cut",
    "live_bytes",
    "open_session",
    "reads",
    "weight_cuts",
    "working_bytes",
]

_Arrays: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes between two cuts.

    Attributes:
        nodes: Positions of its nodes in the graph's node list.
        inputs: Live values that it reads.
        outputs: Values of its own that are read behind it or wanted by the caller.
        dead: Values that nobody needs behind it.
    """

    nodes: range
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...]


def cut(graph: onnx.GraphProto, ends: Sequence[int], wanted: set[str]) -> list[Part]:
    """Cut a topologically sorted graph behind the nodes at positions ``ends`` (ascending).

    Args:
        graph: The graph.
        ends: Where parts end; nodes behind the last end belong to none.
        wanted: Values to keep although nothing reads them later.
    """
    made = {value.name for value in graph.input} | {name for node in graph.node for name in node.output if name}
    last_use = {name: position for position, node in enumerate(graph.node) for name in reads(node)}
    parts: list[Part] = []
    start = 0
    for end in ends:
        nodes = range(start, end + 1)
        own = {name for position in nodes for name in graph.node[position].output if name}
        read = {name for position in nodes for name in reads(graph.node[position])} & made
        needed = {name for name in own | read if last_use.get(name, -1) > end or name in wanted}
        parts.append(
            Part(nodes, tuple(sorted(read - own)), tuple(sorted(own & needed)), tuple(sorted((own | read) - needed)))
        )
        start = end + 1
    return parts


def working_bytes(tensor: ir.TensorProtocol) -> int:
    """Bytes of a weight while it works: stored codes are dequantized to float32 where no kernel takes them."""
    return max(tensor.nbytes, tensor.size * 4)


def weight_cuts(graph: onnx.GraphProto, weights: Mapping[str, ir.TensorProtocol], limit: int) -> list[int]:
    """Ends of parts whose weights stay under ``limit`` bytes, except where one node alone needs more."""
    ends: list[int] = []
    held: dict[str, int] = {}
    for position, node in enumerate(graph.node):
        new = {name: working_bytes(weights[name]) for name in reads(node) if name in weights and name not in held}
        if held and sum(held.values()) + sum(new.values()) > limit:
            ends.append(position - 1)
            held = {}
        held |= new
    return [*ends, len(graph.node) - 1]


def extract(proto: onnx.ModelProto, part: Part, values: Mapping[str, NDArray[Any]]) -> tuple[onnx.ModelProto, set[str]]:
    """One part as a model; every axis of its inputs may vary.

    Args:
        proto: The whole model; large initializers are declared external.
        part: The part.
        values: An example of every live value, for types and ranks.

    Returns:
        The model, and the names of all initializers it has.
    """
    nodes = [proto.graph.node[position] for position in part.nodes]
    used = {name for node in nodes for name in reads(node)}
    model = onnx.ModelProto(ir_version=proto.ir_version)
    model.opset_import.extend(proto.opset_import)
    model.functions.extend(proto.functions)
    model.graph.name = "part"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in used)
    for name in part.inputs:
        array = values[name]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
        shape = [f"{name}_{axis}" for axis in range(array.ndim)]
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    for name in part.outputs:
        model.graph.output.add(name=name)
    return model, {tensor.name for tensor in model.graph.initializer}


def open_session(source: bytes | str, arrays: _Arrays, options: Any) -> Any:
    """A session that reads ``arrays`` in place of external initializers, without copying them.

    ``WeightBiasQuantization`` is disabled: that level-1 optimizer turns the float weights of ``DQ → Conv → Q`` into
    int8 per tensor, so a simulation would measure ONNX Runtime's damage, not the candidate's.

    Raises:
        ModelError: ONNX Runtime refuses the model; its first line says on which node.
    """
    import onnxruntime

    bound = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    if bound:
        options.add_external_initializers(list(bound), list(bound.values()))
    try:
        return onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
        )
    except Exception as error:  # ONNX Runtime raises many unrelated types
        raise ModelError(f"ONNX Runtime cannot load the model: {first_line(error)}") from error


@dataclass(slots=True)
class PartRunner:
    """Runs parts of one model.

    Attributes:
        proto: The model without large weights.
        weights: Those weights, read only when a part needs them.
        options: Makes session options.
        release: Called behind each part: lets go of mapped weights.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, ir.TensorProtocol]
    options: Any
    release: Callable[[], None] = lambda: None

    def run(self, part: Part, samples: Sequence[_Arrays]) -> None:
        """Run one part over every sample; each sample then holds what is alive behind it."""
        if not part.outputs:  # a tail that nobody asked for
            return
        model, constants = extract(self.proto, part, samples[0])
        arrays = {
            name: np.ascontiguousarray(self.weights[name].numpy()) for name in sorted(constants) if name in self.weights
        }
        options = self.options()
        # An output array of a few bytes would keep a whole arena of the closed session alive.
        options.enable_cpu_mem_arena = False
        session = open_session(model.SerializeToString(), arrays, options)
        for sample in samples:
            try:
                results = session.run(list(part.outputs), {name: sample[name] for name in part.inputs})
            except Exception as error:
                raise ModelError(f"ONNX Runtime failed while running the model: {first_line(error)}") from error
            for name in part.dead:
                sample.pop(name, None)
            sample.update(zip(part.outputs, results, strict=True))
        del session, arrays
        self.release()


@dataclass(slots=True)
class SegmentedRun:
    """A model run over samples, with stops.

    Attributes:
        runner: Runs the pieces.
        samples: One dictionary per sample: its feed, then whatever is alive at the present stop.
    """

    runner: PartRunner
    samples: list[_Arrays]

    @classmethod
    def of(cls, model: ir.Model, samples: Sequence[Mapping[str, NDArray[Any]]], threads: int = 0) -> SegmentedRun:
        """Prepare a run of ``model`` with so many threads (0: all); its nodes must be in topological order."""
        from qcompiler.ir.execute import light_proto, session_options

        proto, weights = light_proto(model)
        options = functools.partial(session_options, threads=threads)
        return cls(PartRunner(proto, weights, options), [dict(sample) for sample in samples])

    def replace(self, name: str, array: NDArray[np.float32]) -> None:
        """Give a constant another content before the piece that reads it.

        Raises:
            ValueError: There is no such constant.
        """
        if name in self.runner.weights:
            self.runner.weights = {**self.runner.weights, name: ir.Tensor(array)}
            return
        found = next((tensor for tensor in self.runner.proto.graph.initializer if tensor.name == name), None)
        if found is None:
            raise ValueError(f"the model has no constant '{name}'")
        found.CopyFrom(onnx.numpy_helper.from_array(array, name))

    def advance(self, stops: Sequence[str]) -> Iterator[str]:
        """Run up to each value of ``stops`` (graph order) in turn and yield it; ``samples`` may then be changed."""
        graph = self.runner.proto.graph
        position = {name: index for index, node in enumerate(graph.node) for name in node.output}
        last_use = {name: index for index, node in enumerate(graph.node) for name in reads(node)}
        for part, stop in zip(cut(graph, [position[stop] for stop in stops], set(stops)), stops, strict=True):
            self.runner.run(part, self.samples)
            self._drop([name for name in stops if name != stop], last_use, part)
            yield stop
            self._drop([stop], last_use, part)

    def _drop(self, names: Sequence[str], last_use: Mapping[str, int], part: Part) -> None:
        """Forget stops that nothing behind ``part`` reads."""
        for name in names:
            if last_use.get(name, -1) < part.nodes.stop:
                for sample in self.samples:
                    sample.pop(name, None)


def live_bytes(values: Iterable[ir.Value | None]) -> int:
    """About what one sample holds at the widest of these cuts in two models that run side by side.

    The largest tensor of 4-byte elements, twice for what it is made from; those of unknown size count as nothing.
    """
    sizes = [0]
    for value in values:
        known = [] if value is None or value.shape is None else [item for item in value.shape if isinstance(item, int)]
        sizes.append(math.prod(known) * 4)
    return 4 * max(sizes)


def reads(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, captures of its subgraphs included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {name for inner in graph.node for name in inner.output}
            names.update(name for inner in graph.node for name in reads(inner) if name not in own)
    return names
