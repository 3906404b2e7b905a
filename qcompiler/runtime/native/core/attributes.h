// Attributes of a node. Those of ai.qcompiler are integers or lists of integers and are always written.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace qcompiler {

/// Where attributes come from: ONNX Runtime, or the C interface.
class Attributes {
 public:
  virtual ~Attributes() = default;

  /// The values of an attribute (one for a plain integer); nothing where it is not written.
  virtual std::optional<std::vector<int64_t>> find(const char* name) const = 0;

  /// A plain integer within bounds; an Error that names the attribute otherwise.
  int64_t integer(const char* name, int64_t low, int64_t high) const;

  /// A list of `count` integers within bounds.
  std::vector<int64_t> integers(const char* name, size_t count, int64_t low, int64_t high) const;

  /// A list of any length within bounds.
  std::vector<int64_t> integers(const char* name, int64_t low, int64_t high) const;
};

}  // namespace qcompiler
