#include "provider/values.h"

#include "provider/status.h"

namespace qcompiler {

using abi::Slot;
using abi::Status;

Tensor view(const abi::Calls& calls, const abi::Value* value) {
  int32_t type = 0;
  const int64_t* sizes = nullptr;
  size_t rank = 0;
  const void* data = nullptr;
  check(calls, calls.call<Status*(const abi::Value*, int32_t*, const int64_t**, size_t*)>(Slot::tensor_reference, value,
                                                                                           &type, &sizes, &rank));
  check(calls, calls.call<Status*(const abi::Value*, const void**)>(Slot::tensor_data, value, &data));
  return {static_cast<ElementType>(type), Shape(sizes, rank), data};
}

std::optional<std::vector<int64_t>> NodeAttributes::find(const char* name) const {
  int64_t one = 0;
  Status* status =
      calls_.call<Status*(const abi::KernelInfo*, const char*, int64_t*)>(Slot::attribute_integer, info_, name, &one);
  if (status == nullptr) return std::vector<int64_t>{one};
  calls_.release(status);
  using Array = Status*(const abi::KernelInfo*, const char*, int64_t*, size_t*);
  size_t count = 0;
  status = calls_.call<Array>(Slot::attribute_integers, info_, name, static_cast<int64_t*>(nullptr), &count);
  if (status != nullptr) {
    calls_.release(status);
    return std::nullopt;
  }
  std::vector<int64_t> values(count);
  check(calls_, calls_.call<Array>(Slot::attribute_integers, info_, name, values.data(), &count));
  return values;
}

std::string node_name(const abi::Calls& calls, const abi::KernelInfo* info) {
  using Name = Status*(const abi::KernelInfo*, char*, size_t*);
  size_t length = 0;
  Status* status = calls.call<Name>(Slot::node_name, info, static_cast<char*>(nullptr), &length);
  if (status != nullptr) calls.release(status);
  if (length == 0) return "";
  std::string name(length, '\0');
  check(calls, calls.call<Name>(Slot::node_name, info, name.data(), &length));
  name.resize(length - 1);  // without the final zero
  return name;
}

void SessionThreads::run(size_t tasks, void (*task)(void*, size_t), void* user) const {
  using ParallelFor = Status*(const abi::KernelContext*, void (*)(void*, size_t), size_t, size_t, void*);
  check(calls_, calls_.call<ParallelFor>(Slot::parallel_for, context_, task, tasks, size_t{0}, user));
}

}  // namespace qcompiler
