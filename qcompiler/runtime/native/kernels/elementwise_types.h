// From the types of codes to the instances of a kernel: included by the files of the instruction sets, which compile
// their own copy (everything here is in an unnamed namespace).
#pragma once

#include "kernels/elementwise.h"

namespace qcompiler {
namespace {

/// Calls `kernel(a, result)` with pointers of the right types.
template <typename Kernel>
inline void typed(Codes a, CodesOut result, const Kernel& kernel) {
  const int8_t* narrow = static_cast<const int8_t*>(a.data);
  const int16_t* wide = static_cast<const int16_t*>(a.data);
  int8_t* narrow_result = static_cast<int8_t*>(result.data);
  int16_t* wide_result = static_cast<int16_t*>(result.data);
  if (a.wide && result.wide) return kernel(wide, wide_result);
  if (a.wide) return kernel(wide, narrow_result);
  if (result.wide) return kernel(narrow, wide_result);
  kernel(narrow, narrow_result);
}

/// Calls `kernel(a, b, result)` with pointers of the right types.
template <typename Kernel>
inline void typed(Codes a, Codes b, CodesOut result, const Kernel& kernel) {
  if (b.wide) {
    typed(a, result, [&](auto first, auto out) { kernel(first, static_cast<const int16_t*>(b.data), out); });
  } else {
    typed(a, result, [&](auto first, auto out) { kernel(first, static_cast<const int8_t*>(b.data), out); });
  }
}

}  // namespace
}  // namespace qcompiler
