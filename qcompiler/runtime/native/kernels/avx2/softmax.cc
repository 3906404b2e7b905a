#include "kernels/softmax.h"

#include <cstring>

#include "kernels/avx2/rounding.h"

namespace qcompiler {
namespace {

template <typename Code>
int32_t greatest_of(const Code* x, size_t count) {
  Code found = x[0];
  for (size_t index = 1; index < count; ++index) found = x[index] > found ? x[index] : found;  // compilers vectorize
  return found;
}

__m256i load(const int8_t* x) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))); }
__m256i load(const int16_t* x) { return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))); }

/// Terms of 8 distances of 8-bit codes.
struct ByDistance {
  explicit ByDistance(const SoftmaxExponent& exponent) : table(exponent.by_distance) {}
  __m256i operator()(__m256i distance) const { return _mm256_i32gather_epi32(table, distance, 4); }
  const int32_t* table;
};

/// Terms of 8 distances of 16-bit codes.
struct ByLine {
  explicit ByLine(const SoftmaxExponent& exponent)
      : multiplier(_mm256_set1_epi64x(exponent.multiplier)),
        half(_mm256_set1_epi64x(exponent.right == 0 ? 0 : int64_t{1} << (exponent.right - 1))),
        left(_mm_cvtsi32_si128(exponent.left)),
        right(_mm_cvtsi32_si128(exponent.right)) {}

  /// t of 4 distances, 64-bit lanes; below 2^62 before it is limited.
  __m256i exponent(__m256i distance) const {
    const __m256i product = _mm256_add_epi64(_mm256_mul_epu32(distance, multiplier), half);
    const __m256i shifted = _mm256_sll_epi64(_mm256_srl_epi64(product, right), left);
    const __m256i limit = _mm256_set1_epi64x((1 << 21) - 1);
    return _mm256_blendv_epi8(shifted, limit, _mm256_cmpgt_epi64(shifted, limit));
  }

  __m256i operator()(__m256i distance) const {
    const __m256i odd = exponent(_mm256_srli_epi64(distance, 32)), rest = _mm256_set1_epi32(255);
    const __m256i t = _mm256_or_si256(exponent(distance), _mm256_slli_epi64(odd, 32));
    const __m256i index = _mm256_and_si256(_mm256_srli_epi32(t, 8), rest);
    const __m256i upper = _mm256_i32gather_epi32(softmax_powers, index, 4);
    const __m256i lower = _mm256_i32gather_epi32(softmax_powers + 1, index, 4);
    const __m256i fall = _mm256_mullo_epi32(_mm256_sub_epi32(upper, lower), _mm256_and_si256(t, rest));
    const __m256i drop = _mm256_srli_epi32(_mm256_add_epi32(fall, _mm256_set1_epi32(128)), 8);
    return _mm256_srlv_epi32(_mm256_sub_epi32(upper, drop), _mm256_srli_epi32(t, 16));
  }

  __m256i multiplier, half;
  __m128i left, right;
};

/// Lanes before `count`.
__m256i first(size_t count) {
  const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)), place);
}

template <typename Term, typename Code>
uint64_t row_terms(const Code* x, size_t count, const Term& term, int32_t* terms) {
  const __m256i greatest = _mm256_set1_epi32(greatest_of(x, count)), lower = _mm256_set1_epi64x(0xffffffff);
  __m256i even = _mm256_setzero_si256(), odd = even;
  const auto add = [&](const Code* codes, int32_t* into, __m256i kept) {
    const __m256i found = _mm256_and_si256(term(_mm256_sub_epi32(greatest, load(codes))), kept);
    even = _mm256_add_epi64(even, _mm256_and_si256(found, lower));
    odd = _mm256_add_epi64(odd, _mm256_srli_epi64(found, 32));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(into), found);
  };
  size_t index = 0;
  for (; index + 8 <= count; index += 8) add(x + index, terms + index, _mm256_set1_epi32(-1));
  if (index < count) {
    Code rest[8];
    for (size_t lane = 0; lane < 8; ++lane) rest[lane] = x[lane < count - index ? index + lane : index];
    add(rest, terms + index, first(count - index));
  }
  uint64_t lanes[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(even, odd));
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

uint64_t terms(Codes x, size_t count, const SoftmaxExponent& exponent, int32_t* terms) {
  if (x.wide) return row_terms(static_cast<const int16_t*>(x.data), count, ByLine(exponent), terms);
  return row_terms(static_cast<const int8_t*>(x.data), count, ByDistance(exponent), terms);
}

template <typename Code>
void row_shares(const int32_t* terms, size_t count, const SoftmaxShare& share, Code* result) {
  const __m256i factor = _mm256_set1_epi64x(share.factor), half = _mm256_set1_epi64x(int64_t{1} << (share.shift - 1));
  const __m256i zero = _mm256_set1_epi32(share.zero);
  const __m256i low = _mm256_set1_epi32(share.low), high = _mm256_set1_epi32(share.high);
  const __m128i beyond = _mm_cvtsi32_si128(share.shift - 32);
  for (size_t index = 0; index < count; index += 8) {
    const __m256i term = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(terms + index));
    const __m256i even = _mm256_add_epi64(_mm256_mul_epu32(term, factor), half);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(term, 32), factor), half);
    const __m256i upper = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    const __m256i code = _mm256_add_epi32(_mm256_srl_epi32(upper, beyond), zero);
    const __m256i clipped = _mm256_min_epi32(_mm256_max_epi32(code, low), high);
    if (index + 8 <= count) {
      store(result + index, clipped);
    } else {
      Code rest[8];
      store(rest, clipped);
      std::memcpy(result + index, rest, (count - index) * sizeof(Code));
    }
  }
}

void shares(const int32_t* terms, size_t count, const SoftmaxShare& share, CodesOut result) {
  if (result.wide) return row_shares(terms, count, share, static_cast<int16_t*>(result.data));
  row_shares(terms, count, share, static_cast<int8_t*>(result.data));
}

}  // namespace

void set_avx2(SoftmaxKernels& kernels) {
  kernels.terms = terms;
  kernels.shares = shares;
}

}  // namespace qcompiler
