"""Instances of operators with something wrong in them: what a hostile or broken model can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.runtime.native import any_case

__all__ = ["Case", "case", "mutated"]

_TYPES: Final = (np.int8, np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64, np.uint16, np.bool_)
_SMALL: Final = (0, 1, -1, 2, 3, 7, 62, 63, 64, 255, -128, 1 << 15, 1 << 20)
_NUMBERS: Final = (*_SMALL, (1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))


@dataclass(frozen=True)
class Case:
    """An operator with operands, attributes and the positions of its constant operands."""

    name: str
    inputs: tuple[NDArray[Any] | None, ...]
    attributes: dict[str, Any]
    constants: tuple[int, ...]


def case(name: str, random: np.random.Generator) -> Case:
    """A correct random instance."""
    inputs, attributes, constants = any_case.case(name, random)
    arrays = tuple(None if item is None else np.asarray(item) for item in inputs)  # scalars are arrays without axes
    return Case(name, arrays, dict(attributes), tuple(constants))


def mutated(sound: Case, random: np.random.Generator) -> Case:
    """The case with one to three things changed; it may still be correct."""
    broken = sound
    for _ in range(int(random.integers(1, 4))):
        broken = _MUTATIONS[random.integers(len(_MUTATIONS))](broken, random)
    return broken


def _attribute(sound: Case, random: np.random.Generator, change: Callable[[Any], Any]) -> Case:
    if not sound.attributes:
        return sound
    name = sorted(sound.attributes)[random.integers(len(sound.attributes))]
    return replace(sound, attributes={**sound.attributes, name: change(sound.attributes[name])})


def _without_attribute(sound: Case, random: np.random.Generator) -> Case:
    names = sorted(sound.attributes)
    dropped = names[random.integers(len(names))] if names else ""
    return replace(sound, attributes={key: value for key, value in sound.attributes.items() if key != dropped})


def _other_number(sound: Case, random: np.random.Generator) -> Case:
    number = _NUMBERS[random.integers(len(_NUMBERS))]

    def change(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return number
        changed = list(value)
        if changed:
            changed[random.integers(len(changed))] = number
        return changed

    return _attribute(sound, random, change)


def _other_length(sound: Case, random: np.random.Generator) -> Case:
    longer = bool(random.integers(2))

    def change(value: Any) -> Any:
        listed = list(value) if isinstance(value, list | tuple) else [value]
        return [*listed, 1] if longer else listed[:-1]

    return _attribute(sound, random, change)


def _operand(sound: Case, random: np.random.Generator, change: Callable[[NDArray[Any]], NDArray[Any] | None]) -> Case:
    if not sound.inputs:
        return sound
    index = int(random.integers(len(sound.inputs)))
    operand = sound.inputs[index]
    if operand is None:
        return sound
    return replace(sound, inputs=(*sound.inputs[:index], change(operand), *sound.inputs[index + 1 :]))


def _other_type(sound: Case, random: np.random.Generator) -> Case:
    dtype = _TYPES[random.integers(len(_TYPES))]
    with np.errstate(invalid="ignore"):
        return _operand(sound, random, lambda operand: operand.astype(dtype))


def _other_shape(sound: Case, random: np.random.Generator) -> Case:
    def change(operand: NDArray[Any]) -> NDArray[Any]:
        kind = int(random.integers(6))
        if kind == 0:
            return operand[None]
        if kind == 1:
            return operand.reshape(-1)
        if kind == 2 and operand.ndim:
            return np.moveaxis(operand, 0, -1)
        if kind == 3 and operand.ndim:
            return operand.take(range(operand.shape[0] - 1), axis=0) if operand.shape[0] else operand
        if kind == 4 and operand.ndim:
            return operand[..., :0]
        return np.concatenate([operand, operand], axis=-1) if operand.ndim else operand.reshape(1)

    return _operand(sound, random, change)


def _extreme_values(sound: Case, random: np.random.Generator) -> Case:
    def change(operand: NDArray[Any]) -> NDArray[Any]:
        if operand.dtype.kind == "f":
            return np.full_like(operand, [np.nan, np.inf, -np.inf, 0, 3e38, 1e-45][random.integers(6)])
        if operand.dtype.kind not in "iu":
            return operand
        limits = np.iinfo(operand.dtype)
        return np.full_like(operand, [limits.min, limits.max, 0, 1][random.integers(4)])

    return _operand(sound, random, change)


def _without_operand(sound: Case, random: np.random.Generator) -> Case:
    if bool(random.integers(2)):
        return _operand(sound, random, lambda _: None)
    return replace(sound, inputs=sound.inputs[: max(len(sound.inputs) - 1, 1)])


def _further_operand(sound: Case, random: np.random.Generator) -> Case:
    return replace(sound, inputs=(*sound.inputs, np.zeros((2, 2), _TYPES[random.integers(len(_TYPES))])))


def _other_constants(sound: Case, random: np.random.Generator) -> Case:
    chosen = tuple(index for index in range(len(sound.inputs)) if random.integers(2))
    return replace(sound, constants=chosen)


_MUTATIONS: Final = (
    _without_attribute, _other_number, _other_number, _other_length, _other_type, _other_shape, _other_shape,
    _extreme_values, _without_operand, _further_operand, _other_constants,
)  # fmt: skip
