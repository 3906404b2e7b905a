#include "provider/foreign.h"

#include <map>
#include <set>
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

/// Which products were taken, and why others were not.
class Account {
 public:
  void take(const std::vector<const abi::Node*>& nodes) { taken_.insert(nodes.begin(), nodes.end()); }
  void leave(const GraphNode& product, const char* reason) { reasons_[product.node] = reason; }

  void write(const abi::Calls& calls, const Claims& claims, const std::vector<const abi::Node*>& nodes,
             const Log& log) const {
    size_t asked = 0, taken = 0;
    for (const abi::Node* node : nodes) {
      const GraphNode product(calls, node);
      if (!claims.ask(product)) continue;
      ++asked;
      if (taken_.count(node) != 0) {
        ++taken;
        continue;
      }
      const auto found = reasons_.find(node);
      log.say("'" + product.name + "' (" + product.type + ") is left to ONNX Runtime: " +
              (found == reasons_.end() ? "no QuantizeLinear is its only reader" : found->second));
    }
    if (asked == 0) return;
    log.say("taken of other compilers' products: " + std::to_string(taken) + " of " + std::to_string(asked));
  }

 private:
  std::set<const abi::Node*> taken_;
  std::map<const abi::Node*, std::string> reasons_;
};

/// The nodes that are taken together with `node`, which is the last of them; none where it is not taken.
std::vector<const abi::Node*> taken_with(const abi::Calls& calls, const Claims& claims, const Kernels& kernels,
                                         const GraphNode& node, Account& account) {
  std::optional<QuantizedGroup> group;
  try {
    if (claims.block_products && is_block_product(node)) {
      check_block_product(calls, node);
      return {node.node};
    }
    if (claims.quantized_groups) group = find_group(calls, node);
    if (!group) return {};
    read_group(calls, *group);
    check_quantized_group(calls, kernels, *group);
    return group->nodes;
  } catch (const Error& error) {
    account.leave(group ? group->product : node, error.what());
    return {};
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

bool Claims::ask(const GraphNode& node) const {
  if (block_products && is_block_product(node)) return true;
  return quantized_groups && (node.is("Conv") || node.is("Gemm") || node.is("MatMul"));
}

void claim_foreign(const abi::Calls& calls, const Claims& claims, const Kernels& kernels, const abi::Graph* graph,
                   abi::SupportInfo* support, const Log& log) {
  if (!claims.any()) return;
  Account account;
  const std::vector<const abi::Node*> nodes = nodes_of(calls, graph);
  for (const abi::Node* node : nodes) {
    const std::vector<const abi::Node*> taken = taken_with(calls, claims, kernels, GraphNode(calls, node), account);
    if (taken.empty()) continue;
    fuse(calls, taken, support);
    account.take(taken);
  }
  if (log.speaks()) account.write(calls, claims, nodes, log);
}

std::unique_ptr<ForeignNode> make_foreign(const abi::Calls& calls, const Kernels& kernels, const abi::Graph* graph) {
  for (const abi::Node* node : nodes_of(calls, graph)) {
    const GraphNode last(calls, node);
    if (is_block_product(last)) return make_block_product_node(calls, kernels, last);
    if (auto group = find_group(calls, last)) {
      read_group(calls, *group);
      return make_quantized_node(calls, kernels, *group);
    }
  }
  throw Error("a group of nodes that was taken is not there any more");
}

}  // namespace qcompiler
