"""Runs broken instances of operators in a process of its own: ``python -m tests.runtime.native.attack --help``.

Every instance must end with a result or with a refusal that says something. A crash ends the process; the file
``--log`` then names the instance that did it.
"""

from __future__ import annotations

import argparse
import collections
import resource
import sys
from pathlib import Path

import numpy as np

from qcompiler.errors import ModelError
from qcompiler.runtime import library, native_operator, sessions
from tests.quant.functions.running import one_node_model
from tests.runtime.native.mutations import Case, case, mutated

MEMORY = 6 << 30
LARGEST = 1 << 24
REFUSAL = "refusal"


def check_words(error: Exception) -> None:
    """A refusal says something."""
    if not str(error).strip():
        raise SystemExit("a refusal without a word") from error


def attempt(broken: Case, random: np.random.Generator, isa: str) -> str:
    """Run one instance by the C interface; returns how it ended: ``result``, or a refusal with its words."""
    constants = {
        index: array for index, array in enumerate(broken.inputs) if index in broken.constants and array is not None
    }
    try:
        made = native_operator.NativeOperator(
            broken.name, broken.attributes, constants, isa=isa, pack=bool(random.integers(2))
        )
        if made.elements(*broken.inputs) > LARGEST:
            return "too large"
        made.run(*broken.inputs, threads=int(random.choice([1, 3])))
    except ModelError as error:
        check_words(error)
        return f"{REFUSAL}: {error}"
    return "result"


def attempt_session(broken: Case, isa: str) -> str:
    """Run one instance in ONNX Runtime with the provider."""
    inputs = [np.zeros(1, np.int8) if array is None else array for array in broken.inputs]
    try:
        model = one_node_model(broken.name, inputs, broken.attributes, constants=broken.constants)
    except (IndexError, KeyError, TypeError, ValueError, ArithmeticError):
        return "no model"  # the test's own helpers cannot write it
    model.graph.node[0].name = "attacked"
    try:
        session = sessions.session(model, threads=1, isa=isa)
        feed = {item.name: inputs[list(model.graph.node[0].input).index(item.name)] for item in model.graph.input}
        session.run(None, feed)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many types; what counts is that it raises
        check_words(error)
        return f"{REFUSAL}: {error}"
    return "result"


def main() -> None:
    """Attack operators with seeds from ``--first`` on and print how the attempts ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("/dev/null"), help="where the instance at work is named")
    parser.add_argument("--sessions", action="store_true", help="by ONNX Runtime instead of the C interface")
    parser.add_argument("--sound", action="store_true", help="instances are not broken")
    parser.add_argument("--library", type=Path, help="the native library to attack, such as one with sanitizers")
    parser.add_argument("--unlimited", action="store_true", help="no limit of memory (sanitizers reserve much)")
    options = parser.parse_args()
    if not options.unlimited:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if options.library is not None:
        for module in (library, native_operator, sessions):
            module.library_path = lambda: options.library
    names, sets = native_operator.native_operators(), native_operator.instruction_sets()
    ends: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.cases):
        random = np.random.default_rng(seed)
        name, isa = names[seed % len(names)], sets[int(random.integers(len(sets)))]
        options.log.write_text(f"seed {seed} {name} {isa}\n")
        sound = case(name, random)
        broken = sound if options.sound else mutated(sound, random)
        end = attempt_session(broken, isa) if options.sessions else attempt(broken, random, isa)
        if options.sound and end != "result":
            raise SystemExit(f"seed {seed}: a correct instance of {name} ({isa}) ended as: {end}")
        ends[end.partition(":")[0]] += 1
    sys.stdout.write(f"ended: {dict(sorted(ends.items()))}\n")


if __name__ == "__main__":
    main()
