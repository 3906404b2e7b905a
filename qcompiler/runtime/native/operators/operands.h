// What the operators on codes check and read about their operands.
#pragma once

#include "core/tensor.h"
#include "kernels/elementwise.h"

namespace qcompiler {

/// int8 or int16, or an Error.
void check_codes(const Tensor& codes);

/// The zero point is a code of the tensor's type, or an Error.
void check_zero(const Tensor& codes, int64_t zero);

/// The tensor is one number: rank 0, or an Error that calls it `what`.
void check_scalar(const Tensor& tensor, const char* what);

/// An array of codes from element `place` on.
Codes codes_at(const Tensor& codes, size_t place);

/// One code.
int64_t code_at(const Tensor& codes, size_t place);

/// `count` codes minus `zero`, from `place` on, `step` (0 or 1) apart.
void widen(const Tensor& codes, size_t place, size_t step, size_t count, int64_t zero, int64_t* into);

}  // namespace qcompiler
