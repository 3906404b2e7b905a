// The constant weight of a matrix product in panels: of bytes (kernels/panel.h), or of low-bit codes that stay packed
// (kernels/lowbit.h). Behind the panels lies the sum of the weights of every output.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor.h"

namespace qcompiler {

struct GemmWeight {
  size_t depth, outputs;
  int bits;  ///< 8: panels of bytes.

  /// Weights too deep for the low-bit kernels become bytes.
  GemmWeight(size_t depth, size_t outputs, int bits);

  bool low_bit() const { return bits != 8; }
  size_t panel_columns() const { return low_bit() ? 32 : 64; }
  size_t panels() const { return (outputs + panel_columns() - 1) / panel_columns(); }
  /// Columns of a panel, with those that are filled up.
  size_t columns(size_t panel) const {
    const size_t left = outputs - panel * panel_columns();
    return left >= panel_columns() ? panel_columns() : (left + 15) / 16 * 16;
  }
  /// Depths that are taken at once, and how often.
  size_t step() const;
  size_t steps() const { return (depth + step() - 1) / step(); }
  /// Bytes of a row of activations, filled up to whole steps.
  size_t row_bytes() const { return steps() * step(); }
  /// Bytes of a step of 16 columns.
  size_t vector_bytes() const;
  size_t panel_place(size_t panel) const { return panel * panel_columns() / 16 * vector_bytes() * steps(); }
  size_t sums_place() const { return (outputs + 15) / 16 * vector_bytes() * steps(); }
  size_t bytes() const { return sums_place() + outputs * sizeof(int32_t); }

  /// Writes one output's codes, filled up with zeros to row_bytes(), into its panel, and their sum.
  void write(size_t output, const int8_t* codes, uint8_t* packed) const;
};

/// Writes a step of one column of low-bit (or 8-bit) codes into its lane (kernels/lowbit.h).
void write_step(int bits, const int8_t* codes, uint8_t* lane);

/// Packs int8 codes `[depth, outputs]`.
void pack_columns(const GemmWeight& weight, const int8_t* codes, uint8_t* packed);

/// Packs rows of codes of `bits` bits (qcompiler/quant/packing.py).
void pack_rows(const GemmWeight& weight, const uint8_t* rows, int bits, uint8_t* packed);

}  // namespace qcompiler
