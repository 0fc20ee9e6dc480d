/* SPDX-License-Identifier: Apache-2.0
 *
 * What a job has beyond its first stay in the guest: the memory it left there, answers that have come in, and the record
 * it was resumed from. Turns jobs into records and back; neither waits nor stores (exec/waits.h, exec/keeping.h do).
 * Private to src/exec.
 *
 * Ownership: a part of its job. Threads: the job's, but for `incoming`, `fetches` and `wake`, which the mutex of
 * exec/waits.h guards. */
#ifndef NX_EXEC_CONTINUATION_H
#define NX_EXEC_CONTINUATION_H

#include "base/timers.h"
#include "base/work_queue.h"
#include "exec/exec.h"
#include "suspend/suspensions.h"

struct nx__fetch;
struct nx__waits;
struct nx__keeper;

enum nx__wake_kind {
  NX__WAKE_NONE,
  NX__WAKE_PARKED, /* the job waits for its calls */
  NX__WAKE_RETRY,  /* it waits for the lease of what it resumes */
  NX__WAKE_ALARM,  /* an execution in the store goes on by itself */
};
struct nx__wake {
  struct nx_timer timer; /* first; nx_clock_ns() */
  enum nx__wake_kind kind;
};

struct nx__continuation {
  struct nx__wake wake;        /* first */
  struct nx_job *job;
  struct nx_tenant tenant;     /* whose execution it is, whoever resumes it */
  char handler[NX_HANDLER_NAME_MAX + 1]; /* empty: inline code */
  char traceparent[NX_TRACEPARENT_MAX + 1];
  struct nx_buf patch;         /* of the guest's memory, while it waits */
  uint32_t memory_bytes;       /* that the guest had */
  uint32_t suspensions;
  struct nx_buf incoming;      /* answers that the guest has not got yet */
  struct nx__waits *waits;     /* NULL: it has made no requests */
  struct nx__fetch *fetches;   /* of `net`, on their way */
  uint32_t fetched_to;         /* calls up to this one have been looked at for requests to start */
  /* Of a job that goes on with what was in the store. */
  uint32_t stored_to;          /* what requests of calls up to this one bring comes to the store, not to this job */
  struct nx_buf name;          /* when there is no caller who has it */
  struct nx_taken taken;
  struct nx_buf source;        /* of its handler, when that has to be compiled again */
  struct nx_capabilities grants, request;
  uint64_t retry_until_ns;
  uint64_t expires_ns;         /* when it has waited here for as long as it may; 0: it has not waited */
  struct nx_buf brought;       /* answers for it that came when it was in the store already: as `incoming` */
  /* Its next step with the store, on a thread that may wait. */
  struct nx_work work;
  enum nx_job_state (*step)(struct nx__keeper *keeper, struct nx_job *job);
  struct nx__keeper *keeper;
  bool must_leave;             /* not to wait here any longer: the process is shutting down */
};

/* Makes the job's continuation if it has none. NULL: no memory. */
struct nx__continuation *nx__continuation_of(struct nx_job *job, struct nx_account *account);
void nx__continuation_free(struct nx_job *job);

/* Answers that the guest has not got yet: a packed list in a buffer. Whether their calls are open is seen when they are
 * collected. `json` may be empty. */
struct nx__incoming {
  uint32_t call_id;
  bool success;
  const char *json;
  size_t bytes;
};
bool nx__incoming_add(struct nx_buf *list, const struct nx__incoming *answer);
bool nx__incoming_next(const struct nx_buf *list, size_t *at, struct nx__incoming *out);

/* What the guest is to be told now: the answers, and calls of built-in extensions that are due, as the JSON of
 * nx_instance_resume appended to `out`; their calls are taken off the list. False when there is nothing (then `out` is as
 * it was), or out->failed. */
bool nx__continuation_collect(struct nx_job *job, const struct nx_buf *incoming, uint64_t now_ms, bool net_is_on,
                              struct nx_buf *out);

/* The job's answers (job->answers) against its open calls: NX_ERR_INVALID, or NX_ERR_CONFLICT for what was answered
 * before; then added. */
int nx__continuation_take_answers(struct nx_job *job, struct nx_error *err);

/* The execution as a record, whose sections point into the job and into `texts`. */
struct nx__record_texts {
  struct nx_buf grants, request;
};
int nx__continuation_save(const struct nx_job *job, uint64_t expires_ms, struct nx_record *out,
                          struct nx__record_texts *texts, struct nx_error *err);
void nx__record_texts_deinit(struct nx__record_texts *texts);
/* And back: sets up the execution of a job whose continuation has taken one, but for the handler. */
int nx__continuation_load(struct nx_job *job, struct nx_error *err);
/* Undoes load, for another try; what was brought is kept for it. After nx__waits_forget. */
void nx__continuation_unload(struct nx_job *job);
/* Once the guest's memory is restored the bytes it came from are not needed. */
void nx__continuation_drop_patch(struct nx__continuation *continuation);
/* The bytes of the patch to restore. */
struct nx_bytes nx__continuation_patch(const struct nx__continuation *continuation);

#endif
