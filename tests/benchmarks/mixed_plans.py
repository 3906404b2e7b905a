"""Plans of bits at the bytes of uniform ones: ``mixed_plans.py [MODEL ...] [--rounding nearest|gptq] [--pairs]``.

Per model, at the bytes of uniform 4 and 3 bits: the loss on evaluation samples of the uniform plan, of the greedy one,
of the exact one and (``--pairs``) of the one with losses of neighbouring layers together; then, over random plans,
Spearman's rank correlation of predicted with measured loss. Weights alone are rounded (activations stay real numbers):
divergence in nats, of MiniLM one minus the cosine.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sensitivity import held_out, normalized, ranks, say
from subjects import zoo

from qcompiler.analysis.allocation.greedy import greedy
from qcompiler.analysis.allocation.problem import Group, Option, Pair, Problem
from qcompiler.analysis.allocation.solve import solve
from qcompiler.analysis.sensitivity import Sensitivity, Study, sensitivity
from qcompiler.analysis.sensitivity.losses import plain_loss
from qcompiler.analysis.sensitivity.metric import Measured
from qcompiler.calibration import data
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.alternatives import study_of
from qcompiler.passes.allocate.groups import tie_groups
from qcompiler.passes.allocate.roundings import rounding_named
from qcompiler.pipeline.base import Context
from qcompiler.quant.format import BYTE
from qcompiler.quant.operators import LOOKUP
from qcompiler.target.load import load

MODELS = ("resnet20_cifar10", "mobilenetv1_025_imagenet", "vit_mnist", "minilm_l6_stsb", "stories260k_lm")
BITS = (8, 4, 3, 2)
MIX = (0.25, 0.45, 0.2, 0.1)
"""Shares of the bits in random plans: near those of good plans at 4 bits."""

Plan = Mapping[str, str]


@dataclass(frozen=True)
class Subject:
    """A model with its losses.

    Attributes:
        study: What may be decided.
        evaluation: The same with samples that nothing was fitted on.
        form: Bits to format text.
        found: Predicted losses.
    """

    study: Study
    evaluation: Study
    form: Mapping[int, str]
    found: Sensitivity

    @cached_property
    def bits(self) -> dict[str, int]:
        """Format text to bits."""
        return {text: bits for bits, text in self.form.items()}

    def size(self, plan: Plan) -> float:
        """Bytes of weights."""
        return sum(self.study.weights[group] * self.bits[option] / 8 for group, option in plan.items())

    def uniform(self, bits: int) -> dict[str, str]:
        """The same bits everywhere; where a layer cannot, the next more. Tables keep 8, as with one ``--format``."""
        tables = {str(node.name) for node in self.study.model.graph if node.op_type == LOOKUP}
        found = {}
        for group, options in self.study.options.items():
            least = max(bits, BYTE) if tables & set(self.study.nodes[group]) else bits
            found[group] = min((one for one in options if self.bits[one] >= least), key=self.bits.__getitem__)
        return found

    def problem(self, budget: float, pairs: tuple[Pair, ...] = ()) -> Problem:
        """Least loss within a budget of bytes."""
        groups = tuple(
            Group(group, tuple(Option(text, loss, {"size": self.size({group: text})}) for text, loss in own.items()))
            for group, own in self.found.losses.items()
        )
        return Problem(groups, {"size": budget}, {}, pairs)

    def predicted(self, plan: Plan) -> float:
        """Sum of the losses of single layers."""
        return sum(self.found.losses[group][option] for group, option in plan.items())

    def joint(self, plan: Plan) -> float:
        """The same with what neighbours lose together."""
        return self.predicted(plan) + sum(
            loss
            for (one, other), loss in self.found.pairs.items()
            if plan[one[0]] == one[1] and plan[other[0]] == other[1]
        )

    def measured(self, plans: list[Plan]) -> list[float]:
        """Loss of each on the evaluation samples."""
        choices = [tuple((group, plan[group]) for group in self.study.options) for plan in plans]
        found = dict(Measured("divergence", plain_loss).losses(self.evaluation, choices, len(self.evaluation.dataset)))
        return [found[choice] for choice in choices]


def subject(name: str, arguments: argparse.Namespace) -> Subject:
    """Load a model and measure its layers."""
    case, target = zoo().load(name), load("lowbit-cpu")
    form = {bits: f"w{bits}" if name.startswith("stories") else f"w{bits}a8" for bits in BITS}
    model = normalized(case.model, "lowbit-cpu")
    dataset = data.load(case.calibration(arguments.samples), data.inputs_of(model))
    ctx = Context(Edit(model), target=target, calibration=dataset, jobs=arguments.jobs)
    groups = tie_groups(model, target, list(form.values())).groups
    study = study_of(model, ctx, groups, rounding_named(arguments.rounding))
    evaluation = data.load(list(held_out(case, arguments.truth)), data.inputs_of(model))
    order = list(study.options)
    low = [form[bits] for bits in BITS[1:]]
    pairs = [
        ((one, first), (other, second)) for one, other in itertools.pairwise(order) for first in low for second in low
    ]
    found = sensitivity(study, pairs=pairs if arguments.pairs else ())
    return Subject(study, replace(study, dataset=evaluation), form, found)


def plans_at(given: Subject, bits: int, arguments: argparse.Namespace) -> dict[str, Plan]:
    """The plans that are compared at the bytes of a uniform one."""
    uniform = given.uniform(bits)
    problem = given.problem(given.size(uniform))
    found: dict[str, Plan] = {"uniform": uniform, "exact": solve(problem).choice}
    if (plan := greedy(problem)) is not None:
        found["greedy"] = plan.choice
    if arguments.pairs:
        joint: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
        for (one, other), loss in given.found.pairs.items():
            joint.setdefault((one[0], other[0]), {})[one[1], other[1]] = loss
        pairs = tuple(Pair(*names, losses) for names, losses in joint.items())
        found["exact with pairs"] = solve(given.problem(given.size(uniform), pairs)).choice
    return found


def report(name: str, arguments: argparse.Namespace) -> None:
    """Print what plans of one model lose."""
    given = subject(name, arguments)
    say(f"{name}, {arguments.rounding} codes, {given.found.samples} samples, truth on {len(given.evaluation.dataset)}")
    for bits in (4, 3):
        plans = plans_at(given, bits, arguments)
        losses = dict(zip(plans, given.measured(list(plans.values())), strict=True))
        ratio = losses["exact"] / losses["uniform"]
        each = ", ".join(f"{label} {loss:.4g}" for label, loss in losses.items())
        say(f"  bytes of {bits} bits: {each}; exact / uniform {ratio:.2f}")
    random = np.random.default_rng(0)
    plans = [
        {group: str(random.choice([given.form[bits] for bits in BITS], p=MIX)) for group in given.study.options}
        for _ in range(arguments.plans)
    ]
    measured = ranks(given.measured(plans))
    for label, predict in (("sums", given.predicted), *((("with pairs", given.joint),) if arguments.pairs else ())):
        agreement = np.corrcoef(ranks([predict(plan) for plan in plans]), measured)[0, 1]
        say(f"  {arguments.plans} random plans, {label}: Spearman {agreement:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounding", choices=("nearest", "gptq"), default="gptq")
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--plans", type=int, default=100)
    parser.add_argument("--truth", type=int, default=500)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.models:
        report(name, arguments)


if __name__ == "__main__":
    main()
