#include "kernels/bytes.h"

namespace qcompiler {
namespace {

void flip_bytes(const uint8_t* source, size_t count, uint8_t flip, uint8_t* target) {
  for (size_t index = 0; index < count; ++index) target[index] = source[index] ^ flip;
}

void turn(const uint8_t* source, size_t rows, size_t columns, size_t begin, size_t end, uint8_t* target) {
  for (size_t column = begin; column < end; ++column) {
    for (size_t row = 0; row < rows; ++row) target[column * rows + row] = source[row * columns + column];
  }
}

}  // namespace

void set_reference(ByteKernels& kernels) {
  kernels.flip = flip_bytes;
  kernels.turn = turn;
}

}  // namespace qcompiler
