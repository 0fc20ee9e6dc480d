/* SPDX-License-Identifier: Apache-2.0
 *
 * The executor's parts, for exec.c (jobs come, wait, go on) and run.c (jobs run). Private to src/exec. */
#ifndef NX_EXEC_EXECUTOR_H
#define NX_EXEC_EXECUTOR_H

#include "exec/admission.h"
#include "exec/compile.h"
#include "exec/keeping.h"
#include "exec/waits.h"
#include "exec/watchdog.h"

struct nx_exec {
  const struct nx_config *config;
  struct nx_governor *governor;
  struct nx_compiler compiler;
  struct nx_pool *pool;
  struct nx_watchdog *watchdog;
  struct nx_exec_hooks hooks;
  struct nx__admission admission;
  struct nx__waits waits;
  struct nx__keeper keeper;
  struct nx_account *suspended; /* charged for executions that wait */
  /* Jobs that waited and can go on. */
  pthread_mutex_t ready_mutex;
  struct nx_job *ready, **ready_tail;
  _Atomic unsigned ready_count;
  uint64_t next_glance_ns, quiet_since_ns, aged_ns; /* the watchdog's */
};

/* run.c: the host's work for an execution ends, which nx_sandbox_work_begin began. */
void nx__exec_end_work(struct nx_exec *exec);
/* exec.c: an own job is done: it is tried again, or freed. */
void nx__exec_end_own(struct nx_exec *exec, struct nx_job *job);

#endif
