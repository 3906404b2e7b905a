// Rows of a packed weight (qcompiler/quant/packing.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor.h"

namespace qcompiler {

/// Bytes of a packed row: groups of 8 codes fill `bits` bytes.
inline size_t packed_row_bytes(size_t depth, int bits) { return (depth + 7) / 8 * static_cast<size_t>(bits); }

/// The codes of one packed row; bits are 2, 3, 4 or 8.
void unpack_row(const uint8_t* row, int bits, size_t depth, int8_t* codes);

/// An Error unless `weight` holds packed rows of codes `[rows, depth]`.
void check_packed_rows(const Tensor& weight, int bits, const Shape& codes);

}  // namespace qcompiler
