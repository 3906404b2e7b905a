"""Pipeline text, TOML and passes are one value."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcompiler.errors import PipelineError
from qcompiler.pipeline import registry, spec
from qcompiler.pipeline.base import Context, Pass


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True)
class Everything(Pass):
    name: ClassVar[str] = "everything"
    flag: bool = False
    count: int = 3
    ratio: float = 0.5
    text: str = "some"
    maybe: str | None = None
    limit: int | None = 7
    method: Literal["mse", "minmax"] = "mse"
    level: Level = Level.LOW
    names: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 2.0)

    def run(self, model: ir.Model, ctx: Context) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Plain(Pass):
    name: ClassVar[str] = "plain"

    def run(self, model: ir.Model, ctx: Context) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def registered() -> object:
    registry._PLUGINS.update({"everything": Everything, "plain": Plain})
    yield
    registry._PLUGINS.clear()


finite = st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["none", "true", "3", "1e5", '"none"', "re:.*/Conv_[0-9]+", "a b", "}", "inf", ""]
)
everything = st.builds(
    Everything,
    flag=st.booleans(), count=st.integers(), ratio=finite, text=texts, maybe=st.none() | texts,
    limit=st.none() | st.integers(), method=st.sampled_from(["mse", "minmax"]), level=st.sampled_from(Level),
    names=st.lists(texts, max_size=3).map(tuple), pair=st.tuples(st.integers(), finite),
)
pipelines = st.lists(everything | st.just(Plain()), min_size=1, max_size=3).map(tuple)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw reads tables of characters
@given(pipelines)
def test_text_round_trip(passes: tuple[Pass, ...]) -> None:
    assert spec.parse(spec.to_text(passes)) == passes


@given(pipelines)
def test_toml_round_trip(passes: tuple[Pass, ...]) -> None:
    assert spec.from_toml(spec.to_toml(passes)) == passes


def test_only_differences_are_printed() -> None:
    passes = (Everything(method="minmax", count=2048, names=("a", "b")), Plain(), Everything())
    assert spec.to_text(passes) == "everything{count=2048 method=minmax names=a,b},plain,everything"


def test_types_follow_annotations() -> None:
    (made,) = spec.parse('everything{ratio=2 names=solo text="3" level=high maybe=none limit=none flag=true}')
    assert made == Everything(True, 3, 2.0, "3", None, None, "mse", Level.HIGH, ("solo",))
    assert isinstance(made.ratio, float)
    assert math.isinf(spec.parse("everything{ratio=-inf}")[0].ratio)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("everythin", ["'everythin'", "did you mean 'everything'"]),
        ("plain,nonsense1,nonsense2", ["'nonsense1', 'nonsense2'"]),
        ("everything{coutn=3}", ["no option 'coutn'", "did you mean 'count'"]),
        ("plain{x=1}", ["no option 'x'", "it has none"]),
        ("everything{count=many}", ["'count'", "an integer"]),
        ("everything{count=true}", ["'count'", "an integer"]),
        ("everything{method=entropy}", ["'method'", "mse | minmax"]),
        ("everything{level=1}", ["low | high"]),
        ("everything{pair=1}", ["an integer,a number"]),
        ("everything{count=1", ["closing brace"]),
        ("everything{count}", ["option=value"]),
        ("everything{count=1 count=2}", ["twice"]),
        ("plain plain", ["comma is missing"]),
        ("plain,", ["ends with a comma"]),
        (",plain", ["','"]),
        ("", ["empty"]),
        ('everything{text="open}', ["cannot be read"]),
        ('everything{text="\\q"}', ["not a string"]),
    ],
)
def test_bad_text_is_refused_with_words(text: str, words: list[str]) -> None:
    with pytest.raises(PipelineError) as caught:
        spec.parse(text)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[[pass]]\nname = 3", "no name"),
        ("passes = []", "unknown key 'passes'"),
        ("title = 'x'", "empty"),
        ("[[pass", "not TOML"),
        ("[[pass]]\nname='everything'\ncount='many'", "an integer"),
        ("[[pass]]\nname='everything'\ncount={a=1}", "an integer"),
    ],
)
def test_bad_toml_is_refused_with_words(text: str, word: str) -> None:
    with pytest.raises(PipelineError, match=word.replace("[", r"\[")):
        spec.from_toml(text)


def test_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\n' + spec.to_toml((Plain(), Everything(count=1))))
    assert spec.resolve(str(path)) == (Plain(), Everything(count=1))
    with pytest.raises(PipelineError, match="cannot be read"):
        spec.resolve(str(tmp_path / "absent.toml"))


def test_named_pipelines_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, *passes: str) -> spec.NamedPipeline:
        path = tmp_path / f"{name}.toml"
        path.write_text("".join(f'[[pass]]\nname = "{item}"\n' for item in passes))
        return spec.NamedPipeline(name, "", ",".join(passes), path)

    shipped = {"one": write("one", "plain", "two"), "two": write("two", "everything"), "loop": write("loop", "loop")}
    monkeypatch.setattr(spec, "named", lambda: shipped)
    assert spec.parse("one,plain") == (Plain(), Everything(), Plain())
    with pytest.raises(PipelineError, match="takes no options"):
        spec.parse("one{a=1}")
    with pytest.raises(PipelineError, match="contains itself"):
        spec.parse("loop")


def test_shipped_pipelines_are_wellformed() -> None:
    for name, pipeline in spec.named().items():
        assert pipeline.title, name
        assert spec.parse(pipeline.text), name


def test_quoting_is_only_where_needed() -> None:
    assert spec.to_text((Everything(text="re:layer.1/Conv*"),)) == "everything{text=re:layer.1/Conv*}"
    assert spec.to_text((Everything(text="a,b"),)) == 'everything{text="a,b"}'
