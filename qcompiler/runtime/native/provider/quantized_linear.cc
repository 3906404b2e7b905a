#include "provider/quantized_linear.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "operators/dyadic.h"
#include "provider/quantized_weight.h"

namespace qcompiler {
namespace {

constexpr int multiplier_bits = 31;
constexpr int64_t greatest_sum = std::numeric_limits<int32_t>::max();

/// Codes are exact where the real numbers that the group computes with are not: those must stay finite at least.
void check_finite(double x_scale, double w_scale, int64_t bound) {
  constexpr double greatest = std::numeric_limits<float>::max() / 4;  // a zero point at most doubles a sum, twice
  const double real = static_cast<double>(bound) * x_scale * w_scale;
  require(std::max({256 * x_scale, 256 * w_scale, real}) < greatest, "a scale makes real numbers that no float holds");
}

struct Scalar {
  double scale;
  int32_t zero;  ///< Of signed codes.
  bool is_unsigned;
};

/// Quantization of an activation: one scale, 8-bit codes.
Scalar scalar_of(const Quantization& quantization) {
  const Tensor& zero = quantization.zero;
  require(quantization.scale.shape.elements() == 1, "an activation has several scales");
  require(zero.type == ElementType::int8 || zero.type == ElementType::uint8, "activations have no 8-bit zero point");
  const float scale = *quantization.scale.as<float>();
  require(std::isfinite(scale) && scale > 0, "a scale is not positive and finite");
  const bool is_unsigned = zero.type == ElementType::uint8;
  return {scale, is_unsigned ? *zero.as<uint8_t>() - 128 : *zero.as<int8_t>(), is_unsigned};
}

/// The code that QuantizeLinear gives a bound of the result.
int64_t code_of(float bound, const Scalar& y) {
  const float code = std::nearbyint(bound / static_cast<float>(y.scale)) + static_cast<float>(y.zero);
  return static_cast<int64_t>(std::min(std::max(code, -128.0f), 127.0f));
}

/// The bias of an output at the accumulator's scale. Its rounding may move a result by at most half a code.
int64_t bias_of(const QuantizedGroup& group, size_t output, double scale, double y_scale) {
  if (group.bias.type == ElementType::undefined) return 0;
  const size_t index = group.bias.shape.elements() == 1 ? 0 : output;
  double real = 0;
  if (group.bias.type == ElementType::int32) {
    const size_t place = group.bias_scale.shape.elements() == 1 ? 0 : output;
    real = static_cast<double>(group.bias.as<int32_t>()[index]) * group.bias_scale.as<float>()[place];
  } else {
    real = group.bias.as<float>()[index];
  }
  const double code = std::nearbyint(real / scale);
  require(std::fabs(code) <= static_cast<double>(greatest_sum), "a bias is too large for its scale");
  require(std::fabs(real - code * scale) <= 0.5 * y_scale, "a bias is finer than the accumulator's steps");
  return static_cast<int64_t>(code);
}

void check_bias(const QuantizedGroup& group, size_t outputs) {
  const int64_t count = static_cast<int64_t>(outputs);
  const auto fits = [count](const Tensor& tensor) {
    const int64_t found = tensor.shape.elements();
    return found == 1 || (found == count && tensor.shape[tensor.shape.rank() - 1] == count);
  };
  if (group.bias.type == ElementType::undefined) return;
  require(fits(group.bias), "the bias has not one value per output");
  if (group.bias.type == ElementType::int32) require(fits(group.bias_scale), "the bias has not one scale per output");
}

std::vector<int64_t> integers_or(const abi::Calls& calls, const abi::Node* node, const char* name, size_t count,
                                 int64_t missing) {
  return integers_attribute(calls, node, name).value_or(std::vector<int64_t>(count, missing));
}

void convolution_attributes(const abi::Calls& calls, const GraphNode& node, QuantizedLinear& made) {
  const size_t rank = made.weight_shape.rank() - 2;
  const std::string padding = text_attribute(calls, node.node, "auto_pad").value_or("NOTSET");
  require(padding == "NOTSET" || padding == "VALID", "the padding follows from the shape");
  auto& values = made.attributes.values;
  values["strides"] = integers_or(calls, node.node, "strides", rank, 1);
  values["dilations"] = integers_or(calls, node.node, "dilations", rank, 1);
  values["pads"] = padding == "VALID" ? std::vector<int64_t>(2 * rank, 0)
                                      : integers_or(calls, node.node, "pads", 2 * rank, 0);
  values["group"] = {integer_attribute(calls, node.node, "group").value_or(1)};
}

void gemm_conditions(const abi::Calls& calls, const GraphNode& node) {
  if (!node.is("Gemm")) return;
  require(float_attribute(calls, node.node, "alpha").value_or(1) == 1, "alpha is not 1");
  require(float_attribute(calls, node.node, "beta").value_or(1) == 1, "beta is not 1");
  require(integer_attribute(calls, node.node, "transA").value_or(0) == 0, "the activation is transposed");
}

/// Bias, multiplier and shift of every output. The zero point's share goes into the bias, and no sum leaves 32 bits.
void add_factors(const QuantizedGroup& group, const SignedWeight& weight, const Scalar& x, const Scalar& y,
                 QuantizedLinear& made) {
  check_bias(group, weight.outputs);
  std::vector<double> factors;
  int64_t bound = 0;
  for (size_t output = 0; output < weight.outputs; ++output) {
    const double scale = x.scale * weight.scale(output);
    const int64_t bias = bias_of(group, output, scale, y.scale) - x.zero * weight.sums[output];
    bound = std::max(bound, std::abs(bias) + 128 * weight.magnitudes[output]);
    require(bound <= greatest_sum, "a sum may leave 32 bits");
    check_finite(x.scale, weight.scale(output), bound);
    made.bias.push_back(static_cast<int32_t>(bias));
    factors.push_back(scale / y.scale);
  }
  for (double factor : factors) {
    const Dyadic chosen = choose_dyadic(factor, multiplier_bits, bound);
    made.multiplier.push_back(chosen.multiplier);
    made.shift.push_back(chosen.shift);
  }
}

}  // namespace

QuantizedLinear QuantizedLinear::make(const abi::Calls& calls, const QuantizedGroup& group) {
  const Scalar x = scalar_of(group.x), y = scalar_of(group.y);
  const bool convolves = group.product.is("Conv");
  const bool rows_first = convolves || integer_attribute(calls, group.product.node, "transB").value_or(0) != 0;
  gemm_conditions(calls, group.product);
  SignedWeight weight = SignedWeight::read(group, rows_first);
  QuantizedLinear made;
  made.type = convolves ? "QConv" : "QGemm";
  made.unsigned_x = x.is_unsigned;
  made.unsigned_y = y.is_unsigned;
  made.weight_shape = weight.shape;
  made.factor_shape = Shape{static_cast<int64_t>(weight.outputs)};
  add_factors(group, weight, x, y, made);
  if (convolves) {
    require(weight.shape.rank() >= 3, "a convolution has no spatial axes");
    convolution_attributes(calls, group.product, made);
    for (size_t axis = 2; axis < weight.shape.rank(); ++axis) made.factor_shape.append(1);
    made.attributes.values["x_zero_point"] = {x.zero};
  }
  made.weight = std::move(weight.codes);
  auto& values = made.attributes.values;
  values["y_zero_point"] = {y.zero};
  values["to"] = {static_cast<int64_t>(ElementType::int8)};
  values["low"] = {code_of(group.least, y)};
  values["high"] = {code_of(group.greatest, y)};
  return made;
}

std::vector<Tensor> QuantizedLinear::constants() const {
  return {{},
          {ElementType::int8, weight_shape, weight.data()},
          {ElementType::int32, factor_shape, bias.data()},
          {ElementType::int32, factor_shape, multiplier.data()},
          {ElementType::uint8, factor_shape, shift.data()}};
}

}  // namespace qcompiler
