// Blocks by vpdpbusd, their multipliers by vpdpwssd for two blocks at once where sums fit 16 bits.
#include "kernels/blockwise.h"

#include <immintrin.h>

#include <cstring>

#include "kernels/avx512vnni/lowbit_decode.h"

namespace qcompiler {
namespace {

constexpr size_t ahead = 2048;  // bytes of the stream of weights that are asked for before they are needed

void prefetch(const uint8_t* lanes) { _mm_prefetch(reinterpret_cast<const char*>(lanes + ahead), _MM_HINT_T0); }

/// Adds a step of all parts from `Part` on.
template <int Bits, size_t Rows, size_t Part>
inline __attribute__((always_inline)) void step(const Planes<Bits>& w, const BlockRow* row, size_t offset,
                                                __m512i* sums) {
  if constexpr (Part < low_bit_parts(Bits)) {
    const __m512i u = w.template part<Part>();
#pragma GCC unroll 8
    for (size_t index = 0; index < Rows; ++index) {
      sums[index] = _mm512_dpbusd_epi32(sums[index], u, broadcast(row[index].codes + offset + 4 * Part));
    }
    step<Bits, Rows, Part + 1>(w, row, offset, sums);
  }
}

/// Sums of one block of so many rows.
template <int Bits, size_t Rows>
inline __attribute__((always_inline)) void block_sums(const BlockCall& call, const BlockRow* row, size_t block,
                                                      __m512i* sums) {
  constexpr size_t vector = low_bit_planes(Bits) * 64, depth = low_bit_depth(Bits);
  const uint8_t* lanes = call.panel + block * call.steps * vector;
#pragma GCC unroll 8
  for (size_t index = 0; index < Rows; ++index) sums[index] = _mm512_set1_epi32(row[index].start[block]);
  const size_t end = (block + 1) * call.steps * depth;
  for (size_t offset = block * call.steps * depth; offset < end; offset += depth, lanes += vector) {
    prefetch(lanes);
    step<Bits, Rows, 0>(Planes<Bits>(lanes), row, offset, sums);
  }
}

/// One row: weights are masked where they lie in their bytes.
template <>
inline __attribute__((always_inline)) void block_sums<4, 1>(const BlockCall& call, const BlockRow* row, size_t block,
                                                            __m512i* sums) {
  const __m512i low = _mm512_set1_epi8(0x0f), high = _mm512_set1_epi8(-16);
  const uint8_t* lanes = call.panel + block * call.steps * 64;
  const int8_t* codes = row->codes + block * call.steps * 8;
  __m512i first = _mm512_set1_epi32(row->start[block]), second = _mm512_setzero_si512();
  for (size_t step = 0; step < call.steps; ++step, lanes += 64, codes += 8) {
    prefetch(lanes);
    const __m512i w = _mm512_loadu_si512(lanes);
    first = dot(first, _mm512_and_si512(w, low), broadcast(codes));
    second = dot(second, _mm512_and_si512(w, high), broadcast(codes + 4));
  }
  sums[0] = _mm512_add_epi32(first, _mm512_srai_epi32(second, 4));
}

template <>
inline __attribute__((always_inline)) void block_sums<2, 1>(const BlockCall& call, const BlockRow* row, size_t block,
                                                            __m512i* sums) {
  const __m512i low = _mm512_set1_epi8(0x03), high = _mm512_set1_epi8(0x0c);
  const uint8_t* lanes = call.panel + block * call.steps * 64;
  const int8_t* codes = row->codes + block * call.steps * 16;
  __m512i first = _mm512_set1_epi32(row->start[block]), second = _mm512_setzero_si512();
  for (size_t step = 0; step < call.steps; ++step, lanes += 64, codes += 16) {
    prefetch(lanes);
    const __m512i w = _mm512_loadu_si512(lanes), behind = _mm512_srli_epi16(w, 4);
    first = dot(first, _mm512_and_si512(w, low), broadcast(codes));
    second = dot(second, _mm512_and_si512(w, high), broadcast(codes + 4));
    first = dot(first, _mm512_and_si512(behind, low), broadcast(codes + 8));
    second = dot(second, _mm512_and_si512(behind, high), broadcast(codes + 12));
  }
  sums[0] = _mm512_add_epi32(first, _mm512_srai_epi32(second, 2));
}

void add32(__m512i sums, int64_t* totals) {
  const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
  const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sums, 1));
  _mm512_storeu_si512(totals, _mm512_add_epi64(low, _mm512_loadu_si512(totals)));
  _mm512_storeu_si512(totals + 8, _mm512_add_epi64(high, _mm512_loadu_si512(totals + 8)));
}

constexpr size_t flush = 16;  // pairs whose products surely fit 32 bits: 32 * 32512 * 2047 < 2^31

template <int Bits, size_t Rows>
void paired(const BlockCall& call, const BlockRow* row, int64_t* totals) {
  const size_t pairs = (call.blocks + 1) / 2;
  for (size_t first = 0; first < pairs; first += flush) {
    const size_t end = first + flush < pairs ? first + flush : pairs;
    __m512i sums[Rows];
#pragma GCC unroll 8
    for (size_t index = 0; index < Rows; ++index) sums[index] = _mm512_setzero_si512();
    for (size_t pair = first; pair < end; ++pair) {
      __m512i even[Rows], odd[Rows];
      block_sums<Bits, Rows>(call, row, 2 * pair, even);
      block_sums<Bits, Rows>(call, row, 2 * pair + 1, odd);
      const __m512i factor = _mm512_loadu_si512(call.multipliers + pair * 2 * block_columns);
#pragma GCC unroll 8
      for (size_t index = 0; index < Rows; ++index) {
        const __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, even[index], _mm512_slli_epi32(odd[index], 16));
        sums[index] = _mm512_dpwssd_epi32(sums[index], both, factor);
      }
    }
#pragma GCC unroll 8
    for (size_t index = 0; index < Rows; ++index) add32(sums[index], totals + index * block_columns);
  }
}

/// Takes the zero points off: the sum over blocks of multiplier * zero point * sum of codes.
void correct_pairs(const BlockCall& call, const BlockRow& row, int64_t* totals) {
  const size_t pairs = (call.blocks + 1) / 2;
  const __m512i same = _mm512_set1_epi16(static_cast<int16_t>(call.zero));
  for (size_t first = 0; first < pairs; first += flush) {
    const size_t end = first + flush < pairs ? first + flush : pairs;
    __m512i sums = _mm512_setzero_si512();
    for (size_t pair = first; pair < end; ++pair) {
      __m512i zero = same;
      if (call.zeros != nullptr) {
        const void* zeros = call.zeros + pair * 2 * block_columns;
        zero = _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(zeros)));
      }
      const __m512i factor = _mm512_mullo_epi16(zero, _mm512_loadu_si512(call.multipliers + pair * 2 * block_columns));
      const uint32_t even = static_cast<uint32_t>(row.sums[2 * pair]) & 0xffff;
      const uint32_t both = even | static_cast<uint32_t>(row.sums[2 * pair + 1]) << 16;
      sums = _mm512_dpwssd_epi32(sums, factor, _mm512_set1_epi32(static_cast<int32_t>(both)));
    }
    add32(_mm512_sub_epi32(_mm512_setzero_si512(), sums), totals);
  }
}

/// The zero points of a block times the sum of its codes.
__m512i correction(const BlockCall& call, const BlockRow& row, size_t block) {
  const __m512i sum = _mm512_set1_epi32(row.sums[block]);
  if (call.zeros == nullptr) return _mm512_mullo_epi32(_mm512_set1_epi32(call.zero), sum);
  const void* zeros = call.zeros + block * block_columns;
  return _mm512_mullo_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(zeros))), sum);
}

/// Columns 0, 2, 4 ... and columns 1, 3, 5 ... in 64 bits.
struct Totals {
  __m512i even, odd;
};

template <int Bits, size_t Rows>
void single(const BlockCall& call, const BlockRow* row, int64_t* totals) {
  Totals made[Rows];
#pragma GCC unroll 8
  for (size_t index = 0; index < Rows; ++index) made[index] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const bool corrected = call.zeros != nullptr || call.zero != 0;
  for (size_t block = 0; block < call.blocks; ++block) {
    __m512i sums[Rows];
    block_sums<Bits, Rows>(call, row, block, sums);
    const void* multipliers = call.multipliers + block * block_columns;
    const __m512i factor = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(multipliers)));
    const __m512i odd_factor = _mm512_srli_epi64(factor, 32);
#pragma GCC unroll 8
    for (size_t index = 0; index < Rows; ++index) {
      __m512i sum = sums[index];
      if (corrected) sum = _mm512_sub_epi32(sum, correction(call, row[index], block));
      made[index].even = _mm512_add_epi64(made[index].even, _mm512_mul_epi32(sum, factor));
      made[index].odd =
          _mm512_add_epi64(made[index].odd, _mm512_mul_epi32(_mm512_srli_epi64(sum, 32), odd_factor));
    }
  }
  const __m512i first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
  const __m512i second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
#pragma GCC unroll 8
  for (size_t index = 0; index < Rows; ++index, totals += block_columns) {
    _mm512_storeu_si512(totals, _mm512_permutex2var_epi64(made[index].even, first, made[index].odd));
    _mm512_storeu_si512(totals + 8, _mm512_permutex2var_epi64(made[index].even, second, made[index].odd));
  }
}

template <int Bits, size_t Rows>
void some_rows(const BlockCall& call, size_t first) {
  int64_t* totals = call.totals + first * block_columns;
  if constexpr (Bits != 8) {
    if (call.paired) {
      std::memset(totals, 0, Rows * block_columns * sizeof *totals);
      paired<Bits, Rows>(call, call.row + first, totals);
      if (call.zeros == nullptr && call.zero == 0) return;
      for (size_t index = 0; index < Rows; ++index) {
        correct_pairs(call, call.row[first + index], totals + index * block_columns);
      }
      return;
    }
  }
  single<Bits, Rows>(call, call.row + first, totals);
}

template <int Bits>
void all_rows(const BlockCall& call) {
  size_t first = 0;
  for (; first + 8 <= call.rows; first += 8) some_rows<Bits, 8>(call, first);
  for (; first + 4 <= call.rows; first += 4) some_rows<Bits, 4>(call, first);
  for (; first + 2 <= call.rows; first += 2) some_rows<Bits, 2>(call, first);
  for (; first < call.rows; ++first) some_rows<Bits, 1>(call, first);
}

void multiply(const BlockCall& call) {
  switch (call.bits) {
    case 2: return all_rows<2>(call);
    case 3: return all_rows<3>(call);
    case 4: return all_rows<4>(call);
    default: return all_rows<8>(call);
  }
}

__mmask16 tail(size_t left) { return left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1); }

float greatest(const float* x, size_t count) {
  // as integers, magnitudes have the same order, and what is not finite lies above all numbers
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512();
  for (size_t index = 0; index < count; index += 16) {
    const __m512i bits = _mm512_maskz_loadu_epi32(tail(count - index), x + index);
    most = _mm512_max_epi32(most, _mm512_and_si512(bits, magnitude));
  }
  int32_t bits = _mm512_reduce_max_epi32(most);
  if (bits >= 0x7f800000) bits = 0x7fc00000;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

void quantize(const float* x, size_t count, float inverse, int8_t* codes) {
  const __m512 factor = _mm512_set1_ps(inverse);
  for (size_t index = 0; index < count; index += 16) {
    const __mmask16 there = tail(count - index);
    const __m512 product = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, x + index), factor);
    const __m512i rounded = _mm512_cvt_roundps_epi32(product, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm512_mask_cvtepi32_storeu_epi8(codes + index, there, rounded);
  }
}

void finish(const int64_t* totals, size_t count, float row_scale, const float* scale, float guard, float* y) {
  for (size_t index = 0; index < count; index += 8) {
    const __mmask8 there = static_cast<__mmask8>(tail(count - index));
    const __m512i total = _mm512_maskz_loadu_epi64(there, totals + index);
    const __m256 number = _mm512_cvt_roundepi64_ps(total, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 factor = _mm256_mul_ps(_mm256_set1_ps(row_scale), _mm256_maskz_loadu_ps(there, scale + index));
    const __m256 product = _mm256_mul_ps(number, factor);
    _mm256_mask_storeu_ps(y + index, there, _mm256_add_ps(product, _mm256_set1_ps(guard)));
  }
}

}  // namespace

void set_avx512vnni(BlockwiseKernels& kernels) {
  kernels.multiply = multiply;
  kernels.greatest = greatest;
  kernels.quantize = quantize;
  kernels.finish = finish;
}

}  // namespace qcompiler
