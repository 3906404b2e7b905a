// C entry point to the choice of dyadic numbers, for tests.
#include "core/error.h"
#include "operators/dyadic.h"

#define QCOMPILER_EXPORT extern "C" __attribute__((visibility("default")))

/// Dyadic number of a factor; 1 where there is none.
QCOMPILER_EXPORT int qcompiler_choose_dyadic(double factor, int32_t bits, int64_t bound, int32_t* multiplier,
                                             uint8_t* shift) {
  try {
    const qcompiler::Dyadic chosen = qcompiler::choose_dyadic(factor, bits, bound);
    *multiplier = chosen.multiplier;
    *shift = chosen.shift;
    return 0;
  } catch (const qcompiler::Error&) {
    return 1;
  }
}
