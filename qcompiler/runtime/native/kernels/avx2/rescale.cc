#include "kernels/rescale.h"

#include <cstring>

#include "kernels/avx2/rounding.h"

namespace qcompiler {
namespace {

__m256i load(const void* address) { return _mm256_loadu_si256(static_cast<const __m256i*>(address)); }

/// Up to 8 elements, the rest zeros.
template <typename Element>
void first(const Element* from, size_t count, Element (&into)[8], Element rest) {
  for (size_t index = 0; index < 8; ++index) into[index] = index < count ? from[index] : rest;
}

Factors factors_of(const Rescale& rescale, size_t column, size_t count) {
  if (!rescale.per_column) {
    return widen(_mm256_set1_epi32(rescale.multiplier[0]), _mm256_set1_epi32(rescale.shift[0]));
  }
  if (count == 8) {
    const __m128i shifts = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rescale.shift + column));
    return widen(load(rescale.multiplier + column), _mm256_cvtepu8_epi32(shifts));
  }
  int32_t multiplier[8];
  uint8_t shift[8];
  first(rescale.multiplier + column, count, multiplier, int32_t{0});
  first(rescale.shift + column, count, shift, uint8_t{32});
  return widen(load(multiplier), _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(shift))));
}

template <typename Code>
void one32(const int32_t* sums, __m256i bias, const Factors& factors, const Bounds& bounds, Code* result) {
  const __m256i sum = _mm256_add_epi32(load(sums), bias);
  store(result, clipped(factors.high ? rounded_high(sum, factors) : rounded_any(sum, factors), bounds));
}

/// One block of up to 8 columns.
template <typename Code>
void block32(const int32_t* sums, __m256i bias, const Factors& factors, const Bounds& bounds, const RescaleArea& area,
             size_t count, Code* result) {
  for (size_t row = 0; row < area.rows; ++row, sums += area.sums_stride, result += area.result_stride) {
    if (count == 8) {
      one32(sums, bias, factors, bounds, result);
      continue;
    }
    int32_t padded[8];
    Code codes[8];
    first(sums, count, padded, int32_t{0});
    one32(padded, bias, factors, bounds, codes);
    std::memcpy(result, codes, count * sizeof(Code));
  }
}

template <typename Code>
void rows32(const int32_t* sums, const int32_t* bias, const Rescale& rescale, const RescaleArea& area, Code* result) {
  const Bounds limits = bounds(rescale.zero, rescale.low, rescale.high);
  Factors factors = factors_of(rescale, 0, area.columns < 8 ? area.columns : 8);
  for (size_t column = 0; column < area.columns; column += 8) {
    const size_t count = area.columns - column < 8 ? area.columns - column : 8;
    if (rescale.per_column) factors = factors_of(rescale, column, count);
    __m256i added = _mm256_setzero_si256();
    if (bias != nullptr && count == 8) {
      added = load(bias + column);
    } else if (bias != nullptr) {
      int32_t some[8];
      first(bias + column, count, some, int32_t{0});
      added = load(some);
    }
    block32(sums + column, added, factors, limits, area, count, result + column);
  }
}

/// 4 columns of int64 sums, in 64-bit lanes.
struct Wide {
  __m256i multiplier, negative, half, shift, low, high, zero, bias;
};

Wide wide_factors(const Rescale& rescale, size_t column, size_t count, const int64_t* bias) {
  int64_t multiplier[4], shift[4], half[4], added[4];
  for (size_t index = 0; index < 4; ++index) {
    const size_t place = rescale.per_column ? column + (index < count ? index : 0) : 0;
    multiplier[index] = rescale.multiplier[place];
    shift[index] = rescale.shift[place];
    half[index] = int64_t{1} << (rescale.shift[place] - 1);
    added[index] = bias != nullptr && index < count ? bias[column + index] : 0;
  }
  const __m256i factor = load(multiplier);
  return {factor,
          _mm256_cmpgt_epi64(_mm256_setzero_si256(), factor),
          load(half),
          load(shift),
          _mm256_set1_epi64x(rescale.low),
          _mm256_set1_epi64x(rescale.high),
          _mm256_set1_epi64x(rescale.zero),
          load(added)};
}

/// The product of 64-bit lanes with 32-bit factors that were extended to 64 bits, modulo 2^64.
__m256i product64(__m256i value, const Wide& with) {
  const __m256i lower = _mm256_mul_epu32(value, with.multiplier);
  const __m256i upper = _mm256_mul_epu32(_mm256_srli_epi64(value, 32), with.multiplier);
  // as an unsigned number a negative factor is 2^32 too large
  const __m256i excess = _mm256_and_si256(value, with.negative);
  return _mm256_add_epi64(lower, _mm256_slli_epi64(_mm256_sub_epi64(upper, excess), 32));
}

__m256i rounded64(__m256i raw, const Wide& with) {
  const __m256i product = product64(_mm256_add_epi64(raw, with.bias), with);
  const __m256i value = shifted64(_mm256_add_epi64(product, with.half), with.shift);
  return clipped64(_mm256_add_epi64(value, with.zero), with.low, with.high);
}

/// The low words of four 64-bit lanes, as 16-bit codes: they fit.
__m128i narrowed(__m256i codes) {
  const __m256i words = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  return _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_castsi256_si128(words));
}

void store4(int16_t* result, __m256i codes) { _mm_storel_epi64(reinterpret_cast<__m128i*>(result), narrowed(codes)); }

void store4(int8_t* result, __m256i codes) {
  const __m128i words = narrowed(codes);
  const int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
  std::memcpy(result, &bytes, sizeof(bytes));
}

template <typename Code>
void block64(const int64_t* sums, const Wide& with, size_t count, Code* result) {
  if (count == 4) return store4(result, rounded64(load(sums), with));
  int64_t values[4] = {};
  Code codes[4];
  std::memcpy(values, sums, count * sizeof(int64_t));
  store4(codes, rounded64(load(values), with));
  std::memcpy(result, codes, count * sizeof(Code));
}

template <typename Code>
void rows64(const int64_t* sums, const int64_t* bias, const Rescale& rescale, const RescaleArea& area, Code* result) {
  if (area.columns == 0) return;
  const bool same = !rescale.per_column && bias == nullptr;
  Wide with = wide_factors(rescale, 0, area.columns < 4 ? area.columns : 4, bias);
  for (size_t column = 0; column < area.columns; column += 4) {
    const size_t count = area.columns - column < 4 ? area.columns - column : 4;
    if (!same && column != 0) with = wide_factors(rescale, column, count, bias);
    for (size_t row = 0; row < area.rows; ++row) {
      block64(sums + row * area.sums_stride + column, with, count, result + row * area.result_stride + column);
    }
  }
}

void from32(const int32_t* sums, const int32_t* bias, const Rescale& rescale, const RescaleArea& area, void* result) {
  if (rescale.zero > farthest_zero || rescale.zero < -farthest_zero) {  // no code: correct, and slow
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

void set_avx2(RescaleKernels& kernels) {
  kernels.from32 = from32;
  kernels.from64 = from64;
}

}  // namespace qcompiler
