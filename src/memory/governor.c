/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/governor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/number.h"
#include "memory/process_memory.h"

/* Time that one call may spend on giving back. */
#define CHARGE_RECLAIM_NS (10 * NX_NS_PER_MS)
#define LOOK_RECLAIM_NS (5 * NX_NS_PER_MS)
#define VAIN_NS (20 * NX_NS_PER_MS)
/* The process is the largest of so many looks: what others hold is subtracted from it as charged, not as touched, and
 * so it seems small just when much is charged. */
#define PROCESS_LOOKS 32u
#define THREAD_KERNEL_BYTES (16u << 10) /* a kernel stack (THREAD_SIZE on 64-bit machines) */
/* Working set that no layer names: from so much on, for so long, the ledger is wrong. */
#define UNACCOUNTED_LEAST (16 * NX_MIB)
#define UNACCOUNTED_LIMIT_PART 10u
#define UNACCOUNTED_FOR_NS (30 * NX_NS_PER_S)

/* Heads, small bodies and small results; and the part of the budget at which buffers are many. */
#define SMALL_BUFFER_BYTES (32u << 10)
#define BUFFERS_MANY_PART 4u
/* What strangers decide to keep (large buffers, handlers) takes a half of the budget at most, each. */
#define KEPT_PART 2u

struct account {
  struct nx_account as_account; /* first: what callers have */
  struct nx_governor *governor;
  enum nx_layer layer;
  enum nx_demand demand;
  _Atomic uint64_t bytes;
};

struct nx_governor {
  struct nx_governor_options options;
  struct nx_ledger *ledger;
  struct account accounts[NX_LAYER_COUNT][NX_DEMAND_COUNT];
  struct account buffers; /* layer http; its demand depends on the size */
  /* Synchronization: `looking` is held from reading the limit to setting the budget that follows from it, so that a
   * look does not undo what a glance saw after it began. Readers use the atomics. */
  pthread_mutex_t looking;
  _Atomic uint64_t limit;
  _Atomic uint64_t spare[NX_DEMAND_COUNT];
  _Atomic int state;
  _Atomic uint64_t vain_until_ns; /* a charge has just had all given back that there was */
  /* Synchronization: `reclaiming` is held by the thread that reclaims. */
  pthread_mutex_t reclaiming;
  struct nx_reclaimer reclaimers[NX_RECLAIMERS_MAX];
  unsigned reclaimer_count;
  /* Synchronization: of the looking thread alone, but for `status`, which its mutex guards. */
  struct nx_decider decider;
  uint64_t process_bytes[PROCESS_LOOKS];
  unsigned process_next;
  uint64_t unaccounted_since_ns;
  pthread_mutex_t status_mutex;
  struct nx_governor_status status;
};

static uint64_t load(const _Atomic uint64_t *value) { return atomic_load_explicit(value, memory_order_relaxed); }
static void store(_Atomic uint64_t *value, uint64_t to) { atomic_store_explicit(value, to, memory_order_relaxed); }

/* ---- Limit and budget ----------------------------------------------------------------------------------------------- */

static uint64_t reserve_of(const struct nx_governor *governor, uint64_t limit) {
  return nx_part_u64(limit, governor->options.reserve_percent, 100);
}

static void set_budget(struct nx_governor *governor, uint64_t budget) {
  store(&governor->spare[NX_DEMAND_SERVE], 0);
  uint64_t growth = nx_min_u64(budget / 8, 32 * NX_MIB);
  store(&governor->spare[NX_DEMAND_WORK], nx_min_u64(nx_min_u64(nx_max_u64(budget / 32, NX_MIB), 16 * NX_MIB), growth));
  store(&governor->spare[NX_DEMAND_GROWTH], growth);
  store(&governor->spare[NX_DEMAND_LARGE], nx_min_u64(budget / 4, 64 * NX_MIB));
  nx_ledger_set_budget(governor->ledger, budget);
}

static void log_limit(uint64_t from, uint64_t to) {
  char was[24], is[24];
  snprintf(was, sizeof was, "%llu", (unsigned long long)from);
  snprintf(is, sizeof is, "%llu", (unsigned long long)to);
  nx_log(NX_LOG_WARN, "the container's memory limit has changed", "fromBytes", was, "toBytes", is, NULL);
}

/* Under `looking`. What the cgroup says now, as far as configuration lets it. An unknown answer changes nothing. */
static void apply_limit(struct nx_governor *governor, struct nx_reading cgroup) {
  uint64_t before = load(&governor->limit), limit = before;
  if (nx_reading_is_value(cgroup)) limit = cgroup.value;
  if (governor->options.limit_is_set && cgroup.kind == NX_READING_UNLIMITED) limit = governor->options.limit_bytes;
  if (governor->options.limit_is_set) limit = nx_min_u64(limit, governor->options.limit_bytes);
  if (limit == before) return;
  if (limit < before) set_budget(governor, nx_min_u64(nx_ledger_budget(governor->ledger), limit - reserve_of(governor, limit)));
  store(&governor->limit, limit);
  log_limit(before, limit);
}

void nx_governor_glance(struct nx_governor *governor) {
  if (!governor->options.cgroup || pthread_mutex_trylock(&governor->looking)) return; /* the next one sees it */
  struct nx_cgroup_fast fast;
  nx_cgroup_read_fast(governor->options.cgroup, &fast);
  /* Only lower: it may be missing what the whole look sees. */
  if (nx_reading_is_value(fast.limit_bytes) && fast.limit_bytes.value < load(&governor->limit))
    apply_limit(governor, fast.limit_bytes);
  pthread_mutex_unlock(&governor->looking);
}

/* ---- Giving back ---------------------------------------------------------------------------------------------------- */

void nx_governor_add_reclaimer(struct nx_governor *governor, const struct nx_reclaimer *reclaimer) {
  if (governor->reclaimer_count < NX_RECLAIMERS_MAX) governor->reclaimers[governor->reclaimer_count++] = *reclaimer;
}

static uint64_t value_or(struct nx_reading reading, uint64_t otherwise) {
  return nx_reading_is_value(reading) ? reading.value : otherwise;
}

static void measure_cache(struct nx_governor *governor) {
  if (!governor->options.cache_dir) return;
  nx_ledger_set(governor->ledger, NX_LAYER_CACHE, value_or(nx_tmpfs_used_bytes(governor->options.cache_dir), 0));
}

/* Under `reclaiming`. */
static void reclaim(struct nx_governor *governor, uint64_t want, uint64_t deadline_ns) {
  uint64_t freed = 0;
  for (unsigned i = 0; i < governor->reclaimer_count && freed < want; i++) {
    const struct nx_reclaimer *reclaimer = &governor->reclaimers[i];
    uint64_t before = freed;
    enum nx_reclaim answer = reclaimer->run(reclaimer->self, want - freed, deadline_ns, &freed);
    nx_metrics_reclaimed(reclaimer->action, freed - before);
    /* Deleted files are measured, not released: the charge that wants their room must see it. */
    if (reclaimer->action == NX_METRICS_RECLAIM_CACHE_FILES && freed > before) measure_cache(governor);
    if (answer == NX_RECLAIM_MORE) break;
  }
}

/* UINT64_MAX: it would not fit if everything were given back. */
static uint64_t missing(const struct nx_governor *governor, uint64_t bytes, enum nx_demand demand) {
  uint64_t need;
  if (!bytes) return 0;
  if (__builtin_add_overflow(bytes, load(&governor->spare[demand]), &need)) return UINT64_MAX;
  return need > nx_ledger_budget(governor->ledger) ? UINT64_MAX : nx_minus_u64(need, nx_ledger_available(governor->ledger));
}

bool nx_governor_make_room(struct nx_governor *governor, uint64_t bytes, enum nx_demand demand) {
  if (missing(governor, bytes, demand) == UINT64_MAX) return false;
  pthread_mutex_lock(&governor->reclaiming);
  uint64_t want = missing(governor, bytes, demand);
  if (want && want != UINT64_MAX) reclaim(governor, want, nx_clock_ns() + CHARGE_RECLAIM_NS);
  pthread_mutex_unlock(&governor->reclaiming);
  return missing(governor, bytes, demand) == 0;
}

/* ---- Charging ------------------------------------------------------------------------------------------------------- */

bool nx_governor_try_charge(struct nx_governor *governor, enum nx_layer layer, uint64_t bytes, enum nx_demand demand) {
  return !missing(governor, bytes, demand) &&
         nx_ledger_charge_sparing(governor->ledger, layer, bytes, load(&governor->spare[demand]));
}

/* A guest may ask for growth in a loop, and a probe's buffer must not queue for a turn at reclaiming: after a try that did
 * not make enough room these two do not try again for a while. */
static bool is_vain(const struct nx_governor *governor, enum nx_demand demand) {
  bool hasty = demand == NX_DEMAND_GROWTH || demand == NX_DEMAND_SERVE;
  return hasty && nx_clock_ns() < load(&governor->vain_until_ns);
}

bool nx_governor_charge(struct nx_governor *governor, enum nx_layer layer, uint64_t bytes, enum nx_demand demand) {
  if (missing(governor, bytes, demand) && !is_vain(governor, demand) && !nx_governor_make_room(governor, bytes, demand))
    store(&governor->vain_until_ns, nx_clock_ns() + VAIN_NS);
  return nx_ledger_charge_sparing(governor->ledger, layer, bytes, load(&governor->spare[demand]));
}

void nx_governor_release(struct nx_governor *governor, enum nx_layer layer, uint64_t bytes) {
  nx_ledger_release(governor->ledger, layer, bytes);
}

bool nx_governor_is_within_budget(const struct nx_governor *governor) {
  return nx_ledger_total(governor->ledger) <= nx_ledger_budget(governor->ledger);
}

static bool charge_as(struct account *self, size_t bytes, enum nx_demand demand) {
  if (!nx_governor_charge(self->governor, self->layer, bytes, demand)) return false;
  atomic_fetch_add_explicit(&self->bytes, bytes, memory_order_relaxed);
  return true;
}

static bool keeps_too_much(struct account *self, size_t bytes) {
  struct nx_ledger *ledger = self->governor->ledger;
  if (load(&self->bytes) + bytes <= nx_ledger_budget(ledger) / KEPT_PART) return false;
  nx_ledger_count_refusal(ledger, self->layer);
  return true;
}

static bool charge_account(struct nx_account *account, size_t bytes) {
  struct account *self = (struct account *)account;
  if (self->layer == NX_LAYER_HANDLERS && keeps_too_much(self, bytes)) return false;
  return charge_as(self, bytes, self->demand);
}

static bool charge_buffers(struct nx_account *account, size_t bytes) {
  struct account *self = (struct account *)account;
  if (bytes <= SMALL_BUFFER_BYTES) return charge_as(self, bytes, NX_DEMAND_SERVE);
  return !keeps_too_much(self, bytes) && charge_as(self, bytes, NX_DEMAND_GROWTH);
}

static void release_account(struct nx_account *account, size_t bytes) {
  struct account *self = (struct account *)account;
  atomic_fetch_sub_explicit(&self->bytes, bytes, memory_order_relaxed);
  nx_ledger_release(self->governor->ledger, self->layer, bytes);
}

struct nx_account *nx_governor_account(struct nx_governor *governor, enum nx_layer layer, enum nx_demand demand) {
  return &governor->accounts[layer][demand].as_account;
}

struct nx_account *nx_governor_buffers(struct nx_governor *governor) { return &governor->buffers.as_account; }

bool nx_governor_buffers_are_many(const struct nx_governor *governor) {
  return load(&governor->buffers.bytes) > nx_ledger_budget(governor->ledger) / BUFFERS_MANY_PART;
}

/* ---- Looking -------------------------------------------------------------------------------------------------------- */

/* Anonymous memory that no other layer names, and the program itself. */
static void measure_process(struct nx_governor *governor, const struct nx_process_memory *process) {
  const struct nx_ledger *ledger = governor->ledger;
  uint64_t named = nx_ledger_current(ledger, NX_LAYER_INSTANCES) + nx_ledger_current(ledger, NX_LAYER_HANDLERS) +
                   nx_ledger_current(ledger, NX_LAYER_SUSPENDED) +
                   load(&governor->buffers.bytes);
  uint64_t most = 0;
  governor->process_bytes[governor->process_next++ % PROCESS_LOOKS] = nx_minus_u64(process->anon_bytes, named);
  for (unsigned i = 0; i < PROCESS_LOOKS; i++) most = nx_max_u64(most, governor->process_bytes[i]);
  nx_ledger_set(governor->ledger, NX_LAYER_PROCESS, most + process->file_bytes + governor->options.base_image_bytes);
}

static uint64_t measure_kernel(struct nx_governor *governor, const struct nx_process_memory *process,
                               const struct nx_cgroup_memory *cgroup) {
  uint64_t own = process->page_table_bytes + (uint64_t)process->threads * THREAD_KERNEL_BYTES;
  uint64_t sockets = load(&governor->accounts[NX_LAYER_HTTP][NX_DEMAND_SERVE].bytes);
  uint64_t bytes = own;
  if (nx_reading_is_value(cgroup->limit_bytes)) /* else the cgroup is not ours alone */
    bytes = value_or(cgroup->kernel_bytes, own) + nx_minus_u64(value_or(cgroup->socket_bytes, 0), sockets);
  nx_ledger_set(governor->ledger, NX_LAYER_KERNEL, bytes);
  return bytes;
}

/* What the kernel counts and cannot drop: without the page cache of files, which it can. */
static struct nx_reading used_bytes(const struct nx_cgroup_memory *cgroup, uint64_t kernel_bytes) {
  if (!nx_reading_is_value(cgroup->limit_bytes)) return nx_reading_unknown();
  if (!nx_reading_is_value(cgroup->anon_bytes) || !nx_reading_is_value(cgroup->shmem_bytes))
    return cgroup->working_set_bytes;
  return nx_reading_of(cgroup->anon_bytes.value + cgroup->shmem_bytes.value +
                       value_or(cgroup->kernel_bytes, kernel_bytes) + value_or(cgroup->socket_bytes, 0));
}

/* Says so once when much has been unaccounted for long. */
static bool is_high(struct nx_governor *governor, uint64_t unaccounted, uint64_t now_ns) {
  uint64_t most = nx_max_u64(UNACCOUNTED_LEAST, load(&governor->limit) / UNACCOUNTED_LIMIT_PART);
  if (unaccounted <= most) {
    governor->unaccounted_since_ns = 0;
    return false;
  }
  if (!governor->unaccounted_since_ns) governor->unaccounted_since_ns = now_ns;
  bool high = now_ns - governor->unaccounted_since_ns >= UNACCOUNTED_FOR_NS;
  if (high && !governor->status.unaccounted_is_high) {
    char bytes[24];
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)unaccounted);
    nx_log(NX_LOG_WARN, "the container uses memory that no layer accounts for", "bytes", bytes, NULL);
  }
  return high;
}

static void publish(struct nx_governor *governor, const struct nx_decision *decision,
                    const struct nx_cgroup_memory *cgroup, uint64_t now_ns) {
  uint64_t accounted = nx_ledger_total(governor->ledger);
  uint64_t unaccounted = nx_minus_u64(value_or(cgroup->working_set_bytes, 0), accounted);
  if (!nx_reading_is_value(cgroup->limit_bytes)) unaccounted = 0; /* the cgroup is not ours alone */
  bool high = is_high(governor, unaccounted, now_ns);
  pthread_mutex_lock(&governor->status_mutex);
  governor->status = (struct nx_governor_status){
    .state = decision->state,
    .unaccounted_bytes = unaccounted,
    .unaccounted_is_high = high,
    .kernel = *cgroup,
  };
  pthread_mutex_unlock(&governor->status_mutex);
}

/* Under `looking`: reads, decides, sets the budget. */
static void look(struct nx_governor *governor, uint64_t now_ns, struct nx_cgroup_memory *cgroup,
                 struct nx_decision *decision) {
  if (governor->options.cgroup) nx_cgroup_read_memory(governor->options.cgroup, cgroup);
  apply_limit(governor, cgroup->limit_bytes);
  uint64_t kernel_bytes = 0;
  struct nx_process_memory process;
  struct nx_error err;
  if (!nx_process_memory_read(&process, &err)) {
    measure_process(governor, &process);
    kernel_bytes = measure_kernel(governor, &process, cgroup);
  }
  measure_cache(governor);
  uint64_t limit = load(&governor->limit);
  const struct nx_view view = {
    .now_ns = now_ns,
    .limit_bytes = limit,
    .reserve_bytes = reserve_of(governor, limit),
    .accounted_bytes = nx_ledger_total(governor->ledger),
    .used_bytes = used_bytes(cgroup, kernel_bytes),
    .pressure_bp = nx_reading_is_value(cgroup->limit_bytes) ? cgroup->pressure_bp : nx_reading_unknown(),
  };
  nx_decide(&governor->decider, &view, decision);
  set_budget(governor, decision->budget_bytes);
}

void nx_governor_look(struct nx_governor *governor, uint64_t now_ns) {
  struct nx_cgroup_memory cgroup = {0};
  struct nx_decision decision;
  pthread_mutex_lock(&governor->looking);
  look(governor, now_ns, &cgroup, &decision);
  pthread_mutex_unlock(&governor->looking);
  atomic_store_explicit(&governor->state, (int)decision.state, memory_order_relaxed);
  publish(governor, &decision, &cgroup, now_ns);
  if (!decision.give_back_bytes) return;
  pthread_mutex_lock(&governor->reclaiming);
  reclaim(governor, decision.give_back_bytes, nx_clock_ns() + LOOK_RECLAIM_NS);
  pthread_mutex_unlock(&governor->reclaiming);
}

void nx_governor_read_status(struct nx_governor *governor, struct nx_governor_status *out) {
  pthread_mutex_lock(&governor->status_mutex);
  *out = governor->status;
  pthread_mutex_unlock(&governor->status_mutex);
  out->limit_bytes = load(&governor->limit);
  out->budget_bytes = nx_ledger_budget(governor->ledger);
  out->accounted_bytes = nx_ledger_total(governor->ledger);
}

enum nx_governor_state nx_governor_state(const struct nx_governor *governor) {
  return (enum nx_governor_state)atomic_load_explicit(&governor->state, memory_order_relaxed);
}

struct nx_refusal nx_governor_refusal(const struct nx_governor *governor, uint64_t requested_bytes) {
  return (struct nx_refusal){"container", nx_ledger_budget(governor->ledger), nx_ledger_total(governor->ledger),
                             requested_bytes};
}

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

int nx_governor_create(struct nx_governor **out, const struct nx_governor_options *options, struct nx_error *err) {
  struct nx_governor *governor = calloc(1, sizeof *governor);
  if (!governor) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the governor");
  governor->options = *options;
  governor->ledger = options->ledger;
  pthread_mutex_init(&governor->looking, NULL);
  pthread_mutex_init(&governor->reclaiming, NULL);
  pthread_mutex_init(&governor->status_mutex, NULL);
  for (int layer = 0; layer < NX_LAYER_COUNT; layer++)
    for (int demand = 0; demand < NX_DEMAND_COUNT; demand++) {
      struct account *account = &governor->accounts[layer][demand];
      account->as_account = (struct nx_account){charge_account, release_account};
      account->governor = governor;
      account->layer = (enum nx_layer)layer;
      account->demand = (enum nx_demand)demand;
    }
  governor->buffers = (struct account){{charge_buffers, release_account}, governor, NX_LAYER_HTTP, NX_DEMAND_GROWTH, 0};
  store(&governor->limit, options->limit_bytes);
  set_budget(governor, options->limit_bytes - reserve_of(governor, options->limit_bytes));
  *out = governor;
  return 0;
}

void nx_governor_destroy(struct nx_governor *governor) {
  if (!governor) return;
  pthread_mutex_destroy(&governor->status_mutex);
  pthread_mutex_destroy(&governor->reclaiming);
  pthread_mutex_destroy(&governor->looking);
  free(governor);
}
