"""From an allocation to the part of the report, and a loss in the unit of the predicted one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompiler.analysis.allocation.record import AllocatedGroup, Allocation, FrontPoint
from qcompiler.report.build_formats import SOFTENED, formats_part, formats_warnings, measured_loss
from qcompiler.report.formats import FormatsPart
from qcompiler.report.measured import OutputPart
from qcompiler.report.model import Report
from qcompiler.target.formats import FormatRequest

REQUESTS = {
    text: FormatRequest(text, int(text[1]), None if text == "w4" else int(text[3:]))
    for text in ("w4", "w8a16", "w8a8", "w4a8", "w2a8")
}
ALLOCATION = Allocation(
    base="w8a8", metric="measured", samples=64,
    groups=(
        AllocatedGroup("a", ("a", "relu"), 100, "w8a8", {}, {"w8a8": 120.0}, "first-last: it is the first; 60 more"),
        AllocatedGroup("b", ("b",), 400, "w4a8", {"w8a16": 0.0, "w8a8": 0.1, "w4a8": 0.5},
                       {"w8a16": 440.0, "w8a8": 420.0, "w4a8": 220.0, "w2a8": 120.0}),
        AllocatedGroup("c", ("c",), 200, "w4a8", {"w4a8": 0.25}, {"w4a8": 110.0}),
    ),
    budgets={"size": 1000.0, "bops": 5e6}, costs={"size": 950.0, "bops": 4e6, "memory": 300.0}, loss=0.75, bound=0.5,
    proof="solver", front=(FrontPoint(0.75, {"size": 950.0}, {"a": "w8a8", "b": "w4a8", "c": "w4a8"}),),
    dropped={"b: w2a8": "the outputs are not finite"},
)  # fmt: skip


def part_of(found: Allocation, metric: str = "", outputs: tuple[OutputPart, ...] = ()) -> FormatsPart:
    return formats_part(found, REQUESTS, 940, outputs, frozenset({"features"}), metric)


@pytest.fixture
def outputs(mixed_report: Report) -> tuple[OutputPart, ...]:
    """Scores and an embedding."""
    assert mixed_report.quality is not None
    return mixed_report.quality.outputs


def test_what_was_decided_is_told_by_group_format_and_resource(outputs: tuple[OutputPart, ...]) -> None:
    part = part_of(ALLOCATION, outputs=outputs[:1])
    assert [(item.text, item.groups, item.weights, item.bytes) for item in part.candidates] == [
        ("w8a16", 0, 0, 0), ("w8a8", 1, 100, 120.0), ("w4a8", 2, 600, 330.0), ("w2a8", 0, 0, 0),
    ]  # fmt: skip
    assert [(group.name, group.choice, group.loss, group.bytes) for group in part.groups] == [
        ("a", "w8a8", 0.0, 120.0), ("b", "w4a8", 0.5, 220.0), ("c", "w4a8", 0.25, 110.0),
    ]  # fmt: skip
    assert part.groups[0].exempt.startswith("first-last")
    assert [(item.resource, item.budget, item.predicted, item.actual) for item in part.resources] == [
        ("size", 1000.0, 950.0, 940.0), ("bops", 5e6, 4e6, None), ("memory", None, 300.0, None),
    ]  # fmt: skip
    assert (part.loss, part.bound, part.gap, part.measured) == (0.75, 0.5, 0.25, 0.0234)
    assert part.loss_bound is None
    assert part.front[0].costs == {"size": 950.0}
    assert part.dropped == {"b: w2a8": "the outputs are not finite"}


def test_real_activations_are_wider_than_codes() -> None:
    groups = (AllocatedGroup("a", ("a",), 10, "w4", {"w4": 0.1}, {"w4": 9.0, "w8a16": 20.0}),)
    part = part_of(replace(ALLOCATION, groups=groups))
    assert [(item.text, item.activation_bits) for item in part.candidates] == [("w4", None), ("w8a16", 16)]


BOUNDED = replace(ALLOCATION, budgets={"size": 1000.0, "loss": 0.9}, measured=0.8, evaluations=2, most_evaluations=3)


def test_a_bound_on_the_loss_is_no_resource(outputs: tuple[OutputPart, ...]) -> None:
    part = part_of(BOUNDED, "agreement", (replace(outputs[0], agreement=75.0),))
    assert part.loss_bound is not None
    assert (part.loss_bound.metric, part.loss_bound.bound, part.loss_bound.upper) == ("agreement", 0.9, 0.8)
    assert (part.loss_bound.evaluations, part.loss_bound.most_evaluations) == (2, 3)
    assert part.loss_bound.measured == 0.25
    assert "loss" not in {item.resource for item in part.resources}


def test_a_bound_that_the_file_misses_is_a_warning(outputs: tuple[OutputPart, ...]) -> None:
    assert formats_warnings(None) == formats_warnings(part_of(ALLOCATION)) == ()
    assert formats_warnings(part_of(BOUNDED, outputs=(replace(outputs[0], kl=0.9),))) == ()
    (text,) = formats_warnings(part_of(BOUNDED, outputs=(replace(outputs[0], kl=0.95),)))
    assert "0.95, is over the bound of 0.9" in text
    assert formats_warnings(part_of(BOUNDED, "sqnr", outputs)) == ()  # its mean over samples is not known


def test_a_bound_says_what_its_loss_is_of(outputs: tuple[OutputPart, ...]) -> None:
    scores, features = outputs
    single, exact = replace(scores, kl=None, kind="vector"), replace(scores, kl=None, kind="exact")
    for given, name in (
        ((scores,), "kl"), ((features,), "cosine"), (outputs, "kl, cosine"), ((single,), "sqnr"),
        ((exact, scores, scores), "kl"), ((scores, single), "kl, sqnr"),
    ):  # fmt: skip
        bound = part_of(BOUNDED, outputs=given).loss_bound
        assert bound is not None
        assert bound.metric == name
        assert (bound.measured is None) is (single in given)  # a mean of the other outputs is another loss


@pytest.mark.parametrize(("metric", "comparable"), [("measured", True), ("gauss-newton", True), ("sqnr", False)])
def test_only_losses_of_the_outputs_compare_with_the_measured_one(metric: str, comparable: bool) -> None:
    assert part_of(replace(ALLOCATION, metric=metric)).comparable is comparable


def test_the_measured_loss_is_divergence_of_scores_and_distance_of_embeddings(
    outputs: tuple[OutputPart, ...],
) -> None:
    logits, features = outputs
    vectors = frozenset({"features"})
    assert measured_loss([logits], vectors, SOFTENED) == logits.softened_kl == 0.0234
    assert measured_loss([logits], vectors, "") == logits.kl == 0.00312
    assert measured_loss(outputs, vectors, SOFTENED) == pytest.approx((0.0234 + 0.0009) / 2)
    assert measured_loss(outputs, vectors, "") == pytest.approx((0.00312 + 0.0009) / 2)
    assert measured_loss(outputs, vectors, "kl") == pytest.approx(0.00312)
    assert measured_loss(outputs, frozenset(), "cosine") == pytest.approx(0.0009)
    assert measured_loss([replace(features, cosine=1.0000001)], vectors, "") == 0


def test_exact_outputs_do_not_count_and_others_need_a_figure(outputs: tuple[OutputPart, ...]) -> None:
    exact = replace(outputs[0], name="ids", kind="exact", softened_kl=None, cosine=None, exact=99.0)
    assert measured_loss([outputs[0], exact], frozenset(), SOFTENED) == 0.0234
    assert measured_loss([exact], frozenset(), SOFTENED) is None
    assert measured_loss(outputs, frozenset(), "sqnr") is None
    single = replace(outputs[0], name="score", kind="vector", kl=None, softened_kl=None)
    assert measured_loss([outputs[0], single], frozenset(), SOFTENED) is None
    assert measured_loss([outputs[0], single], frozenset(), "kl") is None
