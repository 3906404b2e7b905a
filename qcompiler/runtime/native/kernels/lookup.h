// Functions of one code as tables. Specification: qcompiler/quant/integer/tables.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qcompiler {

/// What lies between two entries of a table over 16-bit codes. At fraction f, 0 to 127:
/// line = start + slope * f, bent = (f * (128 - f) * bend + 2^8) >> 9, code = (line - bent + 2^12) >> 13.
struct Piece {
  int32_t start, slope, bend, unused;  ///< 16 bytes: one load.
};

struct Pieces {
  static constexpr size_t count = 512;
  Piece piece[count];
  bool curved;  ///< Otherwise all bends are 0.
  int32_t least, greatest;
};

struct LookupKernels {
  /// result = table[x + 128], 256 entries.
  void (*bytes)(const int8_t* x, const int8_t* table, size_t count, int8_t* result);
  void (*words)(const int8_t* x, const int16_t* table, size_t count, int16_t* result);
  /// Results are int16 where `wide`, otherwise int8.
  void (*interpolate)(const int16_t* x, const Pieces&, size_t count, bool wide, void* result);
};

void set_reference(LookupKernels&);
void set_avx2(LookupKernels&);
void set_avx512vnni(LookupKernels&);
void set_neon(LookupKernels&);

}  // namespace qcompiler
