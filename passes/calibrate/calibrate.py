"""calibrate: give every activation scale and zero point, from what it does on the calibration samples.

The model runs once over the samples; an observer sees every value that a decision without parameters concerns: the
value's own, or that of an edge which reads it in another format. Values tied together are observed together.
Rows count by their weights (``qcompiler.calibration.row_weights``; padding weighs 0), additive attention masks do not
count (``qcompiler.calibration.masks``).
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from qcompiler.calibration import masks, observers, row_weights
from qcompiler.calibration.observers import Observer, Range
from qcompiler.errors import DataError, PassError
from qcompiler.ir.constants import is_constant
from qcompiler.passes.calibrate.range_statistics import Extent, extents, range_of
from qcompiler.passes.calibrate.scales import scales_for
from qcompiler.pipeline.base import Context, Fact, Pass
from qcompiler.quant import state
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.state import TensorQuant

__all__ = ["Calibrate", "Wish", "wishes"]


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A decision on a value or on one edge that reads it.

    Attributes:
        value: The tensor whose range decides.
        quant: The decision.
        edge: The consumer and its input, where the decision is the edge's own.
    """

    value: ir.Value
    quant: TensorQuant
    edge: tuple[ir.Node, int] | None = None

    @property
    def axis(self) -> int | None:
        """Axis along which scales vary."""
        return self.quant.format.axis

    def grant(self, quant: TensorQuant) -> None:
        """Write the completed decision back."""
        if self.edge is None:
            state.set_value_quant(self.value, quant)
        else:
            state.set_edge_quant(*self.edge, quant)


def wishes(graph: ir.Graph) -> Iterator[Wish]:
    """Every decision in the graph, on values and on edges."""
    for value, quant in state.quantized_values(graph):
        yield Wish(value, quant)
    for node in graph:
        for index, data in enumerate(node.inputs):
            own = state.own_edge_quant(node, index)
            if data is not None and isinstance(own, TensorQuant):
                yield Wish(data, own, (node, index))


@dataclass(frozen=True)
class Calibrate(Pass):
    """Find ranges of activations on the calibration samples.

    Attributes:
        method: How a range follows from what was observed. ``auto`` is ``minmax``, and ``mse`` for codes of less than 8
            bits and for scales that must be powers of two: the one that covers everything may be twice as coarse as
            needed. From 8 bits on, what becomes real numbers again is covered with such scales too: of results the
            largest matter most. ``statistics`` is ``auto``, but where all is to be covered, ranges reach as far as the
            statistics of BatchNormalization say (``range_statistics``); so does ``auto`` where samples were made up.
            Noise tells nothing: of what the statistics know it is not asked.
        bins: Resolution of histograms: bins on each side of zero, a power of two.
        percentile: Share of the elements that ``percentile`` keeps.
        momentum: Weight of the past in ``moving-average``.
        deviations: How many standard deviations ``statistics`` reaches; of 3, 4, 5, 6 and 8 resnet20 got divergences of
            0.0047, 0.0039, 0.0038, 0.0040 and 0.0062. Results in 16 bits and ranges that a Clip bounds do not mind.
    """

    name: ClassVar[str] = "calibrate"
    before: ClassVar[frozenset[Fact]] = frozenset({Fact.QDQ})
    requires: ClassVar[frozenset[Fact]] = frozenset({Fact.FORMATS})

    method: Literal["auto", "minmax", "moving-average", "percentile", "mse", "entropy", "statistics"] = "auto"
    bins: int = 2048
    percentile: float = 99.99
    momentum: float = 0.9
    deviations: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.deviations < math.inf:
            raise ValueError(f"deviations={self.deviations:g} is no finite number above 0")

    def run(self, model: ir.Model, ctx: Context) -> None:
        """Complete the decisions on activations."""
        groups = _groups(model.graph)
        values = {str(wish.value.name): wish for group in groups for wish in group if not is_constant(wish.value)}
        if not groups:
            return
        _refuse_open_grids(groups)
        results = {wish.value for group in groups if any(_becomes_real(wish) for wish in group) for wish in group}
        narrow = {wish.value for group in groups for wish in group if wish.quant.format.bits < BYTE}
        methods = {
            name: self._method(wish, result=wish.value in results, narrow=wish.value in narrow)
            for name, wish in values.items()
        }
        watchers = {name: self._observer(wish, methods[name]) for name, wish in values.items()}
        if watchers:
            _observe(model, watchers, ctx)
        known = self._known(model.graph, groups, methods, watchers, ctx)
        for group in groups:
            _complete(group, watchers, known, ctx)
        _report(watchers, methods.values(), ctx)

    def _known(
        self,
        graph: ir.Graph,
        groups: list[list[Wish]],
        methods: dict[str, str],
        watchers: dict[str, Observer],
        ctx: Context,
    ) -> dict[ir.Value, Extent]:
        """What statistics tell of the tensors that are watched, where it is asked for or the samples were made up."""
        made = None if ctx.calibration is None else ctx.calibration.made
        if self.method != "statistics" and (self.method != "auto" or made is None):
            return {}
        found = {value: own for value, own in extents(graph, self.deviations).items() if value.name in watchers}
        only = made is not None and made.noise
        along = {wish.value for group in groups for wish in group if wish.axis not in (None, 1)}
        cut = {name for name, method in methods.items() if method != "minmax" and not only}
        known = {value: own for value, own in found.items() if value not in along and value.name not in cut}
        how = "follow from" if only else "reach at least as far as"
        if known or self.method == "statistics":
            statistics = f"{self.deviations:g} deviations by BatchNormalization statistics"
            ctx.note(f"ranges of {len(known)} tensors {how} {statistics}")
        for value in known if only else ():
            del watchers[str(value.name)]
        return known

    def _method(self, wish: Wish, *, result: bool, narrow: bool) -> str:
        if self.method not in ("auto", "statistics"):
            return self.method
        if wish.quant.format.power_of_two and not result:
            return "mse"
        return "narrow-mse" if narrow else "minmax"

    def _plain(self, form: QFormat, method: str) -> Observer:
        return observers.make(
            method, axis=form.axis, bins=self.bins, percentile=self.percentile, momentum=self.momentum
        )

    def _observer(self, wish: Wish, method: str) -> Observer:
        if wish.quant.format.block is not None:
            raise PassError(
                f"activation '{wish.value.name}' has a blocked format ({wish.quant.format})",
                where=self.name,
                hint="blocks are for weights",
            )
        info = wish.value.meta.get("qcompiler.mask")
        if info is None or wish.axis is not None:
            return self._plain(wish.quant.format, method)
        return masks.MaskedObserver(
            self._plain(wish.quant.format, method), float(info.constant), operand=info.role == "operand"
        )


def _refuse_open_grids(groups: list[list[Wish]]) -> None:
    """A range says nothing about a grid."""
    for wish in (wish for group in groups for wish in group):
        if wish.quant.format.logarithmic and wish.quant.params is None:
            raise PassError(
                f"'{wish.value.name}' has the format {wish.quant.format} and no grid",
                where=Calibrate.name,
                hint="choose-log-formats finds one, in front of calibrate; or give a grid in the plan",
            )


def _becomes_real(wish: Wish) -> bool:
    """Whether real numbers are made of the tensor: it is a result, or a node that stays float reads it."""
    value = wish.value
    floating = any(state.own_edge_quant(use.node, use.idx) is state.FLOAT for use in value.uses())
    return wish.edge is None and not value.is_graph_input() and (value.is_graph_output() or floating)


def _report(watchers: dict[str, Observer], methods: Iterable[str], ctx: Context) -> None:
    scores = (n for n, item in watchers.items() if isinstance(item, masks.MaskedObserver) and not item.operand)
    masked = list(scores)
    if masked:
        ctx.note(
            f"attention mask constants left out of the range of {_listing(masked)}; "
            f"masked positions saturate {masks.MARGIN:g} below the least score (probability under 1e-6)"
        )
    samples = len(ctx.calibration) if ctx.calibration is not None else 0
    ctx.note(f"{' and '.join(sorted(set(methods)))} ranges of {len(watchers)} tensors from {samples} samples")


def _listing(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _groups(graph: ir.Graph) -> list[list[Wish]]:
    """Decisions to complete: tied ones together, constants only where tied to something computed."""
    tied: dict[str, list[Wish]] = defaultdict(list)
    single: list[list[Wish]] = []
    for wish in wishes(graph):
        if wish.quant.tie is not None:
            tied[wish.quant.tie].append(wish)
        elif wish.quant.params is None and not is_constant(wish.value):
            single.append([wish])
    return single + [group for group in tied.values() if _open(group)]


def _open(group: list[Wish]) -> bool:
    """Whether a tie group lacks parameters and holds something that only samples can tell about."""
    return any(wish.quant.params is None for wish in group) and not all(is_constant(wish.value) for wish in group)


def _observe(model: ir.Model, watchers: dict[str, Observer], ctx: Context) -> None:
    from qcompiler.calibration import engine

    dataset = ctx.calibration
    if dataset is None:
        raise DataError(
            "ranges of activations need calibration samples",
            hint="give --calibration DATA (an .npz file or a folder), or --calibration random to try the compiler out",
        )
    weights = row_weights.of(dataset, model.graph)
    if weights is not None and weights.mask is not None:
        ctx.note(f"padding rows (input '{weights.mask}' = 0) weigh nothing")
    for note in dataset.notes:
        ctx.note(f"calibration data: {note}")
    engine.collect(model, dataset, watchers, ctx=ctx, row_weights=weights)


def _complete(
    group: list[Wish], watchers: dict[str, Observer], known: dict[ir.Value, Extent], ctx: Context
) -> None:
    """Give every decision of a group the parameters of the group's common range."""
    given = next((wish.quant for wish in group if wish.quant.params is not None), None)
    ranges: dict[QFormat, Range] = {}
    for wish in group:
        if wish.quant.params is not None:
            continue
        form = wish.quant.format
        if given is not None and given.format == form and given.params is not None:
            wish.grant(wish.quant.with_params(given.params))
            continue
        if form not in ranges:
            ranges[form] = _common_range(group, watchers, known, form)
        low, high = ranges[form]
        wish.grant(wish.quant.with_params(scales_for(low, high, form, ctx.target)))
        ctx.edit.count += 1


def _common_range(
    group: list[Wish], watchers: dict[str, Observer], known: dict[ir.Value, Extent], form: QFormat
) -> Range:
    """The range of all values of a group together, from samples and from statistics."""
    told = (range_of(known[wish.value], form.axis) for wish in group if wish.value in known)
    ranges: list[Range] = [item for item in told if item is not None]
    names = dict.fromkeys(name for wish in group if (name := str(wish.value.name)) in watchers)
    kinds = {type(watchers[name]) for name in names}
    if len(names) > 1 and len(kinds) == 1 and masks.MaskedObserver not in kinds:
        first, *others = (watchers[name] for name in names)
        merged = copy.deepcopy(first)
        for other in others:
            merged.merge(other)
        ranges.append(merged.range(form))
    else:
        ranges += [watchers[name].range(form) for name in names]
    ranges += [_constant_range(wish.value, form) for wish in group if is_constant(wish.value)]
    return np.minimum.reduce([low for low, _ in ranges]), np.maximum.reduce([high for _, high in ranges])


def _constant_range(value: ir.Value, form: QFormat) -> Range:
    if value.const_value is None:
        raise PassError("has no content", where=f"constant '{value.name}'")
    observer = observers.MinMax(form.axis)
    observer.update(np.asarray(value.const_value.numpy(), np.float32))
    return observer.range(form)
