#include "provider/graph.h"

#include <cstring>

#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

using abi::Slot;
using abi::Status;

std::string text_of(const abi::Calls& calls, Slot slot, const abi::Node* node) {
  const char* text = nullptr;
  check(calls, calls.call<Status*(const abi::Node*, const char**)>(slot, node, &text));
  return text == nullptr ? "" : text;
}

std::vector<const abi::ValueInfo*> values_of(const abi::Calls& calls, Slot counter, Slot getter, const abi::Node* node) {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::Node*, size_t*)>(counter, node, &count));
  std::vector<const abi::ValueInfo*> values(count);
  using Get = Status*(const abi::Node*, const abi::ValueInfo**, size_t);
  check(calls, calls.call<Get>(getter, node, values.data(), count));
  return values;
}

bool succeeds(const abi::Calls& calls, Status* status) {
  if (status != nullptr) calls.release(status);
  return status == nullptr;
}

bool flag_of(const abi::Calls& calls, Slot slot, const abi::ValueInfo* value) {
  bool flag = false;
  check(calls, calls.call<Status*(const abi::ValueInfo*, bool*)>(slot, value, &flag));
  return flag;
}

/// Reads an attribute into `room` bytes; the number of bytes that were written, 0 where it is not there.
size_t read(const abi::Calls& calls, const abi::Node* node, const char* name, int32_t kind, void* data, size_t room) {
  const abi::Attribute* attribute = nullptr;
  using Get = Status*(const abi::Node*, const char*, const abi::Attribute**);
  if (!succeeds(calls, calls.call<Get>(Slot::node_attribute, node, name, &attribute)) || attribute == nullptr) return 0;
  int32_t found = 0;
  check(calls, calls.call<Status*(const abi::Attribute*, int32_t*)>(Slot::attribute_type, attribute, &found));
  if (found != kind) return 0;
  size_t bytes = 0;
  using Read = Status*(const abi::Attribute*, int32_t, void*, size_t, size_t*);
  check(calls, calls.call<Read>(Slot::read_attribute, attribute, kind, data, room, &bytes));
  return bytes;
}

}  // namespace

GraphNode::GraphNode(const abi::Calls& calls, const abi::Node* given)
    : node(given),
      name(text_of(calls, Slot::node_get_name, given)),
      type(text_of(calls, Slot::node_type, given)),
      domain(text_of(calls, Slot::node_domain, given)),
      inputs(values_of(calls, Slot::node_input_count, Slot::node_inputs, given)),
      outputs(values_of(calls, Slot::node_output_count, Slot::node_outputs, given)) {}

std::vector<const abi::Node*> nodes_of(const abi::Calls& calls, const abi::Graph* graph) {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::Graph*, size_t*)>(Slot::node_count, graph, &count));
  std::vector<const abi::Node*> nodes(count);
  check(calls, calls.call<Status*(const abi::Graph*, const abi::Node**, size_t)>(Slot::nodes, graph, nodes.data(), count));
  return nodes;
}

const abi::Node* producer_of(const abi::Calls& calls, const abi::ValueInfo* value) {
  const abi::Node* node = nullptr;
  size_t index = 0;
  using Get = Status*(const abi::ValueInfo*, const abi::Node**, size_t*);
  check(calls, calls.call<Get>(Slot::value_producer, value, &node, &index));
  return node;
}

bool has_one_reader(const abi::Calls& calls, const abi::ValueInfo* value) {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::ValueInfo*, size_t*)>(Slot::value_consumer_count, value, &count));
  return count == 1 && !flag_of(calls, Slot::is_graph_output, value);
}

std::optional<Tensor> constant_of(const abi::Calls& calls, const abi::ValueInfo* value) {
  if (value == nullptr || !flag_of(calls, Slot::is_constant, value)) return std::nullopt;
  const abi::Value* held = nullptr;
  using Get = Status*(const abi::ValueInfo*, const abi::Value**);
  if (!succeeds(calls, calls.call<Get>(Slot::value_initializer, value, &held)) || held == nullptr) return std::nullopt;
  return view(calls, held);
}

std::optional<int64_t> integer_attribute(const abi::Calls& calls, const abi::Node* node, const char* name) {
  int64_t value = 0;
  if (read(calls, node, name, abi::integer_attribute, &value, sizeof value) == 0) return std::nullopt;
  return value;
}

std::optional<float> float_attribute(const abi::Calls& calls, const abi::Node* node, const char* name) {
  float value = 0;
  if (read(calls, node, name, abi::float_attribute, &value, sizeof value) == 0) return std::nullopt;
  return value;
}

std::optional<std::string> text_attribute(const abi::Calls& calls, const abi::Node* node, const char* name) {
  char text[64] = {};
  const size_t bytes = read(calls, node, name, abi::text_attribute, text, sizeof text - 1);
  if (bytes == 0) return std::nullopt;
  return std::string(text, strnlen(text, bytes));
}

std::optional<std::vector<int64_t>> integers_attribute(const abi::Calls& calls, const abi::Node* node, const char* name) {
  std::vector<int64_t> values(64);
  const size_t bytes = read(calls, node, name, abi::integers_attribute, values.data(), values.size() * sizeof(int64_t));
  if (bytes == 0) return std::nullopt;
  values.resize(bytes / sizeof(int64_t));
  return values;
}

}  // namespace qcompiler
