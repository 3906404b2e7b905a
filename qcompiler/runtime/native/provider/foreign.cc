#include "provider/foreign.h"

#include <sstream>

#include "core/error.h"
#include "provider/graph.h"
#include "provider/quantized_node.h"
#include "provider/status.h"

namespace qcompiler {
namespace {

using abi::ProviderSlot;
using abi::Status;

void fuse(const abi::Calls& calls, const std::vector<const abi::Node*>& nodes, abi::SupportInfo* support) {
  abi::FusionOptions options{};
  options.version = abi::level;
  options.drop_constants = true;  // the node copies what it needs
  using Fuse = Status*(abi::SupportInfo*, const abi::Node* const*, size_t, const abi::FusionOptions*);
  const abi::FusionOptions* given = &options;
  check(calls, calls.call<Fuse>(ProviderSlot::add_fused, support, nodes.data(), nodes.size(), given));
}

/// The node that a group or a node of another compiler becomes; null where it cannot be taken.
std::unique_ptr<ForeignNode> try_node(const abi::Calls& calls, const Claims& claims, const Kernels& kernels,
                                      const GraphNode& node, std::vector<const abi::Node*>& taken) {
  try {
    if (!claims.quantized_groups) return nullptr;
    const std::optional<QuantizedGroup> group = match_group(calls, node);
    if (!group) return nullptr;
    taken = group->nodes;
    return make_quantized_node(calls, kernels, *group);
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace

Claims Claims::read(const std::string& words) {
  Claims claims;
  std::istringstream stream(words);
  for (std::string word; std::getline(stream, word, ',');) {
    if (word == "qdq") {
      claims.quantized_groups = true;
    } else if (word == "matmulnbits") {
      claims.block_products = true;
    } else {
      throw Error("provider option 'claim' names '" + word + "'; there are qdq and matmulnbits");
    }
  }
  return claims;
}

void claim_foreign(const abi::Calls& calls, const Claims& claims, const Kernels& kernels, const abi::Graph* graph,
                   abi::SupportInfo* support) {
  if (!claims.any()) return;
  for (const abi::Node* node : nodes_of(calls, graph)) {
    std::vector<const abi::Node*> taken;
    if (try_node(calls, claims, kernels, GraphNode(calls, node), taken) != nullptr) fuse(calls, taken, support);
  }
}

std::unique_ptr<ForeignNode> make_foreign(const abi::Calls& calls, const Kernels& kernels, const abi::Graph* graph) {
  for (const abi::Node* node : nodes_of(calls, graph)) {
    std::vector<const abi::Node*> taken;
    auto made = try_node(calls, {true, true}, kernels, GraphNode(calls, node), taken);
    if (made != nullptr) return made;
  }
  throw Error("a group of nodes that was taken cannot be made");
}

}  // namespace qcompiler
