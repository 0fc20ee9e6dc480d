/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting without a thread: jobs whose executions wait for calls of built-in extensions, alarms of executions in the
 * store, and the list of jobs that can go on. Private to src/exec.
 *
 *   park ──▶ PARKED ── timer due, or an answer of `net` ──▶ fire (once) …
 *
 * Threads: any. Synchronization: one mutex, never held while `fire` runs. `fire` is called on the watchdog's thread or on
 * that of `net`, and must not wait.
 * Errors:  without memory a wait cannot begin; the caller ends the job. */
#ifndef NX_EXEC_WAITS_H
#define NX_EXEC_WAITS_H

#include <pthread.h>
#include <stdatomic.h>

#include "exec/continuation.h"
#include "base/table.h"

struct nx_net;

struct nx__waits {
  struct nx_net *net;
  struct nx_account *account;
  void *self;
  /* What is parked, retried, or was an alarm can go on. Who gets an alarm frees it; those that never fire end with the
   * waits. */
  void (*fire)(void *self, struct nx__wake *wake);
  /* An answer for an execution in the store; the texts are borrowed. */
  void (*answer)(void *self, const struct nx_buf *name, const struct nx__incoming *answer);
  void (*sooner)(void *self); /* the watchdog must look earlier than it meant to */
  pthread_mutex_t mutex;
  struct nx_timers timers;
  struct nx_table alarms; /* by name */
  uint8_t table_secret[NX_TABLE_SECRET_BYTES];
  _Atomic uint64_t next_ns;
  _Atomic unsigned parked, retried; /* jobs */
};

#define NX__ALARM_NAME_CHARS (2u * NX_SUSPENSION_ID_BYTES)

/* An execution in the store that goes on by itself at some time. */
struct nx__alarm {
  struct nx_node node; /* first, the key follows */
  char name[NX__ALARM_NAME_CHARS];
  struct nx__wake wake;
};

static inline struct nx__alarm *nx__alarm_of(struct nx__wake *wake) {
  return (struct nx__alarm *)((char *)wake - offsetof(struct nx__alarm, wake));
}

void nx__waits_init(struct nx__waits *waits);
/* No job waits any more. */
void nx__waits_deinit(struct nx__waits *waits);

/* Starts the requests that the execution has made since. Before the job is parked, or handed over. */
bool nx__waits_start_fetches(struct nx__waits *waits, struct nx_job *job);
/* Until its first call of a built-in extension is answered, or `until_ns`. It may fire before this returns: the job is not
 * the caller's any more, unless it returns false. */
bool nx__waits_park(struct nx__waits *waits, struct nx_job *job, uint64_t until_ns);
/* The answers that have come in since, moved to `out`, which is empty and of the same account. */
void nx__waits_take_incoming(struct nx__waits *waits, struct nx_job *job, struct nx_buf *out);
/* Fires again at that time; as for park. */
bool nx__waits_retry(struct nx__waits *waits, struct nx_job *job, uint64_t at_ns);
/* In place of the one that the execution has: it may be suspended often, and its alarms must not add up. */
bool nx__waits_set_alarm(struct nx__waits *waits, const struct nx_buf *name, uint64_t at_ns);
/* The execution has ended, or waits for its caller only. */
void nx__waits_drop_alarm(struct nx__waits *waits, const char *name, size_t bytes);
/* For who got it. */
void nx__alarm_free(struct nx__waits *waits, struct nx__alarm *alarm);

/* The job is in the store under that name now: what its requests bring goes there. Answers that came before are sent on. */
void nx__waits_hand_over(struct nx__waits *waits, struct nx_job *job, const struct nx_buf *name);
/* The job ends: nobody wants the rest. */
void nx__waits_forget(struct nx_job *job);
/* Something for the guest has come in or is due. */
bool nx__waits_have_news(struct nx__waits *waits, struct nx_job *job);

/* Fires what is due, not too much at once: the caller has deadlines to keep. Returns when it wants to be asked again. */
uint64_t nx__waits_run_due(struct nx__waits *waits, uint64_t now_ns);
/* Fires what is parked until later than `limit_ns`, with must_leave set. */
void nx__waits_flush(struct nx__waits *waits, uint64_t limit_ns);

#endif
