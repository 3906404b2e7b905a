// Blocks by vpmaddubsw, 8 columns at a time; multipliers in 64 bits.
#include "kernels/blockwise.h"

#include <immintrin.h>

#include <cstring>

#include "kernels/avx2/lowbit_lanes.h"

namespace qcompiler {
namespace {

__m256i load(const void* bytes) { return _mm256_loadu_si256(static_cast<const __m256i*>(bytes)); }

/// Multipliers of 8 columns from `column` on.
__m256i multipliers(const BlockCall& call, size_t block, size_t column) {
  if (!call.paired) {
    const void* place = call.multipliers + block * block_columns + column;
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(place)));
  }
  const __m256i both = load(call.multipliers + (block / 2 * block_columns + column) * 2);
  return block % 2 == 0 ? _mm256_and_si256(both, _mm256_set1_epi32(0xffff)) : _mm256_srli_epi32(both, 16);
}

/// Zero points of 8 columns from `column` on.
__m256i zeros(const BlockCall& call, size_t block, size_t column) {
  if (call.zeros == nullptr) return _mm256_set1_epi32(call.zero);
  if (!call.paired) {
    const void* place = call.zeros + block * block_columns + column;
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(place)));
  }
  const void* place = call.zeros + (block / 2 * block_columns + column) * 2;
  const __m256i both = _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(place)));
  return block % 2 == 0 ? _mm256_srai_epi32(_mm256_slli_epi32(both, 16), 16) : _mm256_srai_epi32(both, 16);
}

template <int Bits, size_t Rows>
void tile(const BlockCall& call, const BlockRow* row, size_t column, int64_t* totals) {
  constexpr size_t vector = low_bit_planes(Bits) * 64;
  __m256i even[Rows], odd[Rows];
#pragma GCC unroll 2
  for (size_t index = 0; index < Rows; ++index) even[index] = odd[index] = _mm256_setzero_si256();
  for (size_t block = 0; block < call.blocks; ++block) {
    __m256i sums[Rows];
    const int8_t* codes[Rows];
#pragma GCC unroll 2
    for (size_t index = 0; index < Rows; ++index) {
      sums[index] = _mm256_set1_epi32(row[index].start[block]);
      codes[index] = row[index].codes + block * call.steps * low_bit_depth(Bits);
    }
    const uint8_t* lanes = call.panel + block * call.steps * vector + column * 4;
    if constexpr (Bits == 8) {
      add_bytes<Rows>(lanes, vector, codes, call.steps, sums);
    } else {
      add_steps<Bits, Rows>(lanes, vector, codes, call.steps, sums);
    }
    const __m256i factor = multipliers(call, block, column), zero = zeros(call, block, column);
#pragma GCC unroll 2
    for (size_t index = 0; index < Rows; ++index) {
      const __m256i correction = _mm256_mullo_epi32(zero, _mm256_set1_epi32(row[index].sums[block]));
      const __m256i sum = _mm256_sub_epi32(sums[index], correction);
      even[index] = _mm256_add_epi64(even[index], _mm256_mul_epi32(sum, factor));
      odd[index] =
          _mm256_add_epi64(odd[index], _mm256_mul_epi32(_mm256_srli_epi64(sum, 32), _mm256_srli_epi64(factor, 32)));
    }
  }
  for (size_t index = 0; index < Rows; ++index) {
    int64_t parts[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), even[index]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts + 4), odd[index]);
    for (size_t place = 0; place < 8; ++place) {
      totals[index * block_columns + column + place] = parts[place / 2 + place % 2 * 4];
    }
  }
}

template <int Bits>
void all_rows(const BlockCall& call) {
  for (size_t column = 0; column < block_columns; column += 8) {
    size_t first = 0;
    for (; first + 2 <= call.rows; first += 2) {
      tile<Bits, 2>(call, call.row + first, column, call.totals + first * block_columns);
    }
    if (first < call.rows) tile<Bits, 1>(call, call.row + first, column, call.totals + first * block_columns);
  }
}

void multiply(const BlockCall& call) {
  switch (call.bits) {
    case 2: return all_rows<2>(call);
    case 3: return all_rows<3>(call);
    case 4: return all_rows<4>(call);
    default: return all_rows<8>(call);
  }
}

/// The first `count` numbers, at most 8, filled up with zeros.
__m256 numbers(const float* x, size_t count) {
  if (count >= 8) return _mm256_loadu_ps(x);
  float copy[8] = {};
  std::memcpy(copy, x, count * sizeof *x);
  return _mm256_loadu_ps(copy);
}

float greatest(const float* x, size_t count) {
  // as integers, magnitudes have the same order, and what is not finite lies above all numbers
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (size_t index = 0; index < count; index += 8) {
    const __m256i bits = _mm256_castps_si256(numbers(x + index, count - index));
    most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
  }
  int32_t parts[8], bits = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), most);
  for (int32_t part : parts) bits = part > bits ? part : bits;
  if (bits >= 0x7f800000) bits = 0x7fc00000;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

void quantize(const float* x, size_t count, float inverse, int8_t* codes) {
  const __m256 factor = _mm256_set1_ps(inverse);
  const __m256i order = _mm256_setr_epi32(0, 4, 0, 0, 0, 0, 0, 0);
  for (size_t index = 0; index < count; index += 8) {
    const __m256 rounded = _mm256_round_ps(_mm256_mul_ps(numbers(x + index, count - index), factor),
                                           _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(rounded), _mm256_setzero_si256());
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, _mm256_setzero_si256()), order);
    const int64_t eight = _mm_cvtsi128_si64(_mm256_castsi256_si128(bytes));
    std::memcpy(codes + index, &eight, count - index < 8 ? count - index : 8);
  }
}

/// Four integers below 2^51 as float, rounded once: a double holds them exactly.
__m128 to_float(__m256i integers) {
  const __m256d magic = _mm256_set1_pd(0x1.8p52);
  const __m256i shifted = _mm256_add_epi64(integers, _mm256_castpd_si256(magic));
  return _mm256_cvtpd_ps(_mm256_sub_pd(_mm256_castsi256_pd(shifted), magic));
}

void finish(const int64_t* totals, size_t count, float row_scale, const float* scale, float guard, float* y) {
  for (size_t index = 0; index < count; index += 8) {
    const size_t left = count - index < 8 ? count - index : 8;
    int64_t part[8] = {};
    std::memcpy(part, totals + index, left * sizeof *part);
    const __m256 number = _mm256_set_m128(to_float(load(part + 4)), to_float(load(part)));
    const __m256 factor = _mm256_mul_ps(_mm256_set1_ps(row_scale), numbers(scale + index, left));
    float result[8];
    _mm256_storeu_ps(result, _mm256_add_ps(_mm256_mul_ps(number, factor), _mm256_set1_ps(guard)));
    std::memcpy(y + index, result, left * sizeof *y);
  }
}

}  // namespace

void set_avx2(BlockwiseKernels& kernels) {
  kernels.multiply = multiply;
  kernels.greatest = greatest;
  kernels.quantize = quantize;
  kernels.finish = finish;
}

}  // namespace qcompiler
