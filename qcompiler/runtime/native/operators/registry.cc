#include "operators/families.h"

namespace qcompiler {

const Registry& registry() {
  static const Registry all = [] {
    Registry made;
    add_convolution(made);
    add_add(made);
    add_concat(made);
    add_multiply(made);
    add_gather(made);
    add_gemm(made);
    add_matmul(made);
    add_mean(made);
    add_average_pool(made);
    add_max_pool(made);
    add_lookup(made);
    add_logarithmic(made);
    add_weight_only(made);
    add_norms(made);
    add_resize(made);
    add_requantize(made);
    add_softmax(made);
    return made;
  }();
  return all;
}

}  // namespace qcompiler
