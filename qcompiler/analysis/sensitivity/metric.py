"""The interface of sensitivity metrics, and the default: the measured loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Final, Protocol

from qcompiler.analysis.sensitivity.batches import batches_of, macs_of_sample
from qcompiler.analysis.sensitivity.losses import output_loss
from qcompiler.analysis.sensitivity.measured import Job, Score, jobs, measure, run_job
from qcompiler.analysis.sensitivity.study import Choice, Cost, Study

__all__ = ["RATE", "Measured", "Metric", "cost_of_runs"]

RATE: Final = 30e9
"""Multiply-accumulates per second that cost estimates assume: one core with wide vectors on layers of usual size."""

_WAITING: Final = 2
"""Jobs that an executor is given at a time: their samples and weights lie in memory."""


class Metric(Protocol):
    """Something that tells how much an option loses.

    Settings that change its figures are fields of a dataclass, or part of the name: what was measured is kept by these.
    In a file it is kept where all fields are numbers, texts, tuples of such, or functions and classes that can be
    imported by their name: with lambdas, closures, ``functools.partial`` and functions of a script the next process
    measures again. A name stands for its meaning: give another one, or empty the cache, where that changed.
    """

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def forward(self) -> bool:
        """Whether it runs samples."""

    def cost(self, study: Study, choices: Sequence[Choice], samples: int) -> Cost:
        """What ``losses`` would take."""

    def losses(
        self, study: Study, choices: Sequence[Choice], samples: int, executor: Executor | None = None
    ) -> Iterator[tuple[Choice, float]]:
        """Losses of the choices, in any order; not finite where the outputs are not."""


@dataclass(frozen=True)
class Measured:
    """The loss of the outputs: divergence of scores, one minus the cosine of embeddings.

    Attributes:
        name: What the user calls it.
        score: What outputs lose against the float model's.
        own: Whether outputs of the group's own nodes are compared instead of the model's.
        forward: Whether it runs samples.
    """

    name: str = "measured"
    score: Score = output_loss
    own: bool = False
    forward: bool = True

    def cost(self, study: Study, choices: Sequence[Choice], samples: int) -> Cost:
        """Every choice runs about half the graph, from its part on; where it ends behind its group, next to nothing."""
        return cost_of_runs(study, (len(choices) * (0.05 if self.own else 0.55) + 1) * samples)

    def losses(
        self, study: Study, choices: Sequence[Choice], samples: int, executor: Executor | None = None
    ) -> Iterator[tuple[Choice, float]]:
        """Measure part by part; with an executor, a few parts at a time."""
        work = jobs(study, choices, batches_of(study, samples), self.score, own=self.own)
        if executor is None:
            for job in work:
                yield from measure(job)
        else:
            yield from _spread(work, executor)


def cost_of_runs(study: Study, runs: float) -> Cost:
    """The cost of so many forward runs of one sample."""
    macs = runs * macs_of_sample(study)
    return Cost(runs, macs, macs / RATE, RATE)


def _spread(work: Iterable[Job], executor: Executor) -> Iterator[tuple[Choice, float]]:
    """Results of jobs as they come; at most ``_WAITING`` more than there are workers wait."""
    most = _WAITING + getattr(executor, "_max_workers", 1)
    running: set[Future[list[tuple[Choice, float]]]] = set()
    for job in work:
        running.add(executor.submit(run_job, job))
        if len(running) >= most:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    for future in running:
        yield from future.result()
