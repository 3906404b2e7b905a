// Depthwise convolutions: as many groups as channels, one output each. Codes of 16 bits are two planes of bytes, each
// multiplied like codes of 8.
#pragma once

#include "kernels/table.h"
#include "operators/channel_factors.h"
#include "operators/convolution_weight.h"

namespace qcompiler {

/// Weights as [groups of image rows][taps of a row][channels], 4 bytes each, and behind them their sums.
struct DepthwisePlan {
  size_t channels, columns;  ///< Columns: channels filled up to whole vectors.
  size_t rows, width;        ///< Kernel rows (all depths) and taps of a row.
  size_t lane_taps, groups;  ///< Rows that share a lane, and how many lanes hold all rows.

  DepthwisePlan(const ConvolutionPlan& plan, const Shape& weight, const DepthwiseKernels& kernels);

  size_t taps() const { return groups * width; }
  size_t sums_place() const { return taps() * columns * 4; }
  size_t bytes() const { return sums_place() + channels * sizeof(int32_t); }
};

void pack_depthwise(const ConvolutionAttributes& attributes, const DepthwisePlan& plan, const Tensor& weight,
                    void* packed);

/// What one sample needs; the geometry has one group. The result is [pixels][channels].
struct DepthwiseProduct {
  const Kernels& kernels;
  const ConvolutionGeometry& geometry;
  const DepthwisePlan& plan;
  const ChannelFactors& factors;
  bool wide;
  const uint32_t* weights;
  const uint8_t* image;
  uint8_t* result;
  size_t code_bytes;  ///< Of the result.
};

void multiply_depthwise(const DepthwiseProduct& product, const Threads& threads);

}  // namespace qcompiler
