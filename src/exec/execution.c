/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/execution.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "exec/host_calls.h"
#include "sandbox/random.h"

static const struct {
  const char *code;
  enum nx_metrics_status status;
  int http_status;
} outcomes[] = {
#define X(symbol, code, status, http_status) [NX_OUTCOME_##symbol] = {code, NX_METRICS_STATUS_##status, http_status},
  NX_OUTCOME_LIST(X)
#undef X
};

const char *nx_outcome_code(enum nx_outcome outcome) { return outcomes[outcome].code; }
const char *nx_outcome_name(enum nx_outcome outcome) {
  return outcome == NX_OUTCOME_SUCCESS ? "success" : outcome == NX_OUTCOME_SUSPENDED ? "suspended" : nx_outcome_code(outcome);
}
enum nx_metrics_status nx_outcome_status(enum nx_outcome outcome) { return outcomes[outcome].status; }
int nx_outcome_http_status(enum nx_outcome outcome) { return outcomes[outcome].http_status; }

void nx_execution_deinit(struct nx_execution *x) {
  nx_buf_deinit(&x->value);
  nx_buf_deinit(&x->mutations);
  nx_buf_deinit(&x->events);
  nx_buf_deinit(&x->view);
  nx_buf_deinit(&x->logs);
  nx_calls_deinit(&x->calls);
  nx_buf_deinit(&x->error.message);
  nx_buf_deinit(&x->error.stack);
}

void nx_execution_name(struct nx_execution *x) {
  uint8_t bytes[NX_EXECUTION_ID_BYTES / 2];
  nx_random_bytes(bytes, sizeof bytes);
  sodium_bin2hex(x->id, sizeof x->id, bytes, sizeof bytes);
}

void nx_execution_fail(struct nx_execution *x, enum nx_outcome outcome, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  x->outcome = outcome;
  x->has_value = false;
  nx_buf_reset(&x->error.message, 0);
  nx_buf_reset(&x->error.stack, 0);
  nx_buf_str(&x->error.message, text);
  x->error.line = x->error.column = 0;
}

void nx_execution_fail_for_budget(struct nx_execution *x) {
  x->out_of_budget = true;
  nx_execution_fail(x, NX_OUTCOME_RESOURCE_LIMIT,
                    "the container has no more memory to give to this execution (layer: container)");
}

/* ---- How it ended ------------------------------------------------------------------------------------------------- */

static void fail_for_memory(struct nx_execution *x, const struct nx_guest_result *result) {
  if (result->memory_refused)
    nx_execution_fail(x, NX_OUTCOME_MEMORY_LIMIT, "the handler needs more than its %u MiB of memory",
                      x->limits.memory_bytes >> 20);
  else
    nx_execution_fail_for_budget(x);
}

/* A refused grant decides, not the exception: a handler can fake one, and the engine may lose it. */
static bool ran_out_of_memory(const struct nx_guest_result *result) {
  return result->memory_refused || result->budget_refused;
}

static void judge_settled(struct nx_execution *x, const struct nx_guest_result *result, bool reported) {
  if (!reported)
    nx_execution_fail(x, NX_OUTCOME_INTERNAL_ERROR, "the guest ended without a result");
  else if (x->outcome == NX_OUTCOME_EXECUTION_ERROR && ran_out_of_memory(result))
    fail_for_memory(x, result);
}

static void fail_never_settles(struct nx_execution *x) {
  nx_execution_fail(x, NX_OUTCOME_EXECUTION_ERROR, "the handler's promise never settles: nothing is left to run");
}

/* The host's list of calls decides, not the guest's count. */
static void judge_waiting(struct nx_execution *x) {
  if (x->calls.count)
    x->outcome = NX_OUTCOME_SUSPENDED;
  else
    fail_never_settles(x);
}

static void judge_returned(struct nx_execution *x, const struct nx_guest_result *result, bool reported) {
  switch (result->status) {
  case NX_STATUS_DONE:
    judge_settled(x, result, reported);
    break;
  case NX_STATUS_NEVER_SETTLES:
    fail_never_settles(x);
    break;
  case NX_STATUS_WAITING:
    judge_waiting(x);
    break;
  case NX_STATUS_NO_MEMORY:
    fail_for_memory(x, result);
    break;
  default:
    nx_execution_fail(x, NX_OUTCOME_INTERNAL_ERROR, "the guest ended in an unknown way");
  }
}

static void note_slowness(struct nx_execution *x, const struct nx_guest_result *result) {
  x->slow_stays += result->was_slow;
  x->long_expected |= result->was_slow;
  x->computed_ns += result->computed_ns;
  if (result->was_slow)
    x->slow_ns += result->duration_ns;
  else if (result->computed_ns >= NX_EXECUTION_SLOW_NS)
    x->slow_ns += result->computed_ns;
}

static void judge(struct nx_execution *x, const struct nx_guest_result *result, bool reported) {
  x->duration_ns += result->duration_ns;
  note_slowness(x, result);
  x->memory_peak_bytes = result->memory_peak_bytes;
  x->memory_used_bytes = result->heap_bytes;
  x->refused_bytes = result->refused_bytes;
  switch (result->end) {
  case NX_GUEST_RETURNED:
    judge_returned(x, result, reported);
    break;
  case NX_GUEST_TRAPPED:
    if (ran_out_of_memory(result))
      fail_for_memory(x, result);
    else
      nx_execution_fail(x, NX_OUTCOME_INTERNAL_ERROR, "the sandbox trapped: %s", result->trap);
    break;
  case NX_GUEST_STACK:
    nx_execution_fail(x, NX_OUTCOME_RESOURCE_LIMIT, "stack exhausted: the handler recurses or nests too deep");
    break;
  case NX_GUEST_DEADLINE:
    nx_execution_fail(x, NX_OUTCOME_TIMEOUT, "the handler ran longer than its %llu ms",
                      (unsigned long long)(x->limits.timeout_ns / NX_NS_PER_MS));
    break;
  case NX_GUEST_STOPPED:
    break; /* the host call that stopped it said why */
  }
}

/* ---- Running -------------------------------------------------------------------------------------------------------- */

/* Since it began, waiting included. The hosts that it ran on may disagree about the time; it has run for so long at least. */
static uint64_t age_ns(const struct nx_execution *x) {
  uint64_t now_ns = nx_clock_realtime_ns();
  uint64_t age_ns = now_ns > x->began_ns ? now_ns - x->began_ns : 0;
  return age_ns > x->duration_ns ? age_ns : x->duration_ns;
}

/* Waiting costs nothing of the time limit. */
static struct nx_guest_call guest_call(struct nx_execution *x) {
  uint64_t left_ns = x->limits.timeout_ns > x->duration_ns ? x->limits.timeout_ns - x->duration_ns : 0;
  return (struct nx_guest_call){
    .deadline_ns = nx_clock_ns() + left_ns,
    .memory_limit_bytes = x->limits.memory_bytes,
    .stack_limit_bytes = nx_sandbox_usable_stack_bytes(x->limits.stack_bytes),
    .opaque = x,
    .host_call = nx__host_call,
    .long_expected = x->long_expected,
    .grant = x->grant,
    .budget = x->budget,
  };
}

static void begin(struct nx_execution *x) {
  x->value.account = x->mutations.account = x->events.account = x->view.account = x->logs.account = x->account;
  x->calls.block.account = x->account;
  x->outcome = NX_OUTCOME_COUNT; /* until the guest reports */
}

void nx_execution_run(struct nx_execution *x, struct nx_instance *instance) {
  struct nx_guest_call call = guest_call(x);
  begin(x);
  x->began_ns = nx_clock_realtime_ns();
  struct nx_guest_result result = nx_instance_invoke(instance, &call, x->args, x->state, x->scope);
  judge(x, &result, x->outcome != NX_OUTCOME_COUNT);
}

void nx_execution_resume(struct nx_execution *x, struct nx_instance *instance, struct nx_text answers) {
  struct nx_guest_call call = guest_call(x);
  call.age_ns = age_ns(x);
  begin(x);
  struct nx_guest_result result = nx_instance_resume(instance, &call, answers);
  judge(x, &result, x->outcome != NX_OUTCOME_COUNT);
}

/* The top level has no rights, no state and no effects: it only makes an image. */
static int32_t compile_host_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b,
                                 uint32_t b_bytes) {
  if (op == NX_OP_THROW) return nx__host_call(opaque, op, a, a_bytes, b, b_bytes);
  struct nx_execution *x = opaque;
  if (++x->host_calls > x->limits.host_calls) {
    nx_execution_fail(x, NX_OUTCOME_COMPILATION_ERROR, "the top level makes too many host calls");
    nx_guest_stop();
  }
  return op == NX_OP_LOG ? NX_REPLY_OK : NX_REPLY_UNAVAILABLE;
}

/* An image must be the same whatever this machine had left: a top level that was refused memory makes none, even when it
 * caught the exception. */
static void judge_compile(struct nx_execution *x, const struct nx_guest_result *result) {
  x->duration_ns = result->duration_ns;
  x->slow_stays += result->was_slow;
  x->refused_bytes = result->refused_bytes;
  bool done = result->end == NX_GUEST_RETURNED && result->status == NX_STATUS_DONE;
  if (done && !ran_out_of_memory(result)) {
    x->outcome = NX_OUTCOME_SUCCESS;
    return;
  }
  enum nx_outcome outcome = NX_OUTCOME_COMPILATION_ERROR;
  if (result->budget_refused)
    fail_for_memory(x, result);
  else if (result->end == NX_GUEST_DEADLINE)
    nx_execution_fail(x, outcome, "the top level ran longer than %llu ms",
                      (unsigned long long)(x->limits.timeout_ns / NX_NS_PER_MS));
  else if (ran_out_of_memory(result))
    nx_execution_fail(x, outcome, "compiling and running the top level needs more than %u MiB of memory",
                      x->limits.memory_bytes >> 20);
  else if (result->end == NX_GUEST_STACK)
    nx_execution_fail(x, outcome, "stack exhausted: the source nests too deep, or its top level recurses");
  else if (result->end == NX_GUEST_TRAPPED)
    nx_execution_fail(x, outcome, "the sandbox trapped: %s", result->trap);
  else if (result->status == NX_STATUS_NO_DEFAULT)
    nx_execution_fail(x, NX_OUTCOME_INVALID_HANDLER, "a module must export a function as its default: "
                      "export default function (args, ctx) { … }");
  else if (result->status == NX_STATUS_NEVER_SETTLES)
    nx_execution_fail(x, outcome, "the top level awaits something that never settles");
  else if (x->outcome != NX_OUTCOME_COMPILATION_ERROR && x->outcome != NX_OUTCOME_EXECUTION_ERROR)
    nx_execution_fail(x, outcome, "the source does not compile");
  else
    x->outcome = outcome; /* the guest described it, or a host call did */
}

/* What the parser misses at the end it misses in the line that our wrapper adds; people should see their last one. */
static void clamp_location(struct nx_execution *x, struct nx_text source) {
  uint32_t lines = 1;
  const char *last = source.data, *end = source.data + source.bytes;
  for (const char *at = source.data; (at = memchr(at, '\n', (size_t)(end - at))) && at + 1 < end; lines++) last = ++at;
  if (x->error.line <= lines) return;
  x->error.line = lines;
  x->error.column = (uint32_t)(end - last) + (end > last && end[-1] == '\n' ? 0 : 1);
}

void nx_execution_compile(struct nx_execution *x, struct nx_instance *instance, struct nx_text source,
                          struct nx_account *account, struct nx_image **image) {
  struct nx_guest_call call = guest_call(x);
  call.frozen = true;
  call.stack_limit_bytes = nx_sandbox_usable_stack_bytes(UINT32_MAX); /* no configuration enters images */
  call.host_call = compile_host_call;
  x->outcome = NX_OUTCOME_COUNT;
  struct nx_guest_result result = nx_instance_compile(instance, &call, source);
  judge_compile(x, &result);
  clamp_location(x, source);
  struct nx_error err;
  if (x->outcome != NX_OUTCOME_SUCCESS || !nx_instance_capture(instance, account, image, &err)) return;
  if (err.code == NX_ERR_NO_MEMORY)
    nx_execution_fail_for_budget(x);
  else
    nx_execution_fail(x, err.code == NX_ERR_TOO_LARGE ? NX_OUTCOME_COMPILATION_ERROR : NX_OUTCOME_INTERNAL_ERROR, "%s",
                      err.text);
}
