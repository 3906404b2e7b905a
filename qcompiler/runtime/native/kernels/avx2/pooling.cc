#include "kernels/pooling.h"

#include <immintrin.h>

namespace qcompiler {
namespace {

__m256i load(const void* address) { return _mm256_loadu_si256(static_cast<const __m256i*>(address)); }
__m128i load_half(const void* address) { return _mm_loadu_si128(static_cast<const __m128i*>(address)); }

void add8(int32_t* sums, __m256i more) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_add_epi32(load(sums), more));
}

/// Adds the signed 16-bit lanes of `words` to 16 sums.
void add16(int32_t* sums, __m256i words) {
  add8(sums, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(words)));
  add8(sums + 8, _mm256_cvtepi16_epi32(_mm256_extracti128_si256(words, 1)));
}

/// 16 columns: up to 256 codes of 8 bits fit a sum of 16 bits.
void rows(const int8_t* x, size_t rows, size_t stride, int32_t* sums) {
  for (size_t done = 0; done < rows; done += 256) {
    const size_t end = rows - done < 256 ? rows : done + 256;
    __m256i total = _mm256_setzero_si256();
    for (size_t row = done; row < end; ++row) {
      total = _mm256_add_epi16(total, _mm256_cvtepi8_epi16(load_half(x + row * stride)));
    }
    add16(sums, total);
  }
}

void rows(const int16_t* x, size_t rows, size_t stride, int32_t* sums) {
  __m256i first = _mm256_setzero_si256(), second = _mm256_setzero_si256();
  for (size_t row = 0; row < rows; ++row) {
    first = _mm256_add_epi32(first, _mm256_cvtepi16_epi32(load_half(x + row * stride)));
    second = _mm256_add_epi32(second, _mm256_cvtepi16_epi32(load_half(x + row * stride + 8)));
  }
  add8(sums, first);
  add8(sums + 8, second);
}

template <typename Code>
void rows_of(const Code* x, size_t count, size_t stride, size_t columns, int32_t* sums) {
  size_t column = 0;
  for (; column + 16 <= columns; column += 16) rows(x + column, count, stride, sums + column);
  for (; column < columns; ++column) {
    uint32_t sum = static_cast<uint32_t>(sums[column]);
    for (size_t row = 0; row < count; ++row) sum += static_cast<uint32_t>(int32_t{x[row * stride + column]});
    sums[column] = static_cast<int32_t>(sum);
  }
}

void add_rows(const void* x, bool wide, size_t count, size_t stride, size_t columns, int32_t* sums) {
  if (wide) return rows_of(static_cast<const int16_t*>(x), count, stride, columns, sums);
  rows_of(static_cast<const int8_t*>(x), count, stride, columns, sums);
}

/// Sums of neighbours as 32-bit lanes; pairs of bytes fit 16 bits, so nothing saturates.
__m256i folded(const int8_t* x) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), load(x)), _mm256_set1_epi16(1));
}

__m256i folded(const int16_t* x) { return _mm256_madd_epi16(load(x), _mm256_set1_epi16(1)); }

uint32_t total_of(__m256i lanes) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1))));
}

template <typename Code>
void lines_of(const Code* x, size_t lines, size_t stride, size_t count, int32_t* sums) {
  constexpr size_t lanes = 32 / sizeof(Code);
  for (size_t line = 0; line < lines; ++line, x += stride) {
    __m256i total = _mm256_setzero_si256();
    size_t index = 0;
    for (; index + lanes <= count; index += lanes) total = _mm256_add_epi32(total, folded(x + index));
    uint32_t sum = static_cast<uint32_t>(sums[line]) + total_of(total);
    for (; index < count; ++index) sum += static_cast<uint32_t>(int32_t{x[index]});
    sums[line] = static_cast<int32_t>(sum);
  }
}

void add_lines(const void* x, bool wide, size_t lines, size_t stride, size_t count, int32_t* sums) {
  if (wide) return lines_of(static_cast<const int16_t*>(x), lines, stride, count, sums);
  lines_of(static_cast<const int8_t*>(x), lines, stride, count, sums);
}

__m256i larger(__m256i first, __m256i second, int8_t) { return _mm256_max_epi8(first, second); }
__m256i larger(__m256i first, __m256i second, int16_t) { return _mm256_max_epi16(first, second); }

template <typename Code>
void greatest_of(const Code* x, size_t rows, size_t stride, size_t columns, Code* result) {
  constexpr size_t lanes = 32 / sizeof(Code);
  size_t column = 0;
  for (; column + lanes <= columns; column += lanes) {
    __m256i most = load(x + column);
    for (size_t row = 1; row < rows; ++row) most = larger(most, load(x + row * stride + column), Code{});
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(result + column), most);
  }
  for (; column < columns; ++column) {
    Code most = x[column];
    for (size_t row = 1; row < rows; ++row) most = x[row * stride + column] > most ? x[row * stride + column] : most;
    result[column] = most;
  }
}

void greatest(const void* x, bool wide, size_t rows, size_t stride, size_t columns, void* result) {
  if (wide) return greatest_of(static_cast<const int16_t*>(x), rows, stride, columns, static_cast<int16_t*>(result));
  greatest_of(static_cast<const int8_t*>(x), rows, stride, columns, static_cast<int8_t*>(result));
}

}  // namespace

void set_avx2(PoolingKernels& kernels) {
  kernels.add_rows = add_rows;
  kernels.add_lines = add_lines;
  kernels.greatest = greatest;
}

}  // namespace qcompiler
