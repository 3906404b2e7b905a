"""Calibration samples where the user has none: synthesised from the model, or by a generator of the user's own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from qcompiler.driver.job import Job
from qcompiler.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.calibration.checks import InputSpec
    from qcompiler.calibration.data import Dataset
    from qcompiler.calibration.synthesis import Synthesis
    from qcompiler.calibration.tokens import Tokens

__all__ = ["from_generator", "without_data"]

_COUNT = 32
_SYNTHESISED = 16
"""Fewer where every sample is fitted: one batch."""
_LARGE = 1 << 16
"""Numbers in a sample above which fewer are fitted: each holds more positions, and takes longer."""
_FEWER = 10
"""One judges the file, and the recipe tries nothing on fewer than eight."""


def from_generator(job: Job, spec: str, inputs: dict[str, InputSpec]) -> tuple[Dataset, tuple[str, ...]]:
    """Samples of the user's generator, and what to say about them."""
    from qcompiler.calibration import data
    from qcompiler.calibration.generators import generated

    feeds = generated(spec, inputs, job.options.limit or _COUNT, job.options.seed)
    dataset = replace(data.load(feeds, inputs), source=spec)
    text = f"ranges were fitted on samples of a generator ({spec}): they are worth what it is worth"
    return dataset, (text,)


def without_data(job: Job, inputs: dict[str, InputSpec]) -> tuple[Dataset, tuple[str, ...]]:
    """Samples that fit the statistics in the model, or words from its tables, else noise; and what they are worth."""
    from qcompiler.calibration import data, made_up
    from qcompiler.calibration.synthesis import synthesise
    from qcompiler.calibration.tokens import drawn

    options = job.options
    shapes = made_up.shapes(inputs)
    shape = next(iter(shapes.values()), ())
    count = max(options.limit or (_SYNTHESISED if math.prod(shape) <= _LARGE else _FEWER), 2)
    model = _canonical(job)
    try:
        found = synthesise(model, inputs, shape, count, options.seed)
    except ModelError as error:
        tokens = drawn(model, inputs, options.limit or _COUNT, options.seed)
        if tokens is not None:
            return _of_tokens(job, inputs, tokens)
        return data.random(inputs, count, options.seed), _of_noise(error)
    return _of_statistics(job, inputs, found)


def _of_noise(error: ModelError) -> tuple[str, ...]:
    """What random samples are worth, and why there are no better ones."""
    reason = f"{error}".splitlines()[0]
    text = (
        f"there is no calibration data, and none could be synthesised ({reason}): ranges were fitted on noise, "
        "which shows that the model compiles, not that it is accurate"
    )
    return (
        text,
        "give real samples with --calibration DATA, or --calibration generator:FILE.py:FUNCTION, before you use it",
    )


def _of_statistics(job: Job, inputs: dict[str, InputSpec], found: Synthesis) -> tuple[Dataset, tuple[str, ...]]:
    """Samples that fit BatchNormalization statistics, and how far to trust them."""
    from qcompiler.calibration import data
    from qcompiler.calibration.trust import Made

    picture = f", bounded like pictures in {found.encoding}" if found.encoding is not None else ""
    note = (
        f"synthesised to fit {found.layers} BatchNormalization nodes{picture}; distance {found.before:.3g} at the "
        f"start, {found.after:.3g} at the end"
    )
    made = Made(found.after / found.layers)
    dataset = replace(
        data.load(found.feeds, inputs), source="synthesised samples (no data given)", notes=(note,), made=made
    )
    text = (
        "there is no calibration data: ranges follow from BatchNormalization statistics, and from samples synthesised "
        f"to fit them, {'as near as' if made.near else 'but not as near as'} real ones ({made.distance:.2g} per layer, "
        "real ones 0.03 to 0.06)"
    )
    worth = "" if made.near else "; expect losses below 8 bits, where weights are rounded for these samples"
    hint = "" if job.evaluation is not None else "; quality was measured on them too: give real ones with --evaluation"
    return dataset, (text + worth + hint,)


def _of_tokens(job: Job, inputs: dict[str, InputSpec], tokens: Tokens) -> tuple[Dataset, tuple[str, ...]]:
    """Token identifiers, and how far to trust them."""
    from qcompiler.calibration import data
    from qcompiler.calibration.trust import Made

    source = f"identifiers drawn from a table of {tokens.words} words (no data given)"
    dataset = replace(data.load(tokens.feeds, inputs), source=source, made=Made(words=tokens.words))
    text = (
        f"there is no calibration data: ranges were fitted on {source}: they show what single words do to the model, "
        "not what texts do (measured: a sentence embedding kept a cosine of 0.996 as with real sentences, a language "
        "model a divergence of 0.046 instead of 0.033)"
    )
    hint = "" if job.evaluation is not None else "; quality was measured on them too: give real ones with --evaluation"
    return dataset, (text + hint,)


def _canonical(job: Job) -> ir.Model:
    """The float model in the operator set that gradients know, its BatchNormalization nodes as they are."""
    from qcompiler.ir import io
    from qcompiler.ir.edit import Edit
    from qcompiler.pipeline import spec
    from qcompiler.pipeline.base import Context
    from qcompiler.pipeline.manager import Pipeline

    model = io.load(job.source.path)
    ctx = Context(edit=Edit(model), target=job.target, jobs=job.options.jobs)
    Pipeline(spec.resolve("import-model,fold-constants,remove-dead-code")).run(model, ctx)
    return model
