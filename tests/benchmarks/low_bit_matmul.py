"""Our matrix products against ONNX Runtime's on one shape: ``low_bit_matmul.py [-m 1 16 128] [--size 4096]``.

Measured, never asserted. Every contestant is one node with a constant weight of ``size × size``; all of them run in
turns in one process, with inputs and outputs bound. Ours are QGemm (int8 activations, weights of 8, 4, 3, 2 bits, one
scale per channel) and QMatMulWeightOnly (float activations, blocks of 32). ONNX
Runtime's are its integer path (MatMulInteger alone, and with DynamicQuantizeLinear in front of it) and MatMulNBits
(4 and 2 bits, blocks of 32, accuracy level 4; for 2 bits also with table look-up).

The roofline is the longer of two times: the bytes that must be read over the bandwidth at which one core reads a
buffer of that size, and the multiply-accumulates over the best rate that any integer product reached here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from qcompiler import runtime
from qcompiler.analysis.interleave import interleave, ratio, stopwatch_of
from qcompiler.quant.functions.catalogue import operators
from qcompiler.quant.functions.definition import DOMAIN, VERSION
from qcompiler.quant.packing import pack

Array = np.ndarray[Any, Any]
OPSET = 21
BLOCK = 32
WARM = 4
KINDS = {"f": TensorProto.FLOAT, "i8": TensorProto.INT8, "u8": TensorProto.UINT8, "i32": TensorProto.INT32}


@dataclass(frozen=True)
class Contestant:
    """One node with its weight.

    Attributes:
        name: What the table calls it.
        ours: Whether it runs on our kernels.
        bits: Width of its weights.
        weight_bytes: Bytes of the weight, its scales and zero points: what a run must read at least.
        model: The model, for ``rows`` rows of activations.
        config: Entries of the session's configuration.
    """

    name: str
    ours: bool
    bits: int
    weight_bytes: int
    model: bytes
    config: tuple[tuple[str, str], ...] = ()


def main() -> None:
    """Print a table per number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--rows", type=int, nargs="+", default=[1, 16, 128], help="rows of activations")
    parser.add_argument("--size", type=int, default=4096, help="K and N")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds per contestant")
    parser.add_argument("--isa", help="instruction set of our kernels")
    parser.add_argument("--processor-time", action="store_true", help="one thread: leave out what other processes do")
    parser.add_argument("--cold", action="store_true", help="do not run a product just before it is timed")
    parser.add_argument("--stock-only", action="store_true", help="leave our kernels out")
    arguments = parser.parse_args()
    peak = mac_peak(arguments)
    say(f"highest rate seen: {peak / 1e9:.0f} GMAC/s (512 × 1024 × 1024)\n")
    for rows in arguments.rows:
        print_table(rows, arguments, peak)


def print_table(rows: int, arguments: argparse.Namespace, peak: float) -> None:
    """Measure all contestants in turns."""
    size = arguments.size
    entries = [item for item in all_contestants(rows, size) if not (item.ours and arguments.stock_only)]
    calls = [opened(item, arguments) for item in entries]
    watch = stopwatch_of(arguments.threads) if arguments.processor_time else time.perf_counter
    times = in_turns(calls, arguments.budget * len(calls), hot=not arguments.cold, watch=watch)
    best = 1e-3 * times.min()
    peak = max(peak, rows * size * size / best / arguments.threads)
    bandwidth = {item.name: read_bandwidth(item.weight_bytes) for item in entries}
    names = [item.name for item in entries]
    four = times[:, names.index("MatMulNBits 4-bit")]
    two = times[:, [index for index, item in enumerate(entries) if item.name.startswith("MatMulNBits 2-bit")]]
    two = two[:, int(np.median(two, axis=0).argmin())]
    integer = times[:, names.index("MatMulInteger u8 × i8")]
    say(f"## {rows} × {size} × {size}, {arguments.threads} thread(s), {len(times)} rounds\n")
    say("| product | median ms | minimum ms | roofline ms | of it | × int8 | × NBits 4 | × NBits 2 |")
    say("|---|---|---|---|---|---|---|---|")
    for index, item in enumerate(entries):
        column = times[:, index]
        reading = 1000 * item.weight_bytes / bandwidth[item.name]
        roof = max(reading, 1000 * rows * size * size / (peak * arguments.threads))
        ratios = " | ".join(f"{ratio(other, column).value:.2f}" for other in (integer, four, two))
        say(
            f"| {'**' + item.name + '**' if item.ours else item.name} | {np.median(column):.3f} | {column.min():.3f} "
            f"| {roof:.3f} | {100 * roof / column.min():.0f} % | {ratios} |"
        )
    widths = ", ".join(f"{item.weight_bytes / 1e6:.1f} MB: {bandwidth[item.name] / 1e9:.0f} GB/s" for item in entries)
    say(f"\nreading {widths}; × is how many times as fast (medians)\n")


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(line + "\n")


# -- contestants -------------------------------------------------------------------------------------------------


def all_contestants(rows: int, size: int) -> list[Contestant]:
    """Ours and ONNX Runtime's."""
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (size, size)).astype(np.int8)
    found = [
        integer_product(rows, codes, dynamic=False), integer_product(rows, codes, dynamic=True),
        blocks(rows, size, 4), blocks(rows, size, 2), blocks(rows, size, 2, look_up=True), gemm(rows, codes),
    ]  # fmt: skip
    found += [packed_gemm(rows, size, bits) for bits in (4, 3, 2)]
    return found + [weight_only(rows, size, bits) for bits in (4, 3, 2)]


def integer_product(rows: int, codes: Array, *, dynamic: bool) -> Contestant:
    """MatMulInteger; ``dynamic`` puts DynamicQuantizeLinear in front and the conversion to float behind."""
    size = len(codes)
    weights = {"w": codes}
    if not dynamic:
        nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"], "product")]
        model = made(nodes, weights, ("u8", [rows, size]), ("i32", [rows, size]))
        return Contestant("MatMulInteger u8 × i8", False, 8, codes.nbytes, model)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "quantize"),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["sum"], "product"),
        helper.make_node("Cast", ["sum"], ["real"], "cast", to=1),
        helper.make_node("Mul", ["s", "ws"], ["scale"], "scales"),
        helper.make_node("Mul", ["real", "scale"], ["y"], "scaled"),
    ]
    weights["ws"] = np.full(size, 0.01, np.float32)
    model = made(nodes, weights, ("f", [rows, size]), ("f", [rows, size]))
    return Contestant("dynamic int8", False, 8, codes.nbytes, model)


def blocks(rows: int, size: int, bits: int, *, look_up: bool = False) -> Contestant:
    """MatMulNBits: weights ``[N, K / block, block · bits / 8]``, one scale per block."""
    random = np.random.default_rng(bits)
    count = size // BLOCK
    weights = {
        "b": random.integers(0, 256, (size, count, BLOCK * bits // 8)).astype(np.uint8),
        "s": random.uniform(0.01, 0.02, (size, count)).astype(np.float32),
    }
    node = helper.make_node(
        "MatMulNBits", ["x", "b", "s"], ["y"], "product", domain="com.microsoft", K=size, N=size, bits=bits,
        block_size=BLOCK, accuracy_level=4,
    )  # fmt: skip
    model = made([node], weights, ("f", [rows, size]), ("f", [rows, size]))
    config = (("mlas.use_lut_gemm", "1"),) if look_up else ()
    name = f"MatMulNBits {bits}-bit{' look-up' if look_up else ''}"
    return Contestant(name, False, bits, sum(item.nbytes for item in weights.values()), model, config)


def gemm(rows: int, codes: Array) -> Contestant:
    """QGemm with int8 weights."""
    return ours(rows, "QGemm", "QGemm 8-bit", 8, codes, {})


def packed_gemm(rows: int, size: int, bits: int) -> Contestant:
    """QGemmPacked."""
    limit = 1 << (bits - 1)
    codes = np.random.default_rng(bits).integers(-limit, limit, (size, size)).astype(np.int8)
    extra = {"bits": bits, "weight_shape": [size, size]}
    return ours(rows, "QGemmPacked", f"QGemm {bits}-bit", bits, pack(codes, bits), extra)


def ours(rows: int, operator: str, name: str, bits: int, weight: Array, extra: dict[str, Any]) -> Contestant:
    """A product of codes, rescaled per channel."""
    size = extra["weight_shape"][0] if extra else weight.shape[1]
    weights = {
        "w": weight, "bias": np.zeros(size, np.int32), "b": np.full(size, 1 << 30, np.int32),
        "c": np.full(size, 44, np.uint8),
    }  # fmt: skip
    attributes = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127} | extra
    node = helper.make_node(operator, ["x", *weights], ["y"], "product", domain=DOMAIN, **attributes)
    model = made([node], weights, ("i8", [rows, size]), ("i8", [rows, size]))
    return Contestant(name, True, bits, weight.nbytes, model)


def weight_only(rows: int, size: int, bits: int) -> Contestant:
    """QMatMulWeightOnly: blocks of 32."""
    limit = 1 << (bits - 1)
    codes = np.random.default_rng(bits).integers(-limit, limit, (size, size)).astype(np.int8)
    weights = {
        "w": pack(codes, bits), "multiplier": np.full((size, size // BLOCK), 1000, np.uint16),
        "scale": np.full(size, 1e-5, np.float32), "zero": np.zeros((1, 1), np.int8),
    }  # fmt: skip
    node = helper.make_node(
        "QMatMulWeightOnly", ["x", *weights], ["y"], "product", domain=DOMAIN, bits=bits, block=BLOCK,
        weight_shape=[size, size],
    )  # fmt: skip
    model = made([node], weights, ("f", [rows, size]), ("f", [rows, size]))
    count = sum(item.nbytes for item in weights.values())
    return Contestant(f"weight-only {bits}-bit", True, bits, count, model)


def made(nodes: list[Any], weights: dict[str, Array], x: tuple[str, list[int]], y: tuple[str, list[int]]) -> bytes:
    """A model of these nodes, with the functions of our operators."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "product", [info("x", KINDS[x[0]], x[1])], [info("y", KINDS[y[0]], y[1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    used = {node.op_type for node in nodes if node.domain == DOMAIN}
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    functions, pending = [], sorted(used)
    while pending:
        name = pending.pop()
        functions.append(operators()[name].function(OPSET))
        pending += [item for item in operators()[name].calls if item not in {f.name for f in functions}]
    if used:
        imports.append(helper.make_opsetid(DOMAIN, VERSION))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)
    assert isinstance(model, onnx.ModelProto)
    return bytes(model.SerializeToString())


# -- running -----------------------------------------------------------------------------------------------------


def opened(entry: Contestant, arguments: argparse.Namespace) -> Callable[[], None]:
    """A call that runs the contestant once, with input and output bound."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.log_severity_level = 4
    for key, value in entry.config:
        options.add_session_config_entry(key, value)
    if entry.ours:
        session = runtime.session(entry.model, threads=arguments.threads, isa=arguments.isa, options=options)
    else:
        session = onnxruntime.InferenceSession(entry.model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    random = np.random.default_rng(1)
    given, wanted = session.get_inputs()[0], session.get_outputs()[0]
    x = {
        "tensor(float)": lambda shape: random.standard_normal(shape).astype(np.float32),
        "tensor(int8)": lambda shape: random.integers(-128, 128, shape).astype(np.int8),
        "tensor(uint8)": lambda shape: random.integers(0, 256, shape).astype(np.uint8),
    }[given.type](given.shape)
    kinds = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(int32)": np.int32}
    y = np.zeros(wanted.shape, kinds[wanted.type])
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (x, y)]
    binding.bind_ortvalue_input(given.name, values[0])
    binding.bind_ortvalue_output(wanted.name, values[1])

    def call() -> None:
        session.run_with_iobinding(binding)

    return call


def in_turns(calls: list[Callable[[], None]], budget: float, *, hot: bool, watch: Callable[[], float]) -> Array:
    """Milliseconds ``(rounds, contestants)``.

    The weights of all contestants together do not fit the cache. So each runs ``WARM`` times before it is timed: its
    weight lies where it lies when the product is run again and again; without ``hot`` it comes from memory. Once is not
    enough: a last-level cache that holds what the second level gave up keeps a line for good only when it was read from
    there again (measured: 16 GB/s at the second run, 25 at the third, 28 from the fourth on).
    """
    rows: list[list[float]] = []
    for call in calls * 2:
        call()
    start = time.perf_counter()
    while (time.perf_counter() - start < budget or len(rows) < 5) and len(rows) < 4000:
        row = [0.0] * len(calls)
        for step in range(len(calls)):
            index = (step + len(rows)) % len(calls)
            for _ in range(WARM if hot else 0):
                calls[index]()
            before = watch()
            calls[index]()
            row[index] = 1000 * (watch() - before)
        rows.append(row)
    return np.array(rows)


def read_bandwidth(count: int) -> float:
    """Bytes per second at which one core reads a buffer of ``count`` bytes that it reads again and again."""
    values = np.ones(count, np.uint8)
    times = interleave([values.max], budget=0.3, most=1000)
    return float(1000 * values.nbytes / times.min())


def mac_peak(arguments: argparse.Namespace) -> float:
    """Multiply-accumulates per second and core of the fastest integer product at a size that stays in the cache."""
    codes = np.random.default_rng(0).integers(-127, 128, (1024, 1024)).astype(np.int8)
    entries = [integer_product(512, codes, dynamic=False)] + ([] if arguments.stock_only else [gemm(512, codes)])
    alone = argparse.Namespace(**vars(arguments) | {"threads": 1})
    times = interleave([opened(item, alone) for item in entries], budget=1.0)
    return float(1000 * 512 * 1024 * 1024 / times.min())


if __name__ == "__main__":
    sys.exit(main())
