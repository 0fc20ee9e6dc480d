/* SPDX-License-Identifier: Apache-2.0
 * The counting side: slots, handler labels, totals. */
#include "metrics/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <sys/mman.h>

#include "metrics/metrics_internal.h"

/* Synchronization: cells are written by the thread that holds the slot and read by anyone, so a plain load and store of
 * an atomic is enough and no other thread's count can be lost; the common slot is written by many and needs real
 * additions. `next` is constant once the slot is in the list. */
struct slot {
  struct slot *next;
  _Atomic bool taken;
  bool common;
  _Alignas(64) _Atomic uint64_t cells[NX__CELL_COUNT];
  _Atomic uint64_t max_ns[NX__HISTOGRAM_COUNT];
};

static struct slot common_slot = {.taken = true, .common = true};
static struct slot *_Atomic slots = &common_slot; /* only grows, at its head */
static __thread struct slot *my_slot;
static pthread_key_t exit_key;
static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;
static bool exit_key_made;

static void give_slot_back(void *slot) {
  my_slot = NULL;
  atomic_store_explicit(&((struct slot *)slot)->taken, false, memory_order_release);
}

static void make_exit_key(void) { exit_key_made = !pthread_key_create(&exit_key, give_slot_back); }

static struct slot *reuse_slot(void) {
  for (struct slot *s = atomic_load_explicit(&slots, memory_order_acquire); s; s = s->next) {
    bool taken = false;
    if (atomic_compare_exchange_strong_explicit(&s->taken, &taken, true, memory_order_acquire, memory_order_relaxed))
      return s;
  }
  return NULL;
}

static struct slot *create_slot(void) {
  struct slot *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED) return NULL;
  atomic_store_explicit(&s->taken, true, memory_order_relaxed);
  s->next = atomic_load_explicit(&slots, memory_order_relaxed);
  while (!atomic_compare_exchange_weak_explicit(&slots, &s->next, s, memory_order_release, memory_order_relaxed))
    continue;
  return s;
}

static __attribute__((noinline)) struct slot *find_slot(void) {
  pthread_once(&exit_key_once, make_exit_key);
  struct slot *s = exit_key_made ? reuse_slot() : NULL;
  if (!s && exit_key_made) s = create_slot();
  if (s && pthread_setspecific(exit_key, s)) {
    give_slot_back(s);
    s = NULL;
  }
  return my_slot = s ? s : &common_slot;
}

static struct slot *slot(void) { return __builtin_expect(!!my_slot, 1) ? my_slot : find_slot(); }

static void add(struct slot *s, size_t cell, uint64_t n) {
  _Atomic uint64_t *c = &s->cells[cell];
  if (__builtin_expect(s->common, 0))
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
  else
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Histograms */

static const uint64_t bucket_ns[NX__BUCKETS] = {
#define X(ns, text) UINT64_C(ns),
  NX_METRICS_BUCKETS(X)
#undef X
};

static void observe(struct slot *s, enum nx__histogram histogram, uint64_t ns) {
  size_t cells = NX__CELL_HISTOGRAMS + (size_t)histogram * NX__HISTOGRAM_CELLS, bucket = 0;
  while (bucket < NX__BUCKETS && ns > bucket_ns[bucket]) bucket++;
  add(s, cells + bucket, 1);
  add(s, cells + NX__BUCKETS + 1, ns);
  uint64_t max = atomic_load_explicit(&s->max_ns[histogram], memory_order_relaxed);
  while (ns > max && !atomic_compare_exchange_weak_explicit(&s->max_ns[histogram], &max, ns, memory_order_relaxed,
                                                            memory_order_relaxed))
    continue;
}

/* HTTP codes */

const uint16_t nx__metrics_codes[NX__CODES] = {
#define X(code) code,
  NX_METRICS_CODES(X)
#undef X
};

static size_t code_index(int code) {
  size_t i = 0;
  while (i < NX__CODES - 1 && nx__metrics_codes[i] != code) i++;
  return i;
}

/* Handler labels. Synchronization: names are written under `names_lock` and published by `name_count`; they never
 * change afterwards. */

enum { NAME_BYTES = 128 };
static char names[NX_METRICS_HANDLERS_MAX][NAME_BYTES + 1];
static _Atomic unsigned name_count;
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_label_name(const char *name) {
  static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
  static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  size_t len = strnlen(name, NAME_BYTES + 1);
  if (!len || len > NAME_BYTES || !strchr(first, name[0])) return false;
  return name[strspn(name, rest)] == 0 && strcmp(name, "inline") && strcmp(name, "other");
}

unsigned nx_metrics_handler_label(const char *name) {
  if (!is_label_name(name)) return NX_METRICS_HANDLER_OTHER;
  pthread_mutex_lock(&names_lock);
  unsigned count = atomic_load_explicit(&name_count, memory_order_relaxed), i = 0;
  while (i < count && strcmp(names[i], name)) i++;
  if (i == count && count < NX_METRICS_HANDLERS_MAX) {
    strcpy(names[i], name);
    atomic_store_explicit(&name_count, count + 1, memory_order_release);
  }
  pthread_mutex_unlock(&names_lock);
  return i < NX_METRICS_HANDLERS_MAX ? NX_METRICS_HANDLER_FIRST + i : NX_METRICS_HANDLER_OTHER;
}

const char *nx__metrics_handler_name(unsigned label) {
  if (label == NX_METRICS_HANDLER_INLINE) return "inline";
  if (label == NX_METRICS_HANDLER_OTHER) return "other";
  unsigned i = label - NX_METRICS_HANDLER_FIRST;
  return i < atomic_load_explicit(&name_count, memory_order_acquire) ? names[i] : NULL;
}

/* Counting */

void nx_metrics_execution(unsigned handler, enum nx_metrics_status status, uint64_t duration_ns) {
  struct slot *s = slot();
  if (handler >= NX_METRICS_HANDLER_LABELS) handler = NX_METRICS_HANDLER_OTHER;
  add(s, NX__CELL_EXECUTIONS + handler * NX_METRICS_STATUS_COUNT + status, 1);
  observe(s, NX__HISTOGRAM_EXECUTION, duration_ns);
}

void nx_metrics_queue_wait(uint64_t wait_ns) { observe(slot(), NX__HISTOGRAM_QUEUE_WAIT, wait_ns); }

void nx_metrics_http(enum nx_metrics_route route, int code) {
  add(slot(), NX__CELL_HTTP + (size_t)route * NX__CODES + code_index(code), 1);
}

void nx_metrics_cache(bool hit) { add(slot(), hit ? NX__CELL_CACHE_HITS : NX__CELL_CACHE_MISSES, 1); }

void nx_metrics_suspension(void) { add(slot(), NX__CELL_SUSPENSIONS, 1); }

void nx_metrics_resume(enum nx_metrics_resume outcome, uint64_t duration_ns) {
  struct slot *s = slot();
  add(s, NX__CELL_RESUMES + (size_t)outcome, 1);
  if (outcome == NX_METRICS_RESUME_RESUMED) observe(s, NX__HISTOGRAM_RESUME, duration_ns);
}

void nx_metrics_store_failed(enum nx_metrics_store_failure failure) {
  add(slot(), NX__CELL_STORE_FAILURES + (size_t)failure, 1);
}

void nx_metrics_reclaimed(enum nx_metrics_reclaim action, uint64_t bytes) {
  add(slot(), NX__CELL_RECLAIMED + (size_t)action, bytes);
}

/* Reading */

void nx__metrics_merge(uint64_t cells[NX__CELL_COUNT]) {
  memset(cells, 0, NX__CELL_COUNT * sizeof *cells);
  for (const struct slot *s = atomic_load_explicit(&slots, memory_order_acquire); s; s = s->next)
    for (size_t i = 0; i < NX__CELL_COUNT; i++) cells[i] += atomic_load_explicit(&s->cells[i], memory_order_relaxed);
}

static uint64_t max_of(enum nx__histogram histogram) {
  uint64_t max = 0;
  for (const struct slot *s = atomic_load_explicit(&slots, memory_order_acquire); s; s = s->next) {
    uint64_t here = atomic_load_explicit(&s->max_ns[histogram], memory_order_relaxed);
    if (here > max) max = here;
  }
  return max;
}

void nx_metrics_totals(struct nx_metrics_totals *out) {
  uint64_t cells[NX__CELL_COUNT];
  nx__metrics_merge(cells);
  *out = (struct nx_metrics_totals){
    .cache_hits = cells[NX__CELL_CACHE_HITS],
    .cache_misses = cells[NX__CELL_CACHE_MISSES],
    .suspensions = cells[NX__CELL_SUSPENSIONS],
    .resumes = cells[NX__CELL_RESUMES + NX_METRICS_RESUME_RESUMED],
    .execution_max_ns = max_of(NX__HISTOGRAM_EXECUTION),
    .queue_wait_max_ns = max_of(NX__HISTOGRAM_QUEUE_WAIT),
    .resume_max_ns = max_of(NX__HISTOGRAM_RESUME),
  };
  for (size_t label = 0; label < NX_METRICS_HANDLER_LABELS; label++)
    for (size_t status = 0; status < NX_METRICS_STATUS_COUNT; status++)
      out->by_status[status] += cells[NX__CELL_EXECUTIONS + label * NX_METRICS_STATUS_COUNT + status];
  for (size_t status = 0; status < NX_METRICS_STATUS_COUNT; status++) out->executions += out->by_status[status];
  out->errors = out->executions - out->by_status[NX_METRICS_STATUS_SUCCESS] -
                out->by_status[NX_METRICS_STATUS_SUSPENDED];
}
