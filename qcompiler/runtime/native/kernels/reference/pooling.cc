#include "kernels/pooling.h"

namespace qcompiler {
namespace {

template <typename Code>
void rows_of(const Code* x, size_t rows, size_t stride, size_t columns, int32_t* sums) {
  for (size_t row = 0; row < rows; ++row, x += stride) {
    for (size_t column = 0; column < columns; ++column) {
      const uint32_t code = static_cast<uint32_t>(int32_t{x[column]});
      sums[column] = static_cast<int32_t>(static_cast<uint32_t>(sums[column]) + code);
    }
  }
}

void add_rows(const void* x, bool wide, size_t rows, size_t stride, size_t columns, int32_t* sums) {
  if (wide) return rows_of(static_cast<const int16_t*>(x), rows, stride, columns, sums);
  rows_of(static_cast<const int8_t*>(x), rows, stride, columns, sums);
}

template <typename Code>
void lines_of(const Code* x, size_t lines, size_t stride, size_t count, int32_t* sums) {
  for (size_t line = 0; line < lines; ++line, x += stride) {
    uint32_t sum = static_cast<uint32_t>(sums[line]);
    for (size_t index = 0; index < count; ++index) sum += static_cast<uint32_t>(int32_t{x[index]});
    sums[line] = static_cast<int32_t>(sum);
  }
}

void add_lines(const void* x, bool wide, size_t lines, size_t stride, size_t count, int32_t* sums) {
  if (wide) return lines_of(static_cast<const int16_t*>(x), lines, stride, count, sums);
  lines_of(static_cast<const int8_t*>(x), lines, stride, count, sums);
}

template <typename Code>
void greatest_of(const Code* x, size_t rows, size_t stride, size_t columns, Code* result) {
  for (size_t column = 0; column < columns; ++column) result[column] = x[column];
  for (size_t row = 1; row < rows; ++row) {
    x += stride;
    for (size_t column = 0; column < columns; ++column) {
      if (x[column] > result[column]) result[column] = x[column];
    }
  }
}

void greatest(const void* x, bool wide, size_t rows, size_t stride, size_t columns, void* result) {
  if (wide) return greatest_of(static_cast<const int16_t*>(x), rows, stride, columns, static_cast<int16_t*>(result));
  greatest_of(static_cast<const int8_t*>(x), rows, stride, columns, static_cast<int8_t*>(result));
}

}  // namespace

void set_reference(PoolingKernels& kernels) {
  kernels.add_rows = add_rows;
  kernels.add_lines = add_lines;
  kernels.greatest = greatest;
}

}  // namespace qcompiler
