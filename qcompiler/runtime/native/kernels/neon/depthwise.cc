// Depthwise products by smull and sadalp; st4 interleaves four rows as it stores them.
#include "kernels/depthwise.h"

#include <arm_neon.h>

namespace qcompiler {
namespace {

void interleave(const uint8_t* const* row, size_t count, uint32_t* lanes) {
  size_t index = 0;
  for (; index + 16 <= count; index += 16) {
    const uint8x16x4_t rows = {{vld1q_u8(row[0] + index), vld1q_u8(row[1] + index), vld1q_u8(row[2] + index),
                                vld1q_u8(row[3] + index)}};
    vst4q_u8(reinterpret_cast<uint8_t*>(lanes + index), rows);
  }
  for (; index < count; ++index) {
    uint32_t lane = 0;
    for (size_t tap = 0; tap < 4; ++tap) lane |= uint32_t{row[tap][index]} << (8 * tap);
    lanes[index] = lane;
  }
}

/// Four bytes of 4 channels.
int8x16_t four(const uint32_t* lanes) { return vreinterpretq_s8_u32(vld1q_u32(lanes)); }

void multiply(const DepthwiseCall& call) {
  for (size_t pixel = 0; pixel < call.pixels; ++pixel) {
    const uint32_t* lanes = call.lanes + pixel * call.pixel_step;
    for (size_t channel = 0; channel < call.channels; channel += 4) {
      int32x4_t low = vdupq_n_s32(0), high = low;
      for (size_t tap = 0; tap < call.taps; ++tap) {
        const int8x16_t codes = four(lanes + call.offset[tap] + channel);
        const int8x16_t weights = four(call.weights + tap * call.channels + channel);
        low = vpadalq_s16(low, vmull_s8(vget_low_s8(codes), vget_low_s8(weights)));
        high = vpadalq_s16(high, vmull_high_s8(codes, weights));
      }
      vst1q_s32(call.sums + pixel * call.channels + channel, vpaddq_s32(low, high));
    }
  }
}

}  // namespace

void set_neon(DepthwiseKernels& kernels) {
  kernels.taps = 4;
  kernels.flip = 0;
  kernels.interleave = interleave;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
