// The session's log.
#pragma once

#include <string>

#include "abi/calls.h"

namespace qcompiler {

class Log {
 public:
  /// `logger` outlives the log; null for none.
  Log(const abi::Calls& calls, const abi::Logger* logger) : calls_(calls), logger_(logger) {}

  /// Whether anybody reads what `say` writes.
  bool speaks() const {
    int32_t least = abi::log_information + 1;
    if (logger_ == nullptr) return false;
    forget(calls_.call<abi::Status*(const abi::Logger*, int32_t*)>(abi::Slot::log_severity, logger_, &least));
    return least <= abi::log_information;
  }

  /// One message for those who ask for information.
  void say(const std::string& text) const {
    using Write = abi::Status*(const abi::Logger*, int32_t, const char*, const char*, int, const char*);
    if (logger_ == nullptr) return;
    forget(calls_.call<Write>(abi::Slot::log_message, logger_, int32_t{abi::log_information}, text.c_str(), "qcompiler",
                              0, "provider"));
  }

 private:
  /// What cannot be logged is no reason to fail.
  void forget(abi::Status* status) const {
    if (status != nullptr) calls_.release(status);
  }

  const abi::Calls& calls_;
  const abi::Logger* logger_;
};

}  // namespace qcompiler
