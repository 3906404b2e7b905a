// Packed weights by smlal: a product is at most 15 * 128 in magnitude, so the parts of a step are added in 16
// bits (4 bits: 2 of them, 3 bits: 8 of at most 7 * 128) before they go to 32.
#include "kernels/lowbit.h"

#include <arm_neon.h>

#include "kernels/neon/lowbit_planes.h"

namespace qcompiler {
namespace {

/// Sums of 16 columns: a vector holds two columns, two halves of a sum each.
struct Halves {
  int32x4_t sum[8];
};

/// A step of `Rows` rows and 4 columns.
template <int Bits, size_t Rows>
inline void step(const uint8_t* lanes, const int8_t* const* row, size_t offset, Halves* sums, size_t place) {
  const Planes<Bits> planes(lanes + 16 * place);
  int16x8_t low[Rows], high[Rows];
  for (size_t index = 0; index < Rows; ++index) low[index] = high[index] = vdupq_n_s16(0);
  for (size_t part = 0; part < low_bit_parts(Bits); ++part) {
    const int8x16_t weights = vreinterpretq_s8_u8(planes.part(part));
    for (size_t index = 0; index < Rows; ++index) {
      const int8x16_t codes = repeated(row[index] + offset + 4 * part);
      low[index] = vmlal_s8(low[index], vget_low_s8(weights), vget_low_s8(codes));
      high[index] = vmlal_high_s8(high[index], weights, codes);
    }
  }
  for (size_t index = 0; index < Rows; ++index) {
    int32x4_t* sum = sums[index].sum + 2 * place;
    sum[0] = vpadalq_s16(sum[0], low[index]);
    sum[1] = vpadalq_s16(sum[1], high[index]);
  }
}

/// `Rows` rows from `first` on times the vector of 16 columns at `column`.
template <int Bits, size_t Rows>
void tile(const LowBitCall& call, size_t first, size_t column) {
  constexpr size_t vector = low_bit_planes(Bits) * 64;
  const size_t stride = call.columns / 16 * vector;
  const uint8_t* lanes = call.panel + column / 16 * vector;
  Halves sums[Rows];
  for (Halves& row : sums) {
    for (int32x4_t& sum : row.sum) sum = vdupq_n_s32(0);
  }
  for (size_t index = 0; index < call.steps; ++index, lanes += stride) {
    for (size_t place = 0; place < 4; ++place) {
      step<Bits, Rows>(lanes, call.row + first, index * low_bit_depth(Bits), sums, place);
    }
  }
  for (size_t index = 0; index < Rows; ++index) {
    int32_t* result = call.sums + (first + index) * call.columns + column;
    const int32x4_t start = vdupq_n_s32(call.start[first + index]);
    for (size_t place = 0; place < 4; ++place) {
      const int32x4_t sum = vpaddq_s32(sums[index].sum[2 * place], sums[index].sum[2 * place + 1]);
      vst1q_s32(result + 4 * place, vaddq_s32(start, sum));
    }
  }
}

template <int Bits>
void all(const LowBitCall& call) {
  for (size_t first = 0; first < call.rows; first += 2) {
    for (size_t column = 0; column < call.columns; column += 16) {
      if (first + 1 < call.rows) {
        tile<Bits, 2>(call, first, column);
      } else {
        tile<Bits, 1>(call, first, column);
      }
    }
  }
}

void multiply(const LowBitCall& call) {
  if (call.bits == 4) return all<4>(call);
  if (call.bits == 3) return all<3>(call);
  all<2>(call);
}

int32_t sum(const int8_t* codes, size_t count) {
  int32x4_t total = vdupq_n_s32(0);
  size_t index = 0;
  for (; index + 16 <= count; index += 16) total = vpadalq_s16(total, vpaddlq_s8(vld1q_s8(codes + index)));
  uint32_t rest = static_cast<uint32_t>(vaddvq_s32(total));
  for (; index < count; ++index) rest += static_cast<uint32_t>(int32_t{codes[index]});
  return static_cast<int32_t>(rest);
}

}  // namespace

void set_neon(LowBitKernels& kernels) {
  kernels.multiply = multiply;
  kernels.sum = sum;
}

}  // namespace qcompiler
