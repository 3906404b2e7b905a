#include "kernels/lookup.h"

namespace qcompiler {
namespace {

void bytes(const int8_t* x, const int8_t* table, size_t count, int8_t* result) {
  for (size_t index = 0; index < count; ++index) result[index] = table[x[index] + 128];
}

void words(const int8_t* x, const int16_t* table, size_t count, int16_t* result) {
  for (size_t index = 0; index < count; ++index) result[index] = table[x[index] + 128];
}

template <typename Code>
void interpolate_to(const int16_t* x, const Pieces& pieces, size_t count, Code* result) {
  for (size_t index = 0; index < count; ++index) {
    const int32_t position = x[index] + 32768, fraction = position & 127;
    const Piece& piece = pieces.piece[position >> 7];
    const int32_t line = piece.start + piece.slope * fraction;
    const int32_t bent = (fraction * (128 - fraction) * piece.bend + 256) >> 9;
    const int32_t code = (line - bent + 4096) >> 13;
    const int32_t raised = code < pieces.least ? pieces.least : code;
    result[index] = static_cast<Code>(raised > pieces.greatest ? pieces.greatest : raised);
  }
}

void interpolate(const int16_t* x, const Pieces& pieces, size_t count, bool wide, void* result) {
  if (wide) return interpolate_to(x, pieces, count, static_cast<int16_t*>(result));
  interpolate_to(x, pieces, count, static_cast<int8_t*>(result));
}

}  // namespace

void set_reference(LookupKernels& kernels) {
  kernels.bytes = bytes;
  kernels.words = words;
  kernels.interpolate = interpolate;
}

}  // namespace qcompiler
