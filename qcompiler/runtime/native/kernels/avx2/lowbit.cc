// Packed weights by vpmaddubsw, 8 columns at a time.
#include "kernels/lowbit.h"

#include <immintrin.h>

#include "kernels/avx2/lowbit_lanes.h"

namespace qcompiler {
namespace {

template <int Bits, size_t Rows>
void tile(const LowBitCall& call, size_t first) {
  constexpr size_t vector = low_bit_planes(Bits) * 64;
  for (size_t column = 0; column < call.columns; column += 8) {
    __m256i sums[Rows];
#pragma GCC unroll 4
    for (size_t index = 0; index < Rows; ++index) sums[index] = _mm256_set1_epi32(call.start[first + index]);
    const uint8_t* lanes = call.panel + column / 16 * vector + column % 16 * 4;
    add_steps<Bits, Rows>(lanes, call.columns / 16 * vector, call.row + first, call.steps, sums);
#pragma GCC unroll 4
    for (size_t index = 0; index < Rows; ++index) {
      int32_t* target = call.sums + (first + index) * call.columns + column;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), sums[index]);
    }
  }
}

template <int Bits>
void all_rows(const LowBitCall& call) {
  size_t first = 0;
  for (; first + 4 <= call.rows; first += 4) tile<Bits, 4>(call, first);
  for (; first + 2 <= call.rows; first += 2) tile<Bits, 2>(call, first);
  for (; first < call.rows; ++first) tile<Bits, 1>(call, first);
}

void multiply(const LowBitCall& call) {
  switch (call.bits) {
    case 2: return all_rows<2>(call);
    case 3: return all_rows<3>(call);
    default: return all_rows<4>(call);
  }
}

int32_t sum(const int8_t* codes, size_t count) {
  const __m256i flip = _mm256_set1_epi8(-128);
  __m256i totals = _mm256_setzero_si256();  // of codes + 128
  size_t index = 0;
  for (; index + 32 <= count; index += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + index));
    totals = _mm256_add_epi64(totals, _mm256_sad_epu8(_mm256_xor_si256(bytes, flip), _mm256_setzero_si256()));
  }
  uint64_t parts[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), totals);
  uint32_t total = static_cast<uint32_t>(parts[0] + parts[1] + parts[2] + parts[3] - 128 * index);
  for (; index < count; ++index) total += static_cast<uint32_t>(int32_t{codes[index]});
  return static_cast<int32_t>(total);
}

}  // namespace

void set_avx2(LowBitKernels& kernels) {
  kernels.expand_rows = 0;  // products of two fit 16 bits only while weights are packed
  kernels.expand = nullptr;
  kernels.multiply = multiply;
  kernels.sum = sum;
}

}  // namespace qcompiler
