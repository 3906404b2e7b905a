#include "provider/foreign.h"

#include <sstream>

#include "core/error.h"
#include "provider/block_product_node.h"
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

/// The nodes that are taken together with `node`, which is the last of them; none where it is not taken.
std::vector<const abi::Node*> taken_with(const abi::Calls& calls, const Claims& claims, const Kernels& kernels,
                                         const GraphNode& node) {
  try {
    if (claims.block_products && is_block_product(node)) {
      check_block_product(calls, node);
      return {node.node};
    }
    const std::optional<QuantizedGroup> group = claims.quantized_groups ? match_group(calls, node) : std::nullopt;
    if (!group) return {};
    check_quantized_group(calls, kernels, *group);
    return group->nodes;
  } catch (const Error&) {
    return {};  // the CPU provider runs what we cannot
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
    const std::vector<const abi::Node*> taken = taken_with(calls, claims, kernels, GraphNode(calls, node));
    if (!taken.empty()) fuse(calls, taken, support);
  }
}

std::unique_ptr<ForeignNode> make_foreign(const abi::Calls& calls, const Kernels& kernels, const abi::Graph* graph) {
  for (const abi::Node* node : nodes_of(calls, graph)) {
    const GraphNode last(calls, node);
    if (is_block_product(last)) return make_block_product_node(calls, kernels, last);
    if (const auto group = match_group(calls, last)) return make_quantized_node(calls, kernels, *group);
  }
  throw Error("a group of nodes that was taken is not there any more");
}

}  // namespace qcompiler
