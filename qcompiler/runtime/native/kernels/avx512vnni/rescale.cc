#include "kernels/rescale.h"

#include "kernels/avx512vnni/rescale_bytes.h"
#include "kernels/avx512vnni/rounding.h"

namespace qcompiler {
namespace {

/// Factors of the columns from `column` on.
Factors factors_of(const Rescale& rescale, size_t column, __mmask16 active) {
  if (!rescale.per_column) {
    return widen(_mm512_set1_epi32(rescale.multiplier[0]), _mm512_set1_epi32(rescale.shift[0]), active);
  }
  const __m512i multiplier = _mm512_maskz_loadu_epi32(active, rescale.multiplier + column);
  return widen(multiplier, _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(active, rescale.shift + column)), active);
}

/// One block of 16 columns; `high` as in Factors.
template <bool high, typename Code>
void block32(const int32_t* sums, __m512i bias, const Factors& factors, const Bounds& bounds, const RescaleArea& area,
             __mmask16 active, Code* result) {
  for (size_t row = 0; row < area.rows; ++row, sums += area.sums_stride, result += area.result_stride) {
    const __m512i sum = _mm512_add_epi32(_mm512_maskz_loadu_epi32(active, sums), bias);
    store(result, active, clipped(high ? rounded_high(sum, factors) : rounded_any(sum, factors), bounds));
  }
}

/// A single row under one factor.
template <bool high, typename Code>
void line32(const int32_t* sums, size_t columns, const Factors& factors, const Bounds& bounds, Code* result) {
  for (size_t column = 0; column < columns; column += 16) {
    const __mmask16 active = first_lanes(columns - column);
    const __m512i sum = _mm512_maskz_loadu_epi32(active, sums + column);
    store(result + column, active, clipped(high ? rounded_high(sum, factors) : rounded_any(sum, factors), bounds));
  }
}

__m512i bias_of(const int32_t* bias, size_t column, __mmask16 active) {
  return bias == nullptr ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(active, bias + column);
}

bool packs_bytes(const Rescale& rescale) {
  return rescale.zero <= farthest_byte_zero && rescale.zero >= -farthest_byte_zero;
}

/// As many columns as come in whole 64s with great shifts; gives how many that were.
size_t bytes_of_64(const int32_t* sums, const int32_t* bias, const Rescale& rescale, const RescaleArea& area,
                   int8_t* result) {
  size_t column = 0;
  for (; column + 64 <= area.columns && packs_bytes(rescale); column += 64) {
    Factors factors[4];
    __m512i added[4];
    for (size_t part = 0; part < 4; ++part) {
      factors[part] = factors_of(rescale, column + 16 * part, 0xffff);
      added[part] = bias_of(bias, column + 16 * part, 0xffff);
      if (!factors[part].high) return column;
    }
    rows_of_64(sums + column, added, factors, byte_bounds(rescale), area, result + column);
  }
  return column;
}

size_t bytes_of_64(const int32_t*, const int32_t*, const Rescale&, const RescaleArea&, int16_t*) { return 0; }

template <typename Code>
void rows32(const int32_t* sums, const int32_t* bias, const Rescale& rescale, const RescaleArea& area, Code* result) {
  const Bounds limits = bounds(rescale.zero, rescale.low, rescale.high);
  if (area.rows == 1 && !rescale.per_column && bias == nullptr) {
    const Factors factors = factors_of(rescale, 0, 0xffff);
    (factors.high ? line32<true, Code> : line32<false, Code>)(sums, area.columns, factors, limits, result);
    return;
  }
  for (size_t column = bytes_of_64(sums, bias, rescale, area, result); column < area.columns; column += 16) {
    const __mmask16 active = first_lanes(area.columns - column);
    const Factors factors = factors_of(rescale, column, active);
    const __m512i added = bias_of(bias, column, active);
    RescaleArea left = area;
    size_t done = 0;
    if (sizeof(Code) == 1 && factors.high && packs_bytes(rescale)) {
      int8_t* bytes = reinterpret_cast<int8_t*>(result + column);
      done = rows_of_16(sums + column, added, factors, byte_bounds(rescale), area, active, bytes);
      left.rows -= done;
    }
    const auto block = factors.high ? block32<true, Code> : block32<false, Code>;
    block(sums + done * area.sums_stride + column, added, factors, limits, left, active,
          result + done * area.result_stride + column);
  }
}

/// 8 columns of int64 sums, in 64-bit lanes.
struct Wide {
  __m512i multiplier, half, shift, low, high, zero, bias;
};

Wide wide_factors(const Rescale& rescale, size_t column, __mmask8 active, const int64_t* bias) {
  const __m512i one = _mm512_set1_epi64(1);
  Wide made;
  if (rescale.per_column) {
    made.multiplier = _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(active, rescale.multiplier + column));
    made.shift = _mm512_cvtepu8_epi64(_mm_maskz_loadu_epi8(active, rescale.shift + column));
  } else {
    made.multiplier = _mm512_set1_epi64(rescale.multiplier[0]);
    made.shift = _mm512_set1_epi64(rescale.shift[0]);
  }
  made.half = _mm512_sllv_epi64(one, _mm512_sub_epi64(made.shift, one));
  made.low = _mm512_set1_epi64(rescale.low);
  made.high = _mm512_set1_epi64(rescale.high);
  made.zero = _mm512_set1_epi64(rescale.zero);
  made.bias = bias == nullptr ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi64(active, bias + column);
  return made;
}

__m512i rounded64(__m512i raw, const Wide& with) {
  const __m512i product = _mm512_mullo_epi64(_mm512_add_epi64(raw, with.bias), with.multiplier);
  const __m512i value = _mm512_srav_epi64(_mm512_add_epi64(product, with.half), with.shift);
  return _mm512_min_epi64(_mm512_max_epi64(_mm512_add_epi64(value, with.zero), with.low), with.high);
}

void store64(int8_t* result, __mmask8 active, __m512i codes) {
  _mm_mask_storeu_epi8(result, active, _mm512_cvtepi64_epi8(codes));
}

void store64(int16_t* result, __mmask8 active, __m512i codes) {
  _mm_mask_storeu_epi16(result, active, _mm512_cvtepi64_epi16(codes));
}

template <typename Code>
void rows64(const int64_t* sums, const int64_t* bias, const Rescale& rescale, const RescaleArea& area, Code* result) {
  for (size_t column = 0; column < area.columns; column += 8) {
    const __mmask8 active = static_cast<__mmask8>(first_lanes(area.columns - column));
    const Wide with = wide_factors(rescale, column, active, bias);
    for (size_t row = 0; row < area.rows; ++row) {
      const __m512i raw = _mm512_maskz_loadu_epi64(active, sums + row * area.sums_stride + column);
      store64(result + row * area.result_stride + column, active, rounded64(raw, with));
    }
  }
}

bool beyond_bounds(const Rescale& rescale) {
  return rescale.zero > farthest_zero || rescale.zero < -farthest_zero;
}

void from32(const int32_t* sums, const int32_t* bias, const Rescale& rescale, const RescaleArea& area, void* result) {
  if (beyond_bounds(rescale)) {  // such a zero point is no code: correct, and slow
    RescaleKernels plain;
    set_reference(plain);
    plain.from32(sums, bias, rescale, area, result);
  } else if (rescale.wide) {
    rows32(sums, bias, rescale, area, static_cast<int16_t*>(result));
  } else {
    rows32(sums, bias, rescale, area, static_cast<int8_t*>(result));
  }
}

void from64(const int64_t* sums, const int64_t* bias, const Rescale& rescale, const RescaleArea& area, void* result) {
  if (rescale.wide) {
    rows64(sums, bias, rescale, area, static_cast<int16_t*>(result));
  } else {
    rows64(sums, bias, rescale, area, static_cast<int8_t*>(result));
  }
}

}  // namespace

void set_avx512vnni(RescaleKernels& kernels) {
  kernels.from32 = from32;
  kernels.from64 = from64;
}

}  // namespace qcompiler
