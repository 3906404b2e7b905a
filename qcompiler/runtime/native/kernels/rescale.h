// From accumulators to codes: q = clip(((a * b + 2^(c-1)) >> c) + zero, low, high), everything in 64 bits.
// Specification: qcompiler/quant/integer/dyadic.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// The multiplier of a rescale without one: a shift to the left by 16.
constexpr int32_t shift_multiplier = 1 << 16;

/// Factors and bounds. `multiplier` and `shift` have one entry per column, or one where `per_column` is false.
struct Rescale {
  const int32_t* multiplier;
  const uint8_t* shift;
  bool per_column;
  int32_t zero, low, high;
  bool wide;  ///< Results are int16 instead of int8.
};

/// The fields of a rescale besides the sums: `rows` x `columns`, strides in elements.
struct RescaleArea {
  size_t rows, columns;
  size_t sums_stride, result_stride;
};

struct RescaleKernels {
  /// int32 sums; `bias` (one per column) may be null, the sum with it wraps in 32 bits.
  void (*from32)(const int32_t* sums, const int32_t* bias, const Rescale&, const RescaleArea&, void* result);
  /// int64 sums.
  void (*from64)(const int64_t* sums, const int64_t* bias, const Rescale&, const RescaleArea&, void* result);
};

void set_reference(RescaleKernels&);
void set_avx2(RescaleKernels&);
void set_avx512vnni(RescaleKernels&);
void set_neon(RescaleKernels&);

}  // namespace qcompiler
