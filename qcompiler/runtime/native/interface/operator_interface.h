/* C entry points that run one operator without ONNX Runtime: for tests, and for devices that bring their own runtime.
 *
 * Functions that give an int give 0, or 1 and a text of at most `room` bytes in `message`. */
#ifndef QCOMPILER_OPERATOR_INTERFACE_H
#define QCOMPILER_OPERATOR_INTERFACE_H

#include <stdint.h>

#ifdef __cplusplus
#define QCOMPILER_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define QCOMPILER_EXPORT __attribute__((visibility("default")))
#endif

/// A tensor that is read. `constant` marks operands that never change.
typedef struct qcompiler_tensor {
  int32_t type;  ///< ONNX's number of the element type; 0: absent.
  int32_t constant;
  uint64_t rank;
  const int64_t* sizes;
  const void* data;
} qcompiler_tensor;

/// An integer or a list of integers.
typedef struct qcompiler_attribute {
  const char* name;
  const int64_t* values;
  uint64_t count;
} qcompiler_attribute;

/// Names of the instruction sets that can be used here, separated by spaces, the best last.
QCOMPILER_EXPORT void qcompiler_instruction_sets(char* names, uint64_t room);

/// Names of the operators that have kernels, separated by spaces.
QCOMPILER_EXPORT void qcompiler_operators(char* names, uint64_t room);

/// Makes an operator. With `pack` not 0 it packs its constants as in a session; with 0 they are used as they are.
QCOMPILER_EXPORT int qcompiler_operator_make(const char* set, const char* node, const char* type,
                                             const qcompiler_attribute* attributes, uint64_t attribute_count,
                                             const qcompiler_tensor* inputs, uint64_t input_count, int32_t pack,
                                             void** handle, char* message, uint64_t room);

/// Type and shape of the result; `sizes` has room for 8.
QCOMPILER_EXPORT int qcompiler_operator_result(const void* handle, const qcompiler_tensor* inputs, uint64_t input_count,
                                               int32_t* type, int64_t* sizes, uint64_t* rank, char* message,
                                               uint64_t room);

/// Computes the result into memory of the caller.
QCOMPILER_EXPORT int qcompiler_operator_run(const void* handle, const qcompiler_tensor* inputs, uint64_t input_count,
                                            void* output, uint64_t threads, char* message, uint64_t room);

/// Bytes of packed constants that the operator holds. What it has packed, it does not read again.
QCOMPILER_EXPORT uint64_t qcompiler_operator_packed_bytes(const void* handle);

QCOMPILER_EXPORT void qcompiler_operator_release(void* handle);

#endif
