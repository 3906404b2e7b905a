"""Profiles: every field validated, extends, hints, untrusted files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qcompiler.errors import TargetError
from qcompiler.quant.format import QFormat
from qcompiler.target import load as loading
from qcompiler.target.integer import IntegerArithmetic, Layout, Lowering
from qcompiler.target.load import load, names
from qcompiler.target.schema import Granularity, InputOutput

BASE = """
schema = 1
name = "mine"
title = "Mine"
[operators.Conv]
inputs = ["activation", "weight", "bias"]
activations = ["i8"]
weights = ["i8/sym"]
granularity = ["channel"]
bias = "i32/sym"
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(folder: Path, text: str) -> str:
    with pytest.raises(TargetError) as caught:
        load(write(folder, text))
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("name", names())
def test_shipped_profile_loads_under_its_own_name(name: str) -> None:
    target = load(name)
    assert target.name == name
    assert target.default_format in target.formats
    assert len(target.description) > 40


def test_the_profiles_promised_are_shipped() -> None:
    assert {"cpu-x86", "cpu-x86-avx2", "edge-npu", "edge-npu-per-tensor"} <= set(names())


def test_per_tensor_profile_has_no_channel_scales_and_keeps_the_rest() -> None:
    base, child = load("edge-npu"), load("edge-npu-per-tensor")
    assert child.lineage == ("edge-npu",)
    assert all(rule.granularity in ((), (Granularity.TENSOR,)) for rule in child.rules())
    assert set(child.operators) == set(base.operators)
    assert child.operators["Conv"].weights == base.operators["Conv"].weights


def test_power_of_two_scales_reach_every_format_of_every_rule(tmp_path: Path) -> None:
    text = BASE.replace("schema = 1", "schema = 1\npower_of_two_scales = true")
    rule = load(write(tmp_path, text)).operators["Conv"]
    assert (str(rule.activations[0]), str(rule.weights[0]), str(rule.bias)) == ("i8/pot", "i8/sym/pot", "i32/sym")
    rule = load(write(tmp_path, BASE.replace('["i8/sym"]', '["i8/sym/pot"]'))).operators["Conv"]
    assert [form.power_of_two for form in (*rule.activations, *rule.weights)] == [False, True]


@pytest.mark.parametrize(
    ("change", "reads", "writes"),
    [
        ("", 6, 6),
        ('[defaults]\nactivations = ["i8"]', 6, 0),  # MatMul lists 16 bits of its own
        ("power_of_two_scales = true", 0, 0),
    ],
)
def test_log_formats_need_free_16_bit_codes(tmp_path: Path, change: str, reads: int, writes: int) -> None:
    target = load(write(tmp_path, f'schema = 1\nname = "mine"\nextends = "edge-npu"\n{change}'))
    assert len(target.operators["MatMul"].log_operands()) == reads
    assert len(target.operators["Softmax"].log_results()) == writes


def test_fpga_computes_with_shifts_alone() -> None:
    target = load("fpga-pot")
    assert target.lowering is Lowering.INTEGER
    assert target.integer.shifts_only
    assert target.power_of_two_scales
    assert all(form.power_of_two for rule in target.rules() for form in (*rule.activations, *rule.weights))
    assert {form.bits for form in target.operators["Conv"].weights} == set(range(2, 9))
    assert all(form.bits == 8 for rule in target.rules() for form in rule.activations)


def test_avx2_sums_cannot_saturate() -> None:
    target = load("cpu-x86-avx2")
    for rule in target.rules():
        for form in rule.weights:
            assert 2 * 255 * max(-form.minimum, form.maximum) < 2**15
        assert all(not form.signed for form in rule.second)


def test_file_by_path_and_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, BASE)
    monkeypatch.chdir(tmp_path)
    assert load("./mine.toml") == load("mine.toml")
    assert load("mine.toml").operators["Conv"].bias == QFormat(32, symmetric=True)


def test_unknown_name_gives_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="did you mean 'edge-npu'"):
        load("edge-npx")
    with pytest.raises(TargetError, match="is not a file"):
        load(tmp_path / "absent.toml")


def test_extends_a_shipped_profile_and_merges(tmp_path: Path) -> None:
    text = """
schema = 1
name = "mine"
extends = "edge-npu"
input_output = "quantized"
remove = ["Softmax"]
[operators.Conv]
fuse = []
"""
    target, base = load(write(tmp_path, text)), load("edge-npu")
    assert target.input_output is InputOutput.QUANTIZED
    assert target.operators["Conv"].fuse == ()
    assert target.operators["Conv"].weights == base.operators["Conv"].weights
    assert set(base.operators) - set(target.operators) == {"Softmax"}
    assert target.lineage == ("edge-npu",)
    assert target.title == base.title


def test_integer_arithmetic_is_read_and_merges_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, BASE + "[integer]\nmultiplier_bits = 16\nshift = [1, 31]", "base.toml")
    text = 'schema = 1\nname = "child"\nextends = "./base.toml"\nlowering = "integer"\n[integer]\ntable_entries = 0'
    target = load(write(tmp_path, text))
    assert target.lowering is Lowering.INTEGER
    assert target.integer == IntegerArithmetic(multiplier_bits=16, shift=(1, 31), table_entries=0)
    turned = load(write(tmp_path, text + "\nlayout = 'channels-last'", "turned.toml"))
    assert turned.integer == dataclasses.replace(target.integer, layout=Layout.CHANNELS_LAST)
    assert load(tmp_path / "base.toml").lowering is Lowering.QDQ
    assert load("cpu-x86").integer == IntegerArithmetic()


def test_extends_a_neighbouring_file_and_defaults_reach_inherited_operators(tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    write(folder, BASE, "base.toml")
    child = write(folder, 'schema = 1\nname = "child"\nextends = "./base.toml"\n[operators.Relu]\nactivations = ["i8"]')
    assert set(load(child).operators) == {"Conv", "Relu"}


def test_cycle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 'schema = 1\nextends = "./b.toml"', "a.toml")
    write(tmp_path, 'schema = 1\nextends = "./a.toml"', "b.toml")
    with pytest.raises(TargetError, match="extends itself"):
        load(tmp_path / "a.toml")


def test_long_chain_is_refused(tmp_path: Path) -> None:
    for index in range(12):
        write(tmp_path, f'schema = 1\nextends = "./p{index + 1}.toml"', f"p{index}.toml")
    with pytest.raises(TargetError, match="more than 8 profiles"):
        load(tmp_path / "p0.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 2", "schema 2 is not known"),
        ("name = 'x'", "the schema version is missing"),
        ("schema = true", "schema True is not known"),
        ("schema = 1\nname = [", "is not TOML"),
        ("schema = 1\nextends = 3", "not the name of a profile"),
        ('schema = 1\nextends = "edge-npq"', "did you mean 'edge-npu'"),
        ('schema = 1\nextends = "edge-npu"\nremove = ["Sofmax"]', "did you mean 'Softmax'"),
        (BASE.replace('name = "mine"', ""), "name: a required key is missing"),
        (BASE.replace('name = "mine"', 'name = "a b"'), "is not a name"),
        (BASE.replace('title = "Mine"', 'title = ""'), "a title is one line"),
        (BASE.replace("schema = 1", "schema = 1\nformts = ['w8a8']"), "did you mean 'formats'"),
        (BASE.replace("schema = 1", "schema = 1\nformats = ['8x8']"), "is not a format name"),
        (BASE.replace("schema = 1", "schema = 1\ndefault_format = 'w4a8'"), "is not among formats"),
        (BASE.replace("schema = 1", "schema = 1\nopset = 99"), "outside 13 to 26"),
        (BASE.replace("schema = 1", "schema = 1\nopset = '21'"), "is not a whole number"),
        (BASE.replace("schema = 1", "schema = 1\nir_version = 2"), "outside 7 to 13"),
        (BASE.replace("schema = 1", "schema = 1\nscale_floor = 0"), "is not between 0 and 1"),
        (BASE.replace("schema = 1", "schema = 1\nscale_floor = nan"), "is not between 0 and 1"),
        (BASE.replace("schema = 1", "schema = 1\npower_of_two_scales = 1"), "is not true or false"),
        (BASE.replace("schema = 1", "schema = 1\ninput_output = 'flot'"), "did you mean 'float'"),
        (BASE + 'log_inputs = ["i4"]', "operators.Conv.log_inputs: 'i4' is no log format"),
        (BASE + 'log_outputs = ["log9"]', "a format of 9 bits does not exist"),
        (BASE.replace('["i8"]', '["log4"]'), "'log4' is not an activation format"),
        (BASE.replace('["i8/sym"]', '["log4"]'), "'log4' is not a weight format"),
        (BASE.replace("schema = 1", "schema = 1\nfallback = 'refused'"), "did you mean 'refuse'"),
        (BASE.replace("schema = 1", "schema = 1\nrequires = 'avx2'"), "is not a list"),
        (BASE + "[cost]\ntable = 'costs.json'", "cost"),
        (BASE.replace("schema = 1", "schema = 1\nlowering = 'integers'"), "did you mean 'integer'"),
        (BASE.replace("schema = 1", "schema = 1\nintger = 3"), "did you mean 'integer'"),
        (BASE.replace("schema = 1", "schema = 1\ninteger = 3"), "integer: 3 is not a table"),
        (BASE + "[integer]\nmultiplier_bit = 8", "did you mean 'multiplier_bits'"),
        (BASE + "[integer]\nmultiplier_bits = 32", "integer.multiplier_bits: 32 is outside 0 to 31"),
        (BASE + "[integer]\nwide_multiplier_bits = 1", "wide_multiplier_bits: 1 is outside 2 to 31"),
        (BASE + "[integer]\nmultiplier_bits = -1", "-1 is outside 0 to 31"),
        (BASE + "[integer]\nshift = [0, 31]", "is not a range of shifts"),
        (BASE + "[integer]\nshift = [9, 3]", "is not a range of shifts"),
        (BASE + "[integer]\nshift = [1, 63]", "is not a range of shifts"),
        (BASE + "[integer]\nrounding = 'half-upp'", "did you mean 'half-up'"),
        (BASE + "[integer]\nlayout = 'channel-last'", "did you mean 'channels-last'"),
        (BASE + "[integer]\naccumulator_bits = 8", "8 is outside 16 to 32"),
        (BASE + "[integer]\nwide_accumulator_bits = 16", "16 is outside 32 to 64"),
        (BASE + "[integer]\ntable_entries = 128", "128 is neither 0 nor 256"),
        (BASE + "[integer]\ninterpolated_table_entries = 512", "512 is neither 0 nor 513"),
        (BASE.replace("operators.Conv", "operators.Convv"), "did you mean 'Conv'"),
        (BASE + "fuse = ['Rellu']", "operators.Conv.fuse[0]: 'Rellu' is not an ONNX operator"),
        (BASE + "activation = ['i8']", "did you mean 'activations'"),
        (BASE + "kind = 'computes'", "did you mean 'compute'"),
        (BASE + "place = 'betwen'", "did you mean 'between'"),
        (BASE + "output = 'none'", "operators.Conv.output: 'none' is none of"),
        (BASE + "wide = 'alway'", "did you mean 'always'"),
        (BASE + "mixed = 'yes'", "is not true or false"),
        (BASE + "kind = 'same-scale'", "a same-scale operator has no weights"),
        (BASE.replace('"activation", "weight", "bias"', '"activation", "weight"'), "go together"),
        (BASE.replace('"activation", "weight", "bias"', '"weight", "bias"'), "no input is an activation"),
        (BASE.replace('"activation", "weight", "bias"', '"activatoin"'), "did you mean 'activation'"),
        (BASE.replace('["i8"]', "[]"), "no activation format is accepted"),
        (BASE.replace('["i8"]', '["i9"]'), "a format of 9 bits does not exist"),
        (BASE.replace('["i8"]', '["i8", "i8"]'), "an entry is listed twice"),
        (BASE.replace('["i8"]', '["i32"]'), "is not an activation format"),
        (BASE.replace('["i8/sym"]', '["i8/symm"]'), "is not a modifier"),
        (BASE.replace('["i8/sym"]', '["i8/axis=0"]'), "is not a weight format"),
        (BASE.replace('["i8/sym"]', "[8]"), "operators.Conv.weights[0]: 8 is not a format"),
        (BASE.replace('["channel"]', '["chanel"]'), "did you mean 'channel'"),
        (BASE.replace('["channel"]', '["block"]'), "granularity block and block sizes go together"),
        (BASE + "block_sizes = [32]", "granularity block and block sizes go together"),
        (BASE.replace('["channel"]', '["block"]') + "block_sizes = [1]", "a block has at least 2"),
        (BASE.replace('"i32/sym"', '"i8/sym"'), "is not a bias format"),
        (BASE + "constraints.rang = [1, 2]", "did you mean 'rank'"),
        (BASE + "constraints.rank = [1]", "1 entries where 2 belong"),
        (BASE + "constraints.rank = [4, 3]", "is not a range of ranks"),
        (BASE + "constraints.constant_inputs = [-1]", "an input index is negative"),
        (BASE + "constraints.attributes = { group = [] }", "no value is accepted"),
        (BASE + "constraints.attributes = { group = [[1]] }", "is not a number or a text"),
        (BASE + "constraints.zero_point = 'none'", "is none of any, zero"),
        ("schema = 1\nname = 'x'\ntitle = 'x'\noperators = 3", "operators: 3 is not a table"),
        ("schema = 1\nname = 'x'\ntitle = 'x'\n[operators]", "the profile lists no operator"),
        (BASE + "[defaults]\nopset = 3", "defaults.opset: unknown key"),
    ],
)
def test_wrong_profile_is_refused_naming_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    found = refused(tmp_path, text)
    assert message in found
    assert "mine.toml" in found


def test_huge_binary_and_deep_files_are_refused(tmp_path: Path) -> None:
    assert "at most" in refused(tmp_path, "#" * (loading.MAXIMUM_BYTES + 1))
    assert "mine.toml" in refused(tmp_path, "schema = " + "[" * 5000)
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TargetError, match="is not UTF-8"):
        load(path)
    with pytest.raises(TargetError, match="is not a file"):
        load(f"{tmp_path}/")


def test_results_with_parameters_of_their_own(tmp_path: Path) -> None:
    text = BASE + '[operators.Softmax]\nactivations = ["i8", "i16/sym"]\nfixed = { i8 = [0.00390625, -128] }'
    rule = load(write(tmp_path, text)).operators["Softmax"]
    assert rule.fixed_result(QFormat.parse("i8")) == (2.0**-8, -128)
    assert rule.fixed_result(QFormat.parse("i16/sym")) is None
    for fixed, message in [
        ("{ i9 = [1, 0] }", "operators.Softmax.fixed.i9: it writes no such format"),
        ("{ i8 = [0, 0] }", "0.0 is not a scale"),
        ("{ i8 = [1, 128] }", "128.0 is no zero point of i8"),
        ('{ "i16/sym" = [1, 1] }', "1.0 is no zero point of i16/sym"),
        ("{ i8 = [1] }", "1 entries where 2 belong"),
        ('{ i8 = [1, 0] }\nkind = "same-scale"', "a same-scale operator has its input's scale"),
    ]:
        assert message in refused(tmp_path, text.replace("{ i8 = [0.00390625, -128] }", fixed))


def test_multipliers_behind_wide_accumulators() -> None:
    mcu = load("mcu").integer
    assert [mcu.multiplier_bits_for(bound) for bound in (1, 2**31 - 1, 2**31, 2**40)] == [31, 31, 15, 15]
    assert load("fpga-pot").integer.multiplier_bits_for(2**40) == 0


COST = BASE.replace("[operators.Conv]", """[cost]
clock = 1e9
macs_per_cycle = { w8a8 = 256, float = 4 }
bandwidth = 2e9
[operators.Conv]""")


def test_cost_facts_are_read_and_inherited(tmp_path: Path) -> None:
    write(tmp_path, COST, "base.toml")
    text = 'schema = 1\nname = "child"\ntitle = "Child"\nextends = "./base.toml"\n[cost]\nsram = 4096\n'
    facts = load(write(tmp_path, text)).cost
    assert facts is not None
    assert (facts.clock, facts.sram, dict(facts.macs_per_cycle)) == (1e9, 4096, {"w8a8": 256.0, "float": 4.0})
    assert load(write(tmp_path, BASE)).cost is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("bandwidth = 2e9", "bandwith = 2e9", "did you mean 'bandwidth'"),
        ("bandwidth = 2e9", "", "cost.bandwidth: a required key is missing"),
        ("clock = 1e9", "clock = '1 GHz'", "cost.clock: '1 GHz' is not a number"),
        ("w8a8 = 256", "w8a8 = 0", "cost.macs_per_cycle.w8a8: 0.0 is not between 1e-06 and 1e+12"),
        ("w8a8 = 256", "int8 = 256", "cost.macs_per_cycle.int8: 'int8' is not a format"),
        ("bandwidth = 2e9", "bandwidth = 2e9\nsram = 1.5", "cost.sram: 1.5 is not a whole number"),
        ("w8a8 = 256", f"w8a8 = 1{'0' * 400}", "cost.macs_per_cycle.w8a8: a number of that many digits"),
        ("w8a8 = 256", "w0a0 = 256", "cost.macs_per_cycle.w0a0: 'w0a0' is not a format"),
    ],
)
def test_wrong_cost_facts_are_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in refused(tmp_path, COST.replace(old, new))


TABLES = BASE + '[operators.Gather]\nactivations = ["i8", "i16"]\ntables = ["i8/sym/narrow", "i4/sym"]\n'


def test_formats_of_tables_are_read_in_their_order(tmp_path: Path) -> None:
    rule = load(write(tmp_path, TABLES)).operators["Gather"]
    assert [str(form) for form in rule.tables] == ["i8/sym/narrow", "i4/sym"]
    assert load(write(tmp_path, BASE)).operators["Conv"].tables == ()


@pytest.mark.parametrize(
    "changed",
    [
        TABLES.replace("schema = 1", "schema = 1\npower_of_two_scales = true", 1),
        TABLES.replace("[operators.Conv]", "[integer]\nmultiplier_bits = 0\n[operators.Conv]", 1),
        TABLES.replace("[operators.Conv]", '[defaults]\ngranularity = ["tensor"]\n[operators.Conv]', 1),
    ],
    ids=["powers of two", "shifts", "a scale per tensor"],
)
def test_a_target_without_free_scales_per_row_has_none(tmp_path: Path, changed: str) -> None:
    assert load(write(tmp_path, changed)).operators["Gather"].tables == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("i4/sym", "i4", "operators.Gather.tables: 'i4' is no such format"),
        ("i4/sym", "i5/sym", "operators.Gather.tables: 'i5/sym' is no such format"),
        ("[operators.Gather]", "[operators.Relu]", "operators.Relu.tables: it looks up no rows"),
        ("[operators.Gather]", '[operators.Gather]\ninputs = ["float"]', "no input is an activation"),
        ("[operators.Conv]", '[defaults]\ntables = ["i8/sym"]\n[operators.Conv]', "unknown key 'tables'"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in refused(tmp_path, TABLES.replace(old, new, 1))
