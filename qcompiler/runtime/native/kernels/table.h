// All kernels of one instruction set. A set starts from the one below it and replaces what it does better.
#pragma once

#include "core/cpu.h"
#include "kernels/blockwise.h"
#include "kernels/bytes.h"
#include "kernels/depthwise.h"
#include "kernels/elementwise.h"
#include "kernels/logarithmic.h"
#include "kernels/lookup.h"
#include "kernels/lowbit.h"
#include "kernels/norms.h"
#include "kernels/panel.h"
#include "kernels/resize.h"
#include "kernels/pooling.h"
#include "kernels/rescale.h"
#include "kernels/scaled_block.h"
#include "kernels/softmax.h"

namespace qcompiler {

struct Kernels {
  InstructionSet set;
  RescaleKernels rescale;
  ResizeKernels resize;
  LookupKernels lookup;
  LogarithmicKernels logarithmic;
  PoolingKernels pooling;
  ElementwiseKernels elementwise;
  PanelKernels panel;
  LowBitKernels lowbit;
  BlockwiseKernels blockwise;
  DepthwiseKernels depthwise;
  ByteKernels bytes;
  ScaledBlockKernels scaled_block;
  SoftmaxKernels softmax;
  NormKernels norms;
};

/// The table of an instruction set that is available here (core/cpu.h).
const Kernels& kernels_of(InstructionSet set);

}  // namespace qcompiler
