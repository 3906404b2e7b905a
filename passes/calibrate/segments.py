"""Run a model piece by piece over a few samples at once, stopping after chosen nodes.

Sequential methods look at one layer after another, each with everything before it already changed. Running the whole
model again for every layer costs layers × samples; here each node runs once per sample. The graph is cut behind the
chosen nodes; what is alive at a cut (made before it, read after it) is kept for every sample. Memory is samples times
the live tensors of one cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.errors import ModelError
from qcompiler.ir.execute import Feed, session_options, to_light_proto

__all__ = ["Segment", "SegmentedRun", "cut"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes between two cuts.

    Attributes:
        nodes: Positions of its nodes in the graph's node list.
        inputs: Live values that it reads.
        outputs: Values of its own that are read behind it, and the stop's output.
        dead: Values that nobody reads behind it.
    """

    nodes: range
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...]


def cut(graph: onnx.GraphProto, stops: Sequence[str]) -> list[Segment]:
    """Cut a topologically sorted graph behind the producers of the values ``stops``.

    Returns:
        One segment per stop, in graph order; nodes behind the last stop belong to none.
    """
    wanted = set(stops)
    constants = {tensor.name for tensor in graph.initializer}
    last_use: dict[str, int] = {}
    made: dict[str, int] = {value.name: -1 for value in graph.input}
    ends: list[int] = []
    for position, node in enumerate(graph.node):
        for name in _reads(node):
            last_use[name] = position
        made.update((name, position) for name in node.output)
        if wanted.intersection(node.output):
            ends.append(position)
    segments = []
    start = 0
    for end in ends:
        nodes = range(start, end + 1)
        read = {name for position in nodes for name in _reads(graph.node[position])} - constants
        own = {name for position in nodes for name in graph.node[position].output if name}
        outputs = [name for name in own if last_use.get(name, -1) > end or name in wanted]
        dead = [name for name in (read | own) if last_use.get(name, -1) <= end and name not in wanted]
        inputs = [name for name in read if name in made and name not in own]
        segments.append(Segment(nodes, tuple(sorted(inputs)), tuple(sorted(outputs)), tuple(sorted(dead))))
        start = end + 1
    return segments


@dataclass(slots=True)
class SegmentedRun:
    """A model run over samples, segment by segment.

    Attributes:
        proto: The model without large weights.
        arrays: Those weights.
        samples: One feed per sample; each grows by the live tensors.
    """

    proto: onnx.ModelProto
    arrays: dict[str, NDArray[Any]]
    samples: list[Feed]
    _small: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ir.Model, samples: Sequence[Mapping[str, NDArray[Any]]]) -> SegmentedRun:
        """Prepare a run of ``model``; its nodes must be in topological order."""
        proto, arrays = to_light_proto(model)
        run = cls(proto, arrays, [dict(sample) for sample in samples])
        run._small = {tensor.name: tensor for tensor in proto.graph.initializer}
        return run

    def advance(self, stops: Sequence[str]) -> Iterator[str]:
        """Run up to each stop in turn and yield its name; its tensors may then be changed in ``samples``."""
        for segment in cut(self.proto.graph, stops):
            self._run(segment)
            yield next(name for name in segment.outputs if name in set(stops))

    def _run(self, segment: Segment) -> None:
        import onnxruntime

        model, names = self._extract(segment)
        options = session_options()
        bound = {name: onnxruntime.OrtValue.ortvalue_from_numpy(self.arrays[name]) for name in names}
        if bound:
            options.add_external_initializers(list(bound), list(bound.values()))
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["WeightBiasQuantization"],
            )
        except Exception as error:  # ONNX Runtime raises many unrelated types
            raise ModelError(f"ONNX Runtime cannot run a part of the model: {error}") from error
        for sample in self.samples:
            results = session.run(list(segment.outputs), {name: sample[name] for name in segment.inputs})
            for name in segment.dead:
                sample.pop(name, None)
            sample.update(zip(segment.outputs, results, strict=True))

    def _extract(self, segment: Segment) -> tuple[onnx.ModelProto, list[str]]:
        """The segment as a model, and the weights to bind to it."""
        nodes = [self.proto.graph.node[position] for position in segment.nodes]
        used = {name for node in nodes for name in _reads(node)}
        model = onnx.ModelProto(ir_version=self.proto.ir_version)
        model.opset_import.extend(self.proto.opset_import)
        model.functions.extend(self.proto.functions)
        model.graph.name = "segment"
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(self._small[name] for name in sorted(used) if name in self._small)
        for name in segment.inputs:
            array = self.samples[0][name]
            # Every axis may differ between samples.
            model.graph.input.append(_value_info(name, array))
        for name in segment.outputs:
            model.graph.output.add(name=name)
        return model, sorted(used.intersection(self.arrays))


def _value_info(name: str, array: NDArray[Any]) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
    return onnx.helper.make_tensor_value_info(name, kind, [f"{name}_{axis}" for axis in range(array.ndim)])


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, captures of its subgraphs included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {name for inner in graph.node for name in inner.output}
            names.update(name for inner in graph.node for name in _reads(inner) if name not in own)
    return names
