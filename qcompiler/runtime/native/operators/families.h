// Every family of operators adds its types to the registry.
#pragma once

#include "core/operator.h"

namespace qcompiler {

void add_convolution(Registry& registry);
void add_requantize(Registry& registry);

}  // namespace qcompiler
