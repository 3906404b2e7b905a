#include "operators/channel_factors.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace qcompiler {
namespace {


/// One value per channel.
template <typename Element>
void spread(const Tensor& operand, size_t count, Element* values) {
  if (operand.shape.elements() == 1) {
    std::fill_n(values, count, *operand.as<Element>());
  } else {
    std::copy_n(operand.as<Element>(), count, values);
  }
}

template <typename Sum, typename Unsigned>
void add_share(const Tensor& bias, size_t count, const int32_t* weight_sums, int64_t share, Sum* result) {
  spread(bias, count, result);
  for (size_t channel = 0; channel < count; ++channel) {
    const Unsigned product = static_cast<Unsigned>(int64_t{weight_sums[channel]} * share);
    result[channel] = static_cast<Sum>(static_cast<Unsigned>(result[channel]) + product);
  }
}

}  // namespace

bool per_channel(const Tensor& operand, const Channels& channels, const char* name) {
  const Shape& shape = operand.shape;
  bool fits = shape.rank() <= channels.rank;
  bool many = false;
  for (size_t axis = 0; axis < shape.rank(); ++axis) {
    const bool here = axis + channels.behind + 1 == shape.rank();
    if (shape[axis] == 1) continue;
    fits = fits && here && shape[axis] == static_cast<int64_t>(channels.count);
    many = true;
  }
  if (!fits) {
    throw Error("the " + std::string(name) + " of shape " + shape.text() +
                " is neither one value nor one for each of " + std::to_string(channels.count) + " output channels");
  }
  return many;
}

void check_factors(const Tensor& bias, const Tensor* multiplier, const Tensor& shift, const Channels& channels,
                   bool wide) {
  const ElementType wanted = wide ? ElementType::int64 : ElementType::int32;
  if (bias.type != wanted) {
    throw Error("the bias is " + element_name(bias.type) + "; here it is " + element_name(wanted));
  }
  per_channel(bias, channels, "bias");
  per_channel(shift, channels, "shift");
  check_shift(shift);
  if (multiplier == nullptr) return;
  per_channel(*multiplier, channels, "multiplier");
  check_multiplier(*multiplier);
}

ChannelFactors::ChannelFactors(const Tensor& bias, const Tensor* multiplier, const Tensor& shift,
                               const Channels& channels, const Clamp& clamp, const int32_t* weight_sums,
                               int64_t share, bool wide)
    : clamp_(clamp),
      bias_(channels.count * (wide ? sizeof(int64_t) : sizeof(int32_t))),
      multiplier_(channels.count * sizeof(int32_t)),
      shift_(channels.count) {
  if (wide) {
    add_share<int64_t, uint64_t>(bias, channels.count, weight_sums, share, bias_.as<int64_t>());
  } else {
    add_share<int32_t, uint32_t>(bias, channels.count, weight_sums, share, bias_.as<int32_t>());
  }
  spread_factors(multiplier, shift, channels.count);
}

ChannelFactors::ChannelFactors(const Tensor* multiplier, const Tensor& shift, const Channels& channels,
                               const Clamp& clamp)
    : clamp_(clamp), bias_(0), multiplier_(channels.count * sizeof(int32_t)), shift_(channels.count) {
  spread_factors(multiplier, shift, channels.count);
}

void ChannelFactors::spread_factors(const Tensor* multiplier, const Tensor& shift, size_t count) {
  if (multiplier == nullptr) {
    std::fill_n(multiplier_.as<int32_t>(), count, shift_multiplier);
  } else {
    spread(*multiplier, count, multiplier_.as<int32_t>());
  }
  spread(shift, count, shift_.as<uint8_t>());
}

Rescale ChannelFactors::rescale(size_t first) const {
  return {multiplier_.as<int32_t>() + first, shift_.as<uint8_t>() + first, true, clamp_.zero, clamp_.low, clamp_.high,
          clamp_.type == ElementType::int16};
}

}  // namespace qcompiler
