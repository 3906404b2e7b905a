#include "provider/block_product_node.h"

#include "core/error.h"
#include "operators/block_product.h"
#include "provider/execution.h"
#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

constexpr int64_t most = int64_t{1} << 24;  // of outputs and depth

class BlockProductNode final : public ForeignNode {
 public:
  BlockProductNode(std::string node_name, const BlockWeight& weight, const Kernels& kernels)
      : name_(std::move(node_name)), product_(weight, kernels) {}

  const std::string& name() const override { return name_; }

  void run(const abi::Calls& calls, abi::KernelContext* context, size_t threads) const override {
    const Tensor x = input_of(calls, context, 0);
    if (x.type != ElementType::float32) throw Error("activations are " + element_name(x.type) + ", not float");
    const size_t rank = x.shape.rank();
    if (rank == 0 || x.shape[rank - 1] != static_cast<int64_t>(product_.depth())) {
      throw Error("activations of shape " + x.shape.text() + " do not end in " + std::to_string(product_.depth()));
    }
    Result result{ElementType::float32, x.shape};
    result.shape[rank - 1] = static_cast<int64_t>(product_.outputs());
    auto* y = static_cast<float*>(make_output(calls, context, result));
    const size_t rows = static_cast<size_t>(x.shape.elements(0, rank - 1));
    if (rows != 0) product_.run(x.as<float>(), rows, y, SessionThreads(calls, context, threads));
  }

 private:
  std::string name_;
  BlockProduct product_;
};

size_t size_attribute(const abi::Calls& calls, const GraphNode& node, const char* name) {
  const int64_t value = integer_attribute(calls, node.node, name).value_or(0);
  if (value < 1 || value > most) throw Error("attribute '" + std::string(name) + "' is missing or out of range");
  return static_cast<size_t>(value);
}

Tensor constant(const abi::Calls& calls, const GraphNode& node, size_t index, ElementType type, size_t elements) {
  const std::optional<Tensor> found = constant_of(calls, node.input(index));
  if (!found || found->type != type || found->shape.elements() != static_cast<int64_t>(elements)) {
    throw Error("input " + std::to_string(index) + " is no constant of " + element_name(type) + " with " +
                std::to_string(elements) + " elements");
  }
  return *found;
}

BlockWeight weight_of(const abi::Calls& calls, const GraphNode& node) {
  BlockWeight weight{};
  weight.outputs = size_attribute(calls, node, "N");
  weight.depth = size_attribute(calls, node, "K");
  weight.block = size_attribute(calls, node, "block_size");
  weight.bits = static_cast<int>(integer_attribute(calls, node.node, "bits").value_or(4));
  require(weight.bits == 2 || weight.bits == 4 || weight.bits == 8, "weights have not 2, 4 or 8 bits");
  require(weight.block >= 16 && weight.block <= 4096 && (weight.block & (weight.block - 1)) == 0,
          "blocks are not 16, 32, … 4096 long");
  const int64_t accuracy = integer_attribute(calls, node.node, "accuracy_level").value_or(0);
  require(accuracy == 0 || accuracy == 4, "the accuracy that is asked for is not that of int8");
  require(integer_attribute(calls, node.node, "weight_prepacked").value_or(0) == 0, "the weight is packed for a device");
  require(node.input(4) == nullptr, "columns are in another order");
  const size_t blocks = weight.outputs * weight.blocks();
  weight.codes = constant(calls, node, 1, ElementType::uint8, blocks * weight.block_bytes()).as<uint8_t>();
  weight.scales = constant(calls, node, 2, ElementType::float32, blocks).as<float>();
  if (node.input(3) != nullptr) {
    const size_t bytes = weight.outputs * weight.zero_row_bytes();
    weight.zero_points = constant(calls, node, 3, ElementType::uint8, bytes).as<uint8_t>();
  }
  if (node.input(5) != nullptr) weight.bias = constant(calls, node, 5, ElementType::float32, weight.outputs).as<float>();
  return weight;
}

}  // namespace

bool is_block_product(const GraphNode& node) { return node.domain == "com.microsoft" && node.type == "MatMulNBits"; }

void check_block_product(const abi::Calls& calls, const GraphNode& node) {
  require(node.input(0) != nullptr && !constant_of(calls, node.input(0)), "the activation is constant");
  weight_of(calls, node);
}

std::unique_ptr<ForeignNode> make_block_product_node(const abi::Calls& calls, const Kernels& kernels,
                                                     const GraphNode& node) {
  return std::make_unique<BlockProductNode>(node.name + " (" + node.type + ")", weight_of(calls, node), kernels);
}

}  // namespace qcompiler
