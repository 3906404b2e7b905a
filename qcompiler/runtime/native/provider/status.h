// Between statuses of the runtime and exceptions of ours.
#pragma once

#include <exception>
#include <string>

#include "abi/calls.h"
#include "core/error.h"

namespace qcompiler {

/// Throws what a status says, and releases it; does nothing for success (null).
inline void check(const abi::Calls& calls, abi::Status* status) {
  if (status == nullptr) return;
  const std::string text = calls.message(status);
  calls.release(status);
  throw Error(text);
}

/// Runs `work` and gives its exception, if any, as a status that begins with `where`.
template <typename Work>
abi::Status* guarded(const abi::Calls& calls, const std::string& where, const Work& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const Error& error) {
    return calls.status(abi::invalid_argument, (where + ": " + error.what()).c_str());
  } catch (const std::exception& error) {
    return calls.status(abi::fail, (where + ": " + error.what()).c_str());
  }
}

}  // namespace qcompiler
