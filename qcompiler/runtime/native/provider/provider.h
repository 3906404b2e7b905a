// The execution provider of one session: which nodes it takes, and with which kernels it runs them.
#pragma once

#include <memory>
#include <string>

#include "abi/calls.h"
#include "kernels/table.h"
#include "provider/foreign.h"

namespace qcompiler {

constexpr char provider_name[] = "QCompilerExecutionProvider";
constexpr char domain_name[] = "ai.qcompiler";

/// What a user may set: `isa` (auto or the name of an instruction set), `threads` (into how many parts work is divided),
/// `claim` (kinds of foreign nodes that are taken).
struct ProviderOptions {
  const Kernels* kernels;
  size_t threads;
  Claims claims;

  /// Reads the options of a session; an Error for values that make no sense.
  static ProviderOptions read(const abi::Calls& calls, const abi::SessionOptions* session);
};

/// The runtime sees the first part only, and gives it back to us.
struct Provider : abi::Provider {
  Provider(const abi::Calls& calls, const abi::KernelRegistry* registry, const ProviderOptions& options,
           const abi::Logger* logger);

  const abi::Calls& calls;
  const abi::KernelRegistry* registry;
  ProviderOptions options;
  Log log;
};

}  // namespace qcompiler
