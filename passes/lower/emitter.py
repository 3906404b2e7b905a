"""What lowerings use to write integer nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir.edit import AttributeValue, Edit
from qcompiler.passes.lower.site import Codes, NoIntegerForm, Site
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.quant.integer import dyadic

__all__ = ["FACTOR", "Emitter"]

FACTOR: Final = "qcompiler.factor"
"""Where the ``meta`` of a node has the real factor of its rescale, before it was rounded to a dyadic number."""

_Shape: TypeAlias = "ir.Shape | Sequence[int] | None"


@dataclass(slots=True)
class Emitter:
    """Inserts the nodes of one site before its node.

    Attributes:
        edit: The mutation interface.
        anchor: New nodes come right before this one.
        note: Takes a sentence for the report.
        written: Everything inserted so far, to be taken back where a lowering gives up half-way.
    """

    edit: Edit
    anchor: ir.Node
    note: Callable[[str], None]
    written: list[ir.Value] = field(default_factory=list)

    def discard(self) -> None:
        """Remove what was inserted and nothing reads."""
        for value in reversed(self.written):
            if value.producer() is not None or value.is_initializer():
                self.edit.remove_unused([value])

    def constant(self, base: str, array: NDArray[Any]) -> ir.Value:
        """Add an initializer named after ``base``."""
        value = self.edit.constant(base, array)
        self.written.append(value)
        return value

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        name: str,
        dtype: ir.DataType,
        shape: _Shape,
        domain: str = DOMAIN,
    ) -> ir.Value:
        """Insert one node with one result of the given type.

        Args:
            op_type: Operator.
            inputs: Its inputs.
            attributes: Its attributes.
            name: Wished name of node and result; made unique.
            dtype: Element type of the result.
            shape: Shape of the result as far as known.
            domain: Operator domain; ``""`` for standard operators.
        """
        node = self.edit.insert(
            op_type,
            inputs,
            attributes=attributes,
            domain=domain,
            name=f"{name}_{op_type}",
            output_name=f"{name}_codes",
            before=self.anchor,
        )
        result = node.outputs[0]
        self.written.append(result)
        result.type = ir.TensorType(dtype)
        result.shape = shape if shape is None or isinstance(shape, ir.Shape) else ir.Shape(list(shape))
        return result

    def rescaled(
        self,
        base: str,
        inputs: Sequence[ir.Value | None],
        factor: float | NDArray[np.float64],
        *,
        bound: int,
        site: Site,
        attributes: Mapping[str, AttributeValue] | None = None,
        shape: _Shape = None,
        output: Codes | None = None,
        clamp: tuple[int, int] | None = None,
    ) -> ir.Value:
        """Insert an operator that ends with a rescale to the codes of the site's first output.

        Picks the best dyadic numbers for ``factor``, or the variant without a multiplier where the target only shifts.

        Args:
            base: Operator without the ending ``Shift``.
            inputs: Its inputs up to the multiplier.
            factor: Real factor from the accumulator to the output, scalar or broadcastable against the accumulator.
            bound: Greatest magnitude of the accumulator.
            site: Gives the arithmetic and, by default, output and clamp.
            attributes: Attributes besides ``y_zero_point``, ``to``, ``low`` and ``high``.
            shape: Shape of the result; by default that of the output.
            output: Other codes to write than the first output's.
            clamp: Other clamp than the site's.

        Raises:
            NoIntegerForm: The factor cannot be represented.
        """
        target = site.output if output is None else output
        operands = [*inputs, *self.dyadic(factor, bound, site, target.of)]
        kind = f"{base}Shift" if site.arithmetic.multiplier_bits == 0 else base
        result = self.codes(kind, operands, site=site, attributes=attributes, shape=shape, output=target, clamp=clamp)
        if (node := result.producer()) is not None:
            node.meta[FACTOR] = factor
        return result

    def codes(
        self,
        op_type: str,
        operands: Sequence[ir.Value | None],
        *,
        site: Site,
        attributes: Mapping[str, AttributeValue] | None = None,
        shape: _Shape = None,
        output: Codes | None = None,
        clamp: tuple[int, int] | None = None,
    ) -> ir.Value:
        """Insert an operator whose inputs are complete and that writes codes; arguments as in :meth:`rescaled`."""
        target = site.output if output is None else output
        low, high = site.clamp() if clamp is None else clamp
        result = self.emit(
            op_type,
            operands,
            {
                **(attributes or {}),
                "y_zero_point": target.zero_point,
                "to": target.dtype.value,
                "low": low,
                "high": high,
            },
            name=target.of,
            dtype=target.dtype,
            shape=target.value.shape if shape is None else shape,
        )
        annotate(result, Annotation(target.of, target.scale, target.zero_point))
        return result

    def dyadic(self, factor: float | NDArray[np.float64], bound: int, site: Site, of: str) -> list[ir.Value]:
        """The constants of a rescale: multiplier and shift, or only the shift where the target has no multiplier.

        Raises:
            NoIntegerForm: The factor cannot be represented.
        """
        bits = site.arithmetic.multiplier_bits_for(bound)
        try:
            chosen = dyadic.choose(factor, bits, bound) if bits else dyadic.choose_shift(factor)
        except ValueError as error:
            raise NoIntegerForm(str(error)) from error
        shift = self.constant(f"{of}_shift", chosen.shift)
        if chosen.multiplier is None:
            return [shift]
        return [self.constant(f"{of}_multiplier", chosen.multiplier), shift]
