#include "operators/block_product.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace qcompiler {
namespace {

constexpr float smallest = 1e-30f;  // below, 127 / max |x| might not be finite; such blocks count as zero
constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even
constexpr int32_t rounder_bits = 0x4b400000;
constexpr size_t most_rows = 8;  // of any block kernel

int32_t rounded(float value) {
  const float shifted = value + rounder;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  return bits - rounder_bits;
}

int32_t field(const uint8_t* bytes, size_t index, int bits) {
  const size_t place = index * static_cast<size_t>(bits);
  return (bytes[place / 8] >> place % 8) & ((1 << bits) - 1);
}

}  // namespace

int32_t BlockWeight::zero(size_t output, size_t block_index) const {
  return field(zero_points + output * zero_row_bytes(), block_index, bits);
}

/// Quantized rows: codes, and scales and sums of codes per block.
struct BlockProduct::Activations {
  int8_t* codes;
  float* scales;
  int32_t* sums;
};

BlockProduct::BlockProduct(const BlockWeight& weight, const Kernels& kernels)
    : kernels_(kernels.scaled_block),
      outputs_(weight.outputs),
      depth_(weight.depth),
      block_(weight.block),
      blocks_(weight.blocks()),
      padded_((weight.outputs + 15) / 16 * 16),
      bits_(weight.bits),
      codes_(padded_ * blocks_ * weight.block_bytes()),
      scales_(padded_ * blocks_),
      zeros_(weight.zero_points == nullptr ? 0 : padded_ * blocks_) {
  if (weight.bias != nullptr) bias_.assign(weight.bias, weight.bias + outputs_);
  for (size_t index = 0; first_column(index) < padded_; ++index) pack_panel(weight, index);
}

size_t BlockProduct::columns(size_t index) const { return std::min(panel_columns, padded_ - first_column(index)); }

void BlockProduct::pack_panel(const BlockWeight& weight, size_t index) {
  const size_t width = columns(index), first = first_column(index), per_byte = 8 / static_cast<size_t>(bits_);
  for (size_t column = 0; column < std::min(width, outputs_ - first); ++column) {
    for (size_t block = 0; block < blocks_; ++block) {
      const uint8_t* codes = weight.block_codes(first + column, block);
      uint8_t* target = codes_.data() + codes_place(index) + block * weight.block_bytes() * width + column * 4;
      for (size_t inside = 0; inside < block_; ++inside) {
        const size_t group = inside / 4;
        const int32_t code = field(codes, inside, bits_) << (group % per_byte * static_cast<size_t>(bits_));
        target[group / per_byte * width * 4 + inside % 4] |= static_cast<uint8_t>(code);
      }
      const size_t factor = factors_place(index) + block * width + column;
      scales_[factor] = weight.scales[(first + column) * blocks_ + block];
      if (!zeros_.empty()) zeros_[factor] = static_cast<uint8_t>(weight.zero(first + column, block));
    }
  }
}

void BlockProduct::quantize(const float* x, size_t row, const Activations& made) const {
  const float* source = x + row * depth_;
  int8_t* target = made.codes + row * blocks_ * block_;
  for (size_t block = 0; block < blocks_; ++block) {
    const size_t begin = block * block_, end = std::min(begin + block_, depth_);
    float greatest = 0, poison = 0;
    for (size_t index = begin; index < end; ++index) {
      greatest = std::max(greatest, std::fabs(source[index]));
      poison += source[index] * 0.0f;  // NaN where a value is not finite
    }
    const bool used = poison == 0 && greatest >= smallest;
    const float inverse = used ? 127.0f / greatest : 0.0f;
    int32_t sum = 0;
    for (size_t index = begin; index < end; ++index) {
      const int32_t code = used ? rounded(source[index] * inverse) : 0;
      target[index] = static_cast<int8_t>(code);
      sum += code;
    }
    std::memset(target + end, 0, begin + block_ - end);
    made.scales[row * blocks_ + block] = poison != 0 ? poison : used ? greatest / 127.0f : 0.0f;
    made.sums[row * blocks_ + block] = sum;
  }
}

void BlockProduct::panel(const Activations& x, size_t rows, size_t index, float* y) const {
  const size_t width = columns(index), first = first_column(index), kept = std::min(width, outputs_ - first);
  std::array<const int8_t*, most_rows> row{};
  std::array<const float*, most_rows> row_scales{};
  std::array<const int32_t*, most_rows> row_sums{};
  std::array<float, most_rows * panel_columns> sums;
  const uint8_t* zeros = zeros_.empty() ? nullptr : zeros_.data() + factors_place(index);
  for (size_t begin = 0; begin < rows; begin += kernels_.rows) {
    const size_t count = std::min(kernels_.rows, rows - begin);
    for (size_t place = 0; place < count; ++place) {
      const size_t blocks_before = (begin + place) * blocks_;
      row[place] = x.codes + blocks_before * block_;
      row_scales[place] = x.scales + blocks_before;
      row_sums[place] = x.sums + blocks_before;
    }
    kernels_.multiply({row.data(), row_scales.data(), row_sums.data(), count, blocks_, block_ / 4, bits_,
                       codes_.data() + codes_place(index), width, scales_.data() + factors_place(index), zeros,
                       1 << (bits_ - 1), sums.data()});
    for (size_t place = 0; place < count; ++place) {
      for (size_t column = 0; column < kept; ++column) {
        const float sum = sums[place * width + column];
        y[(begin + place) * outputs_ + first + column] = bias_.empty() ? sum : sum + bias_[first + column];
      }
    }
  }
}

void BlockProduct::run(const float* x, size_t rows, float* y, const Threads& threads) const {
  const size_t blocks = rows * blocks_;
  const Scratch codes(blocks * block_), scales(blocks * sizeof(float)), sums(blocks * sizeof(int32_t));
  const Activations made{codes.as<int8_t>(), scales.as<float>(), sums.as<int32_t>()};
  threads.ranges(rows, 1, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) quantize(x, row, made);
  });
  threads.ranges((padded_ + panel_columns - 1) / panel_columns, 1, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) panel(made, rows, index, y);
  });
}

}  // namespace qcompiler
