// Memory of packed weights where no runtime provides it.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace qcompiler {

/// So many bytes, aligned to 64; they move with the object and are freed with it.
class PackedMemory {
 public:
  explicit PackedMemory(size_t bytes) : data_(::operator new(bytes, std::align_val_t{64})), bytes_(bytes) {}

  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_;
};

}  // namespace qcompiler
