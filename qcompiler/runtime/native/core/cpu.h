// Instruction sets and which of them this processor has.
#pragma once

#include <string>
#include <vector>

namespace qcompiler {

enum class InstructionSet { reference, avx2, avx512vnni, neon, dotprod };

/// "reference", "avx2", "avx512vnni", "neon" (aarch64) or "dotprod" (aarch64 with dot products).
const char* name_of(InstructionSet set);

/// Those that kernels exist for in this build and that this processor runs, the best last.
std::vector<InstructionSet> available_sets();

/// The set of that name; "auto" or "" is the best. An Error names those that are available.
InstructionSet choose_set(const std::string& name);

}  // namespace qcompiler
