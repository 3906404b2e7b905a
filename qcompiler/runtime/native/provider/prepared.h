// An operator that keeps the packed forms of its constants itself: for nodes whose weights the runtime does not pack.
#pragma once

#include <memory>
#include <vector>

#include "core/packed_memory.h"
#include "provider/execution.h"

namespace qcompiler {

class Prepared {
 public:
  /// Makes the operator and packs those of the definition's constants that have a packed form.
  explicit Prepared(const Definition& definition);

  const Maker& maker() const { return maker_; }
  const Operator& made() const { return *made_; }
  const PackedInputs& packed() const { return packed_; }

 private:
  const Maker& maker_;
  std::vector<PackedMemory> memory_;  // outlives the operator
  PackedInputs packed_;
  std::unique_ptr<Operator> made_;
};

}  // namespace qcompiler
