#include "kernels/logarithmic.h"

#include <immintrin.h>

#include <cstring>

namespace qcompiler {
namespace {

/// 32 codes. Each comparison gives -1 where the threshold lies above: what remains of `number` are those reached.
__m256i count32(const int8_t* x, const int8_t* thresholds, size_t number) {
  const __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  __m256i reached = _mm256_set1_epi8(static_cast<char>(number));
  for (size_t border = 0; border < number; ++border) {
    reached = _mm256_add_epi8(reached, _mm256_cmpgt_epi8(_mm256_set1_epi8(thresholds[border]), code));
  }
  return reached;
}

/// 32 codes in two vectors, which share every threshold.
__m256i count32(const int16_t* x, const int16_t* thresholds, size_t number) {
  const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 16));
  __m256i low = _mm256_set1_epi16(static_cast<int16_t>(number)), high = low;
  for (size_t border = 0; border < number; ++border) {
    const __m256i threshold = _mm256_set1_epi16(thresholds[border]);
    low = _mm256_add_epi16(low, _mm256_cmpgt_epi16(threshold, first));
    high = _mm256_add_epi16(high, _mm256_cmpgt_epi16(threshold, second));
  }
  return _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
}

template <typename Code>
void count_of(const Code* x, const Code* thresholds, size_t number, size_t count, int8_t* result) {
  size_t index = 0;
  for (; index + 32 <= count; index += 32) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(result + index), count32(x + index, thresholds, number));
  }
  if (index == count) return;
  Code rest[32] = {};
  int8_t found[32];
  std::memcpy(rest, x + index, (count - index) * sizeof(Code));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(found), count32(rest, thresholds, number));
  std::memcpy(result + index, found, count - index);
}

void count_bytes(const int8_t* x, const int8_t* thresholds, size_t number, size_t count, int8_t* result) {
  count_of(x, thresholds, number, count, result);
}

void count_words(const int16_t* x, const int16_t* thresholds, size_t number, size_t count, int8_t* result) {
  count_of(x, thresholds, number, count, result);
}

/// The lower and the upper bytes of 16 values, in both halves of a vector each.
struct Halves {
  Halves(const int16_t* values, size_t number) {
    int8_t low[16] = {}, high[16] = {};
    for (size_t index = 0; index < number; ++index) {
      const auto value = static_cast<uint16_t>(values[index]);
      low[index] = static_cast<int8_t>(value & 255);
      high[index] = static_cast<int8_t>(value >> 8);
    }
    lower = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low)));
    upper = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high)));
  }

  __m256i lower, upper;
};

void decode32(const int8_t* x, const Halves& halves, __m256i last, int16_t* result) {
  __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  code = _mm256_min_epi8(_mm256_max_epi8(code, _mm256_setzero_si256()), last);
  code = _mm256_permute4x64_epi64(code, 0xd8);  // so that unpacking leaves the order
  const __m256i low = _mm256_shuffle_epi8(halves.lower, code), high = _mm256_shuffle_epi8(halves.upper, code);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(result), _mm256_unpacklo_epi8(low, high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(result + 16), _mm256_unpackhi_epi8(low, high));
}

void decode_few(const int8_t* x, const int16_t* values, size_t number, size_t count, int16_t* result) {
  const Halves halves(values, number);
  const __m256i last = _mm256_set1_epi8(static_cast<char>(number - 1));
  size_t index = 0;
  for (; index + 32 <= count; index += 32) decode32(x + index, halves, last, result + index);
  if (index == count) return;
  int8_t rest[32] = {};
  int16_t found[32];
  std::memcpy(rest, x + index, count - index);
  decode32(rest, halves, last, found);
  std::memcpy(result + index, found, (count - index) * sizeof(int16_t));
}

void decode(const int8_t* x, const int16_t* values, size_t number, size_t count, int16_t* result) {
  if (number <= 16) return decode_few(x, values, number, count, result);
  const int last = static_cast<int>(number) - 1;
  for (size_t index = 0; index < count; ++index) {
    const int code = x[index] < 0 ? 0 : x[index];
    result[index] = values[code > last ? last : code];
  }
}

}  // namespace

void set_avx2(LogarithmicKernels& kernels) {
  kernels.count_bytes = count_bytes;
  kernels.count_words = count_words;
  kernels.decode = decode;
}

}  // namespace qcompiler
