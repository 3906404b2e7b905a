// Nodes of models that we did not compile, taken where the provider option `claim` asks for it. They go the runtime's
// compile road: a group of nodes becomes one, which is made from the group's graph.
#pragma once

#include <memory>
#include <string>

#include "abi/calls.h"
#include "kernels/table.h"
#include "provider/log.h"

namespace qcompiler {

struct GraphNode;  // provider/graph.h

/// Which kinds are taken.
struct Claims {
  bool quantized_groups = false;  ///< `qdq`
  bool block_products = false;    ///< `matmulnbits`

  /// From words with commas between them; an Error names the word that is none.
  static Claims read(const std::string& words);
  bool any() const { return quantized_groups || block_products; }
  /// Whether the node is a product of a kind that is asked for.
  bool ask(const GraphNode& node) const;
};

/// One node that stands for a group.
class ForeignNode {
 public:
  virtual ~ForeignNode() = default;
  /// For messages.
  virtual const std::string& name() const = 0;
  /// Const and without shared mutable state: several threads may run one node.
  virtual void run(const abi::Calls& calls, abi::KernelContext* context, size_t threads) const = 0;
};

/// Tells the runtime which groups are taken. What we cannot run exactly enough is left to the CPU provider; the log says
/// how many products were taken, and of every other one why not.
void claim_foreign(const abi::Calls& calls, const Claims& claims, const Kernels& kernels, const abi::Graph* graph,
                   abi::SupportInfo* support, const Log& log);

/// Makes the node of a group that was taken. Copies what it needs of the graph.
std::unique_ptr<ForeignNode> make_foreign(const abi::Calls& calls, const Kernels& kernels, const abi::Graph* graph);

}  // namespace qcompiler
