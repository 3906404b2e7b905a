// Float activations times weights of few bits with a float scale per block: MatMulNBits of com.microsoft.
//
// Every block of a row of activations becomes int8 with a scale of its own (max |x| / 127); the codes are multiplied
// exactly, and the products of blocks added in float, in their order. So the result is the same on every instruction set
// and with any number of threads. Against float arithmetic, a block adds at most max |x| / 254 times the sum of its
// |weights|.
#pragma once

#include <cstdint>
#include <vector>

#include "core/scratch.h"
#include "core/threads.h"
#include "kernels/table.h"

namespace qcompiler {

/// Weights [outputs][blocks][block]; codes lie packed, low bits first.
struct BlockWeight {
  size_t outputs, depth, block;
  int bits;                    ///< 2, 4 or 8.
  const uint8_t* codes;        ///< Every block begins at a byte.
  const float* scales;         ///< [outputs][blocks]
  const uint8_t* zero_points;  ///< Codes of zero [outputs][blocks], rows begin at a byte; null: 2^(bits - 1).
  const float* bias;           ///< [outputs] or null.

  size_t blocks() const { return (depth + block - 1) / block; }
  size_t block_bytes() const { return block * static_cast<size_t>(bits) / 8; }
  size_t zero_row_bytes() const { return (blocks() * static_cast<size_t>(bits) + 7) / 8; }
  /// Codes of a block.
  const uint8_t* block_codes(size_t output, size_t block_index) const {
    return codes + (output * blocks() + block_index) * block_bytes();
  }
  int32_t zero(size_t output, size_t block_index) const;
};

/// A weight in panels as the block kernels take them; as many bits per code as before.
class BlockProduct {
 public:
  /// Copies what it needs.
  BlockProduct(const BlockWeight& weight, const Kernels& kernels);

  size_t outputs() const { return outputs_; }
  size_t depth() const { return depth_; }

  /// y [rows][outputs] = x [rows][depth] @ weight + bias. Rows in which a value is not finite give NaN.
  void run(const float* x, size_t rows, float* y, const Threads& threads) const;

 private:
  struct Activations;
  void quantize(const float* x, size_t row, const Activations& made) const;
  void panel(const Activations& x, size_t rows, size_t index, float* y) const;
  void pack_panel(const BlockWeight& weight, size_t index);

  static constexpr size_t panel_columns = 64;
  size_t columns(size_t index) const;
  size_t first_column(size_t index) const { return index * panel_columns; }
  size_t factors_place(size_t index) const { return first_column(index) * blocks_; }
  size_t codes_place(size_t index) const { return factors_place(index) * block_ * static_cast<size_t>(bits_) / 8; }

  const ScaledBlockKernels& kernels_;
  size_t outputs_, depth_, block_, blocks_, padded_;  ///< `padded_`: columns of all panels.
  int bits_;
  std::vector<uint8_t> codes_;  ///< Panels, one after the other.
  std::vector<float> scales_;   ///< [panel][block][columns]
  std::vector<uint8_t> zeros_;  ///< Likewise; empty where all are 2^(bits - 1).
  std::vector<float> bias_;
};

}  // namespace qcompiler
