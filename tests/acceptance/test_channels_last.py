"""Channels last on sample and zoo models: the bits of channels first, Transposes at the border only."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from qcompiler.analysis.layers import match_layers
from qcompiler.ir import io
from qcompiler.runtime.interpreter import Interpreter
from tests.acceptance.conftest import session

NETWORKS = {"digits_cnn": 0, "dscnn_kws": 0, "resnet20_cifar10": 1, "mobilenetv1_025_imagenet": 1}
"""Transposes that are left; an image of one channel needs none."""

PROFILE = """
schema = 1
name = "edge-npu-channels-last"
title = "Edge NPU whose convolutions want channels last"
extends = "edge-npu"
[integer]
layout = "channels-last"
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "channels-last.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_has_channels_last_and_only_the_image_is_transposed(compiled, profile, name):
    kinds = Counter(node.op_type for node in onnx.load(compiled(name, profile).path).graph.node)
    assert kinds["QConv"] == kinds["MaxPool"] == kinds["QGlobalAveragePool"] == 0
    assert kinds["QConvChannelsLast"] > 0
    assert kinds["Transpose"] == NETWORKS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_channels_first_to_the_last_bit(compiled, profile, nightly, name):
    first, last = compiled(name), compiled(name, profile)
    with np.load(first.subject.calibration) as held:
        data = {key: held[key] for key in held.files}
    stock, turned, specified = session(first.path), session(last.path), Interpreter(last.path)
    names = [item.name for item in stock.get_inputs()]
    for index in range(128 if nightly else 12):
        feed = {key: data[key][index : index + 1] for key in names}
        wanted = stock.run(None, feed)
        for one, other in zip(wanted, turned.run(None, feed), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
        if nightly or index < 2:
            for one, other in zip(wanted, specified.run(feed).values(), strict=True):
                np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_compared_as_with_channels_first(compiled, profile, name):
    first, last = compiled(name), compiled(name, profile)
    layers = [{item["value"]: item["sqnr"] for item in made.report["quality"]["layers"]} for made in (first, last)]
    assert layers[0] == layers[1] != {}
    reference = io.load(first.subject.model)
    assert match_layers(reference, io.load(first.path)).keys() == match_layers(reference, io.load(last.path)).keys()
