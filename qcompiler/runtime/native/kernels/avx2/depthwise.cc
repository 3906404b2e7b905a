// Lanes of 2 codes of 16 bits and vpmaddwd: a product of two pairs is at most 2 * 128 * 128, nothing saturates.
#include "kernels/depthwise.h"

#include <immintrin.h>

#include <cstring>

namespace qcompiler {
namespace {

void interleave(const uint8_t* const* row, size_t count, uint32_t* lanes) {
  size_t index = 0;
  for (; index + 16 <= count; index += 16) {
    const __m256i first = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row[0] + index)));
    const __m256i second = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row[1] + index)));
    const __m256i low = _mm256_unpacklo_epi16(first, second), high = _mm256_unpackhi_epi16(first, second);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes + index), _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes + index + 8), _mm256_permute2x128_si256(low, high, 0x31));
  }
  for (; index < count; ++index) {
    const uint16_t first = static_cast<uint16_t>(static_cast<int8_t>(row[0][index]));
    const uint16_t second = static_cast<uint16_t>(static_cast<int8_t>(row[1][index]));
    lanes[index] = uint32_t{first} | uint32_t{second} << 16;
  }
}

__m256i load(const uint32_t* lanes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lanes)); }

void store(int32_t* sums, __m256i value) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), value); }

/// So many pixels of 8 channels: weights are loaded once.
template <int pixels>
void multiply_block(const DepthwiseCall& call, size_t pixel, size_t channel) {
  const uint32_t* lanes = call.lanes + pixel * call.pixel_step + channel;
  const uint32_t* weights = call.weights + channel;
  __m256i sums[pixels];
  for (int index = 0; index < pixels; ++index) sums[index] = _mm256_setzero_si256();
  for (size_t tap = 0; tap < call.taps; ++tap, weights += call.channels) {
    const __m256i factor = load(weights);
    const uint32_t* codes = lanes + call.offset[tap];
    for (int index = 0; index < pixels; ++index, codes += call.pixel_step) {
      sums[index] = _mm256_add_epi32(sums[index], _mm256_madd_epi16(load(codes), factor));
    }
  }
  int32_t* target = call.sums + pixel * call.channels + channel;
  for (int index = 0; index < pixels; ++index) store(target + static_cast<size_t>(index) * call.channels, sums[index]);
}

void multiply(const DepthwiseCall& call) {
  size_t pixel = 0;
  for (; pixel + 8 <= call.pixels; pixel += 8) {
    for (size_t channel = 0; channel < call.channels; channel += 8) multiply_block<8>(call, pixel, channel);
  }
  for (; pixel < call.pixels; ++pixel) {
    for (size_t channel = 0; channel < call.channels; channel += 8) multiply_block<1>(call, pixel, channel);
  }
}

}  // namespace

void set_avx2(DepthwiseKernels& kernels) {
  kernels.taps = 2;
  kernels.flip = 0;
  kernels.interleave = interleave;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
