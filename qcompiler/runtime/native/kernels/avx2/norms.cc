#include "kernels/norms.h"

#include <cstring>

#include "kernels/avx2/rounding.h"
#include "kernels/elementwise_types.h"

namespace qcompiler {
namespace {

/// 16 codes as 16-bit lanes.
__m256i words(const int8_t* x) { return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))); }
__m256i words(const int16_t* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }

/// 8 codes as 32-bit lanes.
__m256i load(const int8_t* x) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))); }
__m256i load(const int16_t* x) { return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))); }

int64_t total(__m256i lanes) {
  int64_t parts[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), lanes);
  return parts[0] + parts[1] + parts[2] + parts[3];
}

template <typename Code>
Moments row_moments(const Code* x, size_t count) {
  const __m256i one = _mm256_set1_epi16(1), lower = _mm256_set1_epi64x(0xffffffff);
  __m256i sum = _mm256_setzero_si256(), squares = sum;
  const auto add = [&](const Code* part) {
    const __m256i codes = words(part);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(codes, one));
    // two squares of -2^15 make 2^31: without a sign it fits
    const __m256i pair = _mm256_madd_epi16(codes, codes);
    squares = _mm256_add_epi64(squares, _mm256_add_epi64(_mm256_and_si256(pair, lower), _mm256_srli_epi64(pair, 32)));
  };
  size_t index = 0;
  for (; index + 16 <= count; index += 16) add(x + index);
  if (index < count) {
    Code rest[16] = {};
    std::memcpy(rest, x + index, (count - index) * sizeof(Code));
    add(rest);
  }
  const __m256i wide = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(sum)),
                                        _mm256_cvtepi32_epi64(_mm256_extracti128_si256(sum, 1)));
  return {total(wide), total(squares)};
}

Moments moments(Codes x, size_t count) {
  if (x.wide) return row_moments(static_cast<const int16_t*>(x.data), count);
  return row_moments(static_cast<const int8_t*>(x.data), count);
}

/// A row's numbers in all lanes. Shifts of 64-bit lanes as in rounding.h: 2^62 is added before, 2^(62-c) taken after.
struct Normal {
  explicit Normal(const NormalRow& row)
      : scale(_mm256_set1_epi32(row.scale)),
        offset(_mm256_set1_epi32(row.offset)),
        root(_mm256_set1_epi64x(row.root)),
        lifted_half(_mm256_set1_epi64x(lift + (int64_t{1} << (row.shift - 1)))),
        drop(_mm256_set1_epi64x(lift >> row.shift)),
        shift(_mm_cvtsi32_si128(row.shift)) {}

  __m256i centred(__m256i codes) const { return _mm256_sub_epi32(_mm256_mullo_epi32(codes, scale), offset); }

  /// n of 4 lanes of 64 bits.
  __m256i operator()(__m256i centred) const {
    const __m256i product = _mm256_add_epi64(_mm256_mul_epi32(centred, root), lifted_half);
    return _mm256_sub_epi64(_mm256_srl_epi64(product, shift), drop);
  }

  __m256i scale, offset, root, lifted_half, drop;
  __m128i shift;
};

/// The factors of 8 elements.
struct Part {
  const int32_t* multiplier;
  const int64_t* addend;
  const uint8_t* shift;
};

/// Bounds of 64-bit lanes.
struct WideBounds {
  explicit WideBounds(const NormFactors& factors)
      : zero(_mm256_set1_epi64x(factors.zero)),
        low(_mm256_set1_epi64x(factors.low)),
        high(_mm256_set1_epi64x(factors.high)) {}
  __m256i zero, low, high;
};

/// The codes of 4 elements, 64-bit lanes.
__m256i scaled(__m256i normal, const Part& part, size_t place, const WideBounds& bounds) {
  int32_t four;
  std::memcpy(&four, part.shift + place, sizeof four);
  const __m256i shift = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
  const __m128i multiplier = _mm_loadu_si128(reinterpret_cast<const __m128i*>(part.multiplier + place));
  const __m256i addend = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part.addend + place));
  const __m256i sum = _mm256_add_epi64(_mm256_mul_epi32(normal, _mm256_cvtepi32_epi64(multiplier)), addend);
  return clipped64(_mm256_add_epi64(shifted64(sum, shift), bounds.zero), bounds.low, bounds.high);
}

/// The codes of 8 elements, 32-bit lanes.
template <typename Code>
__m256i eight(const Code* x, const Normal& normal, const Part& part, const WideBounds& bounds) {
  const __m256i centred = normal.centred(load(x));
  const __m256i first = normal(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(centred)));
  const __m256i second = normal(_mm256_cvtepi32_epi64(_mm256_extracti128_si256(centred, 1)));
  const __m256i lower = scaled(first, part, 0, bounds), upper = scaled(second, part, 4, bounds);
  const __m256 low_halves = _mm256_shuffle_ps(_mm256_castsi256_ps(lower), _mm256_castsi256_ps(upper), 0x88);
  return _mm256_permute4x64_epi64(_mm256_castps_si256(low_halves), 0xd8);
}

template <typename Code, typename Result>
void row(const Code* x, size_t count, const NormalRow& row, const NormFactors& factors, Result* result) {
  const Normal normal(row);
  const WideBounds bounds(factors);
  size_t index = 0;
  for (; index + 8 <= count; index += 8) {
    const Part part{factors.multiplier + index, factors.addend + index, factors.shift + index};
    store(result + index, eight(x + index, normal, part, bounds));
  }
  if (index == count) return;
  const size_t left = count - index;
  Code codes[8] = {};
  int32_t multiplier[8] = {};
  int64_t addend[8] = {};
  uint8_t shift[8] = {};
  Result results[8];
  std::memcpy(codes, x + index, left * sizeof(Code));
  std::memcpy(multiplier, factors.multiplier + index, left * sizeof(int32_t));
  std::memcpy(addend, factors.addend + index, left * sizeof(int64_t));
  std::memcpy(shift, factors.shift + index, left);
  store(results, eight(codes, normal, {multiplier, addend, shift}, bounds));
  std::memcpy(result + index, results, left * sizeof(Result));
}

void normalize(Codes x, size_t count, const NormalRow& with, const NormFactors& factors, CodesOut result) {
  typed(x, result, [&](auto codes, auto out) { row(codes, count, with, factors, out); });
}

}  // namespace

void set_avx2(NormKernels& kernels) {
  kernels.moments = moments;
  kernels.normalize = normalize;
}

}  // namespace qcompiler
