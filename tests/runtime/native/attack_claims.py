"""Runs broken models of other compilers, claimed, in a process of its own.

``python -m tests.runtime.native.attack_claims --cases N --log FILE``. Every model must be claimed and right, left to
ONNX Runtime, or refused; a crash ends the process, and the file names the model that did it.
"""

from __future__ import annotations

import argparse
import collections
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from qcompiler.runtime import library, native_operator, sessions
from tests.runtime.native.foreign_groups import random_group
from tests.runtime.native.test_claim_block_products import Product

TYPES = (np.int8, np.uint8, np.int16, np.int32, np.float32, np.float64, np.uint16)
NUMBERS = (0, 1, -1, 2, 3, 7, 64, 255, 1 << 20, (1 << 31) - 1, 1 << 40, -(1 << 63), (1 << 63) - 1)


def changed_constant(array: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """The constant in another type or shape, or with extreme values."""
    kind = int(random.integers(5))
    with np.errstate(all="ignore"):
        if kind == 0:
            return array.astype(TYPES[random.integers(len(TYPES))])
        if kind == 1:
            return array[None] if random.integers(2) else array.reshape(-1)
        if kind == 2:
            return array[..., :0] if array.ndim else array.reshape(1)
        if kind == 3:
            return np.concatenate([array, array], axis=-1) if array.ndim else array.reshape(1)
        if array.dtype == np.float32:
            return np.full_like(array, [np.nan, np.inf, 0, -1, 3e38, 1e-45, 1e-30][random.integers(7)])
        return np.full_like(array, [0, 1][random.integers(2)])


def changed_node(node: onnx.NodeProto, random: np.random.Generator) -> None:
    """Another number in an attribute, an attribute less, or an input less."""
    kind = int(random.integers(4))
    if kind == 0 and len(node.input) > 1:
        node.input[random.integers(1, len(node.input))] = ""
    elif kind == 1 and len(node.input) > 2:
        del node.input[-1]
    elif node.attribute:
        chosen = node.attribute[random.integers(len(node.attribute))]
        value = helper.get_attribute_value(chosen)
        number = NUMBERS[random.integers(len(NUMBERS))]
        if kind == 2:
            node.attribute.remove(chosen)
        elif isinstance(value, int):
            chosen.i = number
        elif chosen.ints:
            chosen.ints[random.integers(len(chosen.ints))] = number


def run(model: onnx.ModelProto, x: NDArray[Any], claim: list[str]) -> tuple[NDArray[Any], bool] | str:
    """The result and whether something was claimed; the refusal otherwise."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = sessions.session(model, threads=1, claim=claim, options=options)
        groups = session.get_provider_graph_assignment_info()
        return session.run(["y"], {"x": x})[0], any(group.ep_name == sessions.PROVIDER for group in groups)
    except Exception as error:
        if not str(error).strip():
            raise SystemExit("a refusal without a word") from error
        return str(error)


def attack(seed: int) -> str:
    """Break one model and run it; returns how it ended."""
    random = np.random.default_rng(seed)
    made = Product(seed) if seed % 3 == 0 else random_group(random)
    model = made.model()
    for _ in range(int(random.integers(1, 4))):
        if random.integers(2):
            held = model.graph.initializer[random.integers(len(model.graph.initializer))]
            array = changed_constant(onnx.numpy_helper.to_array(held), random)
            held.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), held.name))
        else:
            changed_node(model.graph.node[random.integers(len(model.graph.node))], random)
    found = run(model, made.x, ["qdq", "matmulnbits"])
    if isinstance(found, str):
        if not isinstance(run(model, made.x, []), str):
            raise SystemExit(f"seed {seed}: what ONNX Runtime runs was refused: {found}")
        return "refusal"
    if not found[1]:
        return "left alone"
    expected = run(model, made.x, [])
    if isinstance(expected, str) or seed % 3 == 0:
        return "claimed"  # float results are compared elsewhere
    distance = np.abs(found[0].astype(np.int64) - expected[0].astype(np.int64)).max(initial=0)
    if found[0].shape != expected[0].shape or distance > 1:
        raise SystemExit(f"seed {seed}: a claimed group differs by {distance}")
    return "claimed and right"


def main() -> None:
    """Attack and print how the attempts ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("/dev/null"))
    parser.add_argument("--library", type=Path, help="the native library to attack, such as one with sanitizers")
    options = parser.parse_args()
    if options.library is not None:
        for module in (library, native_operator, sessions):
            module.library_path = lambda: options.library
    ends: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.cases):
        options.log.write_text(f"seed {seed}\n")
        ends[attack(seed)] += 1
    if options.cases >= 30 and "claimed and right" not in ends:
        raise SystemExit(f"nothing was claimed: {dict(ends)}")
    sys.stdout.write(f"ended: {dict(sorted(ends.items()))}\n")


if __name__ == "__main__":
    main()
