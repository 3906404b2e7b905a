// Rows of activations times a weight in panels, rescaled to codes: the product of QGemm and of each matrix of QMatMul.
#pragma once

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/table.h"
#include "operators/channel_factors.h"
#include "operators/gemm_weight.h"

namespace qcompiler {

/// Rows of 8-bit codes, or of both bytes of 16-bit codes, as the kernels take them, filled up with zeros.
///
/// Of 16-bit codes x there are two planes, h and l: x = 256 * h + l + 128 for flip 0, and for flip 0x80 x + 32768 =
/// 256 * (h + 128) + (l + 128), where what lies in memory is h + 128 and l + 128.
class ProductRows {
 public:
  /// `codes` are `count` rows of `depth` codes of 8 or 16 bits.
  ProductRows(const Kernels& kernels, const void* codes, bool wide, size_t count, size_t depth, size_t row_bytes,
              uint8_t flip, const Threads& threads);

  const uint8_t* row(size_t plane, size_t index) const {
    return bytes_.as<uint8_t>() + (plane * count_ + index) * row_bytes_;
  }
  size_t count() const { return count_; }
  size_t row_bytes() const { return row_bytes_; }
  size_t planes() const { return wide_ ? 2 : 1; }

  /// What the sum of an output's weights is multiplied with to take the flip off.
  static int64_t share(bool wide, uint8_t flip) {
    if (wide) return flip != 0 ? -32768 : 128;
    return flip != 0 ? -128 : 0;
  }

 private:
  size_t count_, row_bytes_;
  bool wide_;
  Scratch bytes_;
};

struct MatrixProduct {
  const Kernels& kernels;
  const GemmWeight& weight;
  const uint8_t* packed;
  size_t planes, plane_bytes;  ///< Of the weight: 2 where it has 16 bits, the upper bytes first.
  const ProductRows& rows;
  const int32_t* starts;       ///< Of the sums of a low-bit weight, [planes of rows][rows]; null where it is expanded.
  const int64_t* row_bias;     ///< Added to every sum of a row; may be null.
  const void* column_bias;     ///< [outputs], int32, or int64 where sums have 64 bits.
  const ChannelFactors& factors;
  bool sums64;
  uint8_t* result;
  size_t code_bytes;  ///< Of the result.
};

/// Computes the whole result `[rows, outputs]`.
void multiply_matrix(const MatrixProduct& product, const Threads& threads);

}  // namespace qcompiler
