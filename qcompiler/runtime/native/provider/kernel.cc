#include "provider/kernel.h"

#include <array>
#include <optional>

#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

using abi::ProviderSlot;
using abi::Slot;
using abi::Status;

constexpr size_t most_inputs = 8;

/// A packed weight that belongs to this kernel, where the runtime offers no cache to share it.
struct OwnBuffer {
  void* data = nullptr;
  abi::Allocator* allocator = nullptr;
};

struct Kernel : abi::Kernel {
  Kernel(const KernelType& type, std::string node_name, std::unique_ptr<Operator> made, size_t thread_count);
  ~Kernel();

  void run(abi::KernelContext* context) const;
  bool pack_input(const abi::Value* value, size_t index, abi::Allocator* allocator, abi::SharedWeightCache* cache);
  void use_packed(size_t index, const void* packed);

  const abi::Calls& calls;
  const Maker& maker;
  std::string node;
  std::unique_ptr<Operator> self_operator;
  size_t threads;
  std::array<OwnBuffer, most_inputs> own{};
  std::array<Tensor, most_inputs> packed{};  ///< Type and shape of packed inputs; the runtime has released the data.
  std::array<bool, most_inputs> is_packed{};
};

Kernel& ours(abi::Kernel* kernel) { return *static_cast<Kernel*>(kernel); }

Kernel::Kernel(const KernelType& type, std::string node_name, std::unique_ptr<Operator> made, size_t thread_count)
    : abi::Kernel{}, calls(*type.calls), maker(maker_of(type.type)), node(std::move(node_name)), self_operator(std::move(made)), threads(thread_count) {
  version = abi::level;
  compute = [](abi::Kernel* self, abi::KernelContext* context) {
    return guarded(ours(self).calls, ours(self).node, [&] { ours(self).run(context); });
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
    packed[index] = {constant.type, constant.shape, nullptr};
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
  require(index < most_inputs && packed[index].type != ElementType::undefined, "a weight is shared that was not packed");
  self_operator->adopt(index, packed[index], data);
  is_packed[index] = true;
}

void Kernel::run(abi::KernelContext* context) const {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::KernelContext*, size_t*)>(Slot::context_input_count, context, &count));
  require(count <= most_inputs, "the node has more inputs than its operator");
  std::array<Tensor, most_inputs> tensors{};
  for (size_t index = 0; index < count; ++index) {
    if (is_packed[index]) {
      tensors[index] = packed[index];
      continue;
    }
    const abi::Value* value = nullptr;
    using Input = Status*(const abi::KernelContext*, size_t, const abi::Value**);
    check(calls, calls.call<Input>(Slot::context_input, context, index, &value));
    if (value != nullptr) tensors[index] = view(calls, value);
  }
  const Inputs inputs{tensors.data(), count};
  check_inputs(maker, inputs);
  const Result result = self_operator->result(inputs);
  abi::Value* output = nullptr;
  using Output = Status*(abi::KernelContext*, size_t, const int64_t*, size_t, abi::Value**);
  check(calls, calls.call<Output>(Slot::context_output, context, size_t{0}, result.shape.begin(), result.shape.rank(),
                                  &output));
  int32_t type = 0;
  const int64_t* sizes = nullptr;
  size_t rank = 0;
  using Reference = Status*(const abi::Value*, int32_t*, const int64_t**, size_t*);
  check(calls, calls.call<Reference>(Slot::tensor_reference, output, &type, &sizes, &rank));
  if (static_cast<ElementType>(type) != result.type) {
    throw Error("the graph says that the result is " + element_name(static_cast<ElementType>(type)) +
                ", the operator makes " + element_name(result.type));
  }
  void* data = nullptr;
  check(calls, calls.call<Status*(abi::Value*, void**)>(Slot::mutable_data, output, &data));
  if (result.shape.elements() != 0) self_operator->run(inputs, data, SessionThreads(calls, context, threads));
}

std::vector<Tensor> constants(const abi::Calls& calls, const abi::KernelInfo* info, size_t count) {
  std::vector<Tensor> found(count);
  for (size_t index = 0; index < count; ++index) {
    int32_t is_constant = 0;
    const abi::Value* value = nullptr;
    using Constant = Status*(const abi::KernelInfo*, size_t, int32_t*, const abi::Value**);
    Status* status = calls.call<Constant>(Slot::constant_input, info, index, &is_constant, &value);
    if (status != nullptr) {  // there are fewer inputs: an optional one is absent
      calls.release(status);
      continue;
    }
    if (is_constant != 0 && value != nullptr) found[index] = view(calls, value);
  }
  return found;
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
      auto made = make_operator({node, type.type, attributes, *options.kernels, constants(calls, info, type.inputs)});
      *kernel = new Kernel(type, node, std::move(made), options.threads);
    } catch (const Error& error) {
      throw Error(node + ": " + error.what());
    }
  });
}

}  // namespace qcompiler
