#include "core/scratch.h"

#include <new>
#include <vector>

namespace qcompiler {
namespace {

struct Buffer {
  void* data;
  size_t bytes;
};

/// Buffers that a thread keeps between runs: large allocations would otherwise be mapped and cleared every time.
class Kept {
 public:
  ~Kept() {
    for (Buffer& buffer : free_) release(buffer);
  }

  Buffer take(size_t bytes) {
    for (size_t index = free_.size(); index-- > 0;) {
      if (free_[index].bytes >= bytes && free_[index].bytes <= 4 * bytes + 4096) {
        Buffer found = free_[index];
        bytes_ -= found.bytes;
        free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(index));
        return found;
      }
    }
    return {::operator new(bytes, std::align_val_t{64}), bytes};
  }

  void give_back(Buffer buffer) noexcept {
    if (free_.size() == most || buffer.bytes > most_bytes - bytes_) {
      release(buffer);
      return;
    }
    try {
      free_.push_back(buffer);
      bytes_ += buffer.bytes;
    } catch (const std::bad_alloc&) {
      release(buffer);
    }
  }

 private:
  static constexpr size_t most = 24;
  static constexpr size_t most_bytes = size_t{96} << 20;  // of one thread, whatever it ran

  static void release(Buffer& buffer) noexcept { ::operator delete(buffer.data, std::align_val_t{64}); }

  std::vector<Buffer> free_;
  size_t bytes_ = 0;  ///< Of all buffers in `free_`.
};

Kept& kept() {
  thread_local Kept buffers;
  return buffers;
}

}  // namespace

Scratch::Scratch(size_t bytes) {
  const Buffer buffer = kept().take(bytes + slack);
  data_ = buffer.data;
  bytes_ = buffer.bytes;
}

Scratch::~Scratch() { kept().give_back({data_, bytes_}); }

}  // namespace qcompiler
