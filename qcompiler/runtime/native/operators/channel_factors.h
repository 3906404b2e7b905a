// Bias, multiplier and shift of an operator with output channels, as the rescale kernels take them.
#pragma once

#include "core/scratch.h"
#include "core/tensor.h"
#include "kernels/rescale.h"
#include "operators/clamp.h"

namespace qcompiler {

/// Where the channels of a result lie.
struct Channels {
  size_t count;
  size_t behind;  ///< Axes behind the one of the channels.
  size_t rank;    ///< Axes of the result.
};

/// Whether an operand has one value per channel (true) or one for all (false). Throws where it has another shape.
bool per_channel(const Tensor& operand, const Channels& channels, const char* name);

/// Checks type, shape and range of bias, multiplier (null where there is none) and shift.
void check_factors(const Tensor& bias, const Tensor* multiplier, const Tensor& shift, const Channels& channels,
                   bool wide);

/// The factors of one run, one of each per channel.
class ChannelFactors {
 public:
  /// `weight_sums` has one entry per channel; `share` times it is added to the bias.
  ChannelFactors(const Tensor& bias, const Tensor* multiplier, const Tensor& shift, const Channels& channels,
                 const Clamp& clamp, const int32_t* weight_sums, int64_t share, bool wide);

  /// Without a bias.
  ChannelFactors(const Tensor* multiplier, const Tensor& shift, const Channels& channels, const Clamp& clamp);

  /// The rescale of the channels from `first` on.
  Rescale rescale(size_t first) const;
  const int32_t* bias32(size_t first) const { return bias_.as<int32_t>() + first; }
  const int64_t* bias64(size_t first) const { return bias_.as<int64_t>() + first; }

 private:
  void spread_factors(const Tensor* multiplier, const Tensor& shift, size_t count);

  Clamp clamp_;
  Scratch bias_, multiplier_, shift_;
};

}  // namespace qcompiler
