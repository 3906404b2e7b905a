// The products of a convolution: panels of weights times the pixels of an image, rescaled to codes.
#pragma once

#include "kernels/table.h"
#include "operators/channel_factors.h"
#include "operators/convolution_weight.h"

namespace qcompiler {

/// Everything that one sample needs. The result is [pixels][outputs of all groups].
struct ConvolutionCall {
  const Kernels& kernels;
  const ConvolutionGeometry& geometry;
  const ConvolutionPlan& plan;
  const ChannelFactors& factors;
  bool wide;
  const int8_t* weights;  ///< Packed (convolution_weight.h).
  const uint8_t* image;   ///< convolution_image.h; null where none is needed.
  const uint8_t* codes;   ///< The sample, channels last; read where there is no image.
  uint8_t* result;
  size_t code_bytes;  ///< Of the result.
};

/// Whether operands are more than single pixels of the sample, channels last: those are flipped band by band.
bool needs_image(const ConvolutionGeometry& geometry, const ConvolutionPlan& plan);

/// Computes the whole result of a sample.
void multiply_convolution(const ConvolutionCall& call, const Threads& threads);

}  // namespace qcompiler
