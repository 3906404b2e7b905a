"""What quantization costs a region: the error of what its readers give, at the formats asked for.

For a matrix product ``X W`` whose channels are shifted by ``z`` and divided by ``s``, the tensors that are rounded are
``(X - z) / s`` with one scale and ``s W`` with the scales of its format. The loss is the mean square of
``Q((X - z) / s) Q(s W) - (X - z) W`` over that of ``X W``, summed over products. Scores of attention lose
``Q(Q / s) Q(s K) - Q K``, less what is common to all keys of a query, which Softmax takes away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.passes.calibrate.calibrate_weights import in_groups
from qcompiler.passes.calibrate.clip_search import squared_error
from qcompiler.passes.calibrate.scales import scales_for
from qcompiler.passes.equalize._channels import Meeting, Reader
from qcompiler.passes.equalize._layout import Layout
from qcompiler.passes.equalize._producers import Linear
from qcompiler.passes.equalize._regions import Region, Rows
from qcompiler.quant import arithmetic
from qcompiler.quant.format import BYTE, QFormat
from qcompiler.quant.params import QParams, params_from_range
from qcompiler.target.formats import FormatRequest, activation_format, weight_format, weight_only_format
from qcompiler.target.rules import rule_for
from qcompiler.target.schema import Target

__all__ = ["Formats", "Loss"]

_SHRINKING: Final = (0.85, 0.7)
"""Shares of a range that are tried where clipping may pay."""
_ELEMENTS: Final = 1 << 16
"""Elements by which the range of a tensor is judged."""
_AVERAGED: Final = 0.5
"""Share of the noise of values that attention leaves: as if every query looked at two tokens."""
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Formats:
    """Formats of a target.

    Attributes:
        target: The profile; ``None`` means signed 8 bits, weights per channel.
        request: The format asked for.
    """

    target: Target | None
    request: FormatRequest | None

    @property
    def weight_only(self) -> bool:
        """Whether activations stay real numbers."""
        return self.request is not None and self.request.weight_only

    def activation(self, node: ir.Node, index: int) -> QFormat | None:
        """The format in which an input is read; ``None`` for real numbers."""
        if self.target is None or self.request is None:
            return QFormat(8)
        rule = rule_for(self.target, node)
        if rule is None or self.request.weight_only:
            return None
        return activation_format(rule, self.request, rule.activation_formats(index)).format

    def weight(self, node: ir.Node) -> QFormat | None:
        """The format of a weight; ``None`` where it stays float."""
        if self.target is None or self.request is None:
            return QFormat(8, symmetric=True, narrow=True).along(1 if node.op_type == "MatMul" else 0)
        rule = rule_for(self.target, node)
        if rule is None or not (rule.weight_only if self.request.weight_only else rule.weights):
            return None
        choose = weight_only_format if self.request.weight_only else weight_format
        return choose(rule, self.request).on(node)


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """Judges factors and shifts of one region.

    Attributes:
        region: The region.
        rows: Samples of its tensors.
        formats: What they are rounded to.
        references: What does not change from candidate to candidate, once it was needed.
    """

    region: Region
    rows: Mapping[ir.Value, Rows]
    formats: Formats
    references: dict[Reader, tuple[_Floats, _Floats, _Floats]] = field(default_factory=dict)

    def of(self, factors: _Floats, shifts: _Floats) -> float:
        """The loss on the samples that judge.

        Args:
            factors: Divisor of each label of the graph.
            shifts: Shift of each label of the graph.
        """
        total = sum(self._product(reader, factors, shifts) for reader in self.region.readers)
        total += sum(self._scores(meeting, factors, shifts) for meeting in self.region.meetings)
        return float(total)

    def _product(self, reader: Reader, factors: _Floats, shifts: _Floats) -> float:
        node = reader.layer.node
        seen = self.rows.get(node.inputs[0]) if node.inputs[0] is not None else None
        if seen is None or not seen.fitted:
            return 0.0
        factor, shift = factors[reader.labels], shifts[reader.labels] if reader.shifted else 0.0
        matrix, data, product = self._reference(reader, seen)
        form, weight = self.formats.activation(node, 0), self.formats.weight(node)
        rounded = _rounded_weight(reader.layer, matrix * factor[:, None], weight, self.formats.target)
        got = (data - shift) / factor
        if form is not None:
            params = _range([(np.concatenate(seen.fitted) - shift) / factor], form)
            got = _rounded(got, params, form)
        offset = shift @ matrix if reader.shifted else 0.0
        power = np.square(product, dtype=np.float64).sum()
        noise = np.square(got.astype(np.float32) @ rounded.astype(np.float32) + (offset - product)).sum()
        if form is not None and power > 0:
            noise += len(data) * self._values(reader, matrix, factors, shifts)
        return float(noise / power) if power > 0 else 0.0

    def _reference(self, reader: Reader, seen: Rows) -> tuple[_Floats, _Floats, _Floats]:
        """The matrix of a layer, what it reads in the samples that judge, and their product."""
        if reader not in self.references:
            matrix, data = reader.layer.matrix(), np.concatenate(seen.judging or seen.fitted).astype(np.float64)
            self.references[reader] = matrix, data, data @ matrix
        return self.references[reader]

    def _values(self, reader: Reader, matrix: _Floats, factors: _Floats, shifts: _Floats) -> float:
        """Noise of one row that comes from rounding the values that attention averages into it."""
        total = 0.0
        for node, layout in self.region.averages:
            values = node.inputs[1]
            seen = None if values is None else self.rows.get(values)
            form = self.formats.activation(node, 1)
            if seen is None or form is None or not np.isin(layout.all(), reader.labels).any():
                continue
            factor, shift = _lined_up(factors, layout), _lined_up(shifts, layout)
            params = _range([(array - shift) / factor for array in seen.fitted], form)
            noise: _Floats = np.zeros(factors.size)
            count = np.zeros(factors.size)
            for array in seen.judging or seen.fitted:
                moved = (array - shift) / factor
                error = np.square((_rounded(moved, params, form) - moved) * factor)
                labels = np.broadcast_to(_labels(layout), error.shape).ravel()
                noise += np.bincount(labels, error.ravel(), factors.size)
                count += np.bincount(labels, minlength=factors.size)
            mean = noise / np.maximum(count, 1)
            total += _AVERAGED * float(mean[reader.labels] @ np.square(matrix).sum(axis=1))
        return total

    def _scores(self, meeting: Meeting, factors: _Floats, shifts: _Floats) -> float:
        query, key = (self.rows.get(value) for value in meeting.node.inputs if value is not None)
        forms = [self.formats.activation(meeting.node, index) for index in (0, 1)]
        if query is None or key is None or forms[0] is None or forms[1] is None or not query.fitted:
            return 0.0
        batch = (meeting.left[0] if meeting.left.ndim > 2 else meeting.left)[..., None, :]
        other = (meeting.right[0] if meeting.right.ndim > 2 else meeting.right)[..., None, :]
        left = [array / factors[batch] for array in query.fitted]
        right = [(array - shifts[other]) / factors[other] for array in key.fitted]
        one, two = _range(left, forms[0]), _range(right, forms[1])
        power = noise = 0.0
        for queries, keys in zip(query.judging or query.fitted, key.judging or key.fitted, strict=True):
            wanted = queries.astype(np.float64) @ np.swapaxes(keys, -1, -2)
            codes = _rounded(queries / factors[batch], one, forms[0])
            got = codes @ np.swapaxes(_rounded((keys - shifts[other]) / factors[other], two, forms[1]), -1, -2)
            error = got - wanted
            power += float(np.square(wanted - wanted.mean(-1, keepdims=True)).sum())
            noise += float(np.square(error - error.mean(-1, keepdims=True)).sum())
        return noise / power if power > 0 else 0.0


def _labels(layout: Layout) -> NDArray[np.int64]:
    """Labels of the values of one sample: without the axis of samples, which they cannot depend on."""
    axes = tuple(range(1 if len(layout.parts) > 2 else 0, len(layout.parts)))
    return layout.labels(*axes)


def _lined_up(numbers: _Floats, layout: Layout) -> _Floats:
    found: _Floats = numbers[_labels(layout)]
    return found


def _range(arrays: list[NDArray[np.float64]], form: QFormat) -> QParams:
    """The parameters of one tensor: its range, or as much of it as has the least squared error."""
    flat = np.concatenate([array.ravel() for array in arrays]).astype(np.float32)
    low, high = float(flat.min(initial=0.0)), float(flat.max(initial=0.0))
    best = params_from_range(low, high, form)
    if form.bits > 8:
        return best
    flat = flat[:: max(1, flat.size // _ELEMENTS)]
    least = float(squared_error(flat[None], QParams(best.scale[None], best.zero_point[None]), form)[0])
    for share in _SHRINKING:
        params = params_from_range(low * share, high * share, form)
        error = float(squared_error(flat[None], QParams(params.scale[None], params.zero_point[None]), form)[0])
        if error < least:
            best, least = params, error
    return best


def _rounded(array: NDArray[np.float64], params: QParams, form: QFormat) -> _Floats:
    scale, zero = float(params.scale), float(params.zero_point)
    codes = np.clip(np.rint(array / scale), form.minimum - zero, form.maximum - zero)
    return np.asarray(codes * scale, np.float64)


def _rounded_weight(layer: Linear, matrix: _Floats, form: QFormat | None, target: Target | None) -> _Floats:
    """The matrix ``[inputs, outputs]`` rounded in the layout and format of its weight."""
    if form is None:
        return matrix
    stored = np.ascontiguousarray(matrix.T if layer.transposed else matrix, np.float32)
    groups, shape = in_groups(stored, form)
    whole = form.along(None)
    low = groups.min(axis=1, initial=0.0).astype(np.float64)
    high = groups.max(axis=1, initial=0.0).astype(np.float64)
    best = scales_for(low, high, whole, target)
    if form.bits < BYTE:
        error = squared_error(groups, best, whole)
        for share in _SHRINKING:
            params = scales_for(low * share, high * share, whole, target)
            found = squared_error(groups, params, whole)
            better = found < error
            error = np.where(better, found, error)
            scale = np.where(better, params.scale, best.scale).astype(np.float32)
            best = QParams(scale, np.where(better, params.zero_point, best.zero_point).astype(np.int32))
    params = QParams(best.scale.reshape(shape), best.zero_point.reshape(shape))
    rounded = arithmetic.dequantize(arithmetic.quantize(stored, params, form), params, form).astype(np.float64)
    return rounded.T if layer.transposed else rounded
