"""How an image file becomes a tensor, declared by the user: a small TOML file, the same as text, or a mapping.

::

    size = [224, 224]               # height, width; centre crop after resizing the shorter side to `resize`
    resize = 256                    # default: resize to `size` at once, without crop
    scale = 0.00392156862745098     # default 1/255
    mean = [0.485, 0.456, 0.406]    # default 0
    std = [0.229, 0.224, 0.225]     # default 1
    layout = "nchw"                 # or "nhwc"
    colour = "rgb"                  # or "bgr", "grey"
    filter = "bilinear"             # or "nearest", "bicubic", "lanczos"

A pixel ``p`` in 0 … 255 becomes ``(p * scale - mean) / std`` in float32, per channel in the order of ``colour``.
As text: ``size=224x224 mean=0.485,0.456,0.406 std=0.229,0.224,0.225``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompiler.errors import DataError, nearest

__all__ = ["Preprocessing", "parse"]

_CHOICES = {
    "layout": ("nchw", "nhwc"),
    "colour": ("rgb", "bgr", "grey"),
    "filter": ("bilinear", "nearest", "bicubic", "lanczos"),
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Declared preprocessing; see the module for what each field means."""

    size: tuple[int, int] | None = None
    resize: int | None = None
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "nchw"
    colour: str = "rgb"
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise DataError(
                    f"{key} = '{getattr(self, key)}' is unknown",
                    where="preprocessing",
                    hint=nearest(str(getattr(self, key)), known) or f"one of {', '.join(known)}",
                )
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, self.channels):
                text = f"{key} has {len(getattr(self, key))} values for {self.channels} channels"
                raise DataError(text, where="preprocessing")
        if 0.0 in self.std:
            raise DataError("std holds a zero", where="preprocessing")
        if self.size is not None and min(self.size) < 1:
            raise DataError(f"size = {self.size} is not height and width", where="preprocessing")
        if self.resize is not None and (self.size is None or self.resize < max(self.size)):
            text = f"resize = {self.resize} must be at least the size that is cropped from it"
            raise DataError(text, where="preprocessing")

    @property
    def channels(self) -> int:
        """Channels of the tensor."""
        return 1 if self.colour == "grey" else 3


def parse(source: str | Path | Mapping[str, Any] | Preprocessing) -> Preprocessing:
    """Read preprocessing from a TOML file, from text, or from a mapping.

    Raises:
        DataError: Unknown key, or a value that makes no sense.
    """
    if isinstance(source, Preprocessing):
        return source
    if isinstance(source, Mapping):
        return _from_mapping(source)
    text = str(source)
    if "=" in text and not Path(text).exists():
        return _from_mapping(_from_text(text))
    try:
        return _from_mapping(tomllib.loads(Path(text).read_text("utf-8")))
    except OSError as error:
        hint = "write size=224x224 mean=… or name a TOML file"
        raise DataError(f"cannot be read: {error.strerror}", where=text, hint=hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"is not TOML: {error}", where=text) from error


def _from_text(text: str) -> dict[str, Any]:
    pairs = [item.partition("=") for item in text.split()]
    return {key: value for key, _, value in pairs}


def _from_mapping(given: Mapping[str, Any]) -> Preprocessing:
    known = [field.name for field in dataclasses.fields(Preprocessing)]
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = {"color": "colour", "gray": "grey"}.get(key, key)
        if name not in known:
            raise DataError(
                f"unknown key '{key}'", where="preprocessing", hint=nearest(key, known) or f"known: {', '.join(known)}"
            )
        try:
            values[name] = _convert(name, value)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise DataError(f"{key} = {value!r} cannot be used", where="preprocessing") from error
    return Preprocessing(**values)


def _convert(name: str, value: Any) -> Any:
    if name == "size":
        items = value.lower().split("x") if isinstance(value, str) else value
        sides = [int(item) for item in (items if isinstance(items, list | tuple) else [items])]
        height, width = sides if len(sides) > 1 else (sides[0], sides[0])
        return height, width
    if name == "resize":
        return int(value)
    if name == "scale":
        return _number(value)
    if name in ("mean", "std"):
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_number(item) for item in (items if isinstance(items, list | tuple) else [items]))
    return {"gray": "grey"}.get(str(value).lower(), str(value).lower())


def _number(value: Any) -> float:
    """A number, also as a quotient: ``1/255``."""
    top, slash, bottom = str(value).partition("/")
    return float(top) / float(bottom) if slash else float(top)
