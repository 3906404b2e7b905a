// Codes or accumulators of one tensor brought to another scale: the inner part of Requantize and of QConcat.
#pragma once

#include <optional>

#include "operators/ending.h"
#include "operators/pair_sum.h"

namespace qcompiler {

/// One factor for a whole tensor.
class Scale {
 public:
  /// Factor and zero point of codes (or accumulators) of a type.
  Scale(const Kernels& kernels, const Ending& ending, ElementType type, int64_t zero, int32_t multiplier,
        uint8_t shift);

  /// `count` contiguous codes from element `place` on.
  void run(const Tensor& codes, size_t place, size_t count, void* result) const;

 private:
  const Kernels& kernels_;
  const Ending& ending_;
  int64_t zero_;
  int32_t multiplier_;
  uint8_t shift_;
  bool copies_ = false;  ///< The rescale changes nothing.
  std::optional<FastSum> fast_;
};

}  // namespace qcompiler
