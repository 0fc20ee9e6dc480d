/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

/* Kills an overdue execution. A real-time signal: nobody else uses it, and glibc keeps the first two. */
#define KILL_SIGNAL (SIGRTMIN + 3)
#define SIGNAL_STACK_BYTES (64u * 1024u)
/* Handlers that compute for long get a third of the processor's share that others get (5 steps of nice(2)): enough that
 * eight of them on two processors hardly show in the latency of short ones, and little enough that they get on. Whoever
 * wakes up interrupts them; among themselves they take long turns. */
#define LOWER_AFTER_NS (10 * NX_NS_PER_MS)
#define LOWERED_BY 5
#define LOWERED_SLICE_NS (20 * NX_NS_PER_MS)

/* Bounds of the generated code, which the build puts into a section of its own (guest/build.py). */
extern const char __start_nx_guest_text[], __stop_nx_guest_text[];

static _Thread_local struct nx_guest_thread *self_thread;

/* Synchronization: `threads_mutex` guards the list. Held by the watchdog while it looks, so a thread cannot leave
 * between being chosen and being signalled. Executions never take it. */
static pthread_mutex_t threads_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct nx_guest_thread *threads;
static int normal_nice; /* of the thread that initialised */
static uint64_t last_serial;

struct nx_guest_thread *nx__thread_self(void) { return self_thread; }

/* ---- Signals ---------------------------------------------------------------------------------------------------- */

static void unblock_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, KILL_SIGNAL);
  sigaddset(&set, SIGSEGV);
  sigaddset(&set, SIGBUS);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void nx__thread_leave_guest(struct nx_guest_thread *self, enum nx_guest_end end, const char *trap) {
  self->in_guest = 0;
  self->end = end;
  self->trap = trap;
  siglongjmp(self->leave, 1);
}

/* The handlers run with each other's signals masked, and leave by jump: the mask is theirs to undo. Kills that are
 * already queued arrive at that moment, and must find that there is nothing left to leave. */
static void leave_from_handler(struct nx_guest_thread *self, enum nx_guest_end end, const char *trap) {
  self->in_guest = 0;
  atomic_signal_fence(memory_order_seq_cst);
  unblock_signals();
  nx__thread_leave_guest(self, end, trap);
}

static bool is_overdue(const struct nx_guest_thread *self) {
  uint64_t deadline = atomic_load_explicit(&self->deadline_ns, memory_order_relaxed);
  return deadline && nx_clock_ns() >= deadline;
}

static void on_kill(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number, (void)info, (void)context;
  struct nx_guest_thread *self = self_thread;
  /* The watchdog may be late: this may be another execution than the one it meant, which is not overdue. */
  if (!self || !is_overdue(self)) return;
  if (self->in_guest)
    leave_from_handler(self, NX_GUEST_DEADLINE, NULL);
  else
    self->kill_pending = 1;
}

/* Async-signal-safe report of a real crash, then the default action (a core, an exit status that says so). */
static void crash(int signal_number, const siginfo_t *info, uintptr_t pc) {
  char line[160];
  int n = snprintf(line, sizeof line, "nexus: fatal signal %d at address %p, pc %p (guest text %p-%p)\n", signal_number,
                   info->si_addr, (void *)pc, (const void *)__start_nx_guest_text, (const void *)__stop_nx_guest_text);
  if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) { /* nothing left to do */
  }
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

static void on_fault(int signal_number, siginfo_t *info, void *context) {
  struct nx_guest_thread *self = self_thread;
  const ucontext_t *machine = context;
  uintptr_t pc = (uintptr_t)machine->uc_mcontext.gregs[REG_RIP];
  uintptr_t address = (uintptr_t)info->si_addr;
  if (!self || !self->in_guest || info->si_code <= 0) {
    crash(signal_number, info, pc);
    return;
  }
  /* Leaf functions of the C library that generated code calls (memmove, floor) may be the ones to touch the guard of
   * the native stack; they hold nothing. */
  if (address < self->stack_low && self->stack_low - address <= self->stack_guard_bytes)
    leave_from_handler(self, NX_GUEST_STACK, NULL);
  uintptr_t window = (uintptr_t)self->memory->data;
  bool in_window = address >= window && address - window < sizeof self->memory->data;
  bool in_text = pc >= (uintptr_t)__start_nx_guest_text && pc < (uintptr_t)__stop_nx_guest_text;
  if (in_window && in_text) leave_from_handler(self, NX_GUEST_TRAPPED, "memory access out of bounds");
  crash(signal_number, info, pc);
}

int nx__thread_init_signals(struct nx_error *err) {
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, KILL_SIGNAL);
  sigaddset(&action.sa_mask, SIGSEGV);
  sigaddset(&action.sa_mask, SIGBUS);
  action.sa_sigaction = on_kill;
  if (sigaction(KILL_SIGNAL, &action, NULL)) return nx_error_sys(err, "cannot install the kill signal");
  action.sa_sigaction = on_fault;
  if (sigaction(SIGSEGV, &action, NULL) || sigaction(SIGBUS, &action, NULL))
    return nx_error_sys(err, "cannot install the fault handler");
  normal_nice = getpriority(PRIO_PROCESS, 0);
  return 0;
}

/* ---- Threads ------------------------------------------------------------------------------------------------------- */

static int find_stack(struct nx_guest_thread *self, struct nx_error *err) {
  pthread_attr_t attributes;
  int status = pthread_getattr_np(pthread_self(), &attributes);
  if (status) {
    errno = status;
    return nx_error_sys(err, "cannot find the bounds of this thread's stack");
  }
  void *low;
  size_t bytes, guard;
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_getguardsize(&attributes, &guard);
  pthread_attr_destroy(&attributes);
  self->stack_low = (uintptr_t)low;
  self->stack_guard_bytes = guard;
  return 0;
}

int nx_sandbox_thread_enter(struct nx_error *err) {
  struct nx_guest_thread *self = calloc(1, sizeof *self);
  if (!self) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a thread");
  int status = find_stack(self, err);
  if (status) goto free_self;
  self->signal_stack = mmap(NULL, SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (self->signal_stack == MAP_FAILED) {
    status = nx_error_sys(err, "no memory for a signal stack");
    goto free_self;
  }
  stack_t stack = {.ss_sp = self->signal_stack, .ss_size = SIGNAL_STACK_BYTES};
  if (sigaltstack(&stack, NULL)) {
    status = nx_error_sys(err, "cannot set the signal stack");
    goto unmap_stack;
  }
  nx__stack_mark_set(&self->stack_mark, self->stack_low);
  self->tid = (int)syscall(SYS_gettid);
  int nice = getpriority(PRIO_PROCESS, 0);
  nx_thread_set_share(0, nice, NX_THREAD_SLICE_NORMAL); /* not the slice of the thread that began this one */
  self->spent = nice > normal_nice;                     /* inherited from a spent one */
  pthread_getcpuclockid(pthread_self(), &self->cpu_clock);
  pthread_mutex_lock(&threads_mutex);
  self->serial = ++last_serial;
  self->next = threads;
  self->link = &threads;
  if (threads) threads->link = &self->next;
  threads = self;
  pthread_mutex_unlock(&threads_mutex);
  self_thread = self;
  unblock_signals(); /* a thread that nx_thread_start began blocks all, and so do those that it begins */
  return 0;

unmap_stack:
  munmap(self->signal_stack, SIGNAL_STACK_BYTES);
free_self:
  free(self);
  return status;
}

void nx_sandbox_thread_leave(void) {
  struct nx_guest_thread *self = self_thread;
  if (!self) return;
  pthread_mutex_lock(&threads_mutex);
  *self->link = self->next;
  if (self->next) self->next->link = self->link;
  pthread_mutex_unlock(&threads_mutex);
  self_thread = NULL;
  stack_t disable = {.ss_flags = SS_DISABLE};
  sigaltstack(&disable, NULL);
  munmap(self->signal_stack, SIGNAL_STACK_BYTES);
  free(self);
}

struct visit {
  void (*run)(void *argument);
  void *argument;
  struct nx_error *err;
  int status;
};

static void *enter_and_run(void *argument) {
  struct visit *visit = argument;
  visit->status = nx_sandbox_thread_enter(visit->err);
  if (visit->status) return NULL;
  visit->run(visit->argument);
  nx_sandbox_thread_leave();
  return NULL;
}

int nx_sandbox_run_thread(size_t guest_stack_bytes, void (*run)(void *argument), void *argument, struct nx_error *err) {
  struct visit visit = {.run = run, .argument = argument, .err = err};
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  int error = pthread_attr_setstacksize(&attributes, nx_sandbox_native_stack_bytes(guest_stack_bytes));
  if (!error) error = pthread_create(&thread, &attributes, enter_and_run, &visit);
  pthread_attr_destroy(&attributes);
  if (error) {
    errno = error;
    return nx_error_sys(err, "cannot start a thread");
  }
  pthread_join(thread, NULL);
  return visit.status;
}

uint64_t nx_sandbox_thread_serial(void) { return self_thread ? self_thread->serial : 0; }

/* How long the execution has really been computing, by the thread's CPU time: one that was merely preempted needs no
 * replacement at the sockets. Asking for another thread's clock is a system call, made only once the wall clock has
 * passed the mark. */
static uint64_t computing_ns(struct nx_guest_thread *thread, uint64_t run) {
  uint64_t cpu_ns = nx_clock_read_ns(thread->cpu_clock);
  if (thread->watched_run != run / NX_RUN_STEP) {
    thread->watched_run = run / NX_RUN_STEP;
    thread->watched_cpu_ns = cpu_ns;
  }
  return cpu_ns - thread->watched_cpu_ns;
}

static void lower(const struct nx_guest_thread *thread) {
  nx_thread_set_share(thread->tid, normal_nice + LOWERED_BY, LOWERED_SLICE_NS);
}

/* The flag is set before the priority is changed, and both under the mutex: whoever finds the flag waits for the mutex
 * and then knows that the change is made. */
static void lower_priority(struct nx_guest_thread *thread, uint64_t run) {
  if (atomic_compare_exchange_strong(&thread->run, &run, run | NX_RUN_LOWERED))
    lower(thread);
}

/* From the start of a run. The watchdog may still be making its notes on the run before. */
static void lower_self(struct nx_guest_thread *self) {
  uint64_t cpu_ns = nx_clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
  pthread_mutex_lock(&threads_mutex);
  self->watched_cpu_ns = cpu_ns;
  pthread_mutex_unlock(&threads_mutex);
  lower(self);
}

static void restore_priority(struct nx_guest_thread *self) {
  pthread_mutex_lock(&threads_mutex);
  pthread_mutex_unlock(&threads_mutex);
  self->spent = !nx_thread_set_share(self->tid, normal_nice, NX_THREAD_SLICE_NORMAL);
  if (self->spent) nx_thread_set_slice(NX_THREAD_SLICE_NORMAL);
}

bool nx_sandbox_thread_is_spent(void) { return self_thread && self_thread->spent; }

/* Returns whether it has just become slow. */
static bool watch_computing(struct nx_guest_thread *thread, uint64_t run, uint64_t slow_after_ns) {
  uint64_t ns = computing_ns(thread, run);
  if (!(run & NX_RUN_SLOW)) return ns >= slow_after_ns && atomic_compare_exchange_strong(&thread->run, &run, run | NX_RUN_SLOW);
  if (ns >= LOWER_AFTER_NS) lower_priority(thread, run);
  return false;
}

unsigned nx_sandbox_watch(uint64_t now_ns, uint64_t slow_after_ns, unsigned *newly_slow) {
  unsigned inside = 0;
  *newly_slow = 0;
  pthread_mutex_lock(&threads_mutex);
  for (struct nx_guest_thread *thread = threads; thread; thread = thread->next) {
    uint64_t run = atomic_load_explicit(&thread->run, memory_order_acquire);
    if (!run) continue;
    inside++;
    uint64_t began = atomic_load_explicit(&thread->watch_began_ns, memory_order_relaxed);
    if (!(run & NX_RUN_LOWERED) && now_ns > began && now_ns - began >= slow_after_ns)
      *newly_slow += watch_computing(thread, run, slow_after_ns);
    uint64_t deadline = atomic_load_explicit(&thread->deadline_ns, memory_order_relaxed);
    if (deadline && now_ns >= deadline) syscall(SYS_tgkill, getpid(), thread->tid, KILL_SIGNAL);
  }
  pthread_mutex_unlock(&threads_mutex);
  return inside;
}

/* ---- Work of the host ------------------------------------------------------------------------------------------------ */

/* The watchdog watches the thread from here on. */
static void begin_run(struct nx_guest_thread *self, uint64_t deadline_ns, bool lowered) {
  if (lowered) lower_self(self);
  self->began_ns = nx_clock_ns();
  atomic_store_explicit(&self->watch_began_ns, self->began_ns, memory_order_relaxed);
  atomic_store_explicit(&self->deadline_ns, deadline_ns, memory_order_relaxed);
  atomic_store_explicit(&self->run, ++self->executions * NX_RUN_STEP | (lowered ? NX_RUN_SLOW | NX_RUN_LOWERED : 0),
                        memory_order_release);
}

/* Returns the flags of the run. */
static uint64_t end_run(struct nx_guest_thread *self) {
  atomic_store_explicit(&self->deadline_ns, 0, memory_order_relaxed);
  uint64_t run = atomic_exchange_explicit(&self->run, 0, memory_order_acq_rel);
  if (run & NX_RUN_LOWERED) restore_priority(self);
  return run % NX_RUN_STEP;
}

void nx_sandbox_work_begin(void) {
  if (self_thread) begin_run(self_thread, 0, false);
}

bool nx_sandbox_work_end(void) { return self_thread && end_run(self_thread) & NX_RUN_SLOW; }

/* ---- Entering and leaving ---------------------------------------------------------------------------------------------- */

static void begin(struct nx_guest_thread *self, const wasm_rt_memory_t *memory, const struct nx_guest_call *call) {
  self->memory = memory;
  self->call = call;
  self->kill_pending = 0;
  self->frozen_random = 0;
  self->trap = NULL;
  self->memory_refused = self->budget_refused = false;
  self->refused_bytes = 0;
  begin_run(self, call->deadline_ns, call->long_expected);
}

struct nx_guest_result nx__thread_run(struct nx_guest_thread *self, const wasm_rt_memory_t *memory,
                                      const struct nx_guest_call *call, int32_t (*body)(void *argument),
                                      void *argument) {
  struct nx_guest_result result = {.end = NX_GUEST_RETURNED};
  begin(self, memory, call);
  if (sigsetjmp(self->leave, 0) == 0) {
    self->in_guest = 1;
    atomic_signal_fence(memory_order_seq_cst);
    result.status = body(argument);
    atomic_signal_fence(memory_order_seq_cst);
    self->in_guest = 0;
  } else {
    result.end = self->end;
    result.trap = self->trap;
  }
  result.duration_ns = nx_clock_ns() - self->began_ns;
  result.memory_refused = self->memory_refused;
  result.budget_refused = self->budget_refused;
  result.refused_bytes = self->refused_bytes;
  uint64_t flags = end_run(self);
  result.was_slow = flags & NX_RUN_SLOW && !call->long_expected;
  if (flags & NX_RUN_LOWERED)
    result.computed_ns = nx_clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - self->watched_cpu_ns;
  self->memory = NULL;
  self->call = NULL;
  nx__stack_mark_check(&self->stack_mark);
  return result;
}

static bool stack_is_short(const struct nx_guest_thread *self) {
  return (uintptr_t)__builtin_frame_address(0) - self->stack_low < NX_HOST_STACK_BYTES;
}

struct nx_guest_thread *nx__thread_host_begin(void) {
  struct nx_guest_thread *self = self_thread;
  self->in_guest = 0;
  atomic_signal_fence(memory_order_seq_cst);
  if (stack_is_short(self)) nx__thread_leave_guest(self, NX_GUEST_STACK, NULL);
  return self;
}

/* in_guest first, then the look: a kill between the two is taken by the handler, one before it by the look. */
void nx__thread_host_end(struct nx_guest_thread *self) {
  self->in_guest = 1;
  atomic_signal_fence(memory_order_seq_cst);
  if (self->kill_pending && is_overdue(self)) nx__thread_leave_guest(self, NX_GUEST_DEADLINE, NULL);
}

void nx_guest_stop(void) { nx__thread_leave_guest(self_thread, NX_GUEST_STOPPED, NULL); }
