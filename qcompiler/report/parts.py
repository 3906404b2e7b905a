"""Parts of a report that say what was given, asked and done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "DataPart",
    "FilePart",
    "GatesPart",
    "ModelPart",
    "NotePart",
    "PassPart",
    "SkipPart",
    "TargetPart",
    "TrialPart",
]


@dataclass(frozen=True)
class FilePart:
    """One file on disk.

    Attributes:
        name: File name without folder.
        bytes: Size.
        sha256: Digest of the content, hexadecimal.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelPart:
    """A model on disk.

    Attributes:
        name: What the user called it.
        files: The model file, then its external data.
        bytes: Size of all files.
        opset: Version of the standard operator set.
        ir_version: IR version.
        nodes: Nodes of the main graph.
    """

    name: str
    files: tuple[FilePart, ...]
    bytes: int
    opset: int
    ir_version: int
    nodes: int


@dataclass(frozen=True)
class TargetPart:
    """The hardware compiled for.

    Attributes:
        name: Name of the profile.
        title: Its one-line description.
        runs_here: Whether speed on the compiling machine means anything for it.
    """

    name: str
    title: str
    runs_here: bool


@dataclass(frozen=True)
class DataPart:
    """Samples that were used.

    Attributes:
        source: Where they came from.
        samples: How many.
        digest: Hash of their content; ``None`` where it was not computed.
        held_out: Whether they were taken from the calibration data and kept from it.
        labels: Whether labels came with them.
        notes: What to know about them.
    """

    source: str
    samples: int
    digest: str | None = None
    held_out: bool = False
    labels: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SkipPart:
    """A node that a pass left alone, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class NotePart:
    """Something a pass had to say. ``level`` is ``info`` or ``warning``."""

    level: str
    text: str


@dataclass(frozen=True)
class TrialPart:
    """Passes that were tried on a copy of the model.

    Attributes:
        text: The passes.
        before: Loss without them: relative squared error of the outputs, on samples that nothing was fitted on.
        after: Loss with them; ``None`` where it was not measured.
        kept: Whether they are in the result.
        reason: Why not; empty where they were kept.
        notes: What they had to say.
    """

    text: str
    before: float
    after: float | None
    kept: bool
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PassPart:
    """What one pass did.

    Attributes:
        text: The pass with its options.
        edits: Changes to the graph.
        skips: Nodes left alone, with reasons.
        notes: What it had to say.
        trials: What it tried, in order.
    """

    text: str
    edits: int
    skips: tuple[SkipPart, ...] = ()
    notes: tuple[NotePart, ...] = ()
    trials: tuple[TrialPart, ...] = ()


@dataclass(frozen=True)
class GatesPart:
    """What the result had to reach.

    Attributes:
        asked: Gates that were asked for, by option name.
        sanity: Whether the default sanity gate was in force.
        misses: What is not met, with figures; empty when the result passed.
    """

    asked: Mapping[str, float]
    sanity: bool
    misses: tuple[str, ...]
