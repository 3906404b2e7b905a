// Lanes of 4 unsigned bytes and vpdpbusd: the 32-bit sums wrap, nothing saturates.
#include "kernels/depthwise.h"

#include <immintrin.h>

namespace qcompiler {
namespace {

/// Byte t of every 32-bit lane comes from rows[t]; 64 positions.
void interleave_block(const __m512i* rows, uint32_t* lanes) {
  // Unpacking works within quarters: let quarter q of the operands hold dwords q, q + 4, q + 8, q + 12, and the results
  // come out in order.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i first = _mm512_permutexvar_epi32(order, rows[0]), second = _mm512_permutexvar_epi32(order, rows[1]);
  const __m512i third = _mm512_permutexvar_epi32(order, rows[2]), fourth = _mm512_permutexvar_epi32(order, rows[3]);
  const __m512i low = _mm512_unpacklo_epi8(first, second), high = _mm512_unpackhi_epi8(first, second);
  const __m512i low_behind = _mm512_unpacklo_epi8(third, fourth), high_behind = _mm512_unpackhi_epi8(third, fourth);
  _mm512_storeu_si512(lanes, _mm512_unpacklo_epi16(low, low_behind));
  _mm512_storeu_si512(lanes + 16, _mm512_unpackhi_epi16(low, low_behind));
  _mm512_storeu_si512(lanes + 32, _mm512_unpacklo_epi16(high, high_behind));
  _mm512_storeu_si512(lanes + 48, _mm512_unpackhi_epi16(high, high_behind));
}

void interleave(const uint8_t* const* row, size_t count, uint32_t* lanes) {
  __m512i rows[4];
  size_t index = 0;
  for (; index + 64 <= count; index += 64) {
    for (int tap = 0; tap < 4; ++tap) rows[tap] = _mm512_loadu_si512(row[tap] + index);
    interleave_block(rows, lanes + index);
  }
  if (index == count) return;
  const __mmask64 left = (uint64_t{1} << (count - index)) - 1;
  uint32_t tail[64];
  for (int tap = 0; tap < 4; ++tap) rows[tap] = _mm512_maskz_loadu_epi8(left, row[tap] + index);
  interleave_block(rows, tail);
  for (size_t place = 0; index < count; ++place, ++index) lanes[index] = tail[place];
}

/// So many pixels of 16 channels: weights are loaded once.
template <int pixels>
void multiply_block(const DepthwiseCall& call, size_t pixel, size_t channel) {
  const uint32_t* lanes = call.lanes + pixel * call.pixel_step + channel;
  const uint32_t* weights = call.weights + channel;
  __m512i sums[pixels];
  for (int index = 0; index < pixels; ++index) sums[index] = _mm512_setzero_si512();
  for (size_t tap = 0; tap < call.taps; ++tap, weights += call.channels) {
    const __m512i factor = _mm512_loadu_si512(weights);
    const uint32_t* codes = lanes + call.offset[tap];
    for (int index = 0; index < pixels; ++index, codes += call.pixel_step) {
      sums[index] = _mm512_dpbusd_epi32(sums[index], _mm512_loadu_si512(codes), factor);
    }
  }
  int32_t* target = call.sums + pixel * call.channels + channel;
  for (int index = 0; index < pixels; ++index, target += call.channels) _mm512_storeu_si512(target, sums[index]);
}

/// So many blocks of 16 channels of one pixel: one that is a whole row.
template <int blocks>
void multiply_row(const DepthwiseCall& call, size_t pixel, size_t channel) {
  const uint32_t* lanes = call.lanes + pixel * call.pixel_step + channel;
  const uint32_t* weights = call.weights + channel;
  __m512i sums[blocks];
  for (int index = 0; index < blocks; ++index) sums[index] = _mm512_setzero_si512();
  for (size_t tap = 0; tap < call.taps; ++tap, weights += call.channels) {
    const uint32_t* codes = lanes + call.offset[tap];
    for (int index = 0; index < blocks; ++index) {
      sums[index] = _mm512_dpbusd_epi32(sums[index], _mm512_loadu_si512(codes + 16 * index),
                                        _mm512_loadu_si512(weights + 16 * index));
    }
  }
  int32_t* target = call.sums + pixel * call.channels + channel;
  for (int index = 0; index < blocks; ++index) _mm512_storeu_si512(target + 16 * index, sums[index]);
}

void multiply(const DepthwiseCall& call) {
  size_t pixel = 0;
  for (; pixel + 8 <= call.pixels; pixel += 8) {
    for (size_t channel = 0; channel < call.channels; channel += 16) multiply_block<8>(call, pixel, channel);
  }
  for (; pixel < call.pixels; ++pixel) {
    size_t channel = 0;
    for (; channel + 64 <= call.channels; channel += 64) multiply_row<4>(call, pixel, channel);
    for (; channel < call.channels; channel += 16) multiply_row<1>(call, pixel, channel);
  }
}

}  // namespace

void set_avx512vnni(DepthwiseKernels& kernels) {
  kernels.taps = 4;
  kernels.flip = 0x80;
  kernels.interleave = interleave;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
