"""Samples of drawn words: everything but the words and the lengths is that of the given ones."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.calibration import data, words
from qcompiler.calibration.data import Dataset
from qcompiler.calibration.words import Vocabulary

ROWS = 40
READS = Vocabulary("ids", ROWS)


def model(body: str = "e = Gather (table, ids) m = Cast <to=1> (attention_mask)") -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (int64[N,9] ids, int64[N,9] attention_mask, int64[N,9] types)
        => (float[N,9,4] e, float[N,9] m)
        {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, rows in (("table", ROWS), ("kinds", 2)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((rows, 4), np.float32), name))
    return ir.from_proto(proto)


def sentences(*texts: list[int], types: int = 1) -> Dataset:
    """Samples of 9 positions, padded with 7."""
    ids, mask = np.full((len(texts), 9), 7, np.int64), np.zeros((len(texts), 9), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    feeds = {"ids": ids, "attention_mask": mask, "types": np.full_like(ids, types)}
    return data.load(feeds, dict.fromkeys(feeds, (ir.DataType.INT64, ("N", 9))))


def test_the_input_of_the_largest_table_is_found() -> None:
    body = "k = Gather (kinds, types) w = Gather (table, ids) e = Add (k, w) m = Cast <to=1> (types)"
    assert words.find(model(body).graph) == READS
    assert words.find(model("t = Cast <to=6> (types) e = Gather (kinds, t) m = Cast <to=1> (ids)").graph) == Vocabulary(
        "types", 2
    )


def test_what_reads_no_table_has_no_vocabulary() -> None:
    assert words.find(model("m = Cast <to=1> (ids) e = Gather <axis=1> (table, types)").graph) is None


def test_the_share_of_words_is_counted_once_each() -> None:
    assert words.share_seen(sentences([1, 2, 3, 3], [1, 2]), READS) == 4 / ROWS  # with what pads them


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(8, ROWS - 1), min_size=0, max_size=7), min_size=2, max_size=5), st.integers(1, 3))
def test_drawn_samples_are_framed_and_padded_like_given_ones(texts: list[list[int]], each: int) -> None:
    plain = sentences(*([5, *text, 6] for text in texts))
    found = words.with_drawn(plain, READS, each)
    feeds = list(found)
    assert len(feeds) == len(plain) * (1 + each)
    for before, after in zip(plain, feeds[:: 1 + each], strict=True):
        assert all(np.array_equal(before[name], after[name]) for name in before)
    least = min(map(len, texts)) + 2
    for feed in feeds:
        ids, mask = feed["ids"][0], feed["attention_mask"][0]
        length = int(mask.sum())
        assert least <= length <= 9
        assert mask[:length].all()
        assert ids[0] == 5
        assert ids[length - 1] == 6
        assert (ids[length:] == 7).all()
        assert (ids >= 0).all()
        assert (ids < ROWS).all()
        assert (feed["types"] == 1).all()


def test_drawn_words_reach_the_whole_table_and_lengths_the_whole_input() -> None:
    found = words.with_drawn(sentences([5, 1, 6], [5, 2, 6]), READS, 200)
    assert words.share_seen(found, READS) == 1
    assert {int(feed["attention_mask"].sum()) for feed in found} == set(range(3, 10))


def test_words_that_not_all_samples_begin_with_are_drawn_too() -> None:
    found = words.with_drawn(sentences([1, 2, 3], [4, 5, 6]), READS, 50)
    assert len({int(feed["ids"][0, 0]) for feed in found}) > 10


def test_the_same_seed_draws_the_same() -> None:
    plain = sentences([5, 1, 6], [5, 2, 6])
    digests = [words.with_drawn(plain, READS, 2, seed).digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_samples_that_the_user_weighs_are_left_as_they_are() -> None:
    plain = sentences([5, 1, 6], [5, 2, 6])
    feeds = {name: np.concatenate([feed[name] for feed in plain]) for name in plain.names}
    declared = dict.fromkeys(feeds, (ir.DataType.INT64, ("N", 9)))
    weighed = data.load(feeds | {"qcompiler.weights": np.array([1.0, 2.0])}, declared)
    assert weighed.all_weights is not None
    assert words.with_drawn(weighed, READS, 4) is weighed


def test_samples_padded_in_front_are_left_as_they_are() -> None:
    plain = sentences([5, 1, 6], [5, 2, 2, 6])
    feeds = {name: np.concatenate([feed[name][:, ::-1] for feed in plain]) for name in plain.names}
    turned = data.load(feeds, dict.fromkeys(feeds, (ir.DataType.INT64, ("N", 9))))
    assert words.with_drawn(turned, READS, 4) is turned


@pytest.mark.parametrize(("bits", "seen", "each"), [(8, 3, 0), (4, 3, 4), (4, 12, 1), (4, 30, 0)])
def test_the_recipe_draws_words_for_few_bits_where_samples_hold_few(bits: int, seen: int, each: int) -> None:
    texts = [[5, 1 + index, 6] for index in range(seen)]
    found, said = words.enriched(model().graph, sentences(*texts), bits)
    assert said == (each > 0)
    assert len(found) == seen * (1 + each)


def test_judges_of_drawn_words_are_others_than_codes_are_fitted_to() -> None:
    plain = sentences([5, 1, 6], [5, 2, 6], [5, 3, 6])
    judging = words.unseen(model().graph, plain)
    assert judging is not None
    assert len(judging) == len(plain)
    fitted = {feed["ids"].tobytes() for feed in words.enriched(model().graph, plain, 4)[0]}
    assert fitted.isdisjoint(feed["ids"].tobytes() for feed in judging)


def test_samples_that_hold_most_words_judge_alone() -> None:
    assert words.unseen(model().graph, sentences(*([5, 1 + index, 6] for index in range(30)))) is None
    assert words.unseen(model("m = Cast <to=1> (ids)").graph, sentences([5, 1, 6])) is None
