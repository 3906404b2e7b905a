"""Parts of a report that hold figures; ``None`` means not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qcompiler.report.words import counts_text

__all__ = [
    "BisectPart",
    "CostPart",
    "CoveragePart",
    "FallbackPart",
    "FloatNodePart",
    "IntegerPart",
    "IntervalPart",
    "IslandPart",
    "LatencyPart",
    "LayerPart",
    "OperatorCostPart",
    "OperatorPart",
    "OutputPart",
    "QualityPart",
    "SizePart",
    "TimesPart",
    "TimingPart",
    "UnmeasuredPart",
]


@dataclass(frozen=True)
class OperatorPart:
    """Nodes and multiply-accumulates of one operator, on integers and in float."""

    op_type: str
    integer: int
    float: int
    integer_macs: int
    float_macs: int


@dataclass(frozen=True)
class FallbackPart:
    """A node that stayed float.

    Attributes:
        node: Its name.
        op_type: Its operator.
        reason: Why.
        macs: Its multiply-accumulates, symbolic dimensions counted as 1.
    """

    node: str
    op_type: str
    reason: str
    macs: int


@dataclass(frozen=True)
class CoveragePart:
    """What runs on integers on the target, by the compiler's decisions.

    Attributes:
        integer_nodes: Nodes on integers.
        float_nodes: Nodes left in float.
        share_nodes: Percentage of nodes on integers.
        share_macs: Percentage of multiply-accumulates on integers; ``None`` where there are none.
        fallback_share: What ``--max-fallback`` looks at: percentage of multiply-accumulates left in float, or of nodes
            where there are no multiply-accumulates.
        by_operator: One entry per operator, most work first.
        fallbacks: Every node left in float, in graph order.
        weights_only: Activations stay real numbers: what counts as integer has weights of few bits, no more.
        formats: How many nodes with weights of few bits have each format, the widest first.
    """

    integer_nodes: int
    float_nodes: int
    share_nodes: float
    share_macs: float | None
    fallback_share: float
    by_operator: tuple[OperatorPart, ...]
    fallbacks: tuple[FallbackPart, ...]
    weights_only: bool = False
    formats: Mapping[str, int] = field(default_factory=dict)

    @property
    def mixed(self) -> str:
        """``w8a8 3, w4a8 12`` where layers differ in format; empty where they do not."""
        return counts_text(self.formats) if len(self.formats) > 1 else ""


@dataclass(frozen=True)
class FloatNodePart:
    """A node that computes real numbers in a graph that was lowered to integers."""

    name: str
    op_type: str


@dataclass(frozen=True)
class IslandPart:
    """Connected float nodes between integers.

    Attributes:
        nodes: The nodes, in graph order.
        tensors: Float tensors that they read and write between the integers.
        reasons: Why they have no integer form.
    """

    nodes: tuple[FloatNodePart, ...]
    tensors: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class IntegerPart:
    """Whether the written graph is integer between its first codes and its last DequantizeLinear.

    Attributes:
        holds: Whether nothing inside is float and nothing divides.
        float_tensors: Float tensors inside: behind codes and before a QuantizeLinear.
        islands: The nodes that make them.
        before: Float nodes before the first codes.
        after: Float nodes behind the last DequantizeLinear.
        divisions: Nodes inside that divide integers.
        float_attributes: Float attributes of integer nodes inside.
        functions: What is float, or divides, in bodies of functions.
    """

    holds: bool
    float_tensors: int
    islands: tuple[IslandPart, ...]
    before: tuple[FloatNodePart, ...]
    after: tuple[FloatNodePart, ...]
    divisions: tuple[str, ...] = ()
    float_attributes: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputPart:
    """How close one output of the compiled model comes to the float model's.

    Attributes:
        name: The output.
        kind: ``classes``, ``vector`` or ``exact`` (integers, booleans, strings).
        samples: Samples measured on.
        rows: Rows along the class axis, over all samples.
        decided: Rows in which the float model has a clear largest entry.
        sqnr: Signal-to-quantization-noise ratio in dB over all elements; ±200 stands for equal and for useless.
        cosine: Mean over samples.
        cosine_min: The worst sample.
        kl: Kullback-Leibler divergence in nats, mean over rows; 100 is the ceiling.
        agreement: Percentage of rows with the same largest entry.
        top1: Percentage of labels that the compiled model meets.
        top1_float: Percentage of labels that the float model meets.
        max_abs_error: Largest absolute difference.
        exact: Percentage of equal elements, of kind ``exact`` only.
        custom: The plugin metric asked for.
        softened_kl: Mean of the divergence and of that at temperature 2, times 4: the unit of the predicted loss
            where formats are chosen; ``None`` elsewhere.
        faults: What makes the output useless whatever the figures say.
        notes: What to know about the figures.
    """

    name: str
    kind: str
    samples: int
    rows: int
    decided: int
    sqnr: float | None
    cosine: float | None
    cosine_min: float | None
    kl: float | None
    agreement: float | None
    top1: float | None
    top1_float: float | None
    max_abs_error: float | None
    exact: float | None
    custom: float | None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    softened_kl: float | None = None


@dataclass(frozen=True)
class LayerPart:
    """The error of one tensor inside the graph.

    Attributes:
        value: The tensor's name in the float model.
        node: The node that makes it.
        op_type: That node's operator.
        sqnr: Signal-to-quantization-noise ratio in dB of everything computed up to there.
        max_abs_error: Largest absolute difference.
    """

    value: str
    node: str
    op_type: str
    sqnr: float
    max_abs_error: float | None


@dataclass(frozen=True)
class QualityPart:
    """The compiled model, as it was written, against the float model.

    Attributes:
        metric: The metric asked for.
        unit: Its unit.
        higher_is_better: Its direction.
        value: Its value at the output where it is worst; ``None`` where no output has it.
        samples: Samples measured on; nothing was fitted on them.
        outputs: One entry per output.
        layers: One entry per measured tensor, in graph order.
        worst_layers: Names of the layers of least SQNR, worst first.
        layer_samples: Samples that the layers were measured on.
        notes: What to know about the figures.
    """

    metric: str
    unit: str
    higher_is_better: bool
    value: float | None
    samples: int
    outputs: tuple[OutputPart, ...]
    layers: tuple[LayerPart, ...] = ()
    worst_layers: tuple[str, ...] = ()
    layer_samples: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SizePart:
    """Sizes on disk in bytes, external data included; ``ratio`` is float over compiled."""

    float_bytes: int
    compiled_bytes: int
    ratio: float


@dataclass(frozen=True)
class BisectPart:
    """Quality after one pass (``--bisect``); ``figure`` is ``None`` where it was not a number."""

    text: str
    figure: float | None


@dataclass(frozen=True)
class UnmeasuredPart:
    """Something that was not measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class TimesPart:
    """Latency of one model in milliseconds."""

    median: float
    minimum: float
    rounds: int


@dataclass(frozen=True)
class IntervalPart:
    """A ratio of medians and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OperatorCostPart:
    """Predicted time of all nodes of one operator in one format.

    Attributes:
        operator: Operator, of convolutions also which sort: ``QConv/pointwise``.
        format: Bits of weights and activations.
        nodes: How many there are.
        milliseconds: Their sum.
    """

    operator: str
    format: str
    nodes: int
    milliseconds: float


@dataclass(frozen=True)
class CostPart:
    """Latency of the compiled model, predicted from a table of measured costs.

    Attributes:
        milliseconds: One run.
        threads: Threads of the run.
        isa: Instruction set of the kernels.
        cpu: Processor that the table was measured on.
        date: When it was.
        measured_share: Percentage of the predicted time whose very shapes were measured; the rest is fitted.
        widths: Milliseconds if all weights that can be packed had one width, by bits.
        fastest: The width of least time among them; ``None`` where there are none.
        operators: Where the time goes, most first.
        unknown: Operators and formats of which the table says nothing: they are in no figure, which is a lower bound.
    """

    milliseconds: float
    threads: int
    isa: str
    cpu: str
    date: str
    measured_share: float
    widths: Mapping[str, float] = field(default_factory=dict)
    fastest: str | None = None
    operators: tuple[OperatorCostPart, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class LatencyPart:
    """Both models, timed in turns on the compiling machine in ONNX Runtime.

    Attributes:
        float: The float model.
        quantized: The compiled model.
        speedup: Float over quantized; above 1 the compiled model is faster.
        threads: Threads of each run.
        slower: Whether the compiled model is slower.
        warning: What the user must be told if it is.
    """

    float: TimesPart
    quantized: TimesPart
    speedup: IntervalPart
    threads: int
    slower: bool
    warning: str | None = None


@dataclass(frozen=True)
class TimingPart:
    """Everything that differs from run to run.

    Attributes:
        seconds: Wall time of the compile.
        passes: Seconds of each pass, in the order of ``passes``.
        latency: Latency of both models; ``None`` where it was not measured.
        trials: Seconds of each trial of all passes, in order.
    """

    seconds: float = 0.0
    passes: tuple[float, ...] = ()
    latency: LatencyPart | None = None
    trials: tuple[float, ...] = ()
