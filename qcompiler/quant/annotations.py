"""What the codes of an integer graph mean, written beside them.

In a Q/DQ graph every tensor of codes has its scale in the node next to it; in an integer graph the scales are gone
into multipliers. So each tensor of codes keeps, as metadata of its value, which real tensor it stands for and at
which scale and zero point: readers of reports, comparisons per layer and later passes need it, no runtime does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

__all__ = ["Annotation", "annotate", "annotation", "spare_bytes"]

_OF: Final = "qcompiler.of"
_SCALE: Final = "qcompiler.scale"
_ZERO: Final = "qcompiler.zero_point"
_LAYOUT: Final = "qcompiler.layout"
_CHANNELS_LAST: Final = "channels-last"
_LONGEST: Final = {_SCALE: len(repr(1.2345678901234567e-05)), _ZERO: len("-32768")}


@dataclass(frozen=True, slots=True)
class Annotation:
    """Meaning of a tensor of codes: ``real = scale * (code - zero_point)``.

    Attributes:
        of: Name of the real tensor in the float model.
        scale: Its scale, exactly as float32.
        zero_point: Its zero point.
        channels_last: Whether the channels of the codes, axis 1 of the real tensor, are the last axis.
    """

    of: str
    scale: float
    zero_point: int
    channels_last: bool = False


def annotate(value: ir.Value, meaning: Annotation) -> None:
    """Write the meaning of a tensor of codes on its value."""
    value.metadata_props[_OF] = meaning.of
    value.metadata_props[_SCALE] = repr(float(meaning.scale))
    value.metadata_props[_ZERO] = str(int(meaning.zero_point))
    if meaning.channels_last:
        value.metadata_props[_LAYOUT] = _CHANNELS_LAST
    else:
        value.metadata_props.pop(_LAYOUT, None)


def annotation(value: ir.Value) -> Annotation | None:
    """The meaning of a tensor of codes; ``None`` where nothing, or nothing readable, is written."""
    properties = value.metadata_props
    try:
        last = properties.get(_LAYOUT) == _CHANNELS_LAST
        return Annotation(properties[_OF], float(properties[_SCALE]), int(properties[_ZERO]), last)
    except (KeyError, ValueError):
        return None


def spare_bytes(value: ir.Value) -> int:
    """By how many bytes the text on a tensor of codes could be longer with another scale and zero point."""
    texts = ((value.metadata_props.get(key), most) for key, most in _LONGEST.items())
    return sum(max(0, most - len(text)) for text, most in texts if text is not None)
