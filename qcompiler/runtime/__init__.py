"""Run compiled models: natively in ONNX Runtime, or by the specification.

``session`` gives a session of ONNX Runtime in which our execution provider runs the integer operators. ``interpret``
runs integer graphs with the NumPy code that defines their operators; what any other runtime computes from the same
file must be the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qcompiler.runtime.library import library_path
from qcompiler.runtime.sessions import attach, session

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["attach", "interpret", "library_path", "session"]


def interpret(model: str | Path | onnx.ModelProto | ir.Model, feed: Mapping[str, Any]) -> list[NDArray[Any]]:
    """Run a model once with the specifications of its operators, every integer checked for overflow.

    To run many feeds, or to see values inside, use :class:`qcompiler.runtime.interpreter.Interpreter`.

    Args:
        model: A model file or a model in memory.
        feed: One array per graph input, by name, of the input's type and shape.

    Returns:
        The graph outputs, in the order of the graph (which is that of an ONNX Runtime session).

    Raises:
        DataError: The feed does not fit the model's inputs.
        ModelError: The model cannot be read, or uses an operator that nothing here knows.
        VerificationError: An integer left the range that its operator gives it; names the node.
    """
    from qcompiler.runtime.interpreter import Interpreter

    interpreter = Interpreter(model)
    found = interpreter.run(feed)
    return [found[name] for name in interpreter.outputs]
