#include "kernels/resize_loops.h"

namespace qcompiler {

void set_reference(ResizeKernels& kernels) { set_loops(kernels); }

}  // namespace qcompiler
