"""Random LayerNorm and RMSNorm problems: ordinary, extreme, nearly constant, drowned in epsilon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.quant.integer import norms
from qcompiler.quant.integer.norm_parameters import Codes, NormParameters, layer_parameters, rms_parameters

SIZES: Final = (1, 2, 3, 4, 5, 7, 16, 31, 64, 384, 1000, 4096)

Content = Callable[[np.random.Generator, int, int, tuple[int, int]], NDArray[Any]]


def _nearly_constant(random: np.random.Generator, low: int, high: int, shape: tuple[int, int]) -> NDArray[Any]:
    x = np.full(shape, random.integers(low + 1, high))
    x[:, random.integers(shape[1])] += random.choice([-1, 1])
    return x


def _peak(random: np.random.Generator, low: int, high: int, shape: tuple[int, int]) -> NDArray[Any]:
    x = np.full(shape, low)
    x[:, random.integers(shape[1])] = high
    return x


def _bell(random: np.random.Generator, low: int, high: int, shape: tuple[int, int]) -> NDArray[Any]:
    spread = np.exp(random.uniform(0, np.log(high)))
    return np.clip(np.rint(random.normal(random.integers(low, high), spread, shape)), low, high)


CONTENTS: Final[dict[str, Content]] = {
    "uniform": lambda random, low, high, shape: random.integers(low, high, shape, endpoint=True),
    "extreme": lambda random, low, high, shape: random.choice([low, high], shape),
    "constant": lambda random, low, high, shape: np.full(shape, random.integers(low, high, endpoint=True)),
    "nearly constant": _nearly_constant,
    "peak": _peak,
    "bell": _bell,
}


@dataclass(frozen=True)
class Case:
    """One problem with its real-valued solution, in codes of the result before rounding and clipping."""

    name: str
    x: NDArray[Any]
    inputs: tuple[NDArray[Any], ...]
    attributes: dict[str, Any]
    exact: NDArray[np.longdouble]
    parameters: NormParameters
    specification: Callable[..., NDArray[Any]]

    def run(self) -> NDArray[Any]:
        """What the specification gives."""
        return self.specification(self.x, *self.inputs, **self.attributes)

    def distance(self) -> int:
        """Greatest distance from the exact result rounded once."""
        wanted = np.clip(np.rint(self.exact), self.attributes["low"], self.attributes["high"])
        return int(np.abs(self.run() - wanted).max(initial=0))


@st.composite
def cases(draw: st.DrawFn, sizes: tuple[int, ...] = SIZES) -> Case:
    """A case; rare ones whose output scale is too fine for 30 bits are not made."""
    return make(
        np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        rms=draw(st.booleans()),
        size=draw(st.sampled_from(sizes)),
        types=(draw(st.sampled_from([np.int8, np.int16])), draw(st.sampled_from([np.int8, np.int16]))),
        content=CONTENTS[draw(st.sampled_from(sorted(CONTENTS)))],
        epsilon=draw(st.sampled_from([1e-12, 1e-6, 1e-5, 1e-3, 1.0])),
        scale=float(np.float32(10 ** draw(st.floats(-7, 1)))),
    )


def make(
    random: np.random.Generator,
    *,
    rms: bool,
    size: int,
    types: tuple[type[np.signedinteger[Any]], type[np.signedinteger[Any]]],
    content: Content,
    epsilon: float,
    scale: float,
    bits: int = 31,
) -> Case:
    """A case with random zero points, gamma (some zero, of both signs), beta and output scale."""
    (low, high), (least, greatest) = ((int(np.iinfo(item).min), int(np.iinfo(item).max)) for item in types)
    zero = int(random.integers(low, high, endpoint=True))
    x = content(random, low, high, (3, size)).astype(types[0])
    gamma = random.normal(0, 10 ** random.uniform(-2, 2), size) * (random.random(size) > 0.1)
    beta = np.zeros(size) if rms else random.normal(0, 10 ** random.uniform(-2, 1), size)
    normal = _real(x.astype(np.longdouble) - zero, rms, epsilon / np.longdouble(scale) ** 2)
    real = normal * gamma + beta
    # what calibration would choose: the greatest result here, or what a row of spread 1 would give
    reach = max(float(np.abs(real).max()), float(np.abs(gamma).max()) * 2.0**-4, 1e-6)
    out = float(np.float32(reach / greatest * 10 ** random.uniform(-0.7, 0.5)))
    zero_out = int(random.integers(least, greatest, endpoint=True)) if random.random() < 0.5 else 0
    codes, result = Codes(scale, zero, low, high), Codes(out, zero_out, least, greatest)
    if rms:
        found = rms_parameters(codes, result, gamma, size=size, epsilon=epsilon, bits=bits)
    else:
        found = layer_parameters(codes, result, gamma, beta, size=size, epsilon=epsilon, bits=bits)
    own: dict[str, Any] = {"x_zero_point": zero} if rms else {"size": size}
    attributes = {
        "axes": [-1],
        **own,
        **{name: getattr(found, name) for name in ("left", "right", "epsilon", "root_shift")},
        "y_zero_point": zero_out,
        "to": 3 if types[1] is np.int8 else 5,
        "low": least,
        "high": greatest,
    }
    inputs = (found.multiplier, found.shift) if rms else (found.multiplier, found.bias, found.shift)
    specification = norms.rms_normalization if rms else norms.layer_normalization
    name = "QRMSNormalization" if rms else "QLayerNormalization"
    return Case(name, x, inputs, attributes, real / out + zero_out, found, specification)


def _real(centred: NDArray[np.longdouble], rms: bool, epsilon: np.longdouble) -> NDArray[np.longdouble]:
    """The normalized numbers in extended precision, from codes and epsilon in units of the squared input scale."""
    if not rms:
        # through integers: the mean of equal codes is that code, exactly
        size = centred.shape[-1]
        centred = (centred * size - centred.sum(axis=-1, keepdims=True)) / size
    return centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + epsilon)
