#include "kernels/pooling.h"

#include "kernels/avx512vnni/rounding.h"

namespace qcompiler {
namespace {

__mmask64 first_bytes(size_t count) { return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1; }
__mmask32 first_words(size_t count) { return static_cast<__mmask32>(first_bytes(count)); }

void add16(int32_t* sums, __mmask16 active, __m512i more) {
  _mm512_mask_storeu_epi32(sums, active, _mm512_add_epi32(_mm512_maskz_loadu_epi32(active, sums), more));
}

/// Adds the signed 16-bit lanes of `words` to 32 sums.
void add32(int32_t* sums, size_t count, __m512i words) {
  add16(sums, first_lanes(count), _mm512_cvtepi16_epi32(_mm512_castsi512_si256(words)));
  if (count > 16) add16(sums + 16, first_lanes(count - 16), _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(words, 1)));
}

/// 64 columns: up to 256 codes of 8 bits fit a sum of 16 bits.
void rows8(const int8_t* x, size_t rows, size_t stride, size_t columns, int32_t* sums) {
  const __mmask32 active[2] = {first_words(columns), columns > 32 ? first_words(columns - 32) : 0};
  for (size_t done = 0; done < rows; done += 256) {
    const size_t end = rows - done < 256 ? rows : done + 256;
    __m512i total[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (size_t row = done; row < end; ++row) {
      const int8_t* codes = x + row * stride;
      total[0] = _mm512_add_epi16(total[0], _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active[0], codes)));
      total[1] = _mm512_add_epi16(total[1], _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active[1], codes + 32)));
    }
    add32(sums, columns, total[0]);
    if (columns > 32) add32(sums + 32, columns - 32, total[1]);
  }
}

/// 32 columns.
void rows16(const int16_t* x, size_t rows, size_t stride, size_t columns, int32_t* sums) {
  const __mmask16 active[2] = {first_lanes(columns), columns > 16 ? first_lanes(columns - 16) : __mmask16{0}};
  __m512i total[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (size_t row = 0; row < rows; ++row) {
    const int16_t* codes = x + row * stride;
    total[0] = _mm512_add_epi32(total[0], _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(active[0], codes)));
    total[1] = _mm512_add_epi32(total[1], _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(active[1], codes + 16)));
  }
  add16(sums, active[0], total[0]);
  if (columns > 16) add16(sums + 16, active[1], total[1]);
}

void add_rows(const void* x, bool wide, size_t rows, size_t stride, size_t columns, int32_t* sums) {
  const size_t block = wide ? 32 : 64;
  for (size_t column = 0; column < columns; column += block) {
    const size_t count = columns - column < block ? columns - column : block;
    if (wide) {
      rows16(static_cast<const int16_t*>(x) + column, rows, stride, count, sums + column);
    } else {
      rows8(static_cast<const int8_t*>(x) + column, rows, stride, count, sums + column);
    }
  }
}

int32_t line8(const int8_t* x, size_t count) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i total = _mm512_setzero_si512();
  for (size_t index = 0; index < count; index += 64) {
    total = _mm512_dpbusd_epi32(total, ones, _mm512_maskz_loadu_epi8(first_bytes(count - index), x + index));
  }
  return _mm512_reduce_add_epi32(total);
}

int32_t line16(const int16_t* x, size_t count) {
  const __m512i ones = _mm512_set1_epi16(1);
  __m512i total = _mm512_setzero_si512();
  for (size_t index = 0; index < count; index += 32) {
    total = _mm512_dpwssd_epi32(total, ones, _mm512_maskz_loadu_epi16(first_words(count - index), x + index));
  }
  return _mm512_reduce_add_epi32(total);
}

void add_lines(const void* x, bool wide, size_t lines, size_t stride, size_t count, int32_t* sums) {
  for (size_t line = 0; line < lines; ++line) {
    const int32_t sum = wide ? line16(static_cast<const int16_t*>(x) + line * stride, count)
                             : line8(static_cast<const int8_t*>(x) + line * stride, count);
    sums[line] = static_cast<int32_t>(static_cast<uint32_t>(sums[line]) + static_cast<uint32_t>(sum));
  }
}

void greatest8(const int8_t* x, size_t rows, size_t stride, size_t columns, int8_t* result) {
  for (size_t column = 0; column < columns; column += 64) {
    const __mmask64 active = first_bytes(columns - column);
    __m512i most = _mm512_maskz_loadu_epi8(active, x + column);
    for (size_t row = 1; row < rows; ++row) {
      most = _mm512_max_epi8(most, _mm512_maskz_loadu_epi8(active, x + row * stride + column));
    }
    _mm512_mask_storeu_epi8(result + column, active, most);
  }
}

void greatest16(const int16_t* x, size_t rows, size_t stride, size_t columns, int16_t* result) {
  for (size_t column = 0; column < columns; column += 32) {
    const __mmask32 active = first_words(columns - column);
    __m512i most = _mm512_maskz_loadu_epi16(active, x + column);
    for (size_t row = 1; row < rows; ++row) {
      most = _mm512_max_epi16(most, _mm512_maskz_loadu_epi16(active, x + row * stride + column));
    }
    _mm512_mask_storeu_epi16(result + column, active, most);
  }
}

void greatest(const void* x, bool wide, size_t rows, size_t stride, size_t columns, void* result) {
  if (wide) return greatest16(static_cast<const int16_t*>(x), rows, stride, columns, static_cast<int16_t*>(result));
  greatest8(static_cast<const int8_t*>(x), rows, stride, columns, static_cast<int8_t*>(result));
}

}  // namespace

void set_avx512vnni(PoolingKernels& kernels) {
  kernels.add_rows = add_rows;
  kernels.add_lines = add_lines;
  kernels.greatest = greatest;
}

}  // namespace qcompiler
