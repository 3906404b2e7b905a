// Temporary memory of a running operator, taken from buffers that its thread keeps.
#pragma once

#include <cstddef>

namespace qcompiler {

/// So many bytes for as long as the object lives, aligned to 64 bytes. Everything may be written and read up to
/// `slack` bytes behind the end, so that kernels may load whole vectors. The content is undefined.
class Scratch {
 public:
  static constexpr size_t slack = 64;

  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename Element>
  Element* as() const {
    return static_cast<Element*>(data_);
  }

 private:
  void* data_;
  size_t bytes_;
};

}  // namespace qcompiler
