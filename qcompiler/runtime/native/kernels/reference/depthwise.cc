#include "kernels/depthwise.h"

namespace qcompiler {
namespace {

void interleave(const uint8_t* const* row, size_t count, uint32_t* lanes) {
  for (size_t index = 0; index < count; ++index) {
    uint32_t lane = 0;
    for (size_t tap = 0; tap < 4; ++tap) lane |= uint32_t{row[tap][index]} << (8 * tap);
    lanes[index] = lane;
  }
}

uint32_t dot(uint32_t codes, uint32_t weights) {
  int32_t sum = 0;
  for (int place = 0; place < 32; place += 8) {
    sum += int32_t{static_cast<int8_t>(codes >> place)} * int32_t{static_cast<int8_t>(weights >> place)};
  }
  return static_cast<uint32_t>(sum);
}

void multiply(const DepthwiseCall& call) {
  for (size_t pixel = 0; pixel < call.pixels; ++pixel) {
    const uint32_t* lanes = call.lanes + pixel * call.pixel_step;
    for (size_t channel = 0; channel < call.channels; ++channel) {
      uint32_t sum = 0;
      for (size_t tap = 0; tap < call.taps; ++tap) {
        sum += dot(lanes[call.offset[tap] + channel], call.weights[tap * call.channels + channel]);
      }
      call.sums[pixel * call.channels + channel] = static_cast<int32_t>(sum);
    }
  }
}

}  // namespace

void set_reference(DepthwiseKernels& kernels) {
  kernels.taps = 4;
  kernels.flip = 0;
  kernels.interleave = interleave;
  kernels.multiply = multiply;
}

}  // namespace qcompiler
