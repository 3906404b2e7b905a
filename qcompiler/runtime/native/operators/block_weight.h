// The weight of QMatMulWeightOnly as the kernels take it (kernels/blockwise.h): codes, multipliers and zero points are
// packed each on its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/blockwise.h"

namespace qcompiler {

struct BlockWeight {
  int bits;
  size_t depth, outputs, block;  ///< A block is no longer than the depth.

  bool paired() const { return paired_blocks(bits, block); }
  size_t blocks() const { return (depth + block - 1) / block; }
  size_t stored_blocks() const { return paired() ? (blocks() + 1) / 2 * 2 : blocks(); }
  size_t panels() const { return (outputs + block_columns - 1) / block_columns; }
  size_t steps() const { return (block + low_bit_depth(bits) - 1) / low_bit_depth(bits); }
  /// Depths of a block, filled up to whole steps.
  size_t block_bytes() const { return steps() * low_bit_depth(bits); }
  size_t panel_bytes() const { return stored_blocks() * steps() * low_bit_planes(bits) * 64; }
  size_t code_bytes() const { return panels() * panel_bytes(); }
  /// Multipliers, or zero points, of all panels.
  size_t parameters() const { return panels() * panel_parameters(); }
  size_t panel_parameters() const { return stored_blocks() * block_columns; }
  /// Place of a parameter in its panel.
  size_t parameter_place(size_t block, size_t column) const {
    return paired() ? (block / 2 * block_columns + column) * 2 + block % 2 : block * block_columns + column;
  }
};

/// Packs rows of codes (qcompiler/quant/packing.py).
void pack_codes(const BlockWeight& weight, const uint8_t* rows, uint8_t* packed);

/// Orders parameters `[outputs, blocks]`; missing ones are 0.
void pack_parameters(const BlockWeight& weight, const uint16_t* parameters, uint16_t* packed);
void pack_parameters(const BlockWeight& weight, const int8_t* parameters, int8_t* packed);

}  // namespace qcompiler
