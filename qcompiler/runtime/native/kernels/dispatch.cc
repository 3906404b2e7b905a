#include "kernels/table.h"

namespace qcompiler {
namespace {

Kernels reference() {
  Kernels kernels{};
  kernels.set = InstructionSet::reference;
  set_reference(kernels.rescale);
  set_reference(kernels.resize);
  set_reference(kernels.lookup);
  set_reference(kernels.logarithmic);
  set_reference(kernels.pooling);
  set_reference(kernels.softmax);
  set_reference(kernels.norms);
  set_reference(kernels.elementwise);
  set_reference(kernels.panel);
  set_reference(kernels.lowbit);
  set_reference(kernels.blockwise);
  set_reference(kernels.depthwise);
  set_reference(kernels.bytes);
  set_reference(kernels.scaled_block);
  return kernels;
}

#if defined(__x86_64__)
Kernels avx2() {
  Kernels kernels = reference();
  kernels.set = InstructionSet::avx2;
  set_avx2(kernels.panel);
  set_avx2(kernels.lowbit);
  set_avx2(kernels.blockwise);
  set_avx2(kernels.depthwise);
  set_avx2(kernels.rescale);
  set_avx2(kernels.resize);
  set_avx2(kernels.lookup);
  set_avx2(kernels.logarithmic);
  set_avx2(kernels.pooling);
  set_avx2(kernels.softmax);
  set_avx2(kernels.norms);
  set_avx2(kernels.bytes);
  set_avx2(kernels.scaled_block);
  set_avx2(kernels.elementwise);
  return kernels;
}

Kernels avx512vnni() {
  Kernels kernels = avx2();
  kernels.set = InstructionSet::avx512vnni;
  set_avx512vnni(kernels.panel);
  set_avx512vnni(kernels.lowbit);
  set_avx512vnni(kernels.blockwise);
  set_avx512vnni(kernels.depthwise);
  set_avx512vnni(kernels.rescale);
  set_avx512vnni(kernels.resize);
  set_avx512vnni(kernels.lookup);
  set_avx512vnni(kernels.pooling);
  set_avx512vnni(kernels.softmax);
  set_avx512vnni(kernels.norms);
  set_avx512vnni(kernels.bytes);
  set_avx512vnni(kernels.scaled_block);
  set_avx512vnni(kernels.elementwise);
  return kernels;
}
#elif defined(__aarch64__)
Kernels neon() {
  Kernels kernels = reference();
  kernels.set = InstructionSet::neon;
  set_neon(kernels.panel);
  set_neon(kernels.lowbit);
  set_neon(kernels.depthwise);
  set_neon(kernels.rescale);
  set_neon(kernels.norms);
  set_neon(kernels.elementwise);
  set_neon(kernels.lookup);
  set_neon(kernels.pooling);
  return kernels;
}

Kernels dotprod() {
  Kernels kernels = neon();
  kernels.set = InstructionSet::dotprod;
  set_dotprod(kernels.panel);
  set_dotprod(kernels.lowbit);
  set_dotprod(kernels.depthwise);
  return kernels;
}
#endif

}  // namespace

const Kernels& kernels_of(InstructionSet set) {
  static const Kernels first = reference();
#if defined(__x86_64__)
  static const Kernels second = avx2();
  static const Kernels third = avx512vnni();
  if (set == InstructionSet::avx2) return second;
  if (set == InstructionSet::avx512vnni) return third;
#elif defined(__aarch64__)
  static const Kernels second = neon();
  static const Kernels third = dotprod();
  if (set == InstructionSet::neon) return second;
  if (set == InstructionSet::dotprod) return third;
#endif
  return first;
}

}  // namespace qcompiler
