// The weight of a convolution as panels (kernels/panel.h).
//
// Flat, an output's weights are [taps][channels / group], taps in the order of the kernel's axes. An image whose
// channels lie last holds the operand in the same order: as one run per kernel row where the taps of a row are
// neighbours, as one run per tap where they are not. Runs at equal distances are read in place; others are gathered
// into one run first.
//
// Packed: per group, per panel [runs][groups of 4][columns][4], as bytes, or in few bits (kernels/bytes.h, expand) that
// become bytes when the panel is used; behind everything the sum of weights of every output.
#pragma once

#include <cstdint>

#include "kernels/lowbit.h"
#include "operators/convolution_geometry.h"

namespace qcompiler {

struct ConvolutionPlan {
  size_t group, outputs, channels, taps;  ///< Groups; outputs and channels of a group; taps of the kernel.
  size_t pieces, piece_bytes;             ///< Contiguous parts of an operand in the image.
  bool gathered;                          ///< Whether the pieces are copied into one run.
  size_t runs, run_bytes, run_groups;     ///< As the panel kernels see them.
  int bits;                               ///< Of the weights as they are kept; 8: bytes.

  ConvolutionPlan(const ConvolutionAttributes& attributes, const Shape& weight);

  static constexpr size_t panel_columns = 64;
  size_t panels() const { return (outputs + panel_columns - 1) / panel_columns; }
  /// Columns of a panel, with those that are filled up.
  size_t columns(size_t panel) const {
    const size_t left = outputs - panel * panel_columns;
    return left >= panel_columns ? panel_columns : (left + 15) / 16 * 16;
  }
  size_t column_bytes() const { return runs * run_groups * 4; }
  /// Blocks of a panel that is kept in few bits; of 64 bytes otherwise.
  size_t blocks(size_t columns) const {
    return (column_bytes() * columns / 64 + low_bit_parts(bits) - 1) / low_bit_parts(bits);
  }
  /// Bytes of a panel as it is kept, and as the kernels read it.
  size_t kept_bytes(size_t columns) const { return blocks(columns) * low_bit_planes(bits) * 64; }
  size_t panel_bytes(size_t columns) const { return blocks(columns) * low_bit_parts(bits) * 64; }
  size_t panel_place(size_t index, size_t panel) const {
    const size_t full = kept_bytes(panel_columns), last = kept_bytes(columns(panels() - 1));
    return index * ((panels() - 1) * full + last) + panel * full;
  }
  size_t sums_place() const { return panel_place(group, 0); }
  size_t bytes() const { return sums_place() + group * outputs * sizeof(int32_t); }
};

/// The codes of one output, [channels][taps] as in the tensor, unpacked; `depth` of them.
void weight_row(const ConvolutionAttributes& attributes, const Tensor& weight, size_t output, size_t depth,
                int8_t* codes);

/// Writes the panels and the sums.
void pack_convolution(const ConvolutionAttributes& attributes, const ConvolutionPlan& plan, const Tensor& weight,
                      void* packed);

}  // namespace qcompiler
