#include "provider/execution.h"

#include "provider/status.h"
#include "provider/values.h"

namespace qcompiler {
namespace {

using abi::Slot;
using abi::Status;

size_t read_inputs(const abi::Calls& calls, const abi::KernelContext* context, const PackedInputs& packed,
                   std::array<Tensor, most_inputs>& tensors) {
  size_t count = 0;
  check(calls, calls.call<Status*(const abi::KernelContext*, size_t*)>(Slot::context_input_count, context, &count));
  require(count <= most_inputs, "the node has more inputs than its operator");
  for (size_t index = 0; index < count; ++index) {
    if (packed.adopted[index]) {
      tensors[index] = packed.tensors[index];
      continue;
    }
    tensors[index] = input_of(calls, context, index);
  }
  return count;
}

}  // namespace

Tensor input_of(const abi::Calls& calls, const abi::KernelContext* context, size_t index) {
  const abi::Value* value = nullptr;
  using Input = Status*(const abi::KernelContext*, size_t, const abi::Value**);
  check(calls, calls.call<Input>(Slot::context_input, context, index, &value));
  return value == nullptr ? Tensor{} : view(calls, value);
}

void* make_output(const abi::Calls& calls, abi::KernelContext* context, const Result& result) {
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
  return data;
}

std::vector<Tensor> constant_inputs(const abi::Calls& calls, const abi::KernelInfo* info, size_t count) {
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

void execute(const abi::Calls& calls, abi::KernelContext* context, const Maker& maker, const Operator& made,
             const PackedInputs& packed, size_t threads) {
  std::array<Tensor, most_inputs> tensors{};
  const Inputs inputs{tensors.data(), read_inputs(calls, context, packed, tensors)};
  check_inputs(maker, inputs);
  const Result result = made.result(inputs);
  void* data = make_output(calls, context, result);
  if (result.shape.elements() != 0) made.run(inputs, result.shape, data, SessionThreads(calls, context, threads));
}

}  // namespace qcompiler
