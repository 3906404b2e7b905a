#include "kernels/resize_loops.h"

namespace qcompiler {

void set_avx2(ResizeKernels& kernels) { set_loops(kernels); }

}  // namespace qcompiler
