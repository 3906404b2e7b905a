// MatMulNBits of com.microsoft as a node of ours.
#pragma once

#include "provider/foreign.h"
#include "provider/graph.h"

namespace qcompiler {

/// Throws, with the reason, where the node has a form that we do not have.
void check_block_product(const abi::Calls& calls, const GraphNode& node);

/// Makes it; throws, with the reason, where the node has a form that we do not have.
std::unique_ptr<ForeignNode> make_block_product_node(const abi::Calls& calls, const Kernels& kernels,
                                                     const GraphNode& node);

/// Whether a node is of that type.
bool is_block_product(const GraphNode& node);

}  // namespace qcompiler
