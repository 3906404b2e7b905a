// Codes on grids whose steps grow. Specification: qcompiler/quant/integer/logarithmic.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

struct LogarithmicKernels {
  /// result = how many of the ascending `thresholds` (1 to 127) are <= x.
  void (*count_bytes)(const int8_t* x, const int8_t* thresholds, size_t number, size_t count, int8_t* result);
  void (*count_words)(const int16_t* x, const int16_t* thresholds, size_t number, size_t count, int8_t* result);
  /// result = values[x], x clamped to 0 ... number - 1 (2 to 128 values).
  void (*decode)(const int8_t* x, const int16_t* values, size_t number, size_t count, int16_t* result);
};

void set_reference(LogarithmicKernels&);
void set_avx2(LogarithmicKernels&);

}  // namespace qcompiler
