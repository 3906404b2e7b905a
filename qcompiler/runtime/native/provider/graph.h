// Reading the runtime's graph.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "abi/calls.h"
#include "core/tensor.h"

namespace qcompiler {

/// A node with what is asked of it again and again. Absent inputs and outputs are null.
struct GraphNode {
  const abi::Node* node;
  std::string name, type, domain;
  std::vector<const abi::ValueInfo*> inputs, outputs;

  GraphNode(const abi::Calls& calls, const abi::Node* node);

  /// Whether it is an operator of ONNX itself, of that type.
  bool is(const char* standard_type) const { return domain.empty() && type == standard_type; }
  const abi::ValueInfo* input(size_t index) const { return index < inputs.size() ? inputs[index] : nullptr; }
};

/// The nodes of a graph, operands first.
std::vector<const abi::Node*> nodes_of(const abi::Calls& calls, const abi::Graph* graph);

/// The node that makes a value; null for inputs and initializers of the graph.
const abi::Node* producer_of(const abi::Calls& calls, const abi::ValueInfo* value);

/// Whether one node only reads the value, once, and it is no output of the graph.
bool has_one_reader(const abi::Calls& calls, const abi::ValueInfo* value);

/// The constant that a value is; nothing where it is none.
std::optional<Tensor> constant_of(const abi::Calls& calls, const abi::ValueInfo* value);

/// Attributes of a node by kind; nothing where there is none of that name and kind.
std::optional<int64_t> integer_attribute(const abi::Calls& calls, const abi::Node* node, const char* name);
std::optional<float> float_attribute(const abi::Calls& calls, const abi::Node* node, const char* name);
std::optional<std::string> text_attribute(const abi::Calls& calls, const abi::Node* node, const char* name);
std::optional<std::vector<int64_t>> integers_attribute(const abi::Calls& calls, const abi::Node* node, const char* name);

}  // namespace qcompiler
