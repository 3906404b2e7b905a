// Depthwise products by sdot: a lane of four taps of a channel is one dot product.
#include "kernels/depthwise.h"

#include <arm_neon.h>

namespace qcompiler {
namespace {

/// Four bytes of 4 channels.
int8x16_t four(const uint32_t* lanes) { return vreinterpretq_s8_u32(vld1q_u32(lanes)); }

void multiply(const DepthwiseCall& call) {
  for (size_t pixel = 0; pixel < call.pixels; ++pixel) {
    const uint32_t* lanes = call.lanes + pixel * call.pixel_step;
    int32_t* sums = call.sums + pixel * call.channels;
    for (size_t channel = 0; channel < call.channels; channel += 16) {
      int32x4_t found[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
      for (size_t tap = 0; tap < call.taps; ++tap) {
        const uint32_t* codes = lanes + call.offset[tap] + channel;
        const uint32_t* weights = call.weights + tap * call.channels + channel;
        for (size_t part = 0; part < 4; ++part) {
          found[part] = vdotq_s32(found[part], four(codes + 4 * part), four(weights + 4 * part));
        }
      }
      for (size_t part = 0; part < 4; ++part) vst1q_s32(sums + channel + 4 * part, found[part]);
    }
  }
}

}  // namespace

void set_dotprod(DepthwiseKernels& kernels) { kernels.multiply = multiply; }

}  // namespace qcompiler
