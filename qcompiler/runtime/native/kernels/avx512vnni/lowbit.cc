// Packed weights by vpdpbusd. One row: weights are masked where they lie and the sums shifted at the end. Several rows:
// weights are shifted to their place once for all rows.
#include "kernels/lowbit.h"

#include <immintrin.h>

#include <cstring>

#include "kernels/avx512vnni/lowbit_decode.h"

namespace qcompiler {
namespace {

/// One row times a vector of columns, sums by the place of the weight in its byte.
template <int Bits>
struct Scaled;

template <>
struct Scaled<4> {
  static constexpr size_t scales = 2;
  static void step(const uint8_t* lanes, const int8_t* codes, __m512i* sums) {
    const __m512i w = _mm512_loadu_si512(lanes);
    sums[0] = dot(sums[0], _mm512_and_si512(w, _mm512_set1_epi8(0x0f)), broadcast(codes));
    sums[1] = dot(sums[1], _mm512_and_si512(w, _mm512_set1_epi8(-16)), broadcast(codes + 4));
  }
  static __m512i joined(const __m512i* sums) { return _mm512_add_epi32(sums[0], _mm512_srai_epi32(sums[1], 4)); }
};

template <>
struct Scaled<2> {
  static constexpr size_t scales = 4;
  static void step(const uint8_t* lanes, const int8_t* codes, __m512i* sums) {
    const __m512i w = _mm512_loadu_si512(lanes);
    sums[0] = dot(sums[0], _mm512_and_si512(w, _mm512_set1_epi8(0x03)), broadcast(codes));
    sums[1] = dot(sums[1], _mm512_and_si512(w, _mm512_set1_epi8(0x0c)), broadcast(codes + 4));
    sums[2] = dot(sums[2], _mm512_and_si512(w, _mm512_set1_epi8(0x30)), broadcast(codes + 8));
    sums[3] = dot(sums[3], _mm512_and_si512(w, _mm512_set1_epi8(-64)), broadcast(codes + 12));
  }
  static __m512i joined(const __m512i* sums) {
    const __m512i low = _mm512_add_epi32(sums[0], _mm512_srai_epi32(sums[1], 2));
    return _mm512_add_epi32(low, _mm512_add_epi32(_mm512_srai_epi32(sums[2], 4), _mm512_srai_epi32(sums[3], 6)));
  }
};

template <>
struct Scaled<3> {
  static constexpr size_t scales = 5;
  static void step(const uint8_t* lanes, const int8_t* codes, __m512i* sums) {
    const __m512i first = _mm512_loadu_si512(lanes), second = _mm512_loadu_si512(lanes + 64);
    const __m512i third = _mm512_loadu_si512(lanes + 128);
    const __m512i low = _mm512_set1_epi8(0x07), middle = _mm512_set1_epi8(0x38), high = _mm512_set1_epi8(-64);
    const __m512i sixth = _mm512_set1_epi8(0x40), seventh = _mm512_set1_epi8(-128);
    sums[0] = dot(sums[0], _mm512_and_si512(first, low), broadcast(codes));
    sums[1] = dot(sums[1], _mm512_and_si512(first, middle), broadcast(codes + 4));
    sums[2] = dot(sums[2], _mm512_and_si512(first, high), broadcast(codes + 8));
    sums[0] = dot(sums[0], _mm512_and_si512(second, low), broadcast(codes + 12));
    sums[1] = dot(sums[1], _mm512_and_si512(second, middle), broadcast(codes + 16));
    sums[2] = dot(sums[2], _mm512_and_si512(second, high), broadcast(codes + 20));
    sums[0] = dot(sums[0], _mm512_and_si512(third, low), broadcast(codes + 24));
    sums[1] = dot(sums[1], _mm512_and_si512(third, middle), broadcast(codes + 28));
    sums[3] = dot(sums[3], _mm512_and_si512(third, sixth), broadcast(codes + 8));
    sums[4] = dot(sums[4], _mm512_and_si512(third, seventh), broadcast(codes + 20));
  }
  static __m512i joined(const __m512i* sums) {
    const __m512i low = _mm512_add_epi32(sums[0], _mm512_srai_epi32(sums[1], 3));
    const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sums[3], 4), _mm512_srai_epi32(sums[4], 5));
    return _mm512_add_epi32(low, _mm512_add_epi32(_mm512_srai_epi32(sums[2], 6), high));
  }
};

constexpr size_t ahead = 2048;  // bytes of the stream of weights that are asked for before they are needed

/// Adds `rounds` times `Sets` steps of one row, which have sums of their own each: a product takes 5 cycles.
template <int Bits, size_t Vectors, size_t Sets>
inline __attribute__((always_inline)) void add_rounds(const uint8_t* lanes, const int8_t* codes, size_t rounds,
                                                      __m512i* totals) {
  using Format = Scaled<Bits>;
  constexpr size_t vector = low_bit_planes(Bits) * 64, depth = low_bit_depth(Bits);
  __m512i sums[Sets][Vectors][Format::scales];
#pragma GCC unroll 16
  for (size_t index = 0; index < Sets * Vectors * Format::scales; ++index) {
    (&sums[0][0][0])[index] = _mm512_setzero_si512();
  }
  do {
#pragma GCC unroll 4
    for (size_t set = 0; set < Sets; ++set) {
#pragma GCC unroll 2
      for (size_t index = 0; index < Vectors; ++index, lanes += vector) {
#pragma GCC unroll 3
        for (size_t line = 0; line < vector; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(lanes + line + ahead), _MM_HINT_T0);
        }
        Format::step(lanes, codes + set * depth, sums[set][index]);
      }
    }
    codes += Sets * depth;
  } while (--rounds > 0);
#pragma GCC unroll 4
  for (size_t set = 0; set < Sets; ++set) {
#pragma GCC unroll 2
    for (size_t index = 0; index < Vectors; ++index) {
      totals[index] = _mm512_add_epi32(totals[index], Format::joined(sums[set][index]));
    }
  }
}

template <int Bits, size_t Vectors>
void one_row(const LowBitCall& call) {
  constexpr size_t Sets = Bits == 4 ? 4 : Bits == 2 ? 2 : 1;
  constexpr size_t stride = Vectors * low_bit_planes(Bits) * 64;
  __m512i totals[Vectors];
#pragma GCC unroll 2
  for (size_t index = 0; index < Vectors; ++index) totals[index] = _mm512_set1_epi32(call.start[0]);
  const size_t rounds = call.steps / Sets, done = rounds * Sets;
  if (rounds > 0) add_rounds<Bits, Vectors, Sets>(call.panel, call.row[0], rounds, totals);
  if (done < call.steps) {
    const int8_t* codes = call.row[0] + done * low_bit_depth(Bits);
    add_rounds<Bits, Vectors, 1>(call.panel + done * stride, codes, call.steps - done, totals);
  }
#pragma GCC unroll 2
  for (size_t index = 0; index < Vectors; ++index) _mm512_storeu_si512(call.sums + 16 * index, totals[index]);
}

/// A step of all parts from `Part` on: weights of one part at a time are shifted to their place, for all rows.
template <int Bits, size_t Rows, size_t Vectors, size_t Part>
inline __attribute__((always_inline)) void step(const Planes<Bits>* w, const int8_t* const* row, size_t offset,
                                                __m512i (&sums)[Rows][Vectors]) {
  if constexpr (Part < low_bit_parts(Bits)) {
    __m512i u[Vectors];
#pragma GCC unroll 2
    for (size_t place = 0; place < Vectors; ++place) u[place] = w[place].template part<Part>();
#pragma GCC unroll 8
    for (size_t index = 0; index < Rows; ++index) {
      const __m512i a = broadcast(row[index] + offset + 4 * Part);
#pragma GCC unroll 2
      for (size_t place = 0; place < Vectors; ++place) {
        sums[index][place] = _mm512_dpbusd_epi32(sums[index][place], u[place], a);
      }
    }
    step<Bits, Rows, Vectors, Part + 1>(w, row, offset, sums);
  }
}

template <int Bits, size_t Rows, size_t Vectors>
void rows(const LowBitCall& call) {
  constexpr size_t depth = low_bit_depth(Bits), stride = Vectors * low_bit_planes(Bits) * 64;
  __m512i sums[Rows][Vectors];
  const int8_t* row[Rows];
#pragma GCC unroll 8
  for (size_t index = 0; index < Rows; ++index) {
    row[index] = call.row[index];
#pragma GCC unroll 2
    for (size_t place = 0; place < Vectors; ++place) sums[index][place] = _mm512_set1_epi32(call.start[index]);
  }
  const uint8_t* lanes = call.panel;
  for (size_t offset = 0; offset < call.steps * depth; offset += depth, lanes += stride) {
    if constexpr (Vectors == 1) {
      const Planes<Bits> w[1] = {Planes<Bits>(lanes)};
      step<Bits, Rows, 1, 0>(w, row, offset, sums);
    } else {
      const Planes<Bits> w[2] = {Planes<Bits>(lanes), Planes<Bits>(lanes + stride / 2)};
      step<Bits, Rows, 2, 0>(w, row, offset, sums);
    }
  }
#pragma GCC unroll 8
  for (size_t index = 0; index < Rows; ++index) {
#pragma GCC unroll 2
    for (size_t place = 0; place < Vectors; ++place) {
      _mm512_storeu_si512(call.sums + (index * Vectors + place) * 16, sums[index][place]);
    }
  }
}

template <int Bits, size_t Vectors>
void any_rows(const LowBitCall& call) {
  switch (call.rows) {
    case 1: return one_row<Bits, Vectors>(call);
    case 2: return rows<Bits, 2, Vectors>(call);
    case 3: return rows<Bits, 3, Vectors>(call);
    case 4: return rows<Bits, 4, Vectors>(call);
    case 5: return rows<Bits, 5, Vectors>(call);
    case 6: return rows<Bits, 6, Vectors>(call);
    case 7: return rows<Bits, 7, Vectors>(call);
    default: return rows<Bits, 8, Vectors>(call);
  }
}

template <int Bits>
void any_columns(const LowBitCall& call) {
  return call.columns == 16 ? any_rows<Bits, 1>(call) : any_rows<Bits, 2>(call);
}

void multiply(const LowBitCall& call) {
  switch (call.bits) {
    case 2: return any_columns<2>(call);
    case 3: return any_columns<3>(call);
    default: return any_columns<4>(call);
  }
}

template <int Bits, size_t Part>
inline __attribute__((always_inline)) void store_parts(const Planes<Bits>& w, size_t stride, int8_t* target) {
  if constexpr (Part < low_bit_parts(Bits)) {
    const __m512i codes = _mm512_sub_epi8(w.template part<Part>(), _mm512_set1_epi8(1 << (Bits - 1)));
    _mm512_storeu_si512(target + Part * stride, codes);
    store_parts<Bits, Part + 1>(w, stride, target);
  }
}

template <int Bits>
void expand_steps(const LowBitExpand& call) {
  const uint8_t* lanes = call.panel;
  const size_t stride = 4 * call.target_columns;
  for (size_t step = 0; step < call.steps; ++step) {
    int8_t* target = call.target + step * low_bit_parts(Bits) * stride;
    for (size_t column = 0; column < call.columns; column += 16, lanes += 64 * low_bit_planes(Bits)) {
      store_parts<Bits, 0>(Planes<Bits>(lanes), stride, target + 4 * column);
    }
  }
}

void expand(const LowBitExpand& call) {
  switch (call.bits) {
    case 2: return expand_steps<2>(call);
    case 3: return expand_steps<3>(call);
    default: return expand_steps<4>(call);
  }
}

int32_t sum(const int8_t* codes, size_t count) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i total = _mm512_setzero_si512();
  size_t index = 0;
  for (; index + 64 <= count; index += 64) total = _mm512_dpbusd_epi32(total, ones, _mm512_loadu_si512(codes + index));
  const __mmask64 left = (uint64_t{1} << (count - index)) - 1;
  total = _mm512_dpbusd_epi32(total, ones, _mm512_maskz_loadu_epi8(left, codes + index));
  return _mm512_reduce_add_epi32(total);
}

}  // namespace

void set_avx512vnni(LowBitKernels& kernels) {
  kernels.expand_rows = 48;
  kernels.expand = expand;
  kernels.multiply = multiply;
  kernels.sum = sum;
}

}  // namespace qcompiler
