"""The words of a profile that are one of a few: roles of inputs, kinds of operators, and the like."""

from __future__ import annotations

import enum

__all__ = [
    "Fallback",
    "Granularity",
    "InputOutput",
    "Kind",
    "Output",
    "Place",
    "Provider",
    "Role",
    "Wide",
    "ZeroPoint",
]


class Kind(enum.StrEnum):
    """How the result of an operator gets its parameters."""

    COMPUTE = "compute"  # an integer kernel that rescales to the output's own scale
    SAME_SCALE = "same-scale"  # codes are moved or compared, never rescaled: output and data inputs share parameters


class Place(enum.StrEnum):
    """When an operator is worth running on integers."""

    ALWAYS = "always"
    BETWEEN = "between"  # only where what feeds it and what reads it is integer too


class Role(enum.StrEnum):
    """What an input is to its operator."""

    ACTIVATION = "activation"
    WEIGHT = "weight"  # a constant; a computed one is an activation, if the rule has formats for a ``second``
    BIAS = "bias"
    FLOAT = "float"  # left alone: shapes, indices, clip bounds


class Wide(enum.StrEnum):
    """Where an operator reads the widest activation it accepts, because 8 bits lose too much."""

    NEVER = "never"
    STREAM = "stream"  # where what it reads or who reads it is wide: residual streams around a normalization
    ALWAYS = "always"


class Output(enum.StrEnum):
    """What an integer kernel writes."""

    QUANTIZED = "quantized"
    OPTIONAL = "optional"  # codes or real numbers
    FLOAT = "float"


class Granularity(enum.StrEnum):
    """How many weights share a scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"


class ZeroPoint(enum.StrEnum):
    """What the zero point of an activation may be."""

    ANY = "any"
    ZERO = "zero"


class InputOutput(enum.StrEnum):
    """What the compiled graph takes and gives."""

    FLOAT = "float"
    QUANTIZED = "quantized"


class Provider(enum.StrEnum):
    """Who runs the compiled model where its speed is measured."""

    STOCK = "stock"  # ONNX Runtime's CPU provider
    QCOMPILER = "qcompiler"  # our kernels in ONNX Runtime


class Fallback(enum.StrEnum):
    """What becomes of a node that the target cannot run on integers."""

    FLOAT = "float"
    REFUSE = "refuse"
