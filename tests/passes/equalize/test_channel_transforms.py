"""Every transform of channels keeps the outputs of real models, and does nothing a second time."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load

NIGHTLY = bool(os.environ.get("QCOMPILER_NIGHTLY"))
TRANSFORMS = (
    "equalize-channels{when=always}",
    "equalize-channels{when=always growth=inf residual=true}",
    "absorb-high-bias",
    "permute-channels{block=4}",
    "split-concat{when=always}",
    "equalize-channels{when=always},absorb-high-bias,permute-channels{block=4},split-concat{when=always}",
)
MODELS = ("dscnn_kws", "vit_mnist", "resnet20_cifar10")
MORE = ("mobilenetv1_025_imagenet", "stories260k_lm", "minilm_l6_stsb")


def outputs(model: ir.Model, feeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Every output over all feeds.

    One sample does not do: a softmax whose largest probability is 0.06 moves by 1e-5 of it when nothing but the order
    of sums changes (mobilenetv1_025, first sample: 1.1e-5 by normalize alone, 0.7e-5 by ONNX Runtime's optimizer).
    """
    runner = Runner(model, optimize=False)
    runs = [runner.run(feed) for feed in feeds]
    return {name: np.concatenate([run[name].ravel() for run in runs]) for name in runs[0]}


def keeps(model: ir.Model, feeds: list[dict[str, Any]], text: str) -> None:
    context = Context(Edit(model), target=load("edge-npu"), records=[PassRecord("normalize")])
    for each in spec.resolve("normalize"):
        each.run(model, context)
    wanted = outputs(model, feeds)
    for each in spec.resolve(text):
        context.records.append(PassRecord(each.name))
        each.run(model, context)
    got = outputs(model, feeds)
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= 1e-5 * np.abs(array).max()
    if "," not in text:
        count = context.edit.count
        for each in spec.resolve(text):
            each.run(model, context)
        assert context.edit.count == count


@pytest.mark.parametrize("text", TRANSFORMS)
@pytest.mark.parametrize("name", ["digits_cnn", "digits_vit"])
def test_samples(sample_models: dict[str, Path], name: str, text: str) -> None:
    model = io.load(sample_models[name])
    value = model.graph.inputs[0]
    shape = [size if isinstance(size, int) else 2 for size in value.shape or ()]
    keeps(model, [{str(value.name): np.random.default_rng(0).random(shape).astype(np.float32)}], text)


@pytest.mark.parametrize("text", TRANSFORMS)
@pytest.mark.parametrize("name", MODELS + (MORE if NIGHTLY else ()))
def test_pretrained_models(zoo: ModuleType, name: str, text: str) -> None:
    case = zoo.load(name)
    keeps(io.load(case.model), case.calibration(6), text)
