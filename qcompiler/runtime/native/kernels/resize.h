// Weighted sums of rows of codes: sums[column] += weight * x[column].
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

struct ResizeKernels {
  void (*add8)(const int8_t* x, int32_t weight, size_t columns, int32_t* sums);    ///< Wraps in 32 bits.
  void (*add16)(const int16_t* x, int32_t weight, size_t columns, int64_t* sums);  ///< Wraps in 64 bits, like the next.
  void (*add32)(const int32_t* x, int32_t weight, size_t columns, int64_t* sums);
};

void set_reference(ResizeKernels&);
void set_avx2(ResizeKernels&);
void set_avx512vnni(ResizeKernels&);
void set_neon(ResizeKernels&);

}  // namespace qcompiler
