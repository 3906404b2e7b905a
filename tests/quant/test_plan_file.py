"""Plan files, and points of fronts named by ``FILE:NUMBER``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcompiler.errors import UsageError
from qcompiler.quant.plan_file import file_of, load

PLANS = [{"schema": 1, "formats": {"Conv_0": text}} for text in ("w2a8", "w4a8")]


@pytest.fixture
def front(tmp_path: Path) -> Path:
    path = tmp_path / "plans.json"
    points = [{"point": number, "loss": 1.0, "plan": plan} for number, plan in enumerate(PLANS, 1)]
    path.write_text(json.dumps({"schema": 1, "points": points}), encoding="utf-8")
    return path


def test_a_number_names_a_point(front: Path) -> None:
    assert load(f"{front}:1") == PLANS[0]
    assert load(f"{front}:2") == PLANS[1]
    assert file_of(f"{front}:2") == file_of(front) == front


def test_points_keep_their_numbers_when_others_are_deleted(front: Path) -> None:
    content = json.loads(front.read_text(encoding="utf-8"))
    del content["points"][0]
    front.write_text(json.dumps(content), encoding="utf-8")
    assert load(f"{front}:2") == PLANS[1]
    with pytest.raises(UsageError, match="no point 1"):
        load(f"{front}:1")


def test_a_file_of_that_whole_name_comes_first(front: Path) -> None:
    other = front.with_name("plans.json:1")
    other.write_text(json.dumps({"schema": 1, "nodes": {}}), encoding="utf-8")
    assert load(str(other)) == {"schema": 1, "nodes": {}}
    assert file_of(other) == other


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("", ["many plans", "1, 2 (they ascend in size)", ":1"]),
        (":0", ["no point 0", "there are 1, 2"]),
        (":3", ["no point 3", "there are 1, 2"]),
        (":x", ["cannot read"]),
    ],
)
def test_wrong_points_are_refused_with_the_right_ones(front: Path, suffix: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        load(f"{front}{suffix}")
    text = f"{refusal.value} {refusal.value.hint}"
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"points": {}}', "not a list of plans"),
        ('{"points": []}', "not a list of plans"),
        ('{"points": [{"point": 1}]}', "has no 'plan'"),
        ('{"points": [{"loss": 1}]}', "no point 1"),
        ('{"schema": 1}', "has no point 1"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "plans.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        load(f"{path}:1")
