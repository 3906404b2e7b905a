// One over the square root of an integer. Specification: qcompiler/quant/integer/reciprocal_root.py.
#pragma once

#include <cstdint>

namespace qcompiler {

/// 1 / sqrt(value) = root * 2^(pairs - 60).
struct Root {
  int32_t root, pairs;
};

/// `value` is 1 to 2^62 - 1; others count as the nearer of these.
Root reciprocal_root(int64_t value);

}  // namespace qcompiler
