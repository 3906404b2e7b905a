"""Measured loss: what the model's outputs lose when one group follows one option and all else is float.

The graph is cut into a few parts of about equally many groups. Everything before a part is equal for all options of
its groups, so the float samples wait at the cut and only the rest of the graph runs, with the part's weights fed: one
session per part. Where an option rounds activations, its rest of the graph gets a session of its own.

The work of a part is a job: plain data and a function without side effects, so that any executor may do it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.sensitivity.batches import Batches
from qcompiler.analysis.sensitivity.losses import Reference, output_loss
from qcompiler.analysis.sensitivity.piece import Piece, PieceRunner, Tensors, cut_out
from qcompiler.analysis.sensitivity.study import Alternative, Choice, Edge, Study
from qcompiler.ir.execute import light_proto
from qcompiler.ir.parts import Part, cut

__all__ = ["Job", "Score", "jobs", "measure", "run_job"]

Score: TypeAlias = Callable[[Reference, Sequence[NDArray[Any]]], float]

_TOGETHER: Final = 3
"""Groups of a part. Fewer make more sessions, more leave weights unpacked that stay constant."""
_PARTS: Final = 32
_JOB_BYTES: Final = 256 << 20
"""Rounded weights that one job holds."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One choice as data: the weights to feed."""

    choice: Choice
    weights: Mapping[Edge, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Job:
    """Choices that one session measures.

    Attributes:
        piece: The graph from a cut to the outputs, with the weights of these choices fed.
        trials: The choices.
        tensors: Per batch, what is known at the cut.
        references: Per batch, the outputs of the float model.
        sizes: Samples in each batch.
        threads: Threads of one run.
        score: What a run's outputs lose against the reference: a function of both.
    """

    piece: Piece
    trials: tuple[Trial, ...]
    tensors: tuple[Tensors, ...]
    references: tuple[Reference, ...]
    sizes: tuple[int, ...]
    threads: int
    score: Score = output_loss


def run_job(job: Job) -> list[tuple[Choice, float]]:
    """The loss of every choice of a job: a mean over samples, infinite where outputs are not finite."""
    return list(measure(job))


def measure(job: Job) -> Iterator[tuple[Choice, float]]:
    """The same, one by one."""
    runner = PieceRunner(job.piece, job.threads)
    for trial in job.trials:
        total = 0.0
        for tensors, reference, size in zip(job.tensors, job.references, job.sizes, strict=True):
            total += size * job.score(reference, runner.run(tensors, trial.weights))
        yield trial.choice, total / sum(job.sizes)


def jobs(
    study: Study, choices: Sequence[Choice], batches: Batches, score: Score = output_loss, *, own: bool = False
) -> Iterator[Job]:
    """The work that measures ``choices``, part by part; the samples in ``batches`` move along with the cuts.

    Args:
        study: The model and its alternatives.
        choices: What to measure.
        batches: Feeds and reference outputs.
        score: What outputs lose; importable by name, so that another process finds it.
        own: Compare outputs of the nodes whose weights change instead of the model's.
    """
    parts, starts = _parts(study)
    for number, part in enumerate(parts):
        here = [choice for choice in choices if starts[choice[0][0]] == number]
        for chunk in _chunks(study, here, own=own):
            yield _job(study, chunk, batches, score, own=own)
        if number + 1 < len(parts):
            _advance(study, part, batches.tensors)


def _job(
    study: Study, chunk: Sequence[tuple[Choice, Alternative]], batches: Batches, score: Score, *, own: bool
) -> Job:
    model = chunk[0][1].model or study.model
    trials = tuple(Trial(choice, alternative.weights) for choice, alternative in chunk)
    edges = {edge for trial in trials for edge in trial.weights}
    outputs = _results(model, study.nodes[chunk[0][0][0][0]]) if own else batches.outputs
    piece = cut_out(model, batches.tensors[0], outputs, edges)
    used = tuple({name: tensors[name] for name in piece.inputs} for tensors in batches.tensors)
    references = tuple(batches.references)
    if own:
        runner = PieceRunner(cut_out(study.model, batches.tensors[0], outputs), study.threads)
        references = tuple(Reference(tuple(runner.run(item)), (), ()) for item in batches.tensors)
    return Job(piece, trials, used, references, tuple(batches.sizes), study.threads, score)


def _results(model: ir.Model, names: Container[str]) -> list[str]:
    """What nodes of these names give to others, or to the caller."""
    found = []
    for node in model.graph:
        for value in node.outputs if node.name in names else ():
            readers = value.consumers()
            if value.is_graph_output() or any(reader.name not in names for reader in readers):
                found.append(str(value.name))
    return found


def _chunks(study: Study, choices: Sequence[Choice], *, own: bool) -> Iterator[list[tuple[Choice, Alternative]]]:
    """Choices that one session serves: those that round activations go alone, the others as far as memory goes.

    With ``own``, each group has outputs of its own, so a session serves one group.
    """
    chunk: list[tuple[Choice, Alternative]] = []
    held = 0
    for choice in choices:
        alternative = study.alternative(choice)
        if alternative.model is not None:
            yield [(choice, alternative)]
            continue
        size = sum(array.nbytes for array in alternative.weights.values())
        if chunk and (held + size > _JOB_BYTES or (own and chunk[0][0][0][0] != choice[0][0])):
            yield chunk
            chunk, held = [], 0
        chunk.append((choice, alternative))
        held += size
    if chunk:
        yield chunk


def _parts(study: Study) -> tuple[list[Part], dict[str, int]]:
    """Parts of the graph, and in which of them each group starts."""
    graph = light_proto(study.model)[0].graph
    place = {node.name: position for position, node in enumerate(graph.node)}
    first = {group: min(place[name] for name in names) for group, names in study.nodes.items()}
    order = sorted(first.values())
    count = min(_PARTS, -(-len(order) // _TOGETHER))
    begins = sorted({order[number * len(order) // count] for number in range(count)})
    ends = [*(begin - 1 for begin in begins[1:]), len(graph.node) - 1]
    parts = cut(graph, ends, {value.name for value in graph.output})
    return parts, {group: sum(begin <= position for begin in begins[1:]) for group, position in first.items()}


def _advance(study: Study, part: Part, batches: list[Tensors]) -> None:
    """Take every batch to the next cut, in float."""
    runner = PieceRunner(cut_out(study.model, batches[0], part.outputs), study.threads) if part.outputs else None
    for tensors in batches:
        if runner is not None:
            tensors.update(zip(part.outputs, runner.run(tensors), strict=True))
        for name in part.dead:
            tensors.pop(name, None)
