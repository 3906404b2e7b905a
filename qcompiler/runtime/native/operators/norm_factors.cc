#include "operators/norm_factors.h"

#include "core/error.h"

namespace qcompiler {
namespace {

constexpr int64_t farthest_bias = int64_t{1} << 61;

}  // namespace

void NormOperands::check() const {
  if (multiplier.type != ElementType::int32) {
    throw Error("a multiplier is " + element_name(multiplier.type) + "; it is int32");
  }
  const int64_t count = multiplier.shape.elements();
  for (int64_t index = 0; index < count; ++index) {
    require(multiplier.as<int32_t>()[index] != INT32_MIN, "a multiplier is -2^31; it lies within 2^31 - 1");
  }
  check_shift(shift);
  if (bias.type == ElementType::undefined) return;
  if (bias.type != ElementType::int64) throw Error("a bias is " + element_name(bias.type) + "; it is int64");
  const int64_t biases = bias.shape.elements();
  for (int64_t index = 0; index < biases; ++index) {
    const int64_t value = bias.as<int64_t>()[index];
    require(value >= -farthest_bias && value <= farthest_bias, "a bias leaves 61 bits");
  }
}

Shape NormOperands::shape() const {
  return broadcast_shape(broadcast_shape(multiplier.shape, bias.shape), shift.shape);
}

NormRowFactors::NormRowFactors(const NormOperands& operands, const Shape& result, size_t row)
    : operands_(operands),
      walk_(result, {operands.multiplier.shape, operands.bias.shape, operands.shift.shape}),
      multiplier_(row),
      addend_(row),
      shift_(row) {}

void NormRowFactors::fill(size_t row) {
  const size_t length = multiplier_.size(), start = row * length;
  walk_.pieces(start, start + length, [&](size_t index, const auto& places, size_t count) {
    for (size_t step = 0; step < count; ++step) {
      const size_t at = index - start + step;
      multiplier_[at] = operands_.multiplier.as<int32_t>()[places[0] + step * walk_.step(0)];
      shift_[at] = operands_.shift.as<uint8_t>()[places[2] + step * walk_.step(2)];
      addend_[at] = int64_t{1} << (shift_[at] - 1);
      if (operands_.bias.data != nullptr) addend_[at] += operands_.bias.as<int64_t>()[places[1] + step * walk_.step(1)];
    }
  });
}

}  // namespace qcompiler
