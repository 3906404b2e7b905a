"""What ``--format`` means for each operator of a target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.errors import UsageError
from qcompiler.quant.format import QFormat
from qcompiler.target.formats import (
    FormatRequest,
    WeightChoice,
    activation_format,
    resolve_format,
    weight_format,
    widest_first,
)
from qcompiler.target.load import load
from qcompiler.target.schema import Granularity, OperatorRule, Role

BLOCKY = OperatorRule(
    "MatMul",
    inputs=(Role.ACTIVATION, Role.WEIGHT),
    activations=(QFormat(8),),
    weights=(QFormat(8, symmetric=True), QFormat(4, symmetric=True), QFormat(4)),
    granularity=(Granularity.CHANNEL, Granularity.BLOCK),
    block_sizes=(32, 128),
)


@pytest.mark.parametrize(
    ("target", "text", "weight", "granularity"),
    [
        ("cpu-x86", None, "i8/sym", "channel"),
        ("cpu-x86", "w8a8/tensor", "i8/sym", "tensor"),
        ("cpu-x86", "W7A8", "i7/sym", "channel"),
        ("cpu-x86-avx2", None, "i7/sym", "channel"),
        ("edge-npu", None, "i8/sym/narrow", "channel"),
        ("edge-npu", "w4a8", "i4/sym", "channel"),
        ("edge-npu", "w2a8/sym", "i2/sym", "channel"),
        ("edge-npu", "w8a16", "i8/sym/narrow", "channel"),
        ("edge-npu-per-tensor", "w4a8", "i4/sym", "tensor"),
        ("lowbit-cpu", "w4a4", "i4/sym", "channel"),
    ],
)
def test_accepted(target: str, text: str | None, weight: str, granularity: str) -> None:
    profile = load(target)
    choice = weight_format(profile.operators["Conv"], resolve_format(profile, text))
    assert (str(choice.format), str(choice.granularity), choice.reason) == (weight, granularity, "")


@pytest.mark.parametrize(
    ("target", "text", "message"),
    [
        ("cpu-x86", "w4a8", "cpu-x86 takes 8/7-bit weights only"),
        ("cpu-x86", "w8a16", "cpu-x86 takes 8-bit activations only"),
        ("cpu-x86", "w8a8/block=32", "Conv takes weight scales per channel, tensor only"),
        ("cpu-x86", "w8a8/asym", "Conv takes 8-bit weights symmetric only"),
        ("cpu-x86-avx2", "w8a8", "takes 7-bit weights only"),
        ("edge-npu", "w3a8", "takes 8/4/2-bit weights only"),
        ("edge-npu", "w2a16", "does not offer w2a16"),
        ("edge-npu", "w4a4", "edge-npu takes 16/8-bit activations only"),
        ("lowbit-cpu", "w2a4", "does not offer w2a4"),
        ("edge-npu-per-tensor", "w8a8/channel", "per tensor only"),
        ("edge-npu", "w8b8", "is not a format"),
        ("edge-npu", "w8a8/blok=32", "did you mean 'block=N'"),
        ("edge-npu", "w8a8/block=1", "unknown or contradicts"),
        ("edge-npu", "w8a8/block=" + "9" * 5000, "unknown or contradicts"),
        ("edge-npu", "w8a8/sym/asym", "unknown or contradicts"),
        ("edge-npu", "w8a8/tensor/block=32", "unknown or contradicts"),
        ("edge-npu", "", "is not a format"),
    ],
)
def test_refused_with_the_reason(target: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_format(load(target), text)
    assert message in str(caught.value)


def test_refusal_lists_what_is_offered() -> None:
    with pytest.raises(UsageError, match=r"Conv, MatMul, Gemm: 8/7-bit sym weights per channel/tensor"):
        resolve_format(load("cpu-x86"), "w4a8")


@pytest.mark.parametrize(
    ("asked", "text", "granularity", "block", "reason"),
    [
        ("w8a8", "i8/sym", "channel", None, ""),
        ("w4a8/asym", "i4", "channel", None, ""),
        ("w4a8/block=32", "i4/sym", "block", 32, ""),
        ("w4a8/block=64", "i4/sym", "block", 32, "takes blocks of 128/32 only"),
        ("w3a8", "i4/sym", "channel", None, "takes 8/4-bit weights only"),
        ("w5a8", "i8/sym", "channel", None, "takes 8/4-bit weights only"),
        ("w16a8", "i8/sym", "channel", None, "takes 8/4-bit weights only"),
        ("w8a8/asym", "i8/sym", "channel", None, "takes 8-bit weights symmetric only"),
        ("w8a8/tensor", "i8/sym", "channel", None, "per channel, block only"),
    ],
)
def test_least_loss_with_reason(asked: str, text: str, granularity: str, block: int | None, reason: str) -> None:
    name, *modifiers = asked.split("/")
    weight, activation = name[1:].split("a")
    symmetric = None if "asym" not in modifiers else False
    wanted = next((int(item[6:]) for item in modifiers if item.startswith("block=")), None)
    sharing = Granularity.BLOCK if wanted else Granularity.TENSOR if "tensor" in modifiers else None
    choice = weight_format(BLOCKY, FormatRequest(asked, int(weight), int(activation), sharing, wanted, symmetric))
    assert (str(choice.format), str(choice.granularity), choice.block) == (text, granularity, block)
    assert reason in choice.reason
    assert bool(reason) == bool(choice.reason)


@settings(deadline=None)  # the first example reads the profiles
@given(st.sampled_from(["edge-npu", "cpu-x86"]), st.integers(1, 20))
def test_never_fewer_bits_than_asked_where_more_exist(name: str, bits: int) -> None:
    rule = load(name).operators["MatMul"]
    chosen = weight_format(rule, FormatRequest("", bits, 8)).format
    most = max(form.bits for form in rule.weights)
    assert chosen.bits >= min(bits, most)


def test_wide_operators_read_sixteen_bits() -> None:
    target = load("edge-npu")
    request = resolve_format(target, "w8a8")
    assert activation_format(target.operators["LayerNormalization"], request).format.bits == 16
    assert activation_format(target.operators["Conv"], request).format == QFormat(8)
    assert activation_format(target.operators["Gelu"], resolve_format(target, "w8a16")).format.bits == 16
    assert activation_format(load("cpu-x86").operators["Add"], request).format == QFormat(8, signed=False)


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "channel", "summed"),
    [
        ("Conv", (8, 64, 3, 3), {}, 0, 1),
        ("ConvTranspose", (64, 8, 3, 3), {}, 1, 0),
        ("Gemm", (64, 8), {}, 1, 0),
        ("Gemm", (8, 64), {"transB": 1}, 0, 1),
        ("MatMul", (64, 8), {}, 1, 0),
        ("MatMul", (3, 64, 8), {}, None, 1),
        ("MatMul", (64,), {}, None, None),
    ],
)
def test_axes(
    builder: Callable[..., object],
    op_type: str,
    shape: tuple[int, ...],
    attributes: dict[str, int],
    channel: int | None,
    summed: int | None,
) -> None:
    build = builder()
    result = build.op(op_type, build.input(1, 64), build.constant(np.zeros(shape, np.float32)), **attributes)  # type: ignore[attr-defined]
    node: ir.Node = result.producer()
    form = QFormat(4, symmetric=True)
    assert WeightChoice(form, Granularity.CHANNEL).on(node) == (form if channel is None else form.along(channel))
    expected = form if summed is None else form.along(summed, 32)
    assert WeightChoice(form, Granularity.BLOCK, 32).on(node) == expected
    assert WeightChoice(form, Granularity.BLOCK, 64).on(node) == (form if channel is None else form.along(channel))
    assert WeightChoice(form, Granularity.TENSOR).on(node) == form


def test_formats_from_the_widest_to_the_narrowest() -> None:
    assert widest_first(load("edge-npu"), ("w4a8", "w8a8", "w8a16", "w2a8", "w8a8")) == (
        "w8a16", "w8a8", "w4a8", "w2a8",
    )  # fmt: skip
    assert widest_first(load("lowbit-cpu"), ("w8a8", "w4", "w4a8", "w8")) == ("w8", "w4", "w8a8", "w4a8")
    with pytest.raises(UsageError, match="'wide' is not a format"):
        widest_first(load("edge-npu"), ("w8a8", "wide"))
