// Tensors, attributes and threads of ONNX Runtime as the operators see them.
#pragma once

#include <string>

#include "abi/calls.h"
#include "core/attributes.h"
#include "core/tensor.h"
#include "core/threads.h"

namespace qcompiler {

/// A view of a runtime's tensor.
Tensor view(const abi::Calls& calls, const abi::Value* value);

/// Attributes of the node that a kernel is made for.
class NodeAttributes final : public Attributes {
 public:
  NodeAttributes(const abi::Calls& calls, const abi::KernelInfo* info) : calls_(calls), info_(info) {}
  std::optional<std::vector<int64_t>> find(const char* name) const override;

 private:
  const abi::Calls& calls_;
  const abi::KernelInfo* info_;
};

/// Name of the node that a kernel is made for.
std::string node_name(const abi::Calls& calls, const abi::KernelInfo* info);

/// The thread pool of the session.
class SessionThreads final : public Threads {
 public:
  SessionThreads(const abi::Calls& calls, const abi::KernelContext* context, size_t count)
      : calls_(calls), context_(context), count_(count) {}
  size_t count() const override { return count_; }
  void run(size_t tasks, void (*task)(void*, size_t), void* user) const override;

 private:
  const abi::Calls& calls_;
  const abi::KernelContext* context_;
  size_t count_;
};

}  // namespace qcompiler
