// Constant weights of other compilers as signed 8-bit codes around zero.
#pragma once

#include <cstdint>
#include <vector>

#include "provider/quantized_group.h"

namespace qcompiler {

struct SignedWeight {
  Shape shape;  ///< [outputs, channels / group, kernel...], or [depth, outputs].
  std::vector<int8_t> codes;
  std::vector<float> scales;  ///< One, or one per output.
  size_t outputs;
  std::vector<int64_t> sums;        ///< Of the codes of an output.
  std::vector<int64_t> magnitudes;  ///< Of their absolute values.

  double scale(size_t output) const { return scales[scales.size() == 1 ? 0 : output]; }

  /// Reads int8, uint8, int4 or uint4 codes and takes the zero point off. `rows_first`: the first axis is that of the
  /// outputs, else the last. Throws where that leaves 8 bits, or scales lie along another axis. A matrix with rows
  /// first is turned.
  static SignedWeight read(const QuantizedGroup& group, bool rows_first);
};

}  // namespace qcompiler
