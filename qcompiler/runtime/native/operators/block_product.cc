#include "operators/block_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace qcompiler {
namespace {

constexpr float smallest = 1e-30f;           // below, 127 / max |x| might not be finite; such blocks count as zero
constexpr float rounder = 12582912.0f;       // 1.5 * 2^23: adding it rounds to an integer, ties to even
constexpr int32_t rounder_bits = 0x4b400000;
constexpr size_t row_grain = 1, panel_grain = 1;

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

/// What is taken off a code so that it fits int8, and how far that is from its zero.
struct Centre {
  int32_t taken, offset;
  Centre(int bits, int32_t zero) : taken(bits == 8 ? 128 : zero), offset(taken - zero) {}
};

}  // namespace

int32_t BlockWeight::zero(size_t output, size_t block_index) const {
  if (zero_points == nullptr) return 1 << (bits - 1);
  return field(zero_points + output * zero_row_bytes(), block_index, bits);
}

/// Quantized rows: codes as the panel kernels take them, scales, and sums of codes per block.
struct BlockProduct::Activations {
  uint8_t* codes;
  float* scales;
  float* sums;
};

BlockProduct::BlockProduct(const BlockWeight& weight, const Kernels& kernels)
    : kernels_(kernels),
      outputs_(weight.outputs),
      depth_(weight.depth),
      block_(weight.block),
      blocks_(weight.blocks()),
      padded_((weight.outputs + 15) / 16 * 16),
      codes_(padded_ * blocks_ * block_),
      scales_(padded_ * blocks_),
      shares_(padded_ * blocks_),
      offsets_(weight.bits == 8 && weight.zero_points != nullptr ? padded_ * blocks_ : 0) {
  if (weight.bias != nullptr) bias_.assign(weight.bias, weight.bias + outputs_);
  for (size_t index = 0; index * panel_columns < padded_; ++index) pack_panel(weight, index);
}

size_t BlockProduct::columns(size_t index) const { return std::min(panel_columns, padded_ - place(index)); }

void BlockProduct::pack_panel(const BlockWeight& weight, size_t index) {
  const size_t width = columns(index), first = place(index);
  int8_t* panel = codes_.as<int8_t>() + first * blocks_ * block_;
  std::memset(panel, 0, width * blocks_ * block_);
  for (size_t column = 0; column < std::min(width, outputs_ - first); ++column) {
    const size_t output = first + column;
    for (size_t block = 0; block < blocks_; ++block) {
      const Centre centre(weight.bits, weight.zero(output, block));
      const size_t factor = first * blocks_ + block * width + column;
      const uint8_t* codes = weight.block_codes(output, block);
      int8_t* target = panel + block * block_ * width + column * 4;
      int32_t sum = 0;
      for (size_t inside = 0; inside < std::min(block_, depth_ - block * block_); ++inside) {
        const int32_t code = field(codes, inside, weight.bits) - centre.taken;
        target[inside / 4 * width * 4 + inside % 4] = static_cast<int8_t>(code);
        sum += code;
      }
      scales_[factor] = weight.scales[output * blocks_ + block];
      shares_[factor] = kernels_.panel.flip != 0 ? 128 * sum : 0;
      if (!offsets_.empty()) offsets_[factor] = static_cast<float>(centre.offset);
    }
  }
}

void BlockProduct::quantize(const float* x, size_t row, const Activations& made) const {
  const float* source = x + row * depth_;
  uint8_t* target = made.codes + row * blocks_ * block_;
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
      target[index] = static_cast<uint8_t>(code) ^ kernels_.panel.flip;
      sum += code;
    }
    std::memset(target + end, kernels_.panel.flip, begin + block_ - end);
    made.scales[row * blocks_ + block] = poison != 0 ? poison : used ? greatest / 127.0f : 0.0f;
    made.sums[row * blocks_ + block] = static_cast<float>(sum);
  }
}

/// Sums of some rows and the columns of a panel.
void BlockProduct::tile(const Activations& x, size_t first, size_t count, size_t index, float* sums) const {
  const size_t width = columns(index);
  const Scratch exact_sums(count * width * sizeof(int32_t)), rows(count * sizeof(const uint8_t*));
  int32_t* exact = exact_sums.as<int32_t>();
  std::fill(sums, sums + count * width, 0.0f);
  for (size_t block = 0; block < blocks_; ++block) {
    for (size_t row = 0; row < count; ++row) {
      rows.as<const uint8_t*>()[row] = x.codes + ((first + row) * blocks_ + block) * block_;
    }
    const int8_t* panel = codes_.as<int8_t>() + (place(index) * blocks_ + block * width) * block_;
    kernels_.panel.multiply({rows.as<const uint8_t*>(), count, 1, block_ / 4, 0, panel, width, exact});
    const size_t factors = place(index) * blocks_ + block * width;
    for (size_t row = 0; row < count; ++row) {
      const size_t place_of_row = (first + row) * blocks_ + block;
      const float scale = x.scales[place_of_row], sum = x.sums[place_of_row];
      float* target = sums + row * width;
      const int32_t* source = exact + row * width;
      if (offsets_.empty()) {
        for (size_t column = 0; column < width; ++column) {
          target[column] += static_cast<float>(source[column] - shares_[factors + column]) *
                            (scale * scales_[factors + column]);
        }
      } else {
        for (size_t column = 0; column < width; ++column) {
          const float product = static_cast<float>(source[column] - shares_[factors + column]);
          target[column] += (product + offsets_[factors + column] * sum) * (scale * scales_[factors + column]);
        }
      }
    }
  }
}

void BlockProduct::panel(const Activations& x, size_t rows, size_t index, float* y) const {
  const size_t width = columns(index), first = place(index), kept = std::min(width, outputs_ - first);
  const size_t most = kernels_.panel.rows;
  const Scratch sums(most * width * sizeof(float));
  for (size_t begin = 0; begin < rows; begin += most) {
    const size_t count = std::min(most, rows - begin);
    tile(x, begin, count, index, sums.as<float>());
    for (size_t row = 0; row < count; ++row) {
      for (size_t column = 0; column < kept; ++column) {
        const float sum = sums.as<float>()[row * width + column];
        y[(begin + row) * outputs_ + first + column] = bias_.empty() ? sum : sum + bias_[first + column];
      }
    }
  }
}

void BlockProduct::run(const float* x, size_t rows, float* y, const Threads& threads) const {
  const Scratch codes(rows * blocks_ * block_), scales(rows * blocks_ * sizeof(float)), sums(rows * blocks_ * sizeof(float));
  const Activations made{codes.as<uint8_t>(), scales.as<float>(), sums.as<float>()};
  threads.ranges(rows, row_grain, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) quantize(x, row, made);
  });
  threads.ranges((padded_ + panel_columns - 1) / panel_columns, panel_grain, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) panel(made, rows, index, y);
  });
}

}  // namespace qcompiler
