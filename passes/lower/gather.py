"""Tables that are looked up: rows of few bits with a scale each stay packed. Any other Gather moves codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.ir.transformed import transformed
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import Site
from qcompiler.quant import packing
from qcompiler.quant.format import BYTE
from qcompiler.quant.operators import TABLE_INPUT, looks_up_rows
from qcompiler.target.qdq import row_codes

__all__ = ["Table", "look_up", "table_of"]

_INDICES: Final = 1
_PACKED: Final = "qcompiler.packed_rows"
"""Where the ``meta`` of stored codes has their packed form."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A constant table of codes whose rows are looked up.

    Attributes:
        codes: The value that holds them.
        stored: Its tensor ``[V, D]``.
        scale: float32 ``[V]``.
        bits: Bits of a packed code: the fewest that hold all codes where fewer than 8 are stored.
    """

    codes: ir.Value
    stored: ir.TensorProtocol
    scale: NDArray[np.float32]
    bits: int

    @property
    def name(self) -> str:
        """Name of the real table."""
        return str(self.codes.name).removesuffix("_quantized")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and depth."""
        rows, depth = self.stored.shape.numpy()
        return rows, depth

    def packed(self, edit: Edit) -> ir.Value:
        """An initializer with the packed rows, one for all who look them up; of a large table made when it is read."""
        known = self.codes.meta.get(_PACKED)
        if isinstance(known, ir.Value) and known.is_initializer() and known.graph is self.codes.graph:
            return known
        rows, depth = self.shape

        def pack(codes: NDArray[Any]) -> NDArray[np.uint8]:
            return packing.pack(codes.astype(np.int8), self.bits)

        size = (rows, packing.packed_width(depth, self.bits))
        tensor = transformed(edit, self.stored, pack, size, ir.DataType.UINT8)
        made = self.codes.meta[_PACKED] = edit.constant(f"{self.name}_packed", tensor)
        return made


def table_of(node: ir.Node) -> Table | None:
    """The table whose rows a Gather looks up; ``None`` where rows have no positive scales, or zero points."""
    codes = row_codes(node.inputs[TABLE_INPUT]) if looks_up_rows(node) else None
    stored = None if codes is None else constants.tensor(codes.value)
    if codes is None or codes.scale is None or stored is None or not stored.size:
        return None
    normal = np.isfinite(codes.scale) & (codes.scale >= np.finfo(np.float32).tiny)
    if stored.dtype not in (ir.DataType.INT8, ir.DataType.INT4) or not normal.all():
        return None
    bits = None if stored.dtype.bitwidth == BYTE else packing.least_bits(stored.numpy().astype(np.int8))
    return Table(codes.value, stored, np.asarray(codes.scale, np.float32), BYTE if bits is None else bits)


def look_up(site: Site, emitter: Emitter) -> ir.Value | None:
    """QGather in the place of a Gather; ``None`` where its table has no scale per row, or the target only shifts.

    Raises:
        NoIntegerForm: A scale cannot be changed to that of the result.
    """
    table = None if site.arithmetic.shifts_only else table_of(site.node)
    if table is None:
        return None
    packed = table.packed(emitter.edit)
    emitter.written.append(packed)
    return emitter.rescaled(
        "QGather",
        [site.node.inputs[_INDICES], packed],
        table.scale.astype(np.float64) / site.output.scale,
        bound=1 << (table.bits - 1),
        site=site,
        attributes={"bits": table.bits, "weight_shape": table.shape},
        shape=site.node.outputs[0].shape,
    )
