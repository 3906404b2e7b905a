// The operators of ai.qcompiler as custom operators: schemas for the runtime, and kernels for its CPU provider.
//
// They are for programs that cannot choose an execution provider (register_custom_ops_library), and they let the
// provider run files whose functions were taken out. Unlike the provider's own kernels they leave the original of a
// packed weight in memory.
#pragma once

#include "abi/calls.h"

namespace qcompiler {

/// A new domain with all operators of this build. The operators belong to the library and live as long as it does;
/// the domain belongs to the caller.
abi::CustomOpDomain* make_custom_domain(const abi::Calls& calls);

}  // namespace qcompiler
