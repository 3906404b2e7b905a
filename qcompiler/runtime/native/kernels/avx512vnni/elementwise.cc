#include "kernels/elementwise.h"

#include "kernels/avx512vnni/rounding.h"
#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

__mmask32 first_words(size_t count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }

/// 32 codes as 16-bit lanes.
__m512i load(const int8_t* codes, __mmask32 active) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active, codes));
}

__m512i load(const int16_t* codes, __mmask32 active) { return _mm512_maskz_loadu_epi16(active, codes); }

void store32(int8_t* result, __mmask32 active, __m512i codes) {
  _mm256_mask_storeu_epi8(result, active, _mm512_cvtepi16_epi8(codes));
}

void store32(int16_t* result, __mmask32 active, __m512i codes) { _mm512_mask_storeu_epi16(result, active, codes); }

__m512i clipped16(__m512i codes, __m512i least, __m512i greatest) {
  return _mm512_min_epi16(_mm512_max_epi16(codes, least), greatest);
}

/// The multipliers of a pair of 16-bit lanes, a the lower one.
__m512i pair(const int16_t multiplier[2]) {
  const uint32_t lower = static_cast<uint16_t>(multiplier[0]), upper = static_cast<uint16_t>(multiplier[1]);
  return _mm512_set1_epi32(static_cast<int32_t>(lower | upper << 16));
}

struct Sum {
  explicit Sum(const PairSum& with)
      : high(pair(with.high)),
        low(pair(with.low)),
        constant_high(_mm512_set1_epi32(with.constant_high)),
        constant_low(_mm512_set1_epi32(with.constant_low)),
        least(_mm512_set1_epi16(with.least)),
        greatest(_mm512_set1_epi16(with.greatest)),
        shift(_mm_cvtsi32_si128(with.shift)) {}

  /// 16 pairs.
  __m512i rounded(__m512i pairs) const {
    const __m512i upper = _mm512_dpwssd_epi32(constant_high, pairs, high);
    const __m512i lower = _mm512_srai_epi32(_mm512_dpwssd_epi32(constant_low, pairs, low), 16);
    return _mm512_sra_epi32(_mm512_add_epi32(upper, lower), shift);
  }

  /// 32 codes: unpacking and packing both stay within 128 bits, so the order comes back.
  __m512i operator()(__m512i a, __m512i b) const {
    const __m512i first = rounded(_mm512_unpacklo_epi16(a, b)), second = rounded(_mm512_unpackhi_epi16(a, b));
    return clipped16(_mm512_packs_epi32(first, second), least, greatest);
  }

  __m512i high, low, constant_high, constant_low, least, greatest;
  __m128i shift;
};

template <typename A, typename B, typename Code>
void sum_of(const A* a, const B* b, const PairSum& with, size_t count, Code* result) {
  const Sum sum(with);
  for (size_t index = 0; index < count; index += 32) {
    const __mmask32 active = first_words(count - index);
    store32(result + index, active, sum(load(a + index, active), load(b + index, active)));
  }
}

template <typename A, typename Code>
void scale_of(const A* a, const PairSum& with, size_t count, Code* result) {
  const Sum sum(with);
  for (size_t index = 0; index < count; index += 32) {
    const __mmask32 active = first_words(count - index);
    store32(result + index, active, sum(load(a + index, active), _mm512_setzero_si512()));
  }
}

struct Multiplication {
  explicit Multiplication(const CodeProduct& with)
      : zero{_mm512_set1_epi16(with.zero[0]), _mm512_set1_epi16(with.zero[1])},
        multiplier(_mm512_set1_epi32(with.multiplier)),
        constant(_mm512_set1_epi64(with.constant)),
        least(_mm512_set1_epi16(with.least)),
        greatest(_mm512_set1_epi16(with.greatest)),
        shift(_mm_cvtsi32_si128(with.shift - 32)) {}

  /// 16 products of 32 bits, rescaled: the result is in the upper halves.
  __m512i rounded(__m512i product) const {
    const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(product, multiplier), constant);
    const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(product, 32), multiplier), constant);
    return _mm512_sra_epi32(_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB), shift);
  }

  __m512i operator()(__m512i a, __m512i b) const {
    const __m512i first = _mm512_sub_epi16(a, zero[0]), second = _mm512_sub_epi16(b, zero[1]);
    const __m512i lower = _mm512_mullo_epi16(first, second), upper = _mm512_mulhi_epi16(first, second);
    const __m512i codes = _mm512_packs_epi32(rounded(_mm512_unpacklo_epi16(lower, upper)),
                                             rounded(_mm512_unpackhi_epi16(lower, upper)));
    return clipped16(codes, least, greatest);
  }

  __m512i zero[2], multiplier, constant, least, greatest;
  __m128i shift;
};

template <typename A, typename B, typename Code>
void product_of(const A* a, const B* b, const CodeProduct& with, size_t count, Code* result) {
  const Multiplication multiplied(with);
  for (size_t index = 0; index < count; index += 32) {
    const __mmask32 active = first_words(count - index);
    store32(result + index, active, multiplied(load(a + index, active), load(b + index, active)));
  }
}

void sum(Codes a, Codes b, const PairSum& with, size_t count, CodesOut result) {
  typed(a, b, result, [&](auto first, auto second, auto out) { sum_of(first, second, with, count, out); });
}

void scale(Codes a, const PairSum& with, size_t count, CodesOut result) {
  typed(a, result, [&](auto first, auto out) { scale_of(first, with, count, out); });
}

void multiply(Codes a, Codes b, const CodeProduct& with, size_t count, CodesOut result) {
  typed(a, b, result, [&](auto first, auto second, auto out) { product_of(first, second, with, count, out); });
}

}  // namespace

void set_avx512vnni(ElementwiseKernels& kernels) {
  kernels.sum = sum;
  kernels.scale = scale;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
