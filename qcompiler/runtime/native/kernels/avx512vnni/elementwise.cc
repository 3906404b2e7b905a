#include "kernels/elementwise.h"

#include <immintrin.h>

#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

__mmask32 first_words(size_t count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }

/// 32 codes as 16-bit lanes.
__m512i load(const int8_t* codes, __mmask32 active) {
  return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(active, codes));
}

__m512i load(const int16_t* codes, __mmask32 active) { return _mm512_maskz_loadu_epi16(active, codes); }

__m512i clipped16(__m512i codes, int16_t least, int16_t greatest) {
  return _mm512_min_epi16(_mm512_max_epi16(codes, _mm512_set1_epi16(least)), _mm512_set1_epi16(greatest));
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
        shift(_mm512_set1_epi32(with.shift)) {}

  /// 16 pairs.
  __m512i rounded(__m512i pairs) const {
    const __m512i upper = _mm512_dpwssd_epi32(constant_high, pairs, high);
    const __m512i lower = _mm512_srai_epi32(_mm512_dpwssd_epi32(constant_low, pairs, low), 16);
    return _mm512_srav_epi32(_mm512_add_epi32(upper, lower), shift);
  }

  /// 32 codes: unpacking and packing both stay within 128 bits, so the order comes back. Not clipped.
  __m512i operator()(__m512i a, __m512i b) const {
    const __m512i first = rounded(_mm512_unpacklo_epi16(a, b)), second = rounded(_mm512_unpackhi_epi16(a, b));
    return _mm512_packs_epi32(first, second);
  }

  __m512i high, low, constant_high, constant_low, shift;
};

struct Multiplication {
  explicit Multiplication(const CodeProduct& with)
      : zero{_mm512_set1_epi16(with.zero[0]), _mm512_set1_epi16(with.zero[1])},
        multiplier(_mm512_set1_epi32(with.multiplier)),
        constant(_mm512_set1_epi64(with.constant)),
        shift(_mm512_set1_epi32(with.shift - 32)) {}

  /// 16 products of 32 bits, rescaled: the result is in the upper halves.
  __m512i rounded(__m512i product) const {
    const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(product, multiplier), constant);
    const __m512i odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(product, 32), multiplier), constant);
    return _mm512_srav_epi32(_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB), shift);
  }

  __m512i operator()(__m512i a, __m512i b) const {
    const __m512i first = _mm512_sub_epi16(a, zero[0]), second = _mm512_sub_epi16(b, zero[1]);
    const __m512i lower = _mm512_mullo_epi16(first, second), upper = _mm512_mulhi_epi16(first, second);
    return _mm512_packs_epi32(rounded(_mm512_unpacklo_epi16(lower, upper)),
                              rounded(_mm512_unpackhi_epi16(lower, upper)));
  }

  __m512i zero[2], multiplier, constant, shift;
};

/// `operation` of 64 pairs of codes: to bytes, saturated and put in order once for all of them.
template <typename Operation, typename A, typename B>
void stored64(const Operation& operation, const A* a, const B* b, int8_t least, int8_t greatest, __mmask64 active,
              int8_t* result) {
  const __mmask32 first = static_cast<__mmask32>(active), second = static_cast<__mmask32>(active >> 32);
  const __m512i lower = operation(load(a, first), load(b, first));
  const __m512i upper = operation(load(a + 32, second), load(b + 32, second));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  __m512i codes = _mm512_permutexvar_epi64(order, _mm512_packs_epi16(lower, upper));
  codes = _mm512_min_epi8(_mm512_max_epi8(codes, _mm512_set1_epi8(least)), _mm512_set1_epi8(greatest));
  _mm512_mask_storeu_epi8(result, active, codes);
}

template <typename Operation, typename A, typename B>
void all(const Operation& operation, const A* a, const B* b, int16_t least, int16_t greatest, size_t count,
         int8_t* result) {
  for (size_t index = 0; index < count; index += 64) {
    const __mmask64 active = count - index >= 64 ? ~__mmask64{0} : (__mmask64{1} << (count - index)) - 1;
    stored64(operation, a + index, b + index, static_cast<int8_t>(least), static_cast<int8_t>(greatest), active,
             result + index);
  }
}

template <typename Operation, typename A, typename B>
void all(const Operation& operation, const A* a, const B* b, int16_t least, int16_t greatest, size_t count,
         int16_t* result) {
  for (size_t index = 0; index < count; index += 32) {
    const __mmask32 active = first_words(count - index);
    const __m512i codes = operation(load(a + index, active), load(b + index, active));
    _mm512_mask_storeu_epi16(result + index, active, clipped16(codes, least, greatest));
  }
}

void sum(Codes a, Codes b, const PairSum& with, size_t count, CodesOut result) {
  const Sum operation(with);
  typed(a, b, result, [&](auto first, auto second, auto out) {
    all(operation, first, second, with.least, with.greatest, count, out);
  });
}

/// b is a with multiplier 0.
void scale(Codes a, const PairSum& with, size_t count, CodesOut result) {
  PairSum alone = with;
  alone.high[1] = alone.low[1] = 0;
  const Sum operation(alone);
  typed(a, result, [&](auto first, auto out) {
    all(operation, first, first, with.least, with.greatest, count, out);
  });
}

void multiply(Codes a, Codes b, const CodeProduct& with, size_t count, CodesOut result) {
  const Multiplication operation(with);
  typed(a, b, result, [&](auto first, auto second, auto out) {
    all(operation, first, second, with.least, with.greatest, count, out);
  });
}

}  // namespace

void set_avx512vnni(ElementwiseKernels& kernels) {
  kernels.sum = sum;
  kernels.scale = scale;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
