#include "kernels/lookup.h"

#include <arm_neon.h>

namespace qcompiler {
namespace {

/// 64 entries.
uint8x16x4_t part_of(const int8_t* table) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(table);
  return {{vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)}};
}

void bytes(const int8_t* x, const int8_t* table, size_t count, int8_t* result) {
  const uint8x16x4_t first = part_of(table), second = part_of(table + 64);
  const uint8x16x4_t third = part_of(table + 128), fourth = part_of(table + 192);
  const uint8x16_t part = vdupq_n_u8(64);
  size_t index = 0;
  for (; index + 16 <= count; index += 16) {
    // a position that is outside of a part leaves what was found
    uint8x16_t position = veorq_u8(vreinterpretq_u8_s8(vld1q_s8(x + index)), vdupq_n_u8(128));
    uint8x16_t found = vqtbl4q_u8(first, position);
    found = vqtbx4q_u8(found, second, position = vsubq_u8(position, part));
    found = vqtbx4q_u8(found, third, position = vsubq_u8(position, part));
    found = vqtbx4q_u8(found, fourth, vsubq_u8(position, part));
    vst1q_s8(result + index, vreinterpretq_s8_u8(found));
  }
  for (; index < count; ++index) result[index] = table[x[index] + 128];
}

}  // namespace

void set_neon(LookupKernels& kernels) { kernels.bytes = bytes; }

}  // namespace qcompiler
