/* SPDX-License-Identifier: Apache-2.0
 * The governor's charges: who gets the last of the budget, giving back, accounts, and its promises under threads. */
#include "governor_support.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "pool/pool.h"

/* ---- Demands ------------------------------------------------------------------------------------------------------------ */

static void demands_leave_spare_parts_to_each_other(void **state) {
  (void)state;
  static const struct {
    uint64_t limit;
    unsigned reserve_percent;
    uint64_t budget, spare[NX_DEMAND_COUNT];
  } table[] = {
    {100 * MIB, 10, 94371840, {0, 2949120, 11796480, 23592960}},
    {4 * GIB, 10, UINT64_C(3865470567), {0, 16 * MIB, 32 * MIB, 64 * MIB}},
    {10 * MIB, 0, 10 * MIB, {0, MIB, 1310720, 2621440}},
    {4 * MIB, 0, 4 * MIB, {0, MIB / 2, MIB / 2, MIB}}, /* never less to those above than to those below */
    {1001, 50, 501, {0, 62, 62, 125}},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    create_simple(table[i].limit, table[i].reserve_percent);
    assert_int_equal(nx_ledger_budget(&ledger), table[i].budget);
    for (int demand = 0; demand < NX_DEMAND_COUNT; demand++) {
      uint64_t most = table[i].budget - table[i].spare[demand];
      assert_false(nx_governor_try_charge(governor, NX_LAYER_HTTP, most + 1, (enum nx_demand)demand));
      assert_false(nx_governor_charge(governor, NX_LAYER_HTTP, most + 1, (enum nx_demand)demand));
      assert_true(nx_governor_try_charge(governor, NX_LAYER_HTTP, most, (enum nx_demand)demand));
      release(NX_LAYER_HTTP, most);
      assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, most, (enum nx_demand)demand));
      release(NX_LAYER_HTTP, most);
    }
    destroy();
  }
}

static void the_server_gets_the_last(void **state) {
  (void)state;
  static const enum nx_demand down[] = {NX_DEMAND_LARGE, NX_DEMAND_GROWTH, NX_DEMAND_WORK, NX_DEMAND_SERVE};
  create_simple(100 * MIB, 10);
  uint64_t taken = 0;
  for (size_t i = 0; i < sizeof down / sizeof *down; i++) {
    for (size_t above = 0; above < i; above++)
      assert_false(nx_governor_try_charge(governor, NX_LAYER_HTTP, 1, down[above]));
    for (; nx_governor_try_charge(governor, NX_LAYER_HTTP, KIB, down[i]); taken += KIB) continue;
  }
  assert_int_equal(taken, 94371840);
  release(NX_LAYER_HTTP, taken);
  destroy();
}

static void nothing_always_fits(void **state) {
  (void)state;
  create_simple(0, 10);
  for (int demand = 0; demand < NX_DEMAND_COUNT; demand++) {
    assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, 0, (enum nx_demand)demand));
    assert_true(nx_governor_try_charge(governor, NX_LAYER_HTTP, 0, (enum nx_demand)demand));
    assert_true(nx_governor_make_room(governor, 0, (enum nx_demand)demand));
    assert_false(nx_governor_charge(governor, NX_LAYER_HTTP, 1, (enum nx_demand)demand));
  }
  destroy();
}

static void impossible_sizes_are_refused(void **state) {
  (void)state;
  create_simple(100 * MIB, 10);
  static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - MIB, UINT64_MAX / 2 + 1, 100 * MIB};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int demand = 0; demand < NX_DEMAND_COUNT; demand++) {
      assert_false(nx_governor_charge(governor, NX_LAYER_HTTP, sizes[i], (enum nx_demand)demand));
      assert_false(nx_governor_try_charge(governor, NX_LAYER_HTTP, sizes[i], (enum nx_demand)demand));
      assert_false(nx_governor_make_room(governor, sizes[i], (enum nx_demand)demand));
      if (sizes[i] <= SIZE_MAX / 2)
        assert_false(nx_account_charge(nx_governor_buffers(governor), sizes[i]));
    }
  assert_true(nx_ledger_total(&ledger) == 0);
  destroy();
}

/* ---- Giving back -------------------------------------------------------------------------------------------------------- */

static struct hoard hoards[3];

/* 100 MiB without a reserve; each holds so much. */
static void create_with_hoards(uint64_t a, uint64_t b, uint64_t c) {
  const uint64_t held[] = {a, b, c};
  create_simple(100 * MIB, 0);
  turns = 0;
  for (int i = 0; i < 3; i++) {
    hoards[i] = (struct hoard){.held = held[i]};
    charge(NX_LAYER_SUSPENDED, held[i]);
    nx_governor_add_reclaimer(governor, &(struct nx_reclaimer){NX_METRICS_RECLAIM_HANDLER_IMAGES, &hoards[i], give_back});
  }
}

static void destroy_with_hoards(void) {
  for (int i = 0; i < 3; i++) release(NX_LAYER_SUSPENDED, hoards[i].held);
  destroy();
}

static void a_charge_has_reclaimers_give_back_in_order(void **state) {
  (void)state;
  create_with_hoards(10 * MIB, 20 * MIB, 30 * MIB);
  assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, 40 * MIB, NX_DEMAND_SERVE));
  assert_int_equal(turns, 0); /* it fitted */
  assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, 15 * MIB, NX_DEMAND_SERVE));
  assert_int_equal(hoards[0].wanted, 15 * MIB);
  assert_int_equal(hoards[1].wanted, 5 * MIB);
  assert_true(hoards[0].turn == 1 && hoards[1].turn == 2 && hoards[2].calls == 0);
  assert_true(hoards[0].time_ns <= (int64_t)(10 * NX_NS_PER_MS));
  assert_true(hoards[1].time_ns <= (int64_t)(10 * NX_NS_PER_MS));
  assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, 20 * MIB, NX_DEMAND_SERVE));
  assert_true(hoards[0].calls == 2 && hoards[1].calls == 2 && hoards[2].calls == 1);
  assert_int_equal(hoards[2].wanted, 5 * MIB);
  assert_int_equal(hoards[2].held, 25 * MIB);
  assert_int_equal(refusals(NX_LAYER_HTTP), 0);
  release(NX_LAYER_HTTP, 75 * MIB);
  destroy_with_hoards();
}

/* The spare part is wanted back as well. */
static void demands_want_their_spare_part_too(void **state) {
  (void)state;
  create_with_hoards(100 * MIB, 0, 0);
  assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, MIB, NX_DEMAND_LARGE));
  assert_int_equal(hoards[0].wanted, 26 * MIB);
  release(NX_LAYER_HTTP, MIB);
  destroy_with_hoards();
}

static void who_is_out_of_time_ends_it(void **state) {
  (void)state;
  create_with_hoards(50 * MIB, 50 * MIB, 0);
  hoards[0].is_slow = true;
  hoards[0].step = 3 * MIB;
  assert_false(nx_governor_charge(governor, NX_LAYER_HTTP, 10 * MIB, NX_DEMAND_WORK));
  assert_true(hoards[0].calls == 1 && hoards[1].calls == 0);
  assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, 2 * MIB, NX_DEMAND_WORK)); /* what was given back stays so */
  assert_int_equal(hoards[0].held, 44 * MIB);
  release(NX_LAYER_HTTP, 2 * MIB);
  destroy_with_hoards();
}

static void refusals_are_counted_once(void **state) {
  (void)state;
  create_with_hoards(40 * MIB, 0, 0);
  charge(NX_LAYER_INSTANCES, 60 * MIB);
  assert_false(nx_governor_charge(governor, NX_LAYER_HTTP, 50 * MIB, NX_DEMAND_SERVE));
  assert_int_equal(refusals(NX_LAYER_HTTP), 1);
  assert_int_equal(hoards[0].held, 0); /* which was given back in vain */
  assert_false(nx_governor_try_charge(governor, NX_LAYER_HTTP, 50 * MIB, NX_DEMAND_SERVE));
  assert_false(nx_governor_make_room(governor, 50 * MIB, NX_DEMAND_SERVE));
  assert_int_equal(refusals(NX_LAYER_HTTP), 1);
  assert_false(nx_account_charge(nx_governor_account(governor, NX_LAYER_HTTP, NX_DEMAND_SERVE), 50 * MIB));
  assert_int_equal(refusals(NX_LAYER_HTTP), 2);
  assert_false(nx_account_charge(nx_governor_buffers(governor), 45 * MIB));
  assert_int_equal(refusals(NX_LAYER_HTTP), 3);
  assert_false(nx_account_charge(nx_governor_buffers(governor), 55 * MIB)); /* more than buffers may have */
  assert_int_equal(refusals(NX_LAYER_HTTP), 4);
  release(NX_LAYER_INSTANCES, 60 * MIB);
  destroy_with_hoards();
}

static void room_is_made_without_taking_it(void **state) {
  (void)state;
  create_with_hoards(100 * MIB, 0, 0);
  assert_true(nx_governor_make_room(governor, 10 * MIB, NX_DEMAND_SERVE));
  assert_int_equal(nx_ledger_available(&ledger), 10 * MIB);
  assert_true(nx_governor_make_room(governor, 10 * MIB, NX_DEMAND_SERVE));
  assert_int_equal(hoards[0].calls, 1);
  hoards[0].is_slow = true;
  assert_false(nx_governor_make_room(governor, 11 * MIB, NX_DEMAND_SERVE));
  destroy_with_hoards();
}

static void nothing_is_given_back_for_nothing(void **state) {
  (void)state;
  create_with_hoards(100 * MIB, 0, 0);
  assert_false(nx_governor_charge(governor, NX_LAYER_HTTP, 100 * MIB + 1, NX_DEMAND_SERVE)); /* it would be in vain */
  assert_false(nx_governor_make_room(governor, 80 * MIB, NX_DEMAND_LARGE));
  for (int demand = 0; demand < NX_DEMAND_COUNT; demand++)
    assert_true(nx_governor_charge(governor, NX_LAYER_HTTP, 0, (enum nx_demand)demand));
  assert_int_equal(hoards[0].calls, 0);
  destroy_with_hoards();
}

/* A tmpfs is measured, not charged: what was deleted there must count before the charge is tried again. */
static char cache_file[128];

static enum nx_reclaim delete_file(void *calls, uint64_t want, uint64_t deadline_ns, uint64_t *freed) {
  (void)want, (void)deadline_ns;
  ++*(int *)calls;
  if (unlink(cache_file)) return NX_RECLAIM_NOTHING;
  *freed += 32 * MIB;
  return NX_RECLAIM_DONE;
}

static void deleted_cache_files_count_at_once(void **state) {
  (void)state;
  if (!nx_reading_is_value(nx_tmpfs_used_bytes("/dev/shm"))) skip();
  snprintf(cache_file, sizeof cache_file, "/dev/shm/nexus-governor-%d", (int)getpid());
  int fd = open(cache_file, O_CREAT | O_RDWR | O_CLOEXEC, 0600), calls = 0;
  assert_true(fd >= 0);
  bool has_room = posix_fallocate(fd, 0, (off_t)(32 * MIB)) == 0;
  close(fd);
  if (!has_room) {
    unlink(cache_file);
    skip();
  }
  create((struct nx_governor_options){.limit_bytes = 64 * GIB, .cache_dir = "/dev/shm"});
  nx_governor_add_reclaimer(governor, &(struct nx_reclaimer){NX_METRICS_RECLAIM_CACHE_FILES, &calls, delete_file});
  nx_governor_look(governor, NX_NS_PER_S);
  assert_true(nx_ledger_current(&ledger, NX_LAYER_CACHE) >= 32 * MIB);
  uint64_t rest = nx_ledger_available(&ledger) - 8 * MIB;
  charge(NX_LAYER_INSTANCES, rest);
  bool granted = nx_governor_charge(governor, NX_LAYER_HTTP, 16 * MIB, NX_DEMAND_SERVE);
  unlink(cache_file);
  assert_true(granted);
  assert_int_equal(calls, 1);
  release(NX_LAYER_HTTP, 16 * MIB);
  release(NX_LAYER_INSTANCES, rest);
  destroy();
}

/* ---- Accounts ----------------------------------------------------------------------------------------------------------- */

static void accounts_release_what_they_charged(void **state) {
  (void)state;
  create_simple(100 * MIB, 0);
  struct nx_account *handlers = nx_governor_account(governor, NX_LAYER_HANDLERS, NX_DEMAND_GROWTH);
  struct nx_account *sockets = nx_governor_account(governor, NX_LAYER_HTTP, NX_DEMAND_SERVE);
  struct nx_account *buffers = nx_governor_buffers(governor);
  assert_ptr_equal(nx_governor_account(governor, NX_LAYER_HTTP, NX_DEMAND_SERVE), sockets);
  assert_true(nx_account_charge(handlers, 10 * MIB));
  assert_true(nx_account_charge(sockets, 20 * MIB));
  assert_true(nx_account_charge(buffers, 30 * MIB));
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_HANDLERS), 10 * MIB);
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_HTTP), 50 * MIB);
  assert_false(nx_account_charge(handlers, 28 * MIB)); /* the spare part of growth */
  assert_true(nx_account_charge(handlers, 27 * MIB));
  assert_true(nx_account_charge(sockets, 13 * MIB));
  assert_false(nx_account_charge(sockets, 1));
  assert_int_equal(nx_ledger_total(&ledger), 100 * MIB);
  nx_account_release(sockets, 33 * MIB);
  nx_account_release(handlers, 37 * MIB);
  nx_account_release(buffers, 30 * MIB);
  destroy();
}

static void handlers_take_half_at_most(void **state) {
  (void)state;
  create_simple(100 * MIB, 0);
  struct nx_account *handlers = nx_governor_account(governor, NX_LAYER_HANDLERS, NX_DEMAND_GROWTH);
  assert_true(nx_account_charge(handlers, 50 * MIB));
  assert_false(nx_account_charge(handlers, 1));
  nx_account_release(handlers, 1);
  assert_true(nx_account_charge(handlers, 1));
  assert_int_equal(refusals(NX_LAYER_HANDLERS), 1);
  nx_account_release(handlers, 50 * MIB);
  destroy();
}

static void small_buffers_pass_when_large_ones_do_not(void **state) {
  (void)state;
  create_simple(100 * MIB, 0);
  struct nx_account *buffers = nx_governor_buffers(governor);
  charge(NX_LAYER_INSTANCES, 88 * MIB); /* growth leaves 12.5 */
  assert_false(nx_account_charge(buffers, 32 * KIB + 1));
  assert_true(nx_account_charge(buffers, 32 * KIB));
  uint64_t held = 32 * KIB;
  for (; nx_account_charge(buffers, 32 * KIB); held += 32 * KIB) continue;
  assert_int_equal(held, 12 * MIB);
  nx_account_release(buffers, held);
  release(NX_LAYER_INSTANCES, 88 * MIB);
  destroy();
}

static void large_buffers_take_half_at_most(void **state) {
  (void)state;
  create_simple(100 * MIB, 0);
  struct nx_account *buffers = nx_governor_buffers(governor);
  assert_true(nx_account_charge(buffers, 49 * MIB));
  assert_false(nx_account_charge(buffers, MIB + 1));
  assert_true(nx_account_charge(buffers, MIB));
  assert_false(nx_account_charge(buffers, 32 * KIB + 1));
  assert_true(nx_account_charge(buffers, 32 * KIB)); /* small ones always */
  nx_ledger_set_budget(&ledger, 60 * MIB);
  nx_account_release(buffers, 20 * MIB);
  assert_false(nx_account_charge(buffers, MIB)); /* half of what it is now */
  nx_account_release(buffers, 30 * MIB + 32 * KIB);
  destroy();
}

static void buffers_are_many_past_a_quarter(void **state) {
  (void)state;
  create_simple(100 * MIB, 0);
  struct nx_account *buffers = nx_governor_buffers(governor);
  charge(NX_LAYER_HTTP, 40 * MIB); /* of connections: not theirs */
  assert_true(nx_account_charge(buffers, 25 * MIB));
  assert_false(nx_governor_buffers_are_many(governor));
  assert_true(nx_account_charge(buffers, 1));
  assert_true(nx_governor_buffers_are_many(governor));
  nx_account_release(buffers, 1);
  assert_false(nx_governor_buffers_are_many(governor));
  nx_ledger_set_budget(&ledger, 99 * MIB);
  assert_true(nx_governor_buffers_are_many(governor));
  nx_account_release(buffers, 25 * MIB);
  release(NX_LAYER_HTTP, 40 * MIB);
  destroy();
}

static void texts_grow_on_an_account(void **state) {
  (void)state;
  create_simple(10 * MIB, 0);
  struct nx_buf buf = {.account = nx_governor_buffers(governor)};
  while (!buf.failed) nx_buf_lit(&buf, "0123456789abcdef");
  assert_in_range(buf.starved_bytes, MIB / 2, MIB);
  assert_in_range(buf.len, 2 * MIB, 5 * MIB);
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_HTTP), buf.capacity);
  assert_int_equal(refusals(NX_LAYER_HTTP), 1);
  nx_buf_deinit(&buf);
  destroy();
}

static void within_the_budget_or_not(void **state) {
  (void)state;
  create_simple(100 * MIB, 0);
  charge(NX_LAYER_INSTANCES, 60 * MIB);
  assert_true(nx_governor_is_within_budget(governor));
  nx_ledger_set_budget(&ledger, 60 * MIB);
  assert_true(nx_governor_is_within_budget(governor));
  nx_ledger_set_budget(&ledger, 60 * MIB - 1);
  assert_false(nx_governor_is_within_budget(governor));
  release(NX_LAYER_INSTANCES, 1);
  assert_true(nx_governor_is_within_budget(governor));
  release(NX_LAYER_INSTANCES, 60 * MIB - 1);
  destroy();
}

/* ---- Threads ---------------------------------------------------------------------------------------------------------------- */

enum { THREADS = 6 };

struct worker {
  unsigned seed;
  unsigned rounds;
  struct nx_pool *pool;
};

static void run_threads(void *(*body)(void *), unsigned rounds, struct nx_pool *pool, void (*meanwhile)(void)) {
  pthread_t threads[THREADS];
  struct worker workers[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){.seed = i + 1, .rounds = rounds, .pool = pool};
    assert_int_equal(pthread_create(&threads[i], NULL, body, &workers[i]), 0);
  }
  if (meanwhile) meanwhile();
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

/* Who asks for growth, or for buffers of a probe, again and again does not have everything given back each time. */
static void vain_reclaiming_is_not_repeated_at_once(void **state) {
  (void)state;
  create_with_hoards(0, 0, 0);
  charge(NX_LAYER_HANDLERS, 60 * MIB);
  for (int i = 0; i < 50; i++) assert_false(nx_governor_charge(governor, NX_LAYER_INSTANCES, 40 * MIB, NX_DEMAND_GROWTH));
  assert_in_range(hoards[0].calls, 1, 10);
  unsigned before = hoards[0].calls;
  assert_false(nx_governor_charge(governor, NX_LAYER_INSTANCES, 40 * MIB, NX_DEMAND_LARGE));
  assert_int_equal(hoards[0].calls, before + 1);
  release(NX_LAYER_HANDLERS, 60 * MIB);
  destroy_with_hoards();
}

static _Atomic int inside, crowded, reclaims;

static enum nx_reclaim reclaim_alone(void *unused, uint64_t want, uint64_t deadline_ns, uint64_t *freed) {
  (void)unused, (void)want, (void)deadline_ns, (void)freed;
  if (atomic_fetch_add(&inside, 1)) atomic_fetch_add(&crowded, 1);
  usleep(500);
  atomic_fetch_add(&reclaims, 1);
  atomic_fetch_sub(&inside, 1);
  return NX_RECLAIM_NOTHING;
}

static void *charge_in_vain(void *argument) {
  const struct worker *w = argument;
  for (unsigned i = 0; i < w->rounds; i++)
    if (nx_governor_charge(governor, NX_LAYER_HTTP, 2 * MIB, NX_DEMAND_WORK)) atomic_fetch_add(&crowded, 1);
  return NULL;
}

static void one_thread_at_a_time_reclaims(void **state) {
  (void)state;
  create_simple(4 * MIB, 0);
  charge(NX_LAYER_INSTANCES, 3 * MIB);
  nx_governor_add_reclaimer(governor, &(struct nx_reclaimer){NX_METRICS_RECLAIM_HANDLER_IMAGES, NULL, reclaim_alone});
  run_threads(charge_in_vain, 20, NULL, NULL);
  assert_int_equal(crowded, 0);
  assert_int_equal(reclaims, THREADS * 20);
  assert_int_equal(refusals(NX_LAYER_HTTP), THREADS * 20);
  release(NX_LAYER_INSTANCES, 3 * MIB);
  destroy();
}

/* ---- Everything at once ------------------------------------------------------------------------------------------------------- */

/* What is kept for speed: a charge without an owner that reclaimers may take. */
static _Atomic uint64_t kept;

static enum nx_reclaim give_kept(void *unused, uint64_t want, uint64_t deadline_ns, uint64_t *freed) {
  (void)unused, (void)deadline_ns;
  uint64_t all = atomic_load(&kept), bytes;
  do bytes = all < want ? all : want;
  while (!atomic_compare_exchange_weak(&kept, &all, all - bytes));
  release(NX_LAYER_SUSPENDED, bytes);
  *freed += bytes;
  return bytes == want ? NX_RECLAIM_DONE : NX_RECLAIM_NOTHING;
}

enum { HELD = 16 };
static _Atomic uint64_t most_budget; /* the total may not be above it */
static _Atomic int broken;

struct hands {
  struct nx_account *account;
  size_t held[HELD];
  struct nx_buf bufs[HELD];
  struct nx_reservation reservations[HELD];
};

static size_t random_bytes(unsigned *seed) {
  size_t most = rand_r(seed) % 8 ? 64 * KIB : 4 * MIB;
  return (size_t)rand_r(seed) % most;
}

static void charge_or_release(struct hands *h, unsigned i, unsigned *seed) {
  size_t bytes = random_bytes(seed);
  if (h->held[i]) {
    size_t part = rand_r(seed) % 2 ? h->held[i] : h->held[i] / 2 + 1;
    nx_account_release(h->account, part);
    h->held[i] -= part;
  } else if (nx_account_charge(h->account, bytes)) {
    h->held[i] = bytes;
  }
}

static void write_or_free(struct hands *h, unsigned i, unsigned *seed) {
  struct nx_buf *buf = &h->bufs[i];
  buf->account = nx_governor_buffers(governor);
  switch (rand_r(seed) % 4) {
  case 0: nx_buf_reset(buf, (size_t)rand_r(seed) % (64 * KIB)); break;
  case 1: nx_buf_shrink(buf); break;
  case 2: nx_buf_deinit(buf); break;
  default: {
    size_t bytes = random_bytes(seed) / 4;
    if (nx_buf_reserve(buf, bytes)) buf->len += bytes;
    if (buf->failed != (buf->starved_bytes > 0)) atomic_fetch_add(&broken, 1);
  }
  }
}

static void reserve_or_not(struct nx_pool *pool, struct hands *h, unsigned i, unsigned *seed) {
  struct nx_reservation *r = &h->reservations[i];
  enum nx_demand demand = rand_r(seed) % 2 ? NX_DEMAND_LARGE : NX_DEMAND_WORK;
  uint64_t before = r->bytes, bytes = nx_pool_reservation_bytes(pool, random_bytes(seed));
  if (!(rand_r(seed) % 3))
    nx_pool_unreserve(pool, r);
  else if (nx_pool_try_reserve(pool, r, bytes, demand) ? r->bytes < bytes : r->bytes != before)
    atomic_fetch_add(&broken, 1);
}

static void keep_some(unsigned *seed) {
  uint64_t bytes = random_bytes(seed);
  if (nx_governor_try_charge(governor, NX_LAYER_SUSPENDED, bytes, NX_DEMAND_GROWTH)) atomic_fetch_add(&kept, bytes);
}

static void let_go(struct nx_pool *pool, struct hands *h) {
  for (unsigned i = 0; i < HELD; i++) {
    nx_account_release(h->account, h->held[i]);
    nx_buf_deinit(&h->bufs[i]);
    nx_pool_unreserve(pool, &h->reservations[i]);
  }
}

static void *do_everything(void *argument) {
  struct worker *w = argument;
  struct hands h = {0};
  unsigned *seed = &w->seed;
  static const enum nx_layer layers[] = {NX_LAYER_HANDLERS, NX_LAYER_HTTP, NX_LAYER_INSTANCES};
  h.account = nx_governor_account(governor, layers[w->seed % 3], w->seed % 2 ? NX_DEMAND_GROWTH : NX_DEMAND_SERVE);
  for (unsigned n = 0; n < w->rounds; n++) {
    unsigned i = (unsigned)rand_r(seed) % HELD;
    switch (rand_r(seed) % 4) {
    case 0: charge_or_release(&h, i, seed); break;
    case 1: write_or_free(&h, i, seed); break;
    case 2: reserve_or_not(w->pool, &h, i, seed); break;
    default: keep_some(seed); break;
    }
    if (nx_ledger_total(&ledger) > atomic_load(&most_budget)) atomic_fetch_add(&broken, 1);
  }
  let_go(w->pool, &h);
  return NULL;
}

static void with_everything(unsigned rounds, void (*meanwhile)(void)) {
  struct nx_pool *pool;
  struct nx_error err;
  assert_int_equal(nx_pool_create(&pool, 4, 100 * KIB, governor, &err), 0);
  nx_governor_add_reclaimer(governor, &(struct nx_reclaimer){NX_METRICS_RECLAIM_HANDLER_IMAGES, NULL, give_kept});
  broken = 0;
  run_threads(do_everything, rounds, pool, meanwhile);
  release(NX_LAYER_SUSPENDED, atomic_exchange(&kept, 0));
  nx_pool_destroy(pool);
  assert_int_equal(broken, 0);
  struct nx_ledger_snapshot s;
  nx_ledger_snapshot(&ledger, &s);
  assert_true(s.layers[NX_LAYER_INSTANCES].refusals + s.layers[NX_LAYER_HTTP].refusals > 100);
  assert_false(nx_governor_buffers_are_many(governor));
}

static void charges_of_many_threads_stay_within_the_budget(void **state) {
  (void)state;
  create_simple(16 * MIB, 10);
  most_budget = nx_ledger_budget(&ledger);
  with_everything(15000, NULL);
  destroy();
}

/* Only because the budget was lowered the total may be above it. */
static void move_the_budget(void) {
  unsigned seed = 99;
  for (int i = 0; i < 300; i++) {
    nx_ledger_set_budget(&ledger, (uint64_t)rand_r(&seed) % (16 * MIB));
    usleep(300);
  }
  nx_ledger_set_budget(&ledger, 16 * MIB);
}

static void budgets_may_move_meanwhile(void **state) {
  (void)state;
  create_simple(16 * MIB, 0);
  most_budget = 16 * MIB;
  with_everything(20000, move_the_budget);
  destroy();
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(demands_leave_spare_parts_to_each_other),
    cmocka_unit_test(the_server_gets_the_last),
    cmocka_unit_test(nothing_always_fits),
    cmocka_unit_test(impossible_sizes_are_refused),
    cmocka_unit_test(a_charge_has_reclaimers_give_back_in_order),
    cmocka_unit_test(demands_want_their_spare_part_too),
    cmocka_unit_test(who_is_out_of_time_ends_it),
    cmocka_unit_test(vain_reclaiming_is_not_repeated_at_once),
    cmocka_unit_test(refusals_are_counted_once),
    cmocka_unit_test(room_is_made_without_taking_it),
    cmocka_unit_test(nothing_is_given_back_for_nothing),
    cmocka_unit_test(deleted_cache_files_count_at_once),
    cmocka_unit_test(accounts_release_what_they_charged),
    cmocka_unit_test(handlers_take_half_at_most),
    cmocka_unit_test(small_buffers_pass_when_large_ones_do_not),
    cmocka_unit_test(large_buffers_take_half_at_most),
    cmocka_unit_test(buffers_are_many_past_a_quarter),
    cmocka_unit_test(texts_grow_on_an_account),
    cmocka_unit_test(within_the_budget_or_not),
    cmocka_unit_test(one_thread_at_a_time_reclaims),
    cmocka_unit_test(charges_of_many_threads_stay_within_the_budget),
    cmocka_unit_test(budgets_may_move_meanwhile),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
