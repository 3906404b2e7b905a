// Panels by vpdpbusd: unsigned activations, four of which are broadcast to all columns, times signed weights.
#include "kernels/panel.h"

#include <immintrin.h>

#include <cstring>

namespace qcompiler {
namespace {

constexpr size_t most_rows = 6;  // 6 rows of 4 vectors are 24 sums; weights and activations fit the other registers

__m512i broadcast(const uint8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm512_set1_epi32(four);
}

/// Sums of a tile. A product takes 5 cycles and two start per cycle, so few sums are held several times (`Sets`).
template <size_t Rows, size_t Vectors>
struct Tile {
  static constexpr size_t Sets = Rows * Vectors >= 8 ? 1 : Rows * Vectors >= 4 ? 2 : 4;
  __m512i sums[Sets][Rows][Vectors];

  template <size_t Set>
  void step(const uint8_t* const* row, size_t offset, const int8_t* weights) {
    __m512i w[Vectors];
#pragma GCC unroll 4
    for (size_t vector = 0; vector < Vectors; ++vector) w[vector] = _mm512_loadu_si512(weights + 64 * vector);
#pragma GCC unroll 6
    for (size_t index = 0; index < Rows; ++index) {
      const __m512i a = broadcast(row[index] + offset);
#pragma GCC unroll 4
      for (size_t vector = 0; vector < Vectors; ++vector) {
        sums[Set][index][vector] = _mm512_dpbusd_epi32(sums[Set][index][vector], a, w[vector]);
      }
    }
  }

  void run(const uint8_t* const* row, size_t groups, const int8_t* weights, const int8_t* ahead) {
    size_t group = 0;
    if (ahead != nullptr && Sets == 1) {  // loads of what follows hide behind the products
      for (; group < groups; ++group, weights += Vectors * 64, ahead += 64) {
        _mm_prefetch(ahead, _MM_HINT_T1);
        step<0>(row, 4 * group, weights);
      }
    }
    for (; group + Sets <= groups; group += Sets, weights += Sets * Vectors * 64) {
      step<0>(row, 4 * group, weights);
      if constexpr (Sets > 1) step<1>(row, 4 * group + 4, weights + Vectors * 64);
      if constexpr (Sets > 2) {
        step<2>(row, 4 * group + 8, weights + 2 * Vectors * 64);
        step<3>(row, 4 * group + 12, weights + 3 * Vectors * 64);
      }
    }
    for (; group < groups; ++group, weights += Vectors * 64) step<0>(row, 4 * group, weights);
  }
};

template <size_t Rows, size_t Vectors>
void tile(const PanelCall& call) {
  Tile<Rows, Vectors> made;
#pragma GCC unroll 24
  for (size_t index = 0; index < Tile<Rows, Vectors>::Sets * Rows * Vectors; ++index) {
    (&made.sums[0][0][0])[index] = _mm512_setzero_si512();
  }
  const uint8_t* row[Rows];
  int32_t* sums = call.sums;  // copies: stores might otherwise change them
  const bool add = call.add;
  for (size_t index = 0; index < Rows; ++index) row[index] = call.row[index];
  for (size_t run = 0; run < call.runs; ++run) {
    const int8_t* ahead = call.ahead == nullptr ? nullptr : call.ahead + run * call.groups * 64;
    made.run(row, call.groups, call.panel + run * call.groups * Vectors * 64, ahead);
    for (size_t index = 0; index < Rows; ++index) row[index] += call.run_stride;
  }
#pragma GCC unroll 6
  for (size_t index = 0; index < Rows; ++index) {
#pragma GCC unroll 4
    for (size_t vector = 0; vector < Vectors; ++vector) {
      __m512i sum = made.sums[0][index][vector];
#pragma GCC unroll 4
      for (size_t set = 1; set < Tile<Rows, Vectors>::Sets; ++set) {
        sum = _mm512_add_epi32(sum, made.sums[set][index][vector]);
      }
      int32_t* target = sums + (index * Vectors + vector) * 16;
      if (add) sum = _mm512_add_epi32(sum, _mm512_loadu_si512(target));
      _mm512_storeu_si512(target, sum);
    }
  }
}

template <size_t Vectors>
void rows(const PanelCall& call) {
  switch (call.rows) {
    case 1: return tile<1, Vectors>(call);
    case 2: return tile<2, Vectors>(call);
    case 3: return tile<3, Vectors>(call);
    case 4: return tile<4, Vectors>(call);
    case 5: return tile<5, Vectors>(call);
    default: return tile<6, Vectors>(call);
  }
}

void multiply(const PanelCall& call) {
  switch (call.columns) {
    case 16: return rows<1>(call);
    case 32: return rows<2>(call);
    case 48: return rows<3>(call);
    default: return rows<4>(call);
  }
}

/// Four rows of 64 bytes become 64 columns of 4 bytes.
void interleave(const __m512i* rows, __m512i* columns) {
  // Unpacking works within quarters: let quarter q of the operands hold dwords q, q + 4, q + 8, q + 12, and the results
  // come out in order.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i first = _mm512_permutexvar_epi32(order, rows[0]), second = _mm512_permutexvar_epi32(order, rows[1]);
  const __m512i third = _mm512_permutexvar_epi32(order, rows[2]), fourth = _mm512_permutexvar_epi32(order, rows[3]);
  const __m512i low = _mm512_unpacklo_epi8(first, second), high = _mm512_unpackhi_epi8(first, second);
  const __m512i low_behind = _mm512_unpacklo_epi8(third, fourth), high_behind = _mm512_unpackhi_epi8(third, fourth);
  columns[0] = _mm512_unpacklo_epi16(low, low_behind);
  columns[1] = _mm512_unpackhi_epi16(low, low_behind);
  columns[2] = _mm512_unpacklo_epi16(high, high_behind);
  columns[3] = _mm512_unpackhi_epi16(high, high_behind);
}

void fill(const PanelFill& call) {
  const __mmask64 there = call.width >= 64 ? ~uint64_t{0} : (uint64_t{1} << call.width) - 1;
  const size_t vectors = call.columns / 16;
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums[4];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  int8_t* panel = call.panel;
  for (size_t depth = 0; depth < call.depth; depth += 4) {
    __m512i rows[4], columns[4];
#pragma GCC unroll 4
    for (size_t index = 0; index < 4; ++index) {
      const bool inside = depth + index < call.depth;
      const int8_t* source = call.source + (inside ? depth + index : depth) * call.stride;
      rows[index] = _mm512_maskz_loadu_epi8(inside ? there : 0, source);
    }
    interleave(rows, columns);
#pragma GCC unroll 4
    for (size_t vector = 0; vector < 4; ++vector) {
      if (vector >= vectors) break;
      _mm512_storeu_si512(panel + 64 * vector, columns[vector]);
      sums[vector] = _mm512_dpbusd_epi32(sums[vector], ones, columns[vector]);
    }
    panel += 64 * vectors;
  }
  for (size_t vector = 0; vector < vectors; ++vector) _mm512_storeu_si512(call.sums + 16 * vector, sums[vector]);
}

}  // namespace

void set_avx512vnni(PanelKernels& kernels) {
  kernels.rows = most_rows;
  kernels.flip = 0x80;
  kernels.multiply = multiply;
  kernels.fill = fill;
}

}  // namespace qcompiler
