"""Samples made up to fit the BatchNormalization statistics of a model: calibration without data.

ZeroQ (Cai et al., arXiv 2001.00281, section 3.1) moves the numbers of an input until mean and variance of what every
BatchNormalization reads are those it kept from training. Three things make that fit for inputs of a real device:

* The start is coloured noise (``qcompiler.calibration.colours``) with the spectrum, level and scale of least distance
  among candidates; what is moved is the noise before it is coloured, so that low frequencies move as fast as high ones.
* Photographs show things that hide each other (``qcompiler.calibration.leaves``): pictures of such are candidates too.
* Pictures are bounded. Where one of the usual encodings explains the statistics better than any scale without bounds,
  samples stay inside it, and the range of the input is exact.
* Along short axes (the coefficients of a spectrogram) every position gets a level and a scale of its own. The extremes
  of an input without known bounds are kept: real ones go further (cut at the quantiles 0.001 and 0.999, dscnn_kws lost
  three times as much; nothing else of it minded).

Everything is computed a fixed number of times, so that equal models give equal samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.analysis.backward.program import Program
from qcompiler.calibration.batch_statistics import Target, distance, targets
from qcompiler.calibration.checks import InputSpec
from qcompiler.calibration.colours import ENCODINGS, Encoding, coloured, spectrum, standardised, whitened
from qcompiler.calibration.leaves import SIZES, pictures
from qcompiler.errors import ModelError

__all__ = ["Synthesis", "synthesise"]

Floats = NDArray[np.float32]

_BATCH: Final = 16
_TRIED: Final = 2
_SHORT: Final = 16
_WORK: Final = 1.2e8
"""Elements of normalised tensors computed in all steps together."""
_STEPS: Final = (40, 150)
_RATE: Final = 0.05
_PROFILE_RATE: Final = 0.1
_FALLS: Final = (0.5, 1.0, 1.5)
_SCALES: Final = tuple(2.0**power for power in range(-4, 8))
_SHARED: Final = (0.0, 0.9)


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Samples, and what is known about them.

    Attributes:
        feeds: One sample each.
        layers: Number of BatchNormalization nodes that they were fitted to.
        before: Distance of the best coloured noise.
        after: Distance of the samples.
        encoding: The encoding of pictures that bounds the input; ``None`` where none fits.
    """

    feeds: list[dict[str, NDArray[Any]]]
    layers: int
    before: float
    after: float
    encoding: str | None


@dataclass(frozen=True, eq=False)
class _Start:
    """Coloured noise to start from.

    Attributes:
        distance: Its distance.
        amplitude: Its spectrum.
        shared: Share of the power that all channels have in common.
        level: Added to it.
        scale: Multiplied with it.
        encoding: What bounds it.
        leaves: Number and least size of leaves in pictures to start from; ``None`` for noise.
    """

    distance: float
    amplitude: Floats
    shared: float
    level: Floats
    scale: Floats
    encoding: Encoding | None
    leaves: tuple[int, float] | None = None

    def white(self, size: int, shape: tuple[int, int, int], generator: np.random.Generator) -> Floats:
        """Fresh noise, or what pictures are coloured from."""
        if self.leaves is not None:
            return whitened(standardised(pictures(generator, size, shape, *self.leaves)), self.amplitude)
        return _mixed(generator.standard_normal((size, *shape)).astype(np.float32), self.shared)


def synthesise(
    model: ir.Model,
    inputs: Mapping[str, InputSpec],
    shape: tuple[int, ...],
    count: int,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Synthesis:
    """Samples for a model with one input of four axes: samples, channels, height, width.

    Args:
        model: The float model, its BatchNormalization nodes not yet folded.
        inputs: Its inputs.
        shape: Shape of one sample, with a first axis of 1.
        count: Number of samples.
        seed: Seed of the noise.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        ModelError: The model keeps no statistics, its input has another form, or an operator has no gradient; says why.
    """
    fitter = _fitter(model, inputs, shape)
    generator = np.random.default_rng(seed)
    start = fitter.start(generator)
    steps = int(np.clip(_WORK / (fitter.work * count), *_STEPS))
    made, distances = [], []
    for first in range(0, count, _BATCH):
        size = min(_BATCH, count - first)
        fit = _Fit.begin(fitter, start, size, generator)
        for step in range(steps):
            fit.step(step, steps)
            if progress is not None:
                progress("synthesise", first * steps + (step + 1) * size, count * steps)
        made.append(fit.best)
        distances.append(fit.distance)
    dtype = inputs[fitter.name].dtype
    feeds: list[dict[str, NDArray[Any]]] = [{fitter.name: item[None].astype(dtype)} for item in np.concatenate(made)]
    text = None if start.encoding is None else start.encoding.text
    return Synthesis(feeds, len(fitter.wanted), start.distance, float(np.mean(distances)), text)


def _fitter(model: ir.Model, inputs: Mapping[str, InputSpec], shape: tuple[int, ...]) -> _Fitter:
    """The model as a function of its one input, whose samples have ``shape``.

    Raises:
        ModelError: See ``synthesise``.
    """
    wanted = targets(model)
    if not wanted:
        raise ModelError("the model keeps no BatchNormalization statistics: it has none, or its exporter folded them")
    if len(inputs) != 1 or len(shape) != 4:
        raise ModelError("only models with one input of 4 axes can be followed back from their statistics")
    name = next(iter(inputs))
    source = next(value for value in model.graph.inputs if value.name == name)
    opset = int(model.graph.opset_imports.get("", 21))
    program = Program([target.value for target in wanted], [source], [source], opset=opset)
    return _Fitter(program, wanted, name, (shape[1], shape[2], shape[3]))


class _Fitter:
    """A model as a function from samples to distance and gradient."""

    def __init__(self, program: Program, wanted: list[Target], name: str, shape: tuple[int, int, int]) -> None:
        self.program, self.wanted, self.name, self.shape = program, wanted, name, shape
        sizes = program.forward({name: np.zeros((1, *shape), np.float32)}).outputs
        self.work = sum(tensor.size for tensor in sizes.values())

    def distance(self, samples: Floats) -> float:
        """Distance of samples."""
        return distance(self.wanted, self.program.forward({self.name: samples}).outputs)[0]

    def gradient(self, samples: Floats) -> tuple[float, Floats]:
        """Distance and its gradient."""
        tape = self.program.forward({self.name: samples})
        loss, gradients = distance(self.wanted, tape.outputs)
        return loss, np.asarray(tape.gradients(gradients)[self.name], np.float32)

    def start(self, generator: np.random.Generator) -> _Start:
        """The candidate of least distance, unbounded ones and pictures alike."""
        channels, height, width = self.shape
        white = generator.standard_normal((_TRIED, *self.shape)).astype(np.float32)
        pictured = ENCODINGS if channels in (1, 3) and min(height, width) > _SHORT else ()
        found: _Start | None = None
        for fall in _FALLS:
            amplitude = spectrum(height, width, fall)
            for shared in _SHARED if channels > 1 else _SHARED[:1]:
                noise = coloured(_mixed(white, shared), amplitude)
                free = [(_level(0.0, channels), _level(scale, channels), None) for scale in _SCALES]
                for level, scale, encoding in [*free, *((*item.usual(channels), item) for item in pictured)]:
                    loss = self.distance(_bounded(noise * scale + level, encoding))
                    if np.isfinite(loss) and (found is None or loss < found.distance):
                        found = _Start(loss, amplitude, shared, level, scale, encoding)
        for size in SIZES if pictured else ():
            noise = standardised(pictures(generator, _TRIED, self.shape, *size))
            for item in pictured:
                level, scale = item.usual(channels)
                loss = self.distance(_bounded(noise * scale + level, item))
                if np.isfinite(loss) and (found is None or loss < found.distance):
                    found = _Start(loss, spectrum(height, width, 1.0), 0.0, level, scale, item, size)
        if found is None:
            raise ModelError("no noise gives finite statistics")
        return found


def _level(value: float, channels: int) -> Floats:
    return np.full((1, channels, 1, 1), value, np.float32)


def _mixed(white: Floats, shared: float) -> Floats:
    """Noise whose channels have a share of their power in common."""
    return np.asarray(np.sqrt(1 - shared) * white + np.sqrt(shared) * white[:, :1], np.float32)


def _bounded(samples: Floats, encoding: Encoding | None) -> Floats:
    return samples if encoding is None else np.clip(samples, *encoding.limits(samples.shape[1]))


@dataclass(eq=False)
class _Fit:
    """One batch on its way (Adam; Kingma and Ba, arXiv 1412.6980, algorithm 1).

    ``samples = coloured(white) · scale · exp(stretch) + level + shift``: ``stretch`` and ``shift`` are common to the
    batch, one per channel and position along short axes.
    """

    fitter: _Fitter
    start: _Start
    parts: dict[str, Floats]
    rates: dict[str, Any]
    moments: dict[str, tuple[Floats, Floats]]
    best: Floats
    distance: float = np.inf

    @classmethod
    def begin(cls, fitter: _Fitter, start: _Start, size: int, generator: np.random.Generator) -> _Fit:
        """A batch of fresh noise."""
        channels, *sides = fitter.shape
        profile = (1, channels, *(side if side <= _SHORT else 1 for side in sides))
        white = start.white(size, fitter.shape, generator)
        parts = {"white": white, "stretch": np.zeros(profile, np.float32), "shift": np.zeros(profile, np.float32)}
        rates = {"white": _RATE, "stretch": _PROFILE_RATE, "shift": _PROFILE_RATE * start.scale}
        moments = {name: (np.zeros_like(part), np.zeros_like(part)) for name, part in parts.items()}
        return cls(fitter, start, parts, rates, moments, white)

    def step(self, number: int, total: int) -> None:
        """One step; the best samples so far are kept."""
        start = self.start
        factor = start.scale * np.exp(self.parts["stretch"])
        noise = coloured(self.parts["white"], start.amplitude)
        free = noise * factor + start.level + self.parts["shift"]
        samples = _bounded(free, start.encoding)
        loss, gradient = self.fitter.gradient(samples)
        if loss < self.distance:
            self.best, self.distance = samples, loss
        gradient = np.where(samples == free, gradient, np.float32(0))
        shape = self.parts["shift"].shape
        self._move("shift", _summed(gradient, shape), number, total)
        self._move("stretch", _summed(gradient * noise * factor, shape), number, total)
        self._move("white", coloured(np.asarray(gradient * factor, np.float32), start.amplitude), number, total)

    def _move(self, name: str, gradient: Floats, number: int, total: int) -> None:
        first, second = self.moments[name]
        first = np.asarray(0.9 * first + 0.1 * gradient, np.float32)
        second = np.asarray(0.99 * second + 0.01 * np.square(gradient), np.float32)
        self.moments[name] = first, second
        mean, power = first / (1 - 0.9 ** (number + 1)), second / (1 - 0.99 ** (number + 1))
        rate = self.rates[name] * (1 - 0.9 * number / total)
        self.parts[name] = np.asarray(self.parts[name] - rate * mean / (np.sqrt(power) + 1e-12), np.float32)


def _summed(gradient: Floats, shape: tuple[int, ...]) -> Floats:
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[axis] != 1)
    return np.asarray(gradient.sum(axis=axes, keepdims=True), np.float32)
