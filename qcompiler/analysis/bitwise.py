"""``qcompiler diff --bitwise``: do two executions give the same bits?

Two models in ONNX Runtime, with or without our native kernels, or ONNX Runtime against the interpreter, which is the
specification. Integers must be equal. Float nodes behind the last DequantizeLinear may differ in their last bit from
one runtime to the next, so the codes that go into it can be compared as well; then outputs with float nodes behind the
codes are shown but do not decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.contestants import Contestant
from qcompiler.analysis.integer_only import final_codes
from qcompiler.analysis.sessions import SessionRunner, StockRunner, fit, watched_options
from qcompiler.errors import DataError, UsageError, VerificationError
from qcompiler.ir import io
from qcompiler.ir.execute import Feed, Runner

if TYPE_CHECKING:
    from qcompiler.calibration.data import Dataset

__all__ = ["CODES", "OUTPUT", "BitRow", "Bitwise", "bitwise"]

OUTPUT: Final = "output"
CODES: Final = "codes"


@dataclass(frozen=True, slots=True)
class BitRow:
    """One tensor, compared over all samples.

    Attributes:
        name: Its name in the first model.
        kind: ``output``, or ``codes`` for what a last DequantizeLinear reads.
        dtype: Its element type in the first model.
        judged: Whether a difference counts.
        elements: Elements compared.
        mismatches: How many of them differ in any bit.
        first: Where the first difference is: sample, then position; ``None`` without one.
        values: The two elements there, as text.
        largest: Largest absolute difference; ``None`` where types differ.
    """

    name: str
    kind: str
    dtype: str
    judged: bool
    elements: int
    mismatches: int
    first: tuple[int, ...] | None
    values: tuple[str, str] | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class Bitwise:
    """The comparison.

    Attributes:
        first: What was run first, in words.
        second: What it was compared with.
        samples: Samples fed to both.
        rows: One entry per tensor.
    """

    first: str
    second: str
    samples: int
    rows: tuple[BitRow, ...]

    @property
    def mismatches(self) -> int:
        """Elements that differ and should not."""
        return sum(row.mismatches for row in self.rows if row.judged)

    @property
    def equal(self) -> bool:
        """Whether everything that is judged is equal."""
        return self.mismatches == 0


def bitwise(
    first: str | Path,
    second: str | Path | None,
    dataset: Dataset,
    *,
    interpreter: bool = False,
    codes: bool = False,
    provider: str = "stock",
    isa: str | None = None,
    batch: int = 1,
    threads: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Bitwise:
    """Compare two executions bit for bit.

    Args:
        first: A model file; it runs in ONNX Runtime.
        second: The other model file; ``None`` is the first one again, and needs ``interpreter`` or a ``provider``.
        dataset: Samples to feed to both.
        interpreter: Whether the second runs in the interpreter.
        codes: Whether the integer tensors before the last DequantizeLinear nodes are compared, too.
        provider: What runs the first model: ``stock``, or ``qcompiler`` for our native kernels. A second model that
            does not run in the interpreter always runs in ``stock``.
        isa: Instruction set of the native kernels; ``None`` is the best here.
        batch: Samples per run; more than 1 needs a model with a free first axis.
        threads: Intra-operator threads of ONNX Runtime; 0 lets it choose.
        progress: Called as ``progress("bits", done, total)``.

    Raises:
        DataError: There are no samples.
        UsageError: There is nothing to compare with.
        VerificationError: The models have different outputs or codes, or the interpreter found an overflow.
        ModelError: A model cannot be loaded or run.
    """
    if second is None and not interpreter and provider == "stock":
        hint = "name another one, or give --interpreter or --provider qcompiler"
        raise UsageError("one model alone has nothing to be compared with", hint=hint)
    if len(dataset) == 0:
        raise DataError("there are no samples to compare on", where=dataset.source)
    other = first if second is None else second
    model = io.load(first)
    inside = final_codes(model) if codes else []
    pairs = _pairs(model, io.load(other), inside)
    contestant = Contestant(Path(first), provider, isa)
    ours = _stock(first, inside, threads) if provider == "stock" else _native(contestant, inside, threads)
    theirs = _other(other, inside, interpreter, threads)
    columns = [_Column(name, OUTPUT, not codes or _is_plain(model, name)) for name in _output_names(model)]
    columns += [_Column(name, CODES, True) for name in inside]
    done = 0
    for feed in _batches(dataset, batch):
        wanted, found = ours(feed), theirs(feed)
        for column in columns:
            column.update(done, wanted[column.name], found[pairs[column.name]])
        done += len(next(iter(feed.values())))
        if progress is not None:
            progress("bits", done, len(dataset))
    words = f"{other} in the interpreter" if interpreter else f"{other} in ONNX Runtime"
    where = "in ONNX Runtime" if provider == "stock" else "with native kernels"
    return Bitwise(f"{first} {where}", words, len(dataset), tuple(column.row() for column in columns))


_Execution = Callable[[Feed], Mapping[str, NDArray[Any]]]


def _stock(path: str | Path, inside: Sequence[str], threads: int) -> _Execution:
    """A plain session; tensors inside come from a second one, for asking for them changes the graph."""
    runner = StockRunner(path, threads=threads)
    inner = Runner(io.load(path), list(inside), threads=threads) if inside else None
    return lambda feed: {**runner.run(fit(feed, runner)), **(inner.run(fit(feed, inner)) if inner is not None else {})}


def _native(contestant: Contestant, inside: Sequence[str], threads: int) -> _Execution:
    """A session with our provider; tensors inside are further outputs of the same graph: nothing is fused with them."""
    import onnx

    from qcompiler.runtime import session

    if not inside:
        runner = contestant.open(threads)
    else:
        model = onnx.load(contestant.path)
        outputs = {item.name for item in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside if name not in outputs)
        options = watched_options(threads, None, None)
        runner = SessionRunner(session(model, threads=threads or None, isa=contestant.isa, options=options))
    return lambda feed: runner.run(fit(feed, runner))


def _other(path: str | Path, inside: Sequence[str], interpreter: bool, threads: int) -> _Execution:
    if not interpreter:
        return _stock(path, inside, threads)
    from qcompiler.runtime.interpreter import Interpreter

    runner = Interpreter(path)
    names = list(dict.fromkeys([*runner.outputs, *inside]))
    return lambda feed: runner.run(fit(feed, runner), names)


def _output_names(model: ir.Model) -> list[str]:
    return [str(value.name) for value in model.graph.outputs]


def _is_plain(model: ir.Model, name: str) -> bool:
    """Whether an output is what a DequantizeLinear gives, or no float at all: then every runtime gives the same."""
    value = next(item for item in model.graph.outputs if item.name == name)
    producer = value.producer()
    floating = value.dtype is None or value.dtype.is_floating_point()
    return not floating or (producer is not None and producer.op_type == "DequantizeLinear")


def _pairs(first: ir.Model, second: ir.Model, inside: Sequence[str]) -> dict[str, str]:
    """Tensors that belong together: outputs by name, or by position where all were renamed; codes by name."""
    ours, theirs = _output_names(first), _output_names(second)
    known = {str(value.name) for node in second.graph for value in node.outputs}
    if lacking := [name for name in inside if name not in known]:
        raise VerificationError(f"the second model has no codes {', '.join(lacking[:5])}")
    if set(ours) <= set(theirs):
        pairs = {name: name for name in ours}
    elif len(ours) == len(theirs):
        pairs = dict(zip(ours, theirs, strict=True))
    else:
        raise VerificationError(f"the outputs differ: {', '.join(ours)} and {', '.join(theirs)}")
    return pairs | {name: name for name in inside}


def _batches(dataset: Dataset, size: int) -> Iterator[Feed]:
    """Consecutive samples of equal shapes, together."""
    waiting: list[Feed] = []
    for feed in dataset:
        shapes = [array.shape for array in feed.values()]
        if waiting and (len(waiting) == size or [array.shape for array in waiting[0].values()] != shapes):
            yield _stacked(waiting)
            waiting = []
        waiting.append(feed)
    if waiting:
        yield _stacked(waiting)


def _stacked(feeds: list[Feed]) -> Feed:
    return feeds[0] if len(feeds) == 1 else {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


@dataclass(slots=True)
class _Column:
    """Counts differences of one tensor."""

    name: str
    kind: str
    judged: bool
    dtype: str = ""
    elements: int = 0
    mismatches: int = 0
    first: tuple[int, ...] | None = None
    values: tuple[str, str] | None = None
    largest: float | None = field(default=0.0)

    def update(self, sample: int, wanted: NDArray[Any], found: NDArray[Any]) -> None:
        """Compare one result; ``sample`` is the index of its first sample."""
        wanted, found = np.asarray(wanted), np.asarray(found)
        self.dtype = wanted.dtype.name
        self.elements += wanted.size
        if wanted.dtype != found.dtype or wanted.shape != found.shape:
            self.mismatches += wanted.size
            self.largest = None
            if self.first is None:
                self.first, self.values = (sample,), (_described(wanted), _described(found))
            return
        different = _different_bits(wanted, found)
        count = int(np.count_nonzero(different))
        if not count:
            return
        self.mismatches += count
        if self.first is None:
            place = tuple(int(index) for index in np.argwhere(different)[0])
            self.first = (sample + place[0], *place[1:]) if place else (sample,)
            self.values = str(wanted[place]), str(found[place])
        if self.largest is not None and wanted.dtype.kind in "iufb":
            gap = np.abs(wanted[different].astype(np.float64) - found[different].astype(np.float64))
            self.largest = max(self.largest, float(np.nanmax(gap, initial=0.0)))

    def row(self) -> BitRow:
        """The figures over all samples."""
        return BitRow(
            self.name, self.kind, self.dtype, self.judged, self.elements, self.mismatches, self.first, self.values,
            self.largest,
        )  # fmt: skip


def _different_bits(wanted: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """Elements whose bits differ: zeros of different sign do, equal NaNs do not."""
    if wanted.dtype == object or wanted.dtype.kind in "US":
        return np.asarray(wanted != found)
    bits = np.dtype(f"u{wanted.dtype.itemsize}")
    return np.asarray(np.ascontiguousarray(wanted).view(bits) != np.ascontiguousarray(found).view(bits))


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype.name} {list(array.shape)}"
