// The loops of a resize, plain: compilers turn them into vectors of whatever set the including file is compiled for.
// Everything is in an unnamed namespace, so that every file keeps its own copy.
#pragma once

#include "kernels/resize.h"

namespace qcompiler {
namespace {

inline void add8(const int8_t* __restrict x, int32_t weight, size_t columns, int32_t* __restrict sums) {
  for (size_t column = 0; column < columns; ++column) {
    const uint32_t product = static_cast<uint32_t>(weight) * static_cast<uint32_t>(int32_t{x[column]});
    sums[column] = static_cast<int32_t>(static_cast<uint32_t>(sums[column]) + product);
  }
}

template <typename Code>
inline void add64(const Code* __restrict x, int32_t weight, size_t columns, int64_t* __restrict sums) {
  for (size_t column = 0; column < columns; ++column) {
    const int64_t product = int64_t{weight} * int64_t{x[column]};  // 32 by 32 bits
    sums[column] = static_cast<int64_t>(static_cast<uint64_t>(sums[column]) + static_cast<uint64_t>(product));
  }
}

inline void set_loops(ResizeKernels& kernels) {
  kernels.add8 = add8;
  kernels.add16 = add64<int16_t>;
  kernels.add32 = add64<int32_t>;
}

}  // namespace
}  // namespace qcompiler
