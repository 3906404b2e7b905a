// Work that is divided among threads. The operators see this interface; ONNX Runtime's pool, or nothing, is behind it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>

namespace qcompiler {

class Threads {
 public:
  virtual ~Threads() = default;

  /// How many threads there may be; a hint for how finely to divide.
  virtual size_t count() const = 0;

  /// Calls `task(user, index)` for every index below `tasks`, in any order, on any threads, and waits.
  /// A task must not throw.
  virtual void run(size_t tasks, void (*task)(void* user, size_t index), void* user) const = 0;

  /// Divides `[0, total)` into ranges of at least `grain` items and calls `work(begin, end)` for each. What `work`
  /// throws (there may be no memory for its scratch) is thrown again when all are done.
  template <typename Work>
  void ranges(size_t total, size_t grain, const Work& work) const {
    const size_t most = count() == 1 ? 1 : 4 * count();
    const size_t parts = std::min(most, total / std::max<size_t>(grain, 1));
    if (parts <= 1) {
      if (total != 0) work(size_t{0}, total);
      return;
    }
    struct Call {
      const Work* work;
      size_t total, parts;
      std::atomic<bool> failed;
      std::exception_ptr error;
    } call{&work, total, parts, {false}, {}};
    run(
        parts,
        [](void* user, size_t index) {
          Call& made = *static_cast<Call*>(user);
          try {
            (*made.work)(made.total * index / made.parts, made.total * (index + 1) / made.parts);
          } catch (...) {
            if (!made.failed.exchange(true)) made.error = std::current_exception();
          }
        },
        &call);
    if (call.failed) std::rethrow_exception(call.error);
  }
};

/// Runs everything on the calling thread.
class OneThread final : public Threads {
 public:
  size_t count() const override { return 1; }
  void run(size_t tasks, void (*task)(void*, size_t), void* user) const override {
    for (size_t index = 0; index < tasks; ++index) task(user, index);
  }
};

}  // namespace qcompiler
