/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/waits.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/net.h"
#include "sandbox/random.h"

/* What is fired in one go; the caller looks at deadlines each millisecond. */
#define DUE_BATCH 64u
/* What an alarm takes, with its places in the heap and in the table. */
#define ALARM_BYTES (sizeof(struct nx__alarm) + 4 * sizeof(void *))

/* One request of `net`. Freed when it has ended, whoever still wants it. */
struct nx__fetch {
  struct nx__waits *waits;
  struct nx_net_fetch *handle;
  uint32_t call_id;
  /* Synchronization: waits->mutex. */
  struct nx_job *job;      /* who waits for it; NULL: the execution of that name, or nobody */
  struct nx_buf name;
  struct nx__fetch *next;  /* of the job's */
};

void nx__waits_init(struct nx__waits *waits) {
  pthread_mutex_init(&waits->mutex, NULL);
  atomic_store(&waits->next_ns, UINT64_MAX);
  nx_random_bytes(waits->table_secret, sizeof waits->table_secret);
  waits->alarms = (struct nx_table){.key_bytes = NX__ALARM_NAME_CHARS, .secret = waits->table_secret};
}

void nx__waits_deinit(struct nx__waits *waits) {
  for (size_t i = 0; i < waits->timers.count; i++)
    nx__alarm_free(waits, nx__alarm_of((struct nx__wake *)waits->timers.heap[i]));
  free(waits->alarms.buckets);
  free(waits->timers.heap);
  pthread_mutex_destroy(&waits->mutex);
}

/* ---- Timers --------------------------------------------------------------------------------------------------------- */

/* Under the mutex. */
static void note_next(struct nx__waits *waits) {
  const struct nx_timer *first = nx_timers_first(&waits->timers, UINT64_MAX);
  atomic_store(&waits->next_ns, first ? first->at : UINT64_MAX);
}

static bool has_room(struct nx_timers *timers) {
  if (timers->count < timers->capacity) return true;
  uint32_t capacity = timers->capacity ? timers->capacity * 2 : 64;
  struct nx_timer **heap = realloc(timers->heap, capacity * sizeof(struct nx_timer *));
  if (!heap) return false;
  timers->heap = heap;
  timers->capacity = capacity;
  return true;
}

/* Under the mutex. Gives back whether the watchdog must look sooner than it means to. */
static bool set(struct nx__waits *waits, struct nx__wake *wake, enum nx__wake_kind kind, uint64_t at_ns, bool *sooner) {
  *sooner = at_ns < atomic_load(&waits->next_ns);
  if (!has_room(&waits->timers)) return false;
  wake->timer.at = at_ns;
  nx_timers_add(&waits->timers, &wake->timer);
  wake->kind = kind;
  if (kind == NX__WAKE_PARKED) atomic_fetch_add(&waits->parked, 1);
  if (kind == NX__WAKE_RETRY) atomic_fetch_add(&waits->retried, 1);
  note_next(waits);
  return true;
}

static bool set_wake(struct nx__waits *waits, struct nx__wake *wake, enum nx__wake_kind kind, uint64_t at_ns) {
  bool sooner;
  pthread_mutex_lock(&waits->mutex);
  bool done = set(waits, wake, kind, at_ns, &sooner);
  pthread_mutex_unlock(&waits->mutex);
  if (done && sooner) waits->sooner(waits->self);
  return done;
}

/* Under the mutex. */
static void leave(struct nx__waits *waits, struct nx__wake *wake) {
  if (wake->kind == NX__WAKE_ALARM) nx_table_remove(&waits->alarms, &nx__alarm_of(wake)->node);
  if (wake->kind == NX__WAKE_PARKED) atomic_fetch_sub(&waits->parked, 1);
  if (wake->kind == NX__WAKE_RETRY) atomic_fetch_sub(&waits->retried, 1);
  nx_timers_remove(&waits->timers, &wake->timer);
  note_next(waits);
}

uint64_t nx__waits_run_due(struct nx__waits *waits, uint64_t now_ns) {
  for (unsigned i = 0; i < DUE_BATCH && atomic_load(&waits->next_ns) <= now_ns; i++) {
    pthread_mutex_lock(&waits->mutex);
    struct nx__wake *wake = (struct nx__wake *)nx_timers_first(&waits->timers, now_ns);
    if (wake) leave(waits, wake);
    pthread_mutex_unlock(&waits->mutex);
    if (!wake) break;
    waits->fire(waits->self, wake);
  }
  return atomic_load(&waits->next_ns);
}

static struct nx__wake *find_later(struct nx__waits *waits, uint64_t limit_ns) {
  for (size_t i = 0; i < waits->timers.count; i++) {
    struct nx__wake *wake = (struct nx__wake *)waits->timers.heap[i];
    if (wake->kind == NX__WAKE_PARKED && wake->timer.at > limit_ns) return wake;
  }
  return NULL;
}

void nx__waits_flush(struct nx__waits *waits, uint64_t limit_ns) {
  struct nx__wake *wake;
  do {
    pthread_mutex_lock(&waits->mutex);
    wake = find_later(waits, limit_ns);
    if (wake) {
      leave(waits, wake);
      ((struct nx__continuation *)wake)->must_leave = true;
    }
    pthread_mutex_unlock(&waits->mutex);
    if (wake) waits->fire(waits->self, wake);
  } while (wake);
}

bool nx__waits_retry(struct nx__waits *waits, struct nx_job *job, uint64_t at_ns) {
  return set_wake(waits, &job->_continuation->wake, NX__WAKE_RETRY, at_ns);
}

/* ---- Alarms --------------------------------------------------------------------------------------------------------- */

static struct nx__alarm *make_alarm(struct nx__waits *waits, const struct nx_buf *name) {
  if (name->len != NX__ALARM_NAME_CHARS || !nx_account_charge(waits->account, ALARM_BYTES)) return NULL;
  struct nx__alarm *alarm = calloc(1, sizeof *alarm);
  if (alarm)
    memcpy(alarm->name, name->data, sizeof alarm->name);
  else
    nx_account_release(waits->account, ALARM_BYTES);
  return alarm;
}

void nx__alarm_free(struct nx__waits *waits, struct nx__alarm *alarm) {
  if (!alarm) return;
  free(alarm);
  nx_account_release(waits->account, ALARM_BYTES);
}

/* Under the mutex. NULL: there is none. */
static struct nx__alarm *take_alarm(struct nx__waits *waits, const char *name) {
  struct nx__alarm *alarm = (struct nx__alarm *)nx_table_find(&waits->alarms, name);
  if (alarm) leave(waits, &alarm->wake);
  return alarm;
}

/* Under the mutex. Without memory the table stays as it is: it only gets slower. */
static void fit_table(struct nx_table *table) {
  size_t count = nx_table_suitable(table);
  struct nx_node **buckets = count && count != table->bucket_count ? calloc(count, sizeof *buckets) : NULL;
  if (buckets) free(nx_table_rehash(table, buckets, count));
}

bool nx__waits_set_alarm(struct nx__waits *waits, const struct nx_buf *name, uint64_t at_ns) {
  struct nx__alarm *alarm = make_alarm(waits, name);
  bool sooner;
  if (!alarm) return false;
  pthread_mutex_lock(&waits->mutex);
  struct nx__alarm *before = take_alarm(waits, alarm->name);
  bool done = set(waits, &alarm->wake, NX__WAKE_ALARM, at_ns, &sooner);
  if (done) nx_table_insert(&waits->alarms, &alarm->node);
  fit_table(&waits->alarms);
  pthread_mutex_unlock(&waits->mutex);
  nx__alarm_free(waits, before);
  if (!done) nx__alarm_free(waits, alarm);
  if (done && sooner) waits->sooner(waits->self);
  return done;
}

void nx__waits_drop_alarm(struct nx__waits *waits, const char *name, size_t bytes) {
  if (bytes != NX__ALARM_NAME_CHARS) return;
  pthread_mutex_lock(&waits->mutex);
  struct nx__alarm *alarm = take_alarm(waits, name);
  pthread_mutex_unlock(&waits->mutex);
  nx__alarm_free(waits, alarm);
}

/* ---- Jobs that wait ------------------------------------------------------------------------------------------------- */

bool nx__waits_park(struct nx__waits *waits, struct nx_job *job, uint64_t until_ns) {
  struct nx__continuation *c = job->_continuation;
  bool sooner;
  pthread_mutex_lock(&waits->mutex);
  if (c->incoming.len || c->must_leave) until_ns = 0; /* a request was quicker */
  bool done = set(waits, &c->wake, NX__WAKE_PARKED, until_ns, &sooner);
  pthread_mutex_unlock(&waits->mutex);
  if (done && sooner) waits->sooner(waits->self);
  return done;
}

void nx__waits_take_incoming(struct nx__waits *waits, struct nx_job *job, struct nx_buf *out) {
  struct nx__continuation *c = job->_continuation;
  if (!c) return;
  pthread_mutex_lock(&waits->mutex);
  *out = c->incoming;
  c->incoming = (struct nx_buf){.account = out->account};
  pthread_mutex_unlock(&waits->mutex);
}

bool nx__waits_have_news(struct nx__waits *waits, struct nx_job *job) {
  pthread_mutex_lock(&waits->mutex);
  bool has_answer = job->_continuation->incoming.len != 0;
  pthread_mutex_unlock(&waits->mutex);
  return has_answer || nx_calls_due_ms(&job->execution.calls) <= nx_clock_realtime_ms();
}

/* An answer comes in for a job that waits, runs, or is about to wait. Under the mutex; true: it must be fired. */
static bool deliver(struct nx__fetch *fetch, bool success, const char *json, size_t bytes) {
  struct nx__waits *waits = fetch->waits;
  struct nx__continuation *c = fetch->job->_continuation;
  static const char no_memory[] = "\"net.fetch: no memory for the response\"";
  const struct nx__incoming in = {fetch->call_id, success, json, bytes};
  const struct nx__incoming lost = {fetch->call_id, false, no_memory, sizeof no_memory - 1};
  if (!nx__incoming_add(&c->incoming, &in)) {
    c->incoming.failed = false;
    c->incoming.starved_bytes = 0;
    nx__incoming_add(&c->incoming, &lost);
  }
  struct nx__fetch **at = &c->fetches;
  while (*at != fetch) at = &(*at)->next;
  *at = fetch->next;
  if (!c->wake.timer.slot || c->wake.kind != NX__WAKE_PARKED) return false;
  leave(waits, &c->wake);
  return true;
}

static void fetched(void *opaque, bool success, const char *json, size_t bytes) {
  struct nx__fetch *fetch = opaque;
  struct nx__waits *waits = fetch->waits;
  struct nx__wake *wake = NULL;
  pthread_mutex_lock(&waits->mutex);
  if (fetch->job && deliver(fetch, success, json, bytes)) wake = &fetch->job->_continuation->wake;
  bool stored = !fetch->job && fetch->name.len;
  pthread_mutex_unlock(&waits->mutex);
  if (wake) waits->fire(waits->self, wake);
  const struct nx__incoming in = {fetch->call_id, success, json, bytes};
  if (stored) waits->answer(waits->self, &fetch->name, &in);
  nx_buf_deinit(&fetch->name);
  free(fetch);
}

/* Under the mutex, so that it cannot end before it is in the job's list. */
static bool start(struct nx__waits *waits, struct nx_job *job, const struct nx_call *call) {
  struct nx__continuation *c = job->_continuation;
  struct nx__fetch *fetch = calloc(1, sizeof *fetch);
  if (!fetch) return false;
  *fetch = (struct nx__fetch){.waits = waits, .call_id = call->id, .job = job, .name.account = waits->account};
  fetch->handle = nx_net_fetch(waits->net, call->args, call->args_bytes, c->traceparent, fetched, fetch);
  if (!fetch->handle) {
    free(fetch);
    return false;
  }
  fetch->next = c->fetches;
  c->fetches = fetch;
  return true;
}

bool nx__waits_start_fetches(struct nx__waits *waits, struct nx_job *job) {
  struct nx_call call;
  bool started = true;
  if (!waits->net) return true; /* such calls are answered at once */
  pthread_mutex_lock(&waits->mutex);
  job->_continuation->waits = waits;
  for (size_t at = 0; started && nx_calls_next(&job->execution.calls, &at, &call);)
    if (call.kind == NX_CALL_NET && call.id > job->_continuation->fetched_to) started = start(waits, job, &call);
  job->_continuation->fetched_to = job->execution.last_call_id;
  pthread_mutex_unlock(&waits->mutex);
  return started;
}

void nx__waits_hand_over(struct nx__waits *waits, struct nx_job *job, const struct nx_buf *name) {
  struct nx__continuation *c = job->_continuation;
  pthread_mutex_lock(&waits->mutex);
  for (struct nx__fetch *fetch = c->fetches; fetch; fetch = fetch->next) {
    nx_buf_add(&fetch->name, name->data, name->len);
    fetch->job = NULL;
  }
  c->fetches = NULL;
  pthread_mutex_unlock(&waits->mutex);
  /* From here on nothing is added to the job. */
  struct nx__incoming in;
  for (size_t at = 0; nx__incoming_next(&c->incoming, &at, &in);)
    waits->answer(waits->self, name, &in);
}

void nx__waits_forget(struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx__waits *waits = c ? c->waits : NULL;
  if (!waits) return;
  pthread_mutex_lock(&waits->mutex);
  for (struct nx__fetch *fetch = c->fetches; fetch; fetch = fetch->next) {
    fetch->job = NULL;
    nx_net_abandon(waits->net, fetch->handle);
  }
  c->fetches = NULL;
  pthread_mutex_unlock(&waits->mutex);
}
