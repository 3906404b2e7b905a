#include "provider/quantized_group.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace qcompiler {
namespace {

constexpr float endless = std::numeric_limits<float>::infinity();

/// A DequantizeLinear whose only reader is in the group, with constant parameters.
struct Dequantized {
  GraphNode node;
  Quantization quantization;
};

Quantization quantization_of(const abi::Calls& calls, const GraphNode& node) {
  const std::optional<Tensor> scale = constant_of(calls, node.input(1));
  require(scale && scale->type == ElementType::float32, "a scale is no constant of float");
  require(integer_attribute(calls, node.node, "block_size").value_or(0) == 0, "there are scales per block");
  Quantization found{*scale, {}};
  if (node.input(2) == nullptr) return found;
  const std::optional<Tensor> zero = constant_of(calls, node.input(2));
  require(zero && zero->shape.elements() == scale->shape.elements(), "a zero point is no constant like its scale");
  found.zero = *zero;
  return found;
}

Dequantized dequantized(const abi::Calls& calls, const abi::ValueInfo* value) {
  const abi::Node* made = value == nullptr ? nullptr : producer_of(calls, value);
  require(made != nullptr, "an operand comes from no DequantizeLinear");
  GraphNode node(calls, made);
  require(node.is("DequantizeLinear"), "an operand comes from no DequantizeLinear");
  require(has_one_reader(calls, value), "an operand has other readers");
  const Quantization quantization = quantization_of(calls, node);
  return {std::move(node), quantization};
}

/// The bound that an input of Clip is: a constant float; `missing` where there is none.
std::optional<float> bound_of(const abi::Calls& calls, const GraphNode& clip, size_t index, const char* name,
                              float missing) {
  if (const std::optional<float> written = float_attribute(calls, clip.node, name)) return written;  // operator set 6
  if (clip.input(index) == nullptr) return missing;
  const std::optional<Tensor> constant = constant_of(calls, clip.input(index));
  if (!constant || constant->type != ElementType::float32 || constant->shape.elements() != 1) return std::nullopt;
  return *constant->as<float>();
}

/// The constant that an Add gives to every row of a matrix product; its other input is `real`.
bool match_added_bias(const abi::Calls& calls, const GraphNode& add, QuantizedGroup& group, const abi::ValueInfo*& real) {
  for (size_t index = 0; index < 2; ++index) {
    const std::optional<Tensor> constant = constant_of(calls, add.input(index));
    if (!constant || constant->type != ElementType::float32 || constant->shape.rank() > 1) continue;
    group.bias = *constant;
    real = add.input(1 - index);
    return true;
  }
  return false;
}

/// What lies before the QuantizeLinear: a Conv, Gemm or MatMul; an Add with a constant behind a MatMul; a Relu or Clip
/// behind any of them.
bool match_product(const abi::Calls& calls, const abi::ValueInfo* value, QuantizedGroup& group) {
  const abi::Node* made = value == nullptr ? nullptr : producer_of(calls, value);
  if (made == nullptr || !has_one_reader(calls, value)) return false;
  GraphNode node(calls, made);
  const bool added = group.bias.type != ElementType::undefined;
  if (node.is("Add") && !added) {
    const abi::ValueInfo* real = nullptr;
    if (!match_added_bias(calls, node, group, real)) return false;
    group.nodes.push_back(made);
    return match_product(calls, real, group);
  }
  const bool bounded = node.is("Relu") || node.is("Clip");
  if (bounded) {
    if (group.nodes.size() > 1) return false;  // one of them only
    const std::optional<float> least = node.is("Relu") ? 0.0f : bound_of(calls, node, 1, "min", -endless);
    const std::optional<float> greatest = node.is("Relu") ? endless : bound_of(calls, node, 2, "max", endless);
    if (!least || !greatest || !(*least <= *greatest)) return false;
    group.least = *least;
    group.greatest = *greatest;
    group.nodes.push_back(made);
    return match_product(calls, node.input(0), group);
  }
  if (!node.is("MatMul") && (added || (!node.is("Conv") && !node.is("Gemm")))) return false;
  group.nodes.push_back(made);
  group.product = std::move(node);
  return true;
}

void read_weight(const abi::Calls& calls, QuantizedGroup& group) {
  const Dequantized w = dequantized(calls, group.product.input(1));
  const std::optional<Tensor> weight = constant_of(calls, w.node.input(0));
  require(weight.has_value(), "the weight is not constant");
  group.nodes.push_back(w.node.node);
  group.w = w.quantization;
  group.weight = *weight;
  group.weight_axis = integer_attribute(calls, w.node.node, "axis").value_or(1);
}

void read_bias(const abi::Calls& calls, QuantizedGroup& group) {
  const abi::ValueInfo* value = group.product.input(2);  // a MatMul has none
  if (value == nullptr) return;
  if (const std::optional<Tensor> constant = constant_of(calls, value)) {
    require(constant->type == ElementType::float32, "the bias is neither float nor int32");
    group.bias = *constant;
    return;
  }
  const Dequantized found = dequantized(calls, value);
  const std::optional<Tensor> codes = constant_of(calls, found.node.input(0));
  require(codes && codes->type == ElementType::int32, "the bias is no constant of float or int32");
  const Tensor& zero = found.quantization.zero;
  if (zero.type != ElementType::undefined) {
    const auto is_zero = [](int32_t code) { return code == 0; };
    require(zero.type == ElementType::int32 &&
                std::all_of(zero.as<int32_t>(), zero.as<int32_t>() + zero.shape.elements(), is_zero),
            "the bias has a zero point");
  }
  group.nodes.push_back(found.node.node);
  group.bias = *codes;
  group.bias_scale = found.quantization.scale;
}

}  // namespace

std::optional<QuantizedGroup> find_group(const abi::Calls& calls, const GraphNode& quantize) {
  if (!quantize.is("QuantizeLinear")) return std::nullopt;
  QuantizedGroup group{{quantize.node}, quantize, {}, {}, {}, {}, 0, {}, {}, -endless, endless};
  if (!match_product(calls, quantize.input(0), group)) return std::nullopt;
  return group;
}

void read_group(const abi::Calls& calls, QuantizedGroup& group) {
  const GraphNode quantize(calls, group.nodes.front());
  require(quantize.input(2) != nullptr, "the QuantizeLinear behind it has no zero point");
  group.y = quantization_of(calls, quantize);
  const Dequantized x = dequantized(calls, group.product.input(0));
  require(x.node.input(0) != nullptr && !constant_of(calls, x.node.input(0)), "the activation is constant");
  group.x = x.quantization;
  read_bias(calls, group);
  read_weight(calls, group);
  group.nodes.push_back(x.node.node);
  std::reverse(group.nodes.begin(), group.nodes.end());
}

}  // namespace qcompiler
