// The execution provider of one session: which nodes it takes, and with which kernels it runs them.
#pragma once

#include <memory>
#include <string>

#include "abi/calls.h"
#include "kernels/table.h"

namespace qcompiler {

constexpr char provider_name[] = "QCompilerExecutionProvider";
constexpr char domain_name[] = "ai.qcompiler";

/// What a user may set: `isa` (auto or the name of an instruction set), `threads` (a hint: 0 asks the machine).
struct ProviderOptions {
  const Kernels* kernels;
  size_t threads;

  /// Reads the options of a session; an Error for values that make no sense.
  static ProviderOptions read(const abi::Calls& calls, const abi::SessionOptions* session);
};

/// The runtime sees the first part only, and gives it back to us.
struct Provider : abi::Provider {
  Provider(const abi::Calls& calls, const abi::KernelRegistry* registry, const ProviderOptions& options);

  const abi::Calls& calls;
  const abi::KernelRegistry* registry;
  ProviderOptions options;
};

}  // namespace qcompiler
