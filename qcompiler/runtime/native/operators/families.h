// Every family of operators adds its types to the registry.
#pragma once

#include "core/operator.h"

namespace qcompiler {

void add_convolution(Registry& registry);
void add_add(Registry& registry);
void add_concat(Registry& registry);
void add_multiply(Registry& registry);
void add_gather(Registry& registry);
void add_gemm(Registry& registry);
void add_matmul(Registry& registry);
void add_mean(Registry& registry);
void add_average_pool(Registry& registry);
void add_max_pool(Registry& registry);
void add_lookup(Registry& registry);
void add_logarithmic(Registry& registry);
void add_weight_only(Registry& registry);
void add_norms(Registry& registry);
void add_resize(Registry& registry);
void add_requantize(Registry& registry);
void add_softmax(Registry& registry);

}  // namespace qcompiler
