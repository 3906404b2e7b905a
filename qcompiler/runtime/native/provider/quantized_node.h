// A quantized group that runs as one integer operator.
#pragma once

#include "provider/foreign.h"
#include "provider/quantized_linear.h"

namespace qcompiler {

/// Makes it; throws, with the reason, where the group has no such form.
std::unique_ptr<ForeignNode> make_quantized_node(const abi::Calls& calls, const Kernels& kernels,
                                                 const QuantizedGroup& group);

}  // namespace qcompiler
