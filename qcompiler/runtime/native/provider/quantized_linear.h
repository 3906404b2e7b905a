// A quantized group as one of our integer operators.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "provider/prepared.h"
#include "provider/quantized_group.h"

namespace qcompiler {

/// Attributes that are made in memory.
class MadeAttributes final : public Attributes {
 public:
  std::map<std::string, std::vector<int64_t>> values;

  std::optional<std::vector<int64_t>> find(const char* name) const override {
    const auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional(found->second);
  }
};

/// The operator's name, attributes and constants. The real factors become dyadic numbers, so a result may differ by one
/// code from the float computation where that lies within their error of a tie.
struct QuantizedLinear {
  std::string type;  ///< QConv or QGemm.
  MadeAttributes attributes;
  std::vector<int8_t> weight;
  std::vector<int32_t> bias, multiplier;
  std::vector<uint8_t> shift;
  Shape weight_shape, factor_shape;
  bool unsigned_x, unsigned_y;  ///< Codes are uint8 outside and int8 + 128 inside.

  /// Throws, with the reason, where the group has no exact form: the CPU provider keeps it.
  static QuantizedLinear make(const abi::Calls& calls, const QuantizedGroup& group);

  /// The constants by input; input 0 is the activation.
  std::vector<Tensor> constants() const;
};

}  // namespace qcompiler
