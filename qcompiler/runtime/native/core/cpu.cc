#include "core/cpu.h"

#include "core/error.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace qcompiler {

const char* name_of(InstructionSet set) {
  switch (set) {
    case InstructionSet::reference: return "reference";
    case InstructionSet::avx2: return "avx2";
    case InstructionSet::avx512vnni: return "avx512vnni";
    case InstructionSet::neon: return "neon";
    case InstructionSet::dotprod: return "dotprod";
  }
  return "unknown";
}

std::vector<InstructionSet> available_sets() {
  std::vector<InstructionSet> sets = {InstructionSet::reference};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets.push_back(InstructionSet::avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
      sets.push_back(InstructionSet::avx512vnni);
    }
  }
#elif defined(__aarch64__)
  sets.push_back(InstructionSet::neon);
#if defined(__linux__)
  constexpr unsigned long dot_products = 1ul << 20;  // HWCAP_ASIMDDP
  if (getauxval(AT_HWCAP) & dot_products) sets.push_back(InstructionSet::dotprod);
#endif
#endif
  return sets;
}

InstructionSet choose_set(const std::string& name) {
  const std::vector<InstructionSet> sets = available_sets();
  if (name.empty() || name == "auto") return sets.back();
  std::string known;
  for (InstructionSet set : sets) {
    if (name == name_of(set)) return set;
    known += std::string(known.empty() ? "" : ", ") + name_of(set);
  }
  throw Error("instruction set '" + name + "' is not available here; choose auto, " + known);
}

}  // namespace qcompiler
