// Packed weights by sdot: unsigned weights of up to 4 bits are signed bytes as well. Weights of one part of a step are
// brought to their place once for all rows.
#include "kernels/lowbit.h"

#include <arm_neon.h>

#include "kernels/neon/lowbit_planes.h"

namespace qcompiler {
namespace {

constexpr size_t most_rows = 4;

/// A step of 16 columns.
template <int Bits, size_t Rows>
inline void step(const uint8_t* lanes, const int8_t* const* row, size_t offset, int32x4_t (*sums)[4]) {
  const Planes<Bits> planes[4] = {Planes<Bits>(lanes), Planes<Bits>(lanes + 16), Planes<Bits>(lanes + 32),
                                  Planes<Bits>(lanes + 48)};
  for (size_t part = 0; part < low_bit_parts(Bits); ++part) {
    int8x16_t weights[4];
    for (size_t place = 0; place < 4; ++place) weights[place] = vreinterpretq_s8_u8(planes[place].part(part));
    for (size_t index = 0; index < Rows; ++index) {
      const int8x16_t codes = repeated(row[index] + offset + 4 * part);
      for (size_t place = 0; place < 4; ++place) {
        sums[index][place] = vdotq_s32(sums[index][place], weights[place], codes);
      }
    }
  }
}

/// `Rows` rows from `first` on times the vector of 16 columns at `column`.
template <int Bits, size_t Rows>
void tile(const LowBitCall& call, size_t first, size_t column) {
  constexpr size_t vector = low_bit_planes(Bits) * 64;
  const size_t stride = call.columns / 16 * vector;
  const uint8_t* lanes = call.panel + column / 16 * vector;
  int32x4_t sums[Rows][4];
  for (size_t index = 0; index < Rows; ++index) {
    for (size_t place = 0; place < 4; ++place) sums[index][place] = vdupq_n_s32(call.start[first + index]);
  }
  for (size_t index = 0; index < call.steps; ++index, lanes += stride) {
    step<Bits, Rows>(lanes, call.row + first, index * low_bit_depth(Bits), sums);
  }
  for (size_t index = 0; index < Rows; ++index) {
    int32_t* result = call.sums + (first + index) * call.columns + column;
    for (size_t place = 0; place < 4; ++place) vst1q_s32(result + 4 * place, sums[index][place]);
  }
}

template <int Bits>
void all(const LowBitCall& call) {
  for (size_t first = 0; first < call.rows; first += most_rows) {
    for (size_t column = 0; column < call.columns; column += 16) {
      switch (call.rows - first) {
        case 1: tile<Bits, 1>(call, first, column); break;
        case 2: tile<Bits, 2>(call, first, column); break;
        case 3: tile<Bits, 3>(call, first, column); break;
        default: tile<Bits, 4>(call, first, column); break;
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
  for (; index + 16 <= count; index += 16) total = vdotq_s32(total, vld1q_s8(codes + index), vdupq_n_s8(1));
  uint32_t rest = static_cast<uint32_t>(vaddvq_s32(total));
  for (; index < count; ++index) rest += static_cast<uint32_t>(int32_t{codes[index]});
  return static_cast<int32_t>(rest);
}

}  // namespace

void set_dotprod(LowBitKernels& kernels) {
  kernels.multiply = multiply;
  kernels.sum = sum;
}

}  // namespace qcompiler
