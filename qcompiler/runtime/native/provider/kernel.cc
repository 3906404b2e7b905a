#include "provider/kernel.h"

#include <array>

#include "provider/execution.h"
#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

using abi::ProviderSlot;
using abi::Status;

/// A packed weight that belongs to this kernel, where the runtime offers no cache to share it.
struct OwnBuffer {
  void* data = nullptr;
  abi::Allocator* allocator = nullptr;
};

struct Kernel : abi::Kernel {
  Kernel(const KernelType& type, std::string node_name, std::unique_ptr<Operator> made, size_t thread_count);
  ~Kernel();

  bool pack_input(const abi::Value* value, size_t index, abi::Allocator* allocator, abi::SharedWeightCache* cache);
  void use_packed(size_t index, const void* packed);

  const abi::Calls& calls;
  const Maker& maker;
  std::string node;
  std::unique_ptr<Operator> self_operator;
  size_t threads;
  std::array<OwnBuffer, most_inputs> own{};
  PackedInputs packed;
};

Kernel& ours(abi::Kernel* kernel) { return *static_cast<Kernel*>(kernel); }

Kernel::Kernel(const KernelType& type, std::string node_name, std::unique_ptr<Operator> made, size_t thread_count)
    : abi::Kernel{},
      calls(*type.calls),
      maker(maker_of(type.type)),
      node(std::move(node_name)),
      self_operator(std::move(made)),
      threads(thread_count) {
  version = abi::level;
  compute = [](abi::Kernel* self, abi::KernelContext* context) {
    return guarded(ours(self).calls, ours(self).node, [&] {
      const Kernel& kernel = ours(self);
      execute(kernel.calls, context, kernel.maker, *kernel.self_operator, kernel.packed, kernel.threads);
    });
  };
  release = [](abi::Kernel* self) { delete &ours(self); };
  pack = [](abi::Kernel* self, const abi::Value* value, int index, abi::Allocator* allocator,
            abi::SharedWeightCache* cache, bool* done) {
    *done = false;
    return guarded(ours(self).calls, ours(self).node, [&] {
      *done = ours(self).pack_input(value, static_cast<size_t>(index), allocator, cache);
    });
  };
  use_shared = [](abi::Kernel* self, const void* const* buffers, const size_t*, size_t count, int index) {
    return guarded(ours(self).calls, ours(self).node, [&] {
      require(count == 1, "a packed weight has one buffer");
      ours(self).use_packed(static_cast<size_t>(index), buffers[0]);
    });
  };
}

Kernel::~Kernel() {
  self_operator.reset();
  for (OwnBuffer& buffer : own) {
    if (buffer.data != nullptr) buffer.allocator->free(buffer.allocator, buffer.data);
  }
}

bool Kernel::pack_input(const abi::Value* value, size_t index, abi::Allocator* allocator, abi::SharedWeightCache* cache) {
  if (index >= most_inputs) return false;
  const Tensor constant = view(calls, value);
  const size_t bytes = self_operator->packed_bytes(index, constant);
  if (bytes == 0) return false;
  void* data = allocator->allocate(allocator, bytes);
  if (data == nullptr) throw Error("there is no memory for " + std::to_string(bytes) + " bytes of packed weights");
  OwnBuffer buffer{data, allocator};
  try {
    self_operator->pack(index, constant, data);
    packed.tensors[index] = {constant.type, constant.shape, nullptr};
    if (cache != nullptr) {
      size_t size = bytes;
      using Store = Status*(abi::SharedWeightCache*, void**, size_t*, size_t);
      check(calls, calls.call<Store>(ProviderSlot::store_shared_weight, cache, &data, &size, size_t{1}));
      return true;  // the buffer is the runtime's now; `use_shared` says which one is to be used
    }
  } catch (...) {
    allocator->free(allocator, buffer.data);
    throw;
  }
  own[index] = buffer;
  use_packed(index, buffer.data);
  return true;
}

void Kernel::use_packed(size_t index, const void* data) {
  require(index < most_inputs && packed.tensors[index].type != ElementType::undefined,
          "a weight is shared that was not packed");
  self_operator->adopt(index, packed.tensors[index], data);
  packed.adopted[index] = true;
}

}  // namespace

abi::Status* create_kernel(void* state, const abi::KernelInfo* info, abi::Kernel** kernel) {
  const KernelType& type = *static_cast<const KernelType*>(state);
  const abi::Calls& calls = *type.calls;
  std::string node = type.type;
  return guarded(calls, provider_name, [&] {
    node = node_name(calls, info) + " (" + type.type + ")";
    const abi::Provider* provider = nullptr;
    using GetProvider = Status*(const abi::KernelInfo*, const abi::Provider**);
    check(calls, calls.call<GetProvider>(ProviderSlot::kernel_provider, info, &provider));
    const ProviderOptions& options = static_cast<const Provider*>(provider)->options;
    try {
      const NodeAttributes attributes(calls, info);
      auto made = make_operator({node, type.type, attributes, *options.kernels, constant_inputs(calls, info, type.inputs)});
      *kernel = new Kernel(type, node, std::move(made), options.threads);
    } catch (const Error& error) {
      throw Error(node + ": " + error.what());
    }
  });
}

}  // namespace qcompiler
