/* SPDX-License-Identifier: Apache-2.0
 *
 * A thread inside the guest: entering, and the three ways out that are not a return: a trap, a kill by the watchdog,
 * a stop by a host call. All three are siglongjmp to the point of entry; the guest's state is thrown away afterwards,
 * so cutting it anywhere is safe, as long as host code is never cut:
 *
 *             enter                 import called
 *   OUTSIDE ────────▶ IN GUEST ───────────────────▶ IN HOST CALL      kill signal here: remembered, not taken
 *      ▲                 │  ▲                            │
 *      └──── return ─────┘  └─ in_guest = 1, then look ──┘
 *      └──── jump ◀── trap, SIGSEGV, kill signal when overdue
 *
 * Private to src/sandbox. A SIGSEGV that is not the guest's doing is a crash with a report, never a jump. */
#ifndef NX_SANDBOX_THREAD_H
#define NX_SANDBOX_THREAD_H

#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "sandbox/sandbox.h"
#include "sandbox/stack_mark.h"
#include "sandbox/wasm-rt.h"

/* Native stack that must be free when host code is entered from the guest. */
#define NX_HOST_STACK_BYTES (64u * 1024u)

struct nx_guest_thread {
  /* Synchronization: written by the owning thread, read by its own signal handlers. */
  sigjmp_buf leave;
  volatile sig_atomic_t in_guest;
  volatile sig_atomic_t kill_pending;
  enum nx_guest_end end;            /* why it jumped */
  const char *trap;
  bool memory_refused, budget_refused;
  uint64_t refused_bytes;           /* of the largest refused grant */
  const wasm_rt_memory_t *memory;   /* of the instance inside; NULL outside */
  const struct nx_guest_call *call;
  uintptr_t stack_low;              /* lowest usable address of the native stack; the guard lies below */
  uintptr_t stack_guard_bytes;
  uint64_t began_ns;
  uint64_t serial;                  /* of threads: never reused */
  uint32_t frozen_random;           /* position in the fixed sequence, for calls with `frozen` */
  struct nx__stack_mark stack_mark;
  void *signal_stack;

  /* Synchronization: atomics, shared with the watchdog. run: 0 outside, else NX_RUN_STEP × execution number, and what was
   * done about it, by the watchdog or from the start; the others are valid while run is not 0. */
  _Atomic uint64_t run;
  _Atomic uint64_t deadline_ns;
  _Atomic uint64_t watch_began_ns;
  uint64_t executions;
  clockid_t cpu_clock;
  /* Synchronization: the mutex of the list. The watchdog's notes: execution, and the thread's CPU time before it, which a
   * thread that lowers itself notes by itself. */
  uint64_t watched_run, watched_cpu_ns;
  bool spent;                           /* its priority was lowered and may not be raised again */
  int tid;
  struct nx_guest_thread *next, **link; /* list of threads, under its mutex */
};

/* Flags in nx_guest_thread.run. */
enum { NX_RUN_SLOW = 1, NX_RUN_LOWERED = 2, NX_RUN_STEP = 4 };

int nx__thread_init_signals(struct nx_error *err);

/* The calling thread's; NULL when it did not call nx_sandbox_thread_enter. */
struct nx_guest_thread *nx__thread_self(void);

/* Runs `body(argument)` as guest code under `call`. */
struct nx_guest_result nx__thread_run(struct nx_guest_thread *self, const wasm_rt_memory_t *memory,
                                      const struct nx_guest_call *call, int32_t (*body)(void *argument),
                                      void *argument);

/* Brackets around host code that the guest called. begin traps when the native stack is nearly used up; end takes a
 * kill that came meanwhile. */
struct nx_guest_thread *nx__thread_host_begin(void);
void nx__thread_host_end(struct nx_guest_thread *self);
/* Leaves the guest from within (host code or generated code). */
void nx__thread_leave_guest(struct nx_guest_thread *self, enum nx_guest_end end, const char *trap)
  __attribute__((noreturn));

#endif
