/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may begin, who waits, who is sent away. Internal to exec/.
 *
 * To begin, a job needs a permit (max_instances of them) and the memory that it is expected to take (a reservation).
 * What cannot begin waits in one of two lanes, each first in, first out:
 *
 *   LIGHT  handlers known to be short and small (handler/profile.h); registered ones until they show otherwise
 *   HEAVY  all others
 *
 * The light lane goes first, but after LIGHT_STREAK of them the heavy one has its turn. So a large handler does not
 * starve small ones: the governor keeps a part of the budget that only light executions may use, and when executions
 * that compute for long hold all permits, they lend up to NX_EXEC_LOANS_MAX of them to light ones. Nor do small ones starve
 * a large one, which waits in its own lane for memory that light ones hardly take; when it has its turn and lacks a permit
 * only, nothing is lent until it has begun, unless slow ones hold all permits.
 *
 * Threads: any. Synchronization: one mutex. Nothing is freed or reclaimed under it. */
#ifndef NX_EXEC_ADMISSION_H
#define NX_EXEC_ADMISSION_H

#include <pthread.h>
#include <stdatomic.h>

#include "exec/exec.h"

enum nx__lane { NX__LANE_LIGHT, NX__LANE_HEAVY, NX__LANE_COUNT };

struct nx__admission {
  const struct nx_config *config;
  struct nx_governor *governor;
  struct nx_ledger *ledger;
  struct nx_pool *pool;
  void *self;
  void (*watch)(void *self); /* a job has begun or waits, however it came here: somebody must keep its time */
  unsigned queue_max; /* the configured one, and half of the connections at most */
  pthread_mutex_t mutex;
  pthread_cond_t permit_free; /* for nx__admission_wait */
  /* Synchronization: `mutex` guards changes of what is below; the atomics may be read without it. */
  _Atomic unsigned running, queue_depth;
  int slow;          /* running ones that are slow, or expected to be; −1 while an end has been told of before its begin */
  unsigned waiting;  /* threads in nx__admission_wait */
  bool waits_for_memory; /* so did the last of them that tried */
  unsigned streak;   /* light ones begun while a heavy one waited */
  struct nx__lane_queue {
    struct nx_job *head, **tail;
  } lanes[NX__LANE_COUNT];
  uint64_t next_reclaim_ns;
  uint64_t finished, finished_before; /* for the rate */
  _Atomic uint32_t finished_per_s;
};

void nx__admission_init(struct nx__admission *admission, const struct nx_exec_options *options, struct nx_pool *pool);
void nx__admission_deinit(struct nx__admission *admission);

/* Fills job->_lane and job->_expected_bytes from what is known of its handler. */
enum nx_job_state nx__admission_submit(struct nx__admission *admission, struct nx_job *job);
/* One that has become ADMITTED or EXPIRED; NULL when there is none. */
struct nx_job *nx__admission_next(struct nx__admission *admission);
/* Waits as long as it takes. */
void nx__admission_wait(struct nx__admission *admission, struct nx_job *job);
/* Gives permit and reservation back. */
void nx__admission_leave(struct nx__admission *admission, struct nx_job *job);

/* Executions have become slow (came to their end). */
void nx__admission_note_slow(struct nx__admission *admission, int more);
/* True when nx__admission_next would have something, or should be asked to reclaim. */
bool nx__admission_is_due(struct nx__admission *admission, uint64_t now_ns);
/* Once a second. */
void nx__admission_measure_rate(struct nx__admission *admission);
/* The time that the queue takes at the rate of the last seconds. */
unsigned nx__admission_retry_after_s(const struct nx__admission *admission);

#endif
