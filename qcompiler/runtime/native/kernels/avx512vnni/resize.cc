#include "kernels/resize_loops.h"

namespace qcompiler {

void set_avx512vnni(ResizeKernels& kernels) { set_loops(kernels); }

}  // namespace qcompiler
