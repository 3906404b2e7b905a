// How many products of bytes a 32-bit sum holds.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"

namespace qcompiler {

/// Products of a signed with an unsigned byte whose sum surely fits: (2^31 - 1) / (128 * 255).
constexpr int64_t most_byte_products = 65793;

/// Codes of 16 bits are multiplied byte by byte: an Error where a sum has too many of them.
inline void check_wide_sum(int64_t products) {
  if (products <= most_byte_products) return;
  throw Error("a sum of " + std::to_string(products) + " products of 16-bit codes; at most " +
              std::to_string(most_byte_products) + " fit");
}

}  // namespace qcompiler
