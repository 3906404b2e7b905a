#include "kernels/elementwise.h"

#include <cstring>

#include "kernels/avx2/rounding.h"
#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

constexpr size_t lanes = 16;

/// 16 codes as 16-bit lanes.
__m256i load(const int8_t* codes) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

__m256i load(const int16_t* codes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)); }

void store16(int8_t* result, __m256i codes) {
  const __m128i packed = _mm_packs_epi16(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(result), packed);
}

void store16(int16_t* result, __m256i codes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(result), codes); }

__m256i clipped16(__m256i codes, __m256i least, __m256i greatest) {
  return _mm256_min_epi16(_mm256_max_epi16(codes, least), greatest);
}

/// The multipliers of a pair of 16-bit lanes, a the lower one.
__m256i pair(const int16_t multiplier[2]) {
  const uint32_t lower = static_cast<uint16_t>(multiplier[0]), upper = static_cast<uint16_t>(multiplier[1]);
  return _mm256_set1_epi32(static_cast<int32_t>(lower | upper << 16));
}

struct Sum {
  explicit Sum(const PairSum& with)
      : high(pair(with.high)),
        low(pair(with.low)),
        constant_high(_mm256_set1_epi32(with.constant_high)),
        constant_low(_mm256_set1_epi32(with.constant_low)),
        least(_mm256_set1_epi16(with.least)),
        greatest(_mm256_set1_epi16(with.greatest)),
        shift(_mm256_set1_epi32(with.shift)) {}

  /// 8 pairs.
  __m256i rounded(__m256i pairs) const {
    const __m256i upper = _mm256_add_epi32(constant_high, _mm256_madd_epi16(pairs, high));
    const __m256i lower = _mm256_add_epi32(constant_low, _mm256_madd_epi16(pairs, low));
    return _mm256_srav_epi32(_mm256_add_epi32(upper, _mm256_srai_epi32(lower, 16)), shift);
  }

  /// 16 codes: unpacking and packing both stay within 128 bits, so the order comes back.
  __m256i operator()(__m256i a, __m256i b) const {
    const __m256i first = rounded(_mm256_unpacklo_epi16(a, b)), second = rounded(_mm256_unpackhi_epi16(a, b));
    return clipped16(_mm256_packs_epi32(first, second), least, greatest);
  }

  __m256i high, low, constant_high, constant_low, least, greatest, shift;
};

struct Multiplication {
  explicit Multiplication(const CodeProduct& with)
      : zero{_mm256_set1_epi16(with.zero[0]), _mm256_set1_epi16(with.zero[1])},
        multiplier(_mm256_set1_epi32(with.multiplier)),
        constant(_mm256_set1_epi64x(with.constant)),
        least(_mm256_set1_epi16(with.least)),
        greatest(_mm256_set1_epi16(with.greatest)),
        shift(_mm256_set1_epi32(with.shift - 32)) {}

  /// 8 products of 32 bits, rescaled: the result is in the upper halves.
  __m256i rounded(__m256i product) const {
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(product, multiplier), constant);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(product, 32), multiplier), constant);
    return _mm256_srav_epi32(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa), shift);
  }

  __m256i operator()(__m256i a, __m256i b) const {
    const __m256i first = _mm256_sub_epi16(a, zero[0]), second = _mm256_sub_epi16(b, zero[1]);
    const __m256i lower = _mm256_mullo_epi16(first, second), upper = _mm256_mulhi_epi16(first, second);
    const __m256i codes = _mm256_packs_epi32(rounded(_mm256_unpacklo_epi16(lower, upper)),
                                             rounded(_mm256_unpackhi_epi16(lower, upper)));
    return clipped16(codes, least, greatest);
  }

  __m256i zero[2], multiplier, constant, least, greatest, shift;
};

/// `operation` of all elements; those of the last, incomplete vector are copied.
template <typename Operation, typename A, typename B, typename Code>
void all(const Operation& operation, const A* a, const B* b, size_t count, Code* result) {
  size_t index = 0;
  for (; index + lanes <= count; index += lanes) store16(result + index, operation(load(a + index), load(b + index)));
  if (index == count) return;
  A first[lanes] = {};
  B second[lanes] = {};
  Code codes[lanes];
  std::memcpy(first, a + index, (count - index) * sizeof(A));
  std::memcpy(second, b + index, (count - index) * sizeof(B));
  store16(codes, operation(load(first), load(second)));
  std::memcpy(result + index, codes, (count - index) * sizeof(Code));
}

void sum(Codes a, Codes b, const PairSum& with, size_t count, CodesOut result) {
  const Sum operation(with);
  typed(a, b, result, [&](auto first, auto second, auto out) { all(operation, first, second, count, out); });
}

/// b is a with multiplier 0.
void scale(Codes a, const PairSum& with, size_t count, CodesOut result) {
  PairSum alone = with;
  alone.high[1] = alone.low[1] = 0;
  const Sum operation(alone);
  typed(a, result, [&](auto first, auto out) { all(operation, first, first, count, out); });
}

void multiply(Codes a, Codes b, const CodeProduct& with, size_t count, CodesOut result) {
  const Multiplication operation(with);
  typed(a, b, result, [&](auto first, auto second, auto out) { all(operation, first, second, count, out); });
}

}  // namespace

void set_avx2(ElementwiseKernels& kernels) {
  kernels.sum = sum;
  kernels.scale = scale;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
