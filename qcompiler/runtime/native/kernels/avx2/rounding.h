// Products with dyadic factors, rounded half up, 8 at a time: what every kernel of this set ends with.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace qcompiler {
namespace {

/// Factors of 8 lanes. Even and odd lanes of 32 bits are multiplied apart, into 64 bits.
///
/// There is no arithmetic shift of 64-bit lanes. Products with their half are below 2^62 in magnitude, so 2^62 is added
/// before an unsigned shift, and 2^(62 - c) taken away behind it: exact, because c <= 62.
struct Factors {
  __m256i multiplier[2], half[2], shift[2];  ///< 64-bit lanes: those of even, of odd positions.
  __m256i beyond;                            ///< 32-bit lanes: shift - 32.
  bool high;                                 ///< All shifts are 32 or more: a result is in the product's upper half.
};

constexpr int64_t lift = int64_t{1} << 62;

inline Factors widen(__m256i multiplier, __m256i shift) {
  const __m256i limit = _mm256_set1_epi32(32), one = _mm256_set1_epi64x(1);
  Factors made;
  made.multiplier[0] = multiplier;
  made.multiplier[1] = _mm256_srli_epi64(multiplier, 32);
  made.shift[0] = _mm256_and_si256(shift, _mm256_set1_epi64x(0xff));
  made.shift[1] = _mm256_srli_epi64(shift, 32);
  for (int part = 0; part < 2; ++part) made.half[part] = _mm256_sllv_epi64(one, _mm256_sub_epi64(made.shift[part], one));
  made.beyond = _mm256_sub_epi32(shift, limit);
  made.high = _mm256_movemask_epi8(_mm256_cmpgt_epi32(limit, shift)) == 0;
  return made;
}

/// (value * b + 2^(c-1)) of 8 lanes: even positions, odd positions.
inline void multiplied(__m256i value, const Factors& factors, __m256i product[2]) {
  product[0] = _mm256_add_epi64(_mm256_mul_epi32(value, factors.multiplier[0]), factors.half[0]);
  product[1] = _mm256_mul_epi32(_mm256_srli_epi64(value, 32), factors.multiplier[1]);
  product[1] = _mm256_add_epi64(product[1], factors.half[1]);
}

/// (value * b + 2^(c-1)) >> c where `factors.high`: less than 2^30 in magnitude, because products are below 2^62.
inline __m256i rounded_high(__m256i value, const Factors& factors) {
  __m256i product[2];
  multiplied(value, factors, product);
  const __m256i upper = _mm256_blend_epi32(_mm256_srli_epi64(product[0], 32), product[1], 0xaa);
  return _mm256_srav_epi32(upper, factors.beyond);
}

/// value >> shift of 64-bit lanes whose values are below 2^62 in magnitude.
inline __m256i shifted64(__m256i value, __m256i shift) {
  const __m256i lifted = _mm256_set1_epi64x(lift);
  return _mm256_sub_epi64(_mm256_srlv_epi64(_mm256_add_epi64(value, lifted), shift), _mm256_srlv_epi64(lifted, shift));
}

inline __m256i clipped64(__m256i value, __m256i low, __m256i high) {
  const __m256i raised = _mm256_blendv_epi8(value, low, _mm256_cmpgt_epi64(low, value));
  return _mm256_blendv_epi8(raised, high, _mm256_cmpgt_epi64(raised, high));
}

/// The same as rounded_high for every shift, saturated to 32 bits.
inline __m256i rounded_any(__m256i value, const Factors& factors) {
  const __m256i least = _mm256_set1_epi64x(INT32_MIN), greatest = _mm256_set1_epi64x(INT32_MAX);
  __m256i product[2];
  multiplied(value, factors, product);
  for (int part = 0; part < 2; ++part) {
    product[part] = clipped64(shifted64(product[part], factors.shift[part]), least, greatest);
  }
  return _mm256_blend_epi32(product[0], _mm256_slli_epi64(product[1], 32), 0xaa);
}

/// Bounds of 32-bit lanes: clip(v + zero, low, high) = clip(v, low - zero, high - zero) + zero.
struct Bounds {
  __m256i low, high, zero;
};

/// The farthest zero point that these bounds hold.
constexpr int32_t farthest_zero = 1 << 30;

inline Bounds bounds(int32_t zero, int32_t low, int32_t high) {
  return {_mm256_set1_epi32(low - zero), _mm256_set1_epi32(high - zero), _mm256_set1_epi32(zero)};
}

inline __m256i clipped(__m256i value, const Bounds& bounds) {
  return _mm256_add_epi32(_mm256_min_epi32(_mm256_max_epi32(value, bounds.low), bounds.high), bounds.zero);
}

/// The 8 codes, which fit the type, at `result`.
inline void store(int16_t* result, __m256i codes) {
  const __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(result), packed);
}

inline void store(int8_t* result, __m256i codes) {
  const __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(result), _mm_packs_epi16(packed, packed));
}

}  // namespace
}  // namespace qcompiler
