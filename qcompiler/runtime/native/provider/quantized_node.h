// A quantized group that runs as one integer operator.
#pragma once

#include "provider/foreign.h"
#include "provider/quantized_linear.h"

namespace qcompiler {

/// Throws, with the reason, where the group has no such form.
void check_quantized_group(const abi::Calls& calls, const Kernels& kernels, const QuantizedGroup& group);

/// Makes it; throws as the check does.
std::unique_ptr<ForeignNode> make_quantized_node(const abi::Calls& calls, const Kernels& kernels,
                                                 const QuantizedGroup& group);

}  // namespace qcompiler
