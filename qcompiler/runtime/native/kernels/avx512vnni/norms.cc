#include "kernels/norms.h"

#include "kernels/avx512vnni/rounding.h"
#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

__mmask32 first_words(size_t count) { return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1; }

/// 32 codes as 16-bit lanes; zeros where not active.
__m512i words(const int8_t* x, __mmask32 active) { return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active, x)); }
__m512i words(const int16_t* x, __mmask32 active) { return _mm512_maskz_loadu_epi16(active, x); }

/// 16 codes as 32-bit lanes.
__m512i load(const int8_t* x, __mmask16 active) { return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(active, x)); }
__m512i load(const int16_t* x, __mmask16 active) { return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(active, x)); }

template <typename Code>
Moments row_moments(const Code* x, size_t count) {
  const __m512i one = _mm512_set1_epi16(1), lower = _mm512_set1_epi64(0xffffffff);
  __m512i sum = _mm512_setzero_si512(), squares = sum;
  for (size_t index = 0; index < count; index += 32) {
    const __m512i codes = words(x + index, first_words(count - index));
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(codes, one));
    // two squares of -2^15 make 2^31: without a sign it fits
    const __m512i pair = _mm512_madd_epi16(codes, codes);
    squares = _mm512_add_epi64(squares, _mm512_add_epi64(_mm512_and_si512(pair, lower), _mm512_srli_epi64(pair, 32)));
  }
  const __m512i wide = _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(sum)),
                                        _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(sum, 1)));
  return {_mm512_reduce_add_epi64(wide), _mm512_reduce_add_epi64(squares)};
}

Moments moments(Codes x, size_t count) {
  if (x.wide) return row_moments(static_cast<const int16_t*>(x.data), count);
  return row_moments(static_cast<const int8_t*>(x.data), count);
}

/// A row's numbers in all lanes.
struct Normal {
  explicit Normal(const NormalRow& row)
      : scale(_mm512_set1_epi32(row.scale)),
        offset(_mm512_set1_epi32(row.offset)),
        root(_mm512_set1_epi64(row.root)),
        half(_mm512_set1_epi64(int64_t{1} << (row.shift - 1))),
        shift(_mm_cvtsi32_si128(row.shift)) {}

  __m512i centred(__m512i codes) const { return _mm512_sub_epi32(_mm512_mullo_epi32(codes, scale), offset); }

  /// n of 8 lanes of 64 bits.
  __m512i operator()(__m512i centred) const {
    return _mm512_sra_epi64(_mm512_add_epi64(_mm512_mul_epi32(centred, root), half), shift);
  }

  __m512i scale, offset, root, half;
  __m128i shift;
};

/// The codes, without a zero point, of 8 elements; saturated to 32 bits.
__m256i scaled(__m512i normal, const NormFactors& factors, size_t index, __mmask8 active, __m512i zero) {
  const __m512i multiplier = _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(active, factors.multiplier + index));
  const __m512i addend = _mm512_maskz_loadu_epi64(active, factors.addend + index);
  const __m512i shift = _mm512_cvtepu8_epi64(_mm_maskz_loadu_epi8(active, factors.shift + index));
  const __m512i sum = _mm512_add_epi64(_mm512_mul_epi32(normal, multiplier), addend);
  return _mm512_cvtsepi64_epi32(_mm512_add_epi64(_mm512_srav_epi64(sum, shift), zero));
}

template <typename Code, typename Result>
void row(const Code* x, size_t count, const NormalRow& row, const NormFactors& factors, Result* result) {
  const Normal normal(row);
  const __m512i zero = _mm512_set1_epi64(factors.zero);
  const __m512i low = _mm512_set1_epi32(factors.low), high = _mm512_set1_epi32(factors.high);
  for (size_t index = 0; index < count; index += 16) {
    const __mmask16 active = first_lanes(count - index);
    const __m512i centred = normal.centred(load(x + index, active));
    const __m512i first = normal(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(centred)));
    const __m512i second = normal(_mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(centred, 1)));
    const __m256i lower = scaled(first, factors, index, static_cast<__mmask8>(active), zero);
    const __m256i upper = scaled(second, factors, index + 8, static_cast<__mmask8>(active >> 8), zero);
    const __m512i codes = _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
    store(result + index, active, _mm512_min_epi32(_mm512_max_epi32(codes, low), high));
  }
}

void normalize(Codes x, size_t count, const NormalRow& with, const NormFactors& factors, CodesOut result) {
  typed(x, result, [&](auto codes, auto out) { row(codes, count, with, factors, out); });
}

}  // namespace

void set_avx512vnni(NormKernels& kernels) {
  kernels.moments = moments;
  kernels.normalize = normalize;
}

}  // namespace qcompiler
