// C entry points that run one operator without ONNX Runtime: for tests, and for devices that bring their own runtime.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/operator.h"
#include "core/packed_memory.h"
#include "interface/operator_interface.h"
#include "kernels/table.h"

namespace qcompiler {
namespace {

class PlainAttributes final : public Attributes {
 public:
  PlainAttributes(const qcompiler_attribute* items, size_t count) : items_(items), count_(count) {}

  std::optional<std::vector<int64_t>> find(const char* name) const override {
    for (size_t index = 0; index < count_; ++index) {
      if (std::strcmp(items_[index].name, name) == 0) {
        return std::vector<int64_t>(items_[index].values, items_[index].values + items_[index].count);
      }
    }
    return std::nullopt;
  }

 private:
  const qcompiler_attribute* items_;
  size_t count_;
};

class NewThreads final : public Threads {
 public:
  explicit NewThreads(size_t count) : count_(count) {}
  size_t count() const override { return count_; }
  void run(size_t tasks, void (*task)(void*, size_t), void* user) const override {
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t index = next++; index < tasks; index = next++) task(user, index);
    };
    std::vector<std::thread> threads;
    try {
      while (threads.size() + 1 < std::min(count_, tasks)) threads.emplace_back(work);
    } catch (const std::exception&) {
      // No further thread can be made: those that run, and this one, do the work.
    }
    work();
    for (std::thread& thread : threads) thread.join();
  }

 private:
  size_t count_;
};

Tensor view(const qcompiler_tensor& plain) {
  if (plain.type == 0) return {};
  return {static_cast<ElementType>(plain.type), Shape(plain.sizes, plain.rank), plain.data};
}

std::vector<Tensor> views(const qcompiler_tensor* inputs, size_t count) {
  std::vector<Tensor> tensors;
  for (size_t index = 0; index < count; ++index) tensors.push_back(view(inputs[index]));
  return tensors;
}

/// An operator with the packed weights that it has adopted.
struct Handle {
  const Maker* maker;
  std::unique_ptr<Operator> made;
  std::vector<PackedMemory> packed;
  std::vector<bool> adopted;

  std::vector<Tensor> operands(const qcompiler_tensor* inputs, size_t count) const {
    std::vector<Tensor> tensors = views(inputs, count);
    for (size_t index = 0; index < count; ++index) {
      if (index < adopted.size() && adopted[index]) tensors[index].data = nullptr;
    }
    return tensors;
  }
};

/// Copies as much of a text as there is room for, with a final zero.
void copy_text(const char* text, char* place, uint64_t room) {
  if (room == 0) return;
  std::strncpy(place, text, room - 1);
  place[room - 1] = '\0';
}

template <typename Work>
int guarded(char* message, uint64_t room, const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    copy_text(error.what(), message, room);
  } catch (...) {
    copy_text("an unknown failure", message, room);
  }
  return 1;
}

void adopt_constants(Handle& handle, const std::vector<Tensor>& constants) {
  for (size_t index = 0; index < constants.size(); ++index) {
    const Tensor& constant = constants[index];
    if (constant.type == ElementType::undefined) continue;
    const size_t bytes = handle.made->packed_bytes(index, constant);
    if (bytes == 0) continue;
    handle.packed.emplace_back(bytes);
    handle.made->pack(index, constant, handle.packed.back().data());
    handle.made->adopt(index, {constant.type, constant.shape, nullptr}, handle.packed.back().data());
    handle.adopted[index] = true;
  }
}

}  // namespace
}  // namespace qcompiler

using namespace qcompiler;

QCOMPILER_EXPORT void qcompiler_instruction_sets(char* names, uint64_t room) {
  std::string text;
  for (InstructionSet set : available_sets()) text += (text.empty() ? "" : " ") + std::string(name_of(set));
  copy_text(text.c_str(), names, room);
}

QCOMPILER_EXPORT void qcompiler_operators(char* names, uint64_t room) {
  std::string text;
  for (const auto& item : registry()) text += (text.empty() ? "" : " ") + item.first;
  copy_text(text.c_str(), names, room);
}

QCOMPILER_EXPORT int qcompiler_operator_make(const char* set, const char* node, const char* type,
                                             const qcompiler_attribute* attributes, uint64_t attribute_count,
                                             const qcompiler_tensor* inputs, uint64_t input_count, int32_t pack,
                                             void** handle, char* message, uint64_t room) {
  *handle = nullptr;
  return guarded(message, room, [&] {
    auto made = std::make_unique<Handle>();
    made->maker = &maker_of(type);
    std::vector<Tensor> constants = views(inputs, input_count);
    for (size_t index = 0; index < input_count; ++index) {
      if (inputs[index].constant == 0) constants[index] = {};
    }
    const PlainAttributes given(attributes, attribute_count);
    made->made = make_operator({node, type, given, kernels_of(choose_set(set)), constants});
    made->adopted.assign(input_count, false);
    if (pack != 0) adopt_constants(*made, constants);
    *handle = made.release();
  });
}

QCOMPILER_EXPORT int qcompiler_operator_result(const void* handle, const qcompiler_tensor* inputs, uint64_t input_count,
                                               int32_t* type, int64_t* sizes, uint64_t* rank, char* message,
                                               uint64_t room) {
  return guarded(message, room, [&] {
    const auto& made = *static_cast<const Handle*>(handle);
    const std::vector<Tensor> operands = made.operands(inputs, input_count);
    check_inputs(*made.maker, {operands.data(), operands.size()});
    const Result result = made.made->result({operands.data(), operands.size()});
    *type = static_cast<int32_t>(result.type);
    *rank = result.shape.rank();
    std::memcpy(sizes, result.shape.begin(), result.shape.rank() * sizeof(int64_t));
  });
}

QCOMPILER_EXPORT int qcompiler_operator_run(const void* handle, const qcompiler_tensor* inputs, uint64_t input_count,
                                            void* output, uint64_t threads, char* message, uint64_t room) {
  return guarded(message, room, [&] {
    const auto& made = *static_cast<const Handle*>(handle);
    const std::vector<Tensor> operands = made.operands(inputs, input_count);
    const Inputs given{operands.data(), operands.size()};
    check_inputs(*made.maker, given);
    const Shape shape = made.made->result(given).shape;
    if (shape.elements() == 0) return;
    if (threads <= 1) {
      made.made->run(given, shape, output, OneThread());
    } else {
      made.made->run(given, shape, output, NewThreads(threads));
    }
  });
}

QCOMPILER_EXPORT uint64_t qcompiler_operator_packed_bytes(const void* handle) {
  uint64_t bytes = 0;
  for (const PackedMemory& memory : static_cast<const Handle*>(handle)->packed) bytes += memory.bytes();
  return bytes;
}

QCOMPILER_EXPORT void qcompiler_operator_release(void* handle) { delete static_cast<Handle*>(handle); }
