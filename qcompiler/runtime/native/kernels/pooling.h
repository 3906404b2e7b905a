// Sums and maxima of codes over windows, areas and axes. Codes are int8, or int16 where `wide`; strides in elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

struct PoolingKernels {
  /// sums[column] += sum over rows of x[row * stride + column]. Sums wrap in 32 bits.
  void (*add_rows)(const void* x, bool wide, size_t rows, size_t stride, size_t columns, int32_t* sums);
  /// sums[line] += sum of `count` codes from x[line * stride] on. Sums wrap in 32 bits.
  void (*add_lines)(const void* x, bool wide, size_t lines, size_t stride, size_t count, int32_t* sums);
  /// result[column] = greatest of x[row * stride + column] over the rows, of which there is at least one.
  void (*greatest)(const void* x, bool wide, size_t rows, size_t stride, size_t columns, void* result);
};

void set_reference(PoolingKernels&);
void set_avx2(PoolingKernels&);
void set_avx512vnni(PoolingKernels&);
void set_neon(PoolingKernels&);

}  // namespace qcompiler
