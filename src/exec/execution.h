/* SPDX-License-Identifier: Apache-2.0
 *
 * One execution: what it may do, what it did, how it ended. Knows the guest's calls and the result, not queues.
 *
 * It may stay in the guest several times: nx_execution_run, and while it is SUSPENDED nx_execution_resume with answers to
 * what it waits for. Counts, effects and running time add up; limits hold for all stays together.
 *
 * Ownership: the caller owns the struct, zero-initialises it, fills the first part (borrowed until the run returns)
 *            and frees what the run made with nx_execution_deinit.
 * Threads:   one at a time; the running thread must have called nx_sandbox_thread_enter.
 * Limits:    all in struct nx_execution_limits; passing one ends the execution with RESOURCE_LIMIT at once. */
#ifndef NX_EXEC_EXECUTION_H
#define NX_EXEC_EXECUTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "exec/outcome.h"
#include "handler/capability.h"
#include "handler/handler.h"
#include "sandbox/sandbox.h"
#include "suspend/calls.h"

#define NX_EXECUTION_ID_BYTES 32 /* 128 random bits in hexadecimal */

struct nx_execution_limits {
  uint64_t timeout_ns;
  uint32_t memory_bytes;
  uint32_t stack_bytes;
  uint32_t host_calls, state_mutations, events;
  uint32_t output_bytes; /* return value, effects and logs together */
};

/* What was thrown, or why the host ended it. Texts are the guest's: only ever shown as JSON strings. */
struct nx_execution_error {
  struct nx_buf message, stack;
  uint32_t line, column; /* 0: unknown */
};

/* An execution that has been computing for so long is slow: its thread is replaced at the sockets. */
#define NX_EXECUTION_SLOW_NS (NX_NS_PER_MS + NX_NS_PER_MS / 2)

struct nx_execution {
  /* In. */
  struct nx_handler *handler; /* NULL while its source is being compiled: only the error part is then used */
  struct nx_rights rights;
  struct nx_text args, state, scope; /* valid JSON; state holds only what may be read */
  struct nx_execution_limits limits;
  struct nx_account *account; /* charged for the result; NULL: nobody */
  void *budget; /* for `grant` */
  bool (*grant)(void *budget, size_t bytes);
  bool long_expected; /* its thread has been replaced: stays in the guest begin with a low priority; set by a slow one, too */
  char id[NX_EXECUTION_ID_BYTES + 1]; /* for log lines; may be empty */

  /* Out. */
  enum nx_outcome outcome;
  bool has_value;
  struct nx_buf value;                              /* JSON */
  struct nx_buf mutations, events, view, logs;      /* JSON objects with commas between */
  uint32_t mutation_count, event_count, host_calls;
  struct nx_calls calls;      /* SUSPENDED: what it waits for */
  uint32_t last_call_id;
  struct nx_execution_error error;
  uint64_t began_ns;          /* since 1970 */
  uint64_t duration_ns;       /* inside the guest, all stays together … */
  uint64_t earlier_ns;        /* … and those before it was last taken out of the store */
  uint32_t memory_used_bytes; /* the engine's heap when it ended, as the guest tells */
  uint32_t memory_peak_bytes; /* size of linear memory when it ended */
  bool was_denied;            /* the host refused something for lack of a capability */
  unsigned slow_stays;        /* whose threads were replaced; whoever undoes that counts down */
  uint64_t slow_ns;           /* what slow stays took … */
  uint64_t computed_ns;       /* … and CPU time of those with a low priority: both since the caller set them to 0 */
  bool out_of_budget;         /* RESOURCE_LIMIT, because the container had no more memory */
  uint64_t refused_bytes;     /* of the largest refused grant of memory */

  /* Private. */
  uint32_t _reports; /* NX_OP_RETURN and NX_OP_THROW */
  size_t _mark;      /* length of the list before the item that is being added */
};

void nx_execution_deinit(struct nx_execution *execution);
/* A fresh random id. */
void nx_execution_name(struct nx_execution *execution);

/* What the guest has to parse. */
static inline uint64_t nx_execution_input_bytes(const struct nx_execution *x) {
  return (uint64_t)x->args.bytes + x->state.bytes + x->scope.bytes;
}

/* Runs execution->handler, which `instance` shows. The instance must be reset afterwards. */
void nx_execution_run(struct nx_execution *execution, struct nx_instance *instance);
/* Goes on with one that is SUSPENDED; `instance` holds its memory. `answers`: as for nx_instance_resume; the calls they
 * are for have been taken off the list. */
void nx_execution_resume(struct nx_execution *execution, struct nx_instance *instance, struct nx_text answers);

/* Compiles `source` in an instance that shows the base image. On success outcome is SUCCESS and *image is the
 * handler's, owned by the caller and charged to `account`; else the error part is filled. The instance must be reset afterwards. */
void nx_execution_compile(struct nx_execution *execution, struct nx_instance *instance, struct nx_text source,
                          struct nx_account *account, struct nx_image **image);

/* Ends it because the container's memory is used up. */
void nx_execution_fail_for_budget(struct nx_execution *execution);
/* Ends it as the host's decision. `format` is for people. */
void nx_execution_fail(struct nx_execution *execution, enum nx_outcome outcome, const char *format, ...)
  __attribute__((format(printf, 3, 4)));

#endif
