// One node in a session: the operator, and its packed weights.
#pragma once

#include <memory>

#include "abi/calls.h"
#include "core/operator.h"
#include "provider/provider.h"

namespace qcompiler {

/// What the kernel registry passes to the creation of kernels of one type. Lives as long as the factory.
struct KernelType {
  const abi::Calls* calls;
  std::string type;
  size_t inputs;  ///< Optional ones included.
};

/// Creation of a kernel; `state` is a KernelType.
abi::Status* create_kernel(void* state, const abi::KernelInfo* info, abi::Kernel** kernel);

}  // namespace qcompiler
