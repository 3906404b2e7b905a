// Shapes of results for the runtime's graph, found by asking the operator itself.
#pragma once

#include <string>

#include "abi/calls.h"

namespace qcompiler {

/// Tells the runtime the shape of a node's result, as far as it follows from the shapes of the inputs. What does not
/// follow stays unknown; a node that cannot be right is refused when its kernel is made.
abi::Status* infer_shape(const abi::Calls& calls, const std::string& type, abi::ShapeContext* context);

}  // namespace qcompiler
