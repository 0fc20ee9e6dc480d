/* SPDX-License-Identifier: Apache-2.0
 *
 * How an execution ended, as its caller sees it. Names and numbers are part of the API (docs/api.md). */
#ifndef NX_EXEC_OUTCOME_H
#define NX_EXEC_OUTCOME_H

#include "metrics/metrics.h"

/* X(symbol, error code, status in metrics, HTTP status of /run) */
#define NX_OUTCOME_LIST(X)                                            \
  X(SUCCESS, "", SUCCESS, 200)                                        \
  X(SUSPENDED, "", SUSPENDED, 202)                                    \
  X(TIMEOUT, "TIMEOUT", TIMEOUT, 504)                                 \
  X(MEMORY_LIMIT, "MEMORY_LIMIT", MEMORY_LIMIT, 507)                  \
  X(RESOURCE_LIMIT, "RESOURCE_LIMIT", RESOURCE_LIMIT, 507)            \
  X(PERMISSION_DENIED, "PERMISSION_DENIED", PERMISSION_DENIED, 403)   \
  X(EXECUTION_ERROR, "EXECUTION_ERROR", ERROR, 500)                   \
  X(COMPILATION_ERROR, "COMPILATION_ERROR", COMPILATION_ERROR, 422)   \
  X(INVALID_HANDLER, "INVALID_HANDLER", INVALID_HANDLER, 422)         \
  X(INTERNAL_ERROR, "INTERNAL_ERROR", INTERNAL_ERROR, 500)

enum nx_outcome {
#define X(symbol, ...) NX_OUTCOME_##symbol,
  NX_OUTCOME_LIST(X)
#undef X
  NX_OUTCOME_COUNT
};

const char *nx_outcome_code(enum nx_outcome outcome);
/* "success", "suspended", else the error code. */
const char *nx_outcome_name(enum nx_outcome outcome);
enum nx_metrics_status nx_outcome_status(enum nx_outcome outcome);
int nx_outcome_http_status(enum nx_outcome outcome);

#endif
