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

/// A status that begins with `where`; a plain one where there is no memory even for its words.
inline abi::Status* refusal(const abi::Calls& calls, abi::Code code, const std::string& where, const char* what) noexcept {
  try {
    return calls.status(code, (where + ": " + what).c_str());
  } catch (...) {
    return calls.status(abi::fail, "there is no memory left");
  }
}

/// Runs `work` and gives its exception, if any, as a status that begins with `where`.
template <typename Work>
abi::Status* guarded(const abi::Calls& calls, const std::string& where, const Work& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const Error& error) {
    return refusal(calls, abi::invalid_argument, where, error.what());
  } catch (const std::exception& error) {
    return refusal(calls, abi::fail, where, error.what());
  } catch (...) {
    return refusal(calls, abi::fail, where, "an unknown failure");
  }
}

}  // namespace qcompiler
