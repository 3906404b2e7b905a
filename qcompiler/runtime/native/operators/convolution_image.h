// The image of one sample: its codes with padding around them, channels last, one group of channels after the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/threads.h"
#include "kernels/bytes.h"
#include "operators/convolution_geometry.h"

namespace qcompiler {

/// Bytes of the image of 8-bit codes, or of one of the two planes of 16-bit codes.
size_t image_bytes(const ConvolutionGeometry& geometry);

/// Writes the image of a sample [pixels][channels]: [group][depth][height][width][channels / group] of `code ^ flip`.
/// Of 16-bit codes x it writes two, bytes h and behind them bytes l, each as the panel kernels take them:
/// x = 256 * h + l + 128 for flip 0, and x + 32768 = 256 * (h + 128) + (l + 128) for flip 0x80, where h + 128 and
/// l + 128 are what lies in memory.
void write_image(const ConvolutionAttributes& attributes, const ConvolutionGeometry& geometry,
                 const ByteKernels& kernels, const void* sample, uint8_t flip, const Threads& threads, uint8_t* image);

}  // namespace qcompiler
