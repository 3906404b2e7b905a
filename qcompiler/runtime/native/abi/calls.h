// Typed calls into the tables of ONNX Runtime.
#pragma once

#include "abi/runtime.h"

namespace qcompiler::abi {

/// The tables, as the runtime handed them out. Copyable; made once per factory.
class Calls {
 public:
  /// Calls a slot of the main table; `Signature` is its function type.
  template <typename Signature, typename... Arguments>
  auto call(Slot slot, Arguments... arguments) const {
    return reinterpret_cast<Signature*>(const_cast<void*>(main_[static_cast<size_t>(slot)]))(arguments...);
  }

  template <typename Signature, typename... Arguments>
  auto call(ProviderSlot slot, Arguments... arguments) const {
    return reinterpret_cast<Signature*>(const_cast<void*>(provider_[static_cast<size_t>(slot)]))(arguments...);
  }

  Calls() = default;
  explicit Calls(const void* main_table)
      : main_(static_cast<const void* const*>(main_table)),
        provider_(call<const void* const*()>(Slot::provider_table)) {}

  Status* status(Code code, const char* text) const {
    return call<Status*(int32_t, const char*)>(Slot::create_status, int32_t{code}, text);
  }
  void release(Status* status) const { call<void(Status*)>(Slot::release_status, status); }
  const char* message(const Status* status) const {
    return call<const char*(const Status*)>(Slot::error_message, status);
  }

 private:
  const void* const* main_ = nullptr;
  const void* const* provider_ = nullptr;
};

}  // namespace qcompiler::abi
