#include "kernels/softmax.h"

#include "kernels/avx512vnni/rounding.h"

namespace qcompiler {
namespace {

__mmask64 first_bytes(size_t count) { return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1; }
__mmask32 first_words(size_t count) { return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1; }

int32_t greatest_of(const int8_t* x, size_t count) {
  const __m512i least = _mm512_set1_epi8(INT8_MIN);
  __m512i found = least;
  for (size_t index = 0; index < count; index += 64) {
    found = _mm512_max_epi8(found, _mm512_mask_loadu_epi8(least, first_bytes(count - index), x + index));
  }
  const __m256i half = _mm256_max_epi8(_mm512_castsi512_si256(found), _mm512_extracti64x4_epi64(found, 1));
  __m128i rest = _mm_max_epi8(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  // 127 - x without a sign: the least of 8 words of two bytes each, the lower byte of which counts alone
  rest = _mm_sub_epi8(_mm_set1_epi8(INT8_MAX), rest);
  rest = _mm_min_epu8(rest, _mm_srli_epi16(rest, 8));
  return INT8_MAX - _mm_extract_epi16(_mm_minpos_epu16(_mm_and_si128(rest, _mm_set1_epi16(0xff))), 0);
}

int32_t greatest_of(const int16_t* x, size_t count) {
  const __m512i least = _mm512_set1_epi16(INT16_MIN);
  __m512i found = least;
  for (size_t index = 0; index < count; index += 32) {
    found = _mm512_max_epi16(found, _mm512_mask_loadu_epi16(least, first_words(count - index), x + index));
  }
  const __m256i half = _mm256_max_epi16(_mm512_castsi512_si256(found), _mm512_extracti64x4_epi64(found, 1));
  const __m128i rest = _mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return INT16_MAX - _mm_extract_epi16(_mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(INT16_MAX), rest)), 0);
}

__m512i load(const int8_t* x, __mmask16 active) { return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(active, x)); }
__m512i load(const int16_t* x, __mmask16 active) { return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(active, x)); }

/// The entry at `index` + 0 to 31 of a table, by the five lower bits.
__m512i of_32(const int32_t* table, __m512i index) {
  return _mm512_permutex2var_epi32(_mm512_loadu_si512(table), index, _mm512_loadu_si512(table + 16));
}

/// The entries of a table of 256 at 16 positions: eight permutes and a choice take half the time of a gather.
__m512i looked_up(const int32_t* table, __m512i index) {
  const __mmask16 fifth = _mm512_test_epi32_mask(index, _mm512_set1_epi32(32));
  const __mmask16 sixth = _mm512_test_epi32_mask(index, _mm512_set1_epi32(64));
  const __mmask16 seventh = _mm512_test_epi32_mask(index, _mm512_set1_epi32(128));
  __m512i found[4];
  for (size_t part = 0; part < 4; ++part) {
    const int32_t* place = table + 64 * part;
    found[part] = _mm512_mask_mov_epi32(of_32(place, index), fifth, of_32(place + 32, index));
  }
  const __m512i lower = _mm512_mask_mov_epi32(found[0], sixth, found[1]);
  return _mm512_mask_mov_epi32(lower, seventh, _mm512_mask_mov_epi32(found[2], sixth, found[3]));
}

/// Terms of 16 distances of 8-bit codes.
struct ByDistance {
  explicit ByDistance(const SoftmaxExponent& exponent) : table(exponent.by_distance) {}

  __m512i operator()(__m512i distance, __mmask16 active) const {
    return _mm512_maskz_mov_epi32(active, looked_up(table, distance));
  }

  const int32_t* table;
};

/// Terms of 16 distances of 16-bit codes.
struct ByLine {
  explicit ByLine(const SoftmaxExponent& exponent)
      : multiplier(_mm512_set1_epi64(exponent.multiplier)),
        half(_mm512_set1_epi64(exponent.right == 0 ? 0 : int64_t{1} << (exponent.right - 1))),
        left(_mm_cvtsi32_si128(exponent.left)),
        right(_mm_cvtsi32_si128(exponent.right)) {}

  /// t of 8 distances, 64-bit lanes.
  __m512i exponent(__m512i distance) const {
    const __m512i product = _mm512_add_epi64(_mm512_mul_epu32(distance, multiplier), half);
    const __m512i shifted = _mm512_sll_epi64(_mm512_srl_epi64(product, right), left);
    return _mm512_min_epu64(shifted, _mm512_set1_epi64((1 << 21) - 1));
  }

  __m512i operator()(__m512i distance, __mmask16 active) const {
    const __m512i odd = exponent(_mm512_srli_epi64(distance, 32)), rest = _mm512_set1_epi32(255);
    const __m512i t = _mm512_or_si512(exponent(distance), _mm512_slli_epi64(odd, 32));
    const __m512i index = _mm512_srli_epi32(t, 8);
    const __m512i upper = looked_up(softmax_powers, index), lower = looked_up(softmax_powers + 1, index);
    const __m512i fall = _mm512_mullo_epi32(_mm512_sub_epi32(upper, lower), _mm512_and_si512(t, rest));
    const __m512i drop = _mm512_srli_epi32(_mm512_add_epi32(fall, _mm512_set1_epi32(128)), 8);
    return _mm512_maskz_srlv_epi32(active, _mm512_sub_epi32(upper, drop), _mm512_srli_epi32(t, 16));
  }

  __m512i multiplier, half;
  __m128i left, right;
};

template <typename Term, typename Code>
uint64_t row_terms(const Code* x, size_t count, const Term& term, int32_t* terms) {
  const __m512i greatest = _mm512_set1_epi32(greatest_of(x, count)), lower = _mm512_set1_epi64(0xffffffff);
  __m512i even = _mm512_setzero_si512(), odd = even;
  for (size_t index = 0; index < count; index += 16) {
    const __mmask16 active = first_lanes(count - index);
    const __m512i found = term(_mm512_sub_epi32(greatest, load(x + index, active)), active);
    even = _mm512_add_epi64(even, _mm512_and_si512(found, lower));
    odd = _mm512_add_epi64(odd, _mm512_srli_epi64(found, 32));
    _mm512_storeu_si512(terms + index, found);
  }
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(_mm512_add_epi64(even, odd)));
}

uint64_t terms(Codes x, size_t count, const SoftmaxExponent& exponent, int32_t* terms) {
  if (x.wide) return row_terms(static_cast<const int16_t*>(x.data), count, ByLine(exponent), terms);
  return row_terms(static_cast<const int8_t*>(x.data), count, ByDistance(exponent), terms);
}

template <typename Code>
void row_shares(const int32_t* terms, size_t count, const SoftmaxShare& share, Code* result) {
  const __m512i factor = _mm512_set1_epi64(share.factor), half = _mm512_set1_epi64(int64_t{1} << (share.shift - 1));
  const __m512i zero = _mm512_set1_epi32(share.zero);
  const __m512i low = _mm512_set1_epi32(share.low), high = _mm512_set1_epi32(share.high);
  const __m128i beyond = _mm_cvtsi32_si128(share.shift - 32);
  for (size_t index = 0; index < count; index += 16) {
    const __m512i term = _mm512_loadu_si512(terms + index);
    const __m512i even = _mm512_add_epi64(_mm512_mul_epu32(term, factor), half);
    const __m512i odd = _mm512_add_epi64(_mm512_mul_epu32(_mm512_srli_epi64(term, 32), factor), half);
    const __m512i upper = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
    const __m512i code = _mm512_add_epi32(_mm512_srl_epi32(upper, beyond), zero);
    store(result + index, first_lanes(count - index), _mm512_min_epi32(_mm512_max_epi32(code, low), high));
  }
}

void shares(const int32_t* terms, size_t count, const SoftmaxShare& share, CodesOut result) {
  if (result.wide) return row_shares(terms, count, share, static_cast<int16_t*>(result.data));
  row_shares(terms, count, share, static_cast<int8_t*>(result.data));
}

}  // namespace

void set_avx512vnni(SoftmaxKernels& kernels) {
  kernels.terms = terms;
  kernels.shares = shares;
}

}  // namespace qcompiler
