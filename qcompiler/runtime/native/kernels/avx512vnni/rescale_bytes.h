// Rescaling 64 sums into 64 bytes: saturating packs clip on the way, and one store replaces four.
#pragma once

#include "kernels/avx512vnni/rounding.h"
#include "kernels/rescale.h"

namespace qcompiler {
namespace {

/// The farthest zero point that may be added in 16 bits before the last pack: what saturated stays beyond 8 bits.
constexpr int32_t farthest_byte_zero = 1 << 14;

struct ByteBounds {
  __m512i low, high, zero;  ///< 8, 8 and 16 bits.
};

inline ByteBounds byte_bounds(const Rescale& rescale) {
  return {_mm512_set1_epi8(static_cast<char>(rescale.low)), _mm512_set1_epi8(static_cast<char>(rescale.high)),
          _mm512_set1_epi16(static_cast<int16_t>(rescale.zero))};
}

/// Packing works within quarters: dwords come out as quarters of 16 codes, one for each of the four.
inline __m512i packed(const __m512i values[4], const ByteBounds& bounds) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i first = _mm512_adds_epi16(_mm512_packs_epi32(values[0], values[1]), bounds.zero);
  const __m512i second = _mm512_adds_epi16(_mm512_packs_epi32(values[2], values[3]), bounds.zero);
  const __m512i codes = _mm512_packs_epi16(first, second);
  const __m512i clipped_codes = _mm512_min_epi8(_mm512_max_epi8(codes, bounds.low), bounds.high);
  return _mm512_permutexvar_epi32(order, clipped_codes);
}

/// All rows of 64 columns; `factors` and `bias` of four times 16.
inline void rows_of_64(const int32_t* sums, const __m512i bias[4], const Factors factors[4],
                              const ByteBounds& bounds, const RescaleArea& area, int8_t* result) {
  for (size_t row = 0; row < area.rows; ++row, sums += area.sums_stride, result += area.result_stride) {
    __m512i values[4];
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(sums + 16 * part), bias[part]);
      values[part] = rounded_high(sum, factors[part]);
    }
    _mm512_storeu_si512(result, packed(values, bounds));
  }
}

/// Four rows of 16 columns at a time; gives how many rows that were.
inline size_t rows_of_16(const int32_t* sums, __m512i bias, const Factors& given, const ByteBounds& limits,
                                const RescaleArea& area, __mmask16 active, int8_t* result) {
  const Factors factors = given;
  const ByteBounds bounds = limits;
  size_t row = 0;
  for (; row + 4 <= area.rows; row += 4) {
    __m512i values[4];
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part, sums += area.sums_stride) {
      values[part] = rounded_high(_mm512_add_epi32(_mm512_maskz_loadu_epi32(active, sums), bias), factors);
    }
    const __m512i codes = packed(values, bounds);
    if (area.result_stride == 16 && active == 0xffff) {
      _mm512_storeu_si512(result, codes);
    } else {
      _mm_mask_storeu_epi8(result, active, _mm512_castsi512_si128(codes));
      _mm_mask_storeu_epi8(result + area.result_stride, active, _mm512_extracti32x4_epi32(codes, 1));
      _mm_mask_storeu_epi8(result + 2 * area.result_stride, active, _mm512_extracti32x4_epi32(codes, 2));
      _mm_mask_storeu_epi8(result + 3 * area.result_stride, active, _mm512_extracti32x4_epi32(codes, 3));
    }
    result += 4 * area.result_stride;
  }
  return row;
}

}  // namespace
}  // namespace qcompiler
