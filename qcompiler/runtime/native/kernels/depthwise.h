// Depthwise convolutions: every channel has its own small kernel.
//
// Rows of the image that belong to one output row are interleaved first, `taps` of them: at every position (a channel of
// a pixel) 4 bytes hold `taps` codes that lie above each other. A product then is one dot product of 4 bytes, and an
// interleaved position serves all taps of a kernel row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// sums[p][c] = sum over t of dot(lanes[p * pixel_step + offset[t] + c], weights[t][c]); all steps in positions.
struct DepthwiseCall {
  const uint32_t* lanes;
  size_t pixels, pixel_step;
  size_t taps;
  const size_t* offset;
  const uint32_t* weights;  ///< [taps][channels]
  size_t channels;          ///< A multiple of 16. Lanes are read, and sums written, for all of them.
  int32_t* sums;            ///< [pixels][channels]; wrap in 32 bits.
};

struct DepthwiseKernels {
  size_t taps;       ///< Codes in a lane: 4 of 8 bits, or 2 that are widened to 16.
  uint8_t flip;      ///< Rows hold code ^ flip. With 0x80 the caller takes 128 * sum of weights off.
  /// Interleaves `taps` rows of so many bytes.
  void (*interleave)(const uint8_t* const* row, size_t count, uint32_t* lanes);
  void (*multiply)(const DepthwiseCall&);
};

void set_reference(DepthwiseKernels&);
void set_avx2(DepthwiseKernels&);
void set_avx512vnni(DepthwiseKernels&);
void set_neon(DepthwiseKernels&);
void set_dotprod(DepthwiseKernels&);

}  // namespace qcompiler
