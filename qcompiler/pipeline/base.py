"""What a pass is, and what it is given.

A pass is a value: a frozen dataclass whose fields are its options and its text on the command line. It keeps no
state between runs; what it decides goes into the model (``qcompiler.quant.state``), what it has to say goes into
the context. One sentence of contract: the input satisfies ``requires``, the output satisfies ``provides`` and
still satisfies what it did not list in ``invalidates``; in between anything goes.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from qcompiler.ir.edit import Edit

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from qcompiler.calibration.data import Dataset
    from qcompiler.target.schema import Target

__all__ = ["Context", "Fact", "Note", "Pass", "PassRecord", "Preserves", "Skip", "Trial"]


class Fact(enum.StrEnum):
    """Names of properties a model can have; each has an executable checker in ``qcompiler.ir.facts``."""

    TYPED = "typed"  # every value has an element type; shapes where inferable
    SORTED = "sorted"  # nodes in topological order
    CANONICAL = "canonical"  # opset 21, weights are initializers, no Identity/Constant/Dropout nodes, unique names
    FORMATS = "formats"  # every node has a decision, every quantized value a format
    CALIBRATED = "calibrated"  # every quantized value has parameters
    QDQ = "qdq"  # decisions are materialised as Q/DQ nodes
    LOWERED = "lowered"  # Q/DQ groups are integer operators; their functions are attached


class Preserves(enum.Enum):
    """What a pass promises about the outputs of the model."""

    EXACT = "exact"  # bit for bit
    FLOAT = "float"  # max|a-b| / max|a| <= 1e-5 per output
    NOTHING = "nothing"  # a decision or a quantization


@dataclass(frozen=True, slots=True)
class Skip:
    """A refusal: which node a pass left alone, and why."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should read in the report. ``level`` is ``info`` or ``warning``."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Trial:
    """Passes that were tried on a copy of the model, and whether they were kept.

    Attributes:
        text: The passes, as pipeline text.
        before: Loss without them, on samples left out.
        after: Loss with them; ``None`` where it was not measured.
        seconds: Wall time of the trial.
        kept: Whether they are in the result.
        reason: Why not; empty where they were kept.
        notes: What they had to say.
    """

    text: str
    before: float
    after: float | None
    seconds: float
    kept: bool
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class PassRecord:
    """What one pass did: filled by the context and the manager."""

    text: str
    seconds: float = 0.0
    edits: int = 0
    skips: list[Skip] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)


def _silent(stage: str, done: int, total: int) -> None:
    """The default progress callback: says nothing."""


@dataclass(slots=True)
class Context:
    """Everything a pass may use besides the model.

    Attributes:
        edit: The mutation interface of the model being compiled.
        target: The resolved profile, where one was asked for.
        format: The format asked for by name (``w8a8``…); ``None`` means the profile's default.
        calibration: Calibration samples; ``None`` when there are none.
        exclude: Node selectors given by the user (names, operator types, ``re:`` expressions).
        cache_dir: Where calibration results may be kept; ``None`` disables the cache.
        jobs: Threads that a run of the model may use; 0 lets the runtime choose.
        progress: Called as ``progress(stage, done, total)``.
        records: One record per pass that has run; the last is the running one.
        baseline_path: Path of the float model on disk, where known.
        following: The passes behind the running one.
        executor: Opens what shares out long measurements (``driver/executors.py``); by default this process does them.
    """

    edit: Edit
    target: Target | None = None
    format: str | None = None
    calibration: Dataset | None = None
    exclude: tuple[str, ...] = ()
    cache_dir: Path | None = None
    jobs: int = 0
    progress: Callable[[str, int, int], None] = _silent
    records: list[PassRecord] = field(default_factory=list)
    baseline_path: Path | None = None
    following: tuple[Pass, ...] = ()
    executor: Callable[[], AbstractContextManager[Executor | None]] = nullcontext

    def skip(self, node: ir.Node | str, reason: str) -> None:
        """Record that the running pass left ``node`` alone, and why."""
        name = node if isinstance(node, str) else f"{node.name} ({node.op_type})"
        self._record().skips.append(Skip(name, reason))

    def note(self, text: str) -> None:
        """Record something worth telling."""
        self._record().notes.append(Note("info", text))

    def warn(self, text: str) -> None:
        """Record something the user must see."""
        self._record().notes.append(Note("warning", text))

    def trial(self, trial: Trial) -> None:
        """Record passes that the running one tried."""
        self._record().trials.append(trial)

    def _record(self) -> PassRecord:
        if not self.records:
            self.records.append(PassRecord("(outside a pass)"))
        return self.records[-1]


@dataclass(frozen=True)
class Pass(abc.ABC):
    """Base of every pass.

    Subclasses are frozen dataclasses; fields are options (``bool``, ``int``, ``float``, ``str``, ``Literal``,
    enums, tuples of those, and ``X | None``) with defaults. ``before`` are facts in whose presence the pass would do
    nothing, or harm: behind a pass that provides one of them it is refused.
    """

    name: ClassVar[str]
    before: ClassVar[frozenset[Fact]] = frozenset()
    requires: ClassVar[frozenset[Fact]] = frozenset()
    provides: ClassVar[frozenset[Fact]] = frozenset()
    invalidates: ClassVar[frozenset[Fact]] = frozenset()
    preserves: ClassVar[Preserves] = Preserves.NOTHING

    @abc.abstractmethod
    def run(self, model: ir.Model, ctx: Context) -> None:
        """Change the model through ``ctx.edit``; record refusals with ``ctx.skip``."""
