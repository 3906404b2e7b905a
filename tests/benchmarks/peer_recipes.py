"""Quantize one model with one peer to 8 bits: ``peer_recipes.py RECIPE MODEL DATA OUTPUT``, run by the peer's Python.

A recipe is what the peer's documentation gives for weights and activations of 8 bits on ONNX, and the most accurate
setting of it that ends in minutes on two cores. All get the same samples: an ``.npz`` of the model's inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Feed = dict[str, Any]


def feeds_of(path: Path) -> list[Feed]:
    """One feed per sample."""
    with np.load(path) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(columns.values())))
    return [{name: column[i : i + 1] for name, column in columns.items()} for i in range(count)]


class Reader:
    """What ONNX Runtime's quantizer, and others after it, read samples from."""

    def __init__(self, feeds: list[Feed]) -> None:
        self.feeds = feeds
        self.rewind()

    def rewind(self) -> None:
        self.left: Iterator[Feed] = iter(self.feeds)

    def get_next(self) -> Feed | None:
        return next(self.left, None)


def onnxruntime_static(model: Path, feeds: list[Feed], output: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Given(Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    quantize_static(str(prepared), str(output), Given(feeds), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)  # fmt: skip


def nncf(model: Path, feeds: list[Feed], output: Path, *, fast: bool = True) -> None:
    import nncf as peer

    kind = peer.ModelType.TRANSFORMER if "minilm" in str(model) else None
    made = peer.quantize(onnx.load(model), peer.Dataset(feeds), subset_size=len(feeds), model_type=kind,
                         fast_bias_correction=fast)  # fmt: skip
    onnx.save(made, output)


def nncf_accurate(model: Path, feeds: list[Feed], output: Path) -> None:
    nncf(model, feeds, output, fast=False)


def quark(model: Path, feeds: list[Feed], output: Path, preset: str = "A8W8_CONFIG") -> None:
    import quark.onnx as peer
    from quark.onnx.quantization.config import custom_config

    config = peer.QConfig.get_default_config(preset.removesuffix("_CONFIG")) if hasattr(peer, "QConfig") else None
    if config is None:
        config = getattr(custom_config, preset)
    peer.ModelQuantizer(config).quantize_model(str(model), str(output), Reader(feeds))


def quark_adaround(model: Path, feeds: list[Feed], output: Path) -> None:
    quark(model, feeds, output, "A8W8_ADAROUND_CONFIG")


def aimet(model: Path, feeds: list[Feed], output: Path, *, refine: str = "") -> None:
    import aimet_onnx as peer
    from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight
    from aimet_onnx.cross_layer_equalization import equalize_model

    loaded = onnx.load(model)
    if refine == "equalized":
        equalize_model(loaded)
    else:
        fold_all_batch_norms_to_weight(loaded)
    sim = peer.QuantizationSimModel(loaded, param_type=peer.int8, activation_type=peer.int8, config_file="default",
                                    providers=["CPUExecutionProvider"])  # fmt: skip
    if refine == "searched":
        peer.apply_seq_mse(sim, feeds)
    sim.compute_encodings(feeds)
    onnx.save(sim.to_onnx_qdq(), output)


def aimet_equalized(model: Path, feeds: list[Feed], output: Path) -> None:
    aimet(model, feeds, output, refine="equalized")


def aimet_searched(model: Path, feeds: list[Feed], output: Path) -> None:
    aimet(model, feeds, output, refine="searched")


RECIPES: dict[str, Callable[[Path, list[Feed], Path], None]] = {
    "onnxruntime": onnxruntime_static,
    "nncf": nncf,
    "nncf-accurate": nncf_accurate,
    "quark": quark,
    "quark-adaround": quark_adaround,
    "aimet": aimet,
    "aimet-equalized": aimet_equalized,
    "aimet-searched": aimet_searched,
}


if __name__ == "__main__":
    recipe, model, data, output = sys.argv[1:]
    RECIPES[recipe](Path(model), feeds_of(Path(data)), Path(output))
