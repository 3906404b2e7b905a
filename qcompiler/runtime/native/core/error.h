// Errors inside the native code are exceptions; they become a status with the node's name at the border.
#pragma once

#include <stdexcept>
#include <string>

namespace qcompiler {

/// Something about a node, a tensor or an option cannot be used. The text says what, why and the way out.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws an Error unless `condition` holds. For texts that cost nothing to make.
inline void require(bool condition, const char* text) {
  if (!condition) throw Error(text);
}

}  // namespace qcompiler
