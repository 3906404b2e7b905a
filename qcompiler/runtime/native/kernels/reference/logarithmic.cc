#include "kernels/logarithmic.h"

namespace qcompiler {
namespace {

template <typename Code>
void count_of(const Code* x, const Code* thresholds, size_t number, size_t count, int8_t* result) {
  for (size_t index = 0; index < count; ++index) {
    int reached = 0;
    for (size_t border = 0; border < number; ++border) reached += thresholds[border] <= x[index];
    result[index] = static_cast<int8_t>(reached);
  }
}

void count_bytes(const int8_t* x, const int8_t* thresholds, size_t number, size_t count, int8_t* result) {
  count_of(x, thresholds, number, count, result);
}

void count_words(const int16_t* x, const int16_t* thresholds, size_t number, size_t count, int8_t* result) {
  count_of(x, thresholds, number, count, result);
}

void decode(const int8_t* x, const int16_t* values, size_t number, size_t count, int16_t* result) {
  const int last = static_cast<int>(number) - 1;
  for (size_t index = 0; index < count; ++index) {
    const int code = x[index] < 0 ? 0 : x[index];
    result[index] = values[code > last ? last : code];
  }
}

}  // namespace

void set_reference(LogarithmicKernels& kernels) {
  kernels.count_bytes = count_bytes;
  kernels.count_words = count_words;
  kernels.decode = decode;
}

}  // namespace qcompiler
