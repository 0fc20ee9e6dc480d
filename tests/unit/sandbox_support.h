/* SPDX-License-Identifier: Apache-2.0
 *
 * A small world around one instance for unit tests: compile a source, run it, look at what came out. */
#ifndef NX_TESTS_SANDBOX_SUPPORT_H
#define NX_TESTS_SANDBOX_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/clock.h"
#include "sandbox/sandbox.h"
#include "sandbox/thread.h"

struct world {
  struct nx_instance *instance;
  uint64_t timeout_ns;
  uint32_t memory_limit_bytes;
  size_t budget_bytes;      /* what `grant` still gives */
  bool stop_at_log;         /* the host stops the guest at its first log line */
  uint64_t busy_in_log_ns;  /* the host works for so long at each log line */
  int nice_in_log;          /* of the thread, at the last log line */
  bool long_expected;
  uint32_t host_calls;
  char returned[4096], thrown[8192];
};

static int32_t world_host_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b,
                               uint32_t b_bytes) {
  struct world *world = opaque;
  (void)b, (void)b_bytes;
  world->host_calls++;
  char *out = op == NX_OP_RETURN ? world->returned : op == NX_OP_THROW ? world->thrown : NULL;
  size_t size = op == NX_OP_RETURN ? sizeof world->returned : sizeof world->thrown;
  if (out) snprintf(out, size, "%.*s", (int)a_bytes, a_bytes ? a : "");
  if (op == NX_OP_LOG) {
    world->nice_in_log = getpriority(PRIO_PROCESS, 0);
    uint64_t until = nx_clock_ns() + world->busy_in_log_ns;
    while (nx_clock_ns() < until) {
    }
    if (world->stop_at_log) nx_guest_stop();
  }
  return op == NX_OP_EXT_CALL ? 1 : NX_REPLY_OK;
}

static bool world_grant(void *budget, size_t bytes) {
  struct world *world = budget;
  if (bytes > world->budget_bytes) return false;
  world->budget_bytes -= bytes;
  return true;
}

static struct nx_guest_call world_call(struct world *world) {
  world->returned[0] = world->thrown[0] = 0;
  world->host_calls = 0;
  return (struct nx_guest_call){
    .deadline_ns = nx_clock_ns() + world->timeout_ns,
    .memory_limit_bytes = world->memory_limit_bytes,
    .stack_limit_bytes = nx_sandbox_usable_stack_bytes(1 << 20),
    .long_expected = world->long_expected,
    .opaque = world,
    .host_call = world_host_call,
    .grant = world_grant,
    .budget = world,
  };
}

static void world_open(struct world *world) {
  struct nx_error err;
  nx__thread_init_signals(&err); /* cmocka has put its own SIGSEGV handler in the place of ours */
  *world = (struct world){.timeout_ns = 5 * NX_NS_PER_S, .memory_limit_bytes = 32 << 20, .budget_bytes = SIZE_MAX / 2};
  if (nx_instance_create(&world->instance, &err)) fail_msg("%s", err.text);
}

static void world_close(struct world *world) { nx_instance_destroy(world->instance); }

static struct nx_text text_of(const char *s) { return (struct nx_text){s, s ? (uint32_t)strlen(s) : 0}; }

/* Compiles and shows it; the image is the caller's. NULL when it does not compile. */
static struct nx_image *world_load(struct world *world, const char *source) {
  struct nx_error err;
  struct nx_image *image = NULL;
  if (nx_instance_show(world->instance, nx_sandbox_base_image(), &err)) fail_msg("%s", err.text);
  struct nx_guest_call call = world_call(world);
  call.frozen = true;
  struct nx_guest_result result = nx_instance_compile(world->instance, &call, text_of(source));
  bool compiled = result.end == NX_GUEST_RETURNED && result.status == NX_STATUS_DONE;
  if (compiled && nx_instance_capture(world->instance, NULL, &image, &err)) fail_msg("%s", err.text);
  nx_instance_reset(world->instance);
  assert_int_equal(nx_instance_verify(world->instance), 0);
  if (compiled && nx_instance_show(world->instance, image, &err)) fail_msg("%s", err.text);
  return image;
}

/* One execution and the reset; the whole memory must then be the image's again. */
static inline struct nx_guest_result world_run(struct world *world, const char *args) {
  struct nx_guest_call call = world_call(world);
  struct nx_text none = {0};
  struct nx_guest_result result = nx_instance_invoke(world->instance, &call, text_of(args), none, none);
  nx_instance_reset(world->instance);
  uint32_t bad = nx_instance_verify(world->instance);
  if (bad) fail_msg("page %u differs from the image after a reset", bad - 1);
  return result;
}

/* Tests that recurse or wait for deadlines run on a thread with a stack of the size that nexus uses. */
void on_guest_thread(void (*body)(void));

/* A watchdog for tests: looks every millisecond. */
void watchdog_start(void);
void watchdog_stop(void);

#endif
