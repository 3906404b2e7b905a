// Products with dyadic factors, rounded half up, 16 at a time: what every kernel of this set ends with.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace qcompiler {
namespace {

/// Factors of 16 lanes. Even and odd lanes of 32 bits are multiplied apart, into 64 bits.
struct Factors {
  __m512i multiplier[2], half[2], shift[2];  ///< 64-bit lanes: those of even, of odd positions.
  __m512i beyond;                            ///< 32-bit lanes: shift - 32.
  bool high;                                 ///< All shifts are 32 or more: a result is in the product's upper half.
};

/// The lanes of `active`; the others get shifts of 32.
inline Factors widen(__m512i multiplier, __m512i shift, __mmask16 active) {
  const __m512i limit = _mm512_set1_epi32(32), one = _mm512_set1_epi64(1);
  const __m512i shifts = _mm512_mask_mov_epi32(limit, active, shift);
  Factors made;
  made.multiplier[0] = multiplier;
  made.multiplier[1] = _mm512_srli_epi64(multiplier, 32);
  made.shift[0] = _mm512_and_si512(shifts, _mm512_set1_epi64(0xff));
  made.shift[1] = _mm512_srli_epi64(shifts, 32);
  for (int part = 0; part < 2; ++part) made.half[part] = _mm512_sllv_epi64(one, _mm512_sub_epi64(made.shift[part], one));
  made.beyond = _mm512_sub_epi32(shifts, limit);
  made.high = _mm512_cmplt_epi32_mask(shifts, limit) == 0;
  return made;
}

/// (value * b + 2^(c-1)) of 16 lanes: even positions, odd positions.
inline void multiplied(__m512i value, const Factors& factors, __m512i product[2]) {
  product[0] = _mm512_add_epi64(_mm512_mul_epi32(value, factors.multiplier[0]), factors.half[0]);
  product[1] = _mm512_mul_epi32(_mm512_srli_epi64(value, 32), factors.multiplier[1]);
  product[1] = _mm512_add_epi64(product[1], factors.half[1]);
}

/// (value * b + 2^(c-1)) >> c where `factors.high`: less than 2^30 in magnitude, because products are below 2^62.
inline __m512i rounded_high(__m512i value, const Factors& factors) {
  __m512i product[2];
  multiplied(value, factors, product);
  const __m512i upper = _mm512_mask_shuffle_epi32(product[1], 0x5555, product[0], _MM_PERM_DDBB);
  return _mm512_srav_epi32(upper, factors.beyond);
}

/// The same for every shift, saturated to 32 bits.
inline __m512i rounded_any(__m512i value, const Factors& factors) {
  const __m512i least = _mm512_set1_epi64(INT32_MIN), greatest = _mm512_set1_epi64(INT32_MAX);
  __m512i product[2];
  multiplied(value, factors, product);
  for (int part = 0; part < 2; ++part) {
    product[part] = _mm512_srav_epi64(product[part], factors.shift[part]);
    product[part] = _mm512_min_epi64(_mm512_max_epi64(product[part], least), greatest);
  }
  return _mm512_mask_shuffle_epi32(product[0], 0xaaaa, product[1], _MM_PERM_CCAA);
}

/// Bounds of 32-bit lanes: clip(v + zero, low, high) = clip(v, low - zero, high - zero) + zero.
struct Bounds {
  __m512i low, high, zero;
};

/// The farthest zero point that these bounds hold.
constexpr int32_t farthest_zero = 1 << 30;

inline Bounds bounds(int32_t zero, int32_t low, int32_t high) {
  return {_mm512_set1_epi32(low - zero), _mm512_set1_epi32(high - zero), _mm512_set1_epi32(zero)};
}

inline __m512i clipped(__m512i value, const Bounds& bounds) {
  return _mm512_add_epi32(_mm512_min_epi32(_mm512_max_epi32(value, bounds.low), bounds.high), bounds.zero);
}

inline __mmask16 first_lanes(size_t count) {
  return count >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

inline void store(int8_t* result, __mmask16 active, __m512i codes) {
  _mm_mask_storeu_epi8(result, active, _mm512_cvtepi32_epi8(codes));
}

inline void store(int16_t* result, __mmask16 active, __m512i codes) {
  _mm256_mask_storeu_epi16(result, active, _mm512_cvtepi32_epi16(codes));
}

}  // namespace
}  // namespace qcompiler
