/* SPDX-License-Identifier: Apache-2.0
 * The pool: who gets which instance, reservations, giving back, and that every charge is returned exactly once. */
#include "sandbox_support.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "pool/pool.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define LIMIT (512 * MIB)
#define LEASE (100 * KIB)

enum { IMAGES = 4 };

static struct nx_ledger ledger;
static struct nx_governor *governor;
static struct nx_pool *pool;
static struct nx_image *images[IMAGES]; /* of handlers that allocate $args × 64 KiB and tell their number */
static struct nx_error err;

static uint64_t charged(void) { return nx_ledger_current(&ledger, NX_LAYER_INSTANCES); }

static uint64_t refusals(void) {
  struct nx_ledger_snapshot s;
  nx_ledger_snapshot(&ledger, &s);
  return s.layers[NX_LAYER_INSTANCES].refusals;
}

static void create(unsigned max_instances) {
  nx__thread_init_signals(&err); /* cmocka has put its own SIGSEGV handler in the place of ours */
  nx_ledger_set_budget(&ledger, LIMIT);
  assert_int_equal(nx_pool_create(&pool, max_instances, LEASE, governor, &err), 0);
}

static void destroy(void) {
  nx_pool_destroy(pool);
  assert_int_equal(nx_ledger_total(&ledger), 0);
}

static struct nx_reservation reserve(uint64_t memory_bytes) {
  struct nx_reservation r = {0};
  assert_true(nx_pool_try_reserve(pool, &r, nx_pool_reservation_bytes(pool, memory_bytes), NX_DEMAND_LARGE));
  return r;
}

static struct nx_lease acquire(struct nx_image *image, struct nx_reservation *r) {
  struct nx_lease lease;
  if (nx_pool_acquire(pool, image, r, &lease, &err)) fail_msg("%s", err.text);
  assert_ptr_equal(nx_instance_image(lease.instance), image);
  assert_true(r->used <= r->bytes);
  return lease;
}

/* One execution in a lease; its memory is granted by the pool. */
static struct nx_guest_result run(struct nx_lease *lease, const char *args, struct world *world) {
  *world = (struct world){.instance = lease->instance, .timeout_ns = 30 * NX_NS_PER_S, .memory_limit_bytes = 32 << 20};
  struct nx_guest_call call = world_call(world);
  call.grant = nx_pool_grant;
  call.budget = lease;
  struct nx_text none = {0};
  return nx_instance_invoke(lease->instance, &call, text_of(args), none, none);
}

/* Leaves an idle instance behind that shows the image. */
static struct nx_instance *leave_idle(struct nx_image *image, const char *args) {
  struct world world;
  struct nx_reservation r = reserve(image->memory_bytes);
  struct nx_lease lease = acquire(image, &r);
  run(&lease, args, &world);
  nx_pool_release(&lease);
  nx_pool_unreserve(pool, &r);
  return lease.instance;
}

/* ---- Reservations --------------------------------------------------------------------------------------------------------- */

static void reservations_are_charged_and_raised(void **state) {
  (void)state;
  create(2);
  assert_int_equal(nx_pool_reservation_bytes(pool, 10 * MIB), 10 * MIB + LEASE);
  struct nx_reservation r = {0};
  assert_true(nx_pool_try_reserve(pool, &r, 10 * MIB, NX_DEMAND_LARGE));
  assert_true(nx_pool_try_reserve(pool, &r, 5 * MIB, NX_DEMAND_LARGE)); /* it has them */
  assert_int_equal(r.bytes, 10 * MIB);
  assert_true(nx_pool_try_reserve(pool, &r, 12 * MIB, NX_DEMAND_LARGE));
  assert_int_equal(charged(), 12 * MIB);
  uint64_t before = refusals();
  assert_false(nx_pool_try_reserve(pool, &r, LIMIT, NX_DEMAND_LARGE));
  assert_int_equal(r.bytes, 12 * MIB);
  assert_int_equal(refusals(), before); /* it will be tried again */
  nx_pool_unreserve(pool, &r);
  assert_int_equal(r.bytes, 0);
  assert_int_equal(charged(), 0);
  nx_pool_unreserve(pool, &r);
  destroy();
}

static void acquire_takes_over_what_the_slot_has(void **state) {
  (void)state;
  create(1);
  struct nx_instance *idle = leave_idle(images[0], "8");
  uint64_t resident = nx_instance_resident_bytes(idle);
  assert_true(resident > 0);
  assert_int_equal(charged(), resident);
  struct nx_reservation r = reserve(8 * MIB);
  struct nx_lease lease = acquire(images[0], &r);
  assert_ptr_equal(lease.instance, idle);
  assert_int_equal(r.bytes, 8 * MIB + LEASE + resident);
  assert_int_equal(r.used, images[0]->memory_bytes + LEASE);
  assert_int_equal(charged(), r.bytes); /* nothing was charged for it */
  nx_pool_release(&lease);
  assert_int_equal(r.used, 0);
  assert_int_equal(r.bytes + nx_instance_resident_bytes(idle), 8 * MIB + LEASE + resident);
  nx_pool_unreserve(pool, &r);
  assert_int_equal(charged(), nx_instance_resident_bytes(idle));
  destroy();
}

static void a_reservation_outlives_its_leases(void **state) {
  (void)state;
  create(2);
  struct world world;
  struct nx_reservation r = reserve(8 * MIB);
  for (int i = 0; i < 5; i++) { /* as a compile and the execution after it have it */
    struct nx_lease lease = acquire(i % 2 ? images[0] : nx_sandbox_base_image(), &r);
    if (i % 2) run(&lease, "3", &world);
    nx_pool_release(&lease);
    assert_int_equal(r.used, 0);
    assert_true(charged() >= 8 * MIB + LEASE);
  }
  nx_pool_unreserve(pool, &r);
  destroy();
}

static void too_small_a_reservation_is_raised(void **state) {
  (void)state;
  create(1);
  struct nx_reservation r = {0};
  struct nx_lease lease = acquire(images[1], &r);
  assert_int_equal(r.bytes, images[1]->memory_bytes + LEASE);
  assert_int_equal(charged(), r.bytes);
  nx_pool_release(&lease);
  nx_pool_unreserve(pool, &r);
  destroy();
}

static void growth_within_the_reservation_asks_nobody(void **state) {
  (void)state;
  create(1);
  struct nx_reservation r = reserve(images[0]->memory_bytes + MIB);
  struct nx_lease lease = acquire(images[0], &r);
  uint64_t before = refusals();
  nx_ledger_set_budget(&ledger, charged()); /* nothing is left for anybody */
  for (int i = 0; i < 16; i++) assert_true(nx_pool_grant(&lease, 64 * KIB));
  assert_int_equal(charged(), r.bytes);
  assert_int_equal(refusals(), before);
  assert_false(nx_pool_grant(&lease, 1)); /* beyond it the governor is asked */
  assert_int_equal(refusals(), before + 1);
  nx_ledger_set_budget(&ledger, LIMIT);
  assert_true(nx_pool_grant(&lease, 64 * KIB));
  assert_int_equal(r.bytes, images[0]->memory_bytes + LEASE + MIB + 64 * KIB);
  assert_int_equal(charged(), r.bytes);
  nx_pool_release(&lease);
  nx_pool_unreserve(pool, &r);
  destroy();
}

static void a_budget_lowered_below_what_is_charged_revokes(void **state) {
  (void)state;
  create(1);
  struct nx_reservation r = reserve(16 * MIB);
  struct nx_lease lease = acquire(images[0], &r);
  assert_true(nx_pool_grant(&lease, 64 * KIB));
  nx_ledger_set_budget(&ledger, charged() - 1);
  assert_false(nx_pool_grant(&lease, 64 * KIB));
  nx_ledger_set_budget(&ledger, charged());
  assert_true(nx_pool_grant(&lease, 64 * KIB));
  nx_pool_release(&lease);
  nx_pool_unreserve(pool, &r);
  destroy();
}

/* Leaves `bytes` of the budget. */
static uint64_t fill_but(uint64_t bytes) {
  uint64_t fill = nx_ledger_available(&ledger) - bytes;
  assert_true(nx_ledger_charge(&ledger, NX_LAYER_HTTP, fill));
  return fill;
}

/* WORK leaves 16 MiB of this budget, GROWTH 32. */
static void one_that_runs_alone_may_have_more(void **state) {
  (void)state;
  create(2);
  struct nx_reservation first = {0}, second = {0};
  struct nx_lease one = acquire(images[0], &first), other = acquire(images[1], &second);
  uint64_t fill = fill_but(24 * MIB);
  assert_false(nx_pool_grant(&one, MIB));
  nx_pool_release(&other);
  assert_true(nx_pool_grant(&one, MIB));
  assert_false(nx_pool_grant(&one, 8 * MIB));
  nx_pool_release(&one);
  nx_pool_unreserve(pool, &first);
  nx_pool_unreserve(pool, &second);
  nx_ledger_release(&ledger, NX_LAYER_HTTP, fill);
  destroy();
}

/* ---- Choosing --------------------------------------------------------------------------------------------------------------- */

static void the_instance_that_shows_the_image_comes_first(void **state) {
  (void)state;
  create(3);
  struct nx_instance *idle[3];
  for (int i = 0; i < 3; i++) idle[i] = leave_idle(images[i], "1");
  for (int i = 0; i < 3; i++) assert_ptr_equal(leave_idle(images[i], "1"), idle[i]);
  assert_ptr_equal(leave_idle(images[3], "1"), idle[0]); /* else the coldest changes */
  assert_ptr_equal(leave_idle(images[1], "1"), idle[1]);
  destroy();
}

static void all_are_in_use(void **state) {
  (void)state;
  create(2);
  struct nx_reservation r[3] = {0};
  struct nx_lease leases[3];
  for (int i = 0; i < 2; i++) leases[i] = acquire(images[i], &r[i]);
  uint64_t before = charged();
  assert_int_equal(nx_pool_acquire(pool, images[2], &r[2], &leases[2], &err), -NX_ERR_OVERLOADED);
  assert_string_equal(err.text, "all 2 instances are in use");
  assert_int_equal(charged(), before);
  for (int i = 0; i < 2; i++) {
    nx_pool_release(&leases[i]);
    nx_pool_unreserve(pool, &r[i]);
  }
  destroy();
}

/* ---- Failures ----------------------------------------------------------------------------------------------------------------- */

static void without_budget_acquire_changes_nothing(void **state) {
  (void)state;
  create(2);
  struct nx_instance *idle = leave_idle(images[0], "4");
  uint64_t before = charged();
  nx_ledger_set_budget(&ledger, before + 1000);
  for (int i = 0; i < 3; i++) {
    struct nx_reservation r = {0};
    struct nx_lease lease;
    struct nx_image *image = images[i % 2]; /* the idle one, and one that would have to be made */
    assert_int_equal(nx_pool_acquire(pool, image, &r, &lease, &err), -NX_ERR_OVERLOADED);
    assert_int_equal(r.used, 0);
    nx_pool_unreserve(pool, &r);
    assert_int_equal(charged(), before);
  }
  nx_ledger_set_budget(&ledger, LIMIT);
  assert_ptr_equal(leave_idle(images[0], "1"), idle);
  leave_idle(images[1], "1");
  destroy();
}

static void without_address_space_acquire_changes_nothing(void **state) {
  (void)state;
  create(2);
  leave_idle(images[0], "4");
  uint64_t before = charged();
  unsigned long pages = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  assert_non_null(f);
  assert_int_equal(fscanf(f, "%lu", &pages), 1);
  fclose(f);
  struct rlimit was, less;
  getrlimit(RLIMIT_AS, &was);
  less = (struct rlimit){pages * 4096ul + (1ul << 30), was.rlim_max}; /* no window of 4 GiB */
  assert_int_equal(setrlimit(RLIMIT_AS, &less), 0);
  struct nx_reservation r = reserve(8 * MIB);
  struct nx_lease lease;
  int status = nx_pool_acquire(pool, images[1], &r, &lease, &err);
  setrlimit(RLIMIT_AS, &was);
  assert_int_equal(status, -NX_ERR_SYSTEM);
  assert_int_equal(r.bytes, 8 * MIB + LEASE);
  assert_int_equal(r.used, 0);
  nx_pool_unreserve(pool, &r);
  assert_int_equal(charged(), before);
  leave_idle(images[1], "1"); /* the slot is absent again, not lost */
  destroy();
}

/* ---- Giving back ---------------------------------------------------------------------------------------------------------------- */

static bool is_trimmed(const struct nx_instance *instance) {
  return nx_instance_image(instance) == nx_sandbox_base_image() && nx_instance_resident_bytes(instance) == 0;
}

static size_t trim(uint64_t want_bytes) { return nx_pool_trim(pool, UINT64_MAX, want_bytes, UINT64_MAX); }

static void trim_gives_what_is_wanted_of_the_coldest(void **state) {
  (void)state;
  create(3);
  struct nx_instance *idle[3];
  for (int i = 0; i < 3; i++) idle[i] = leave_idle(images[i], "4");
  uint64_t before = charged(), first = nx_instance_resident_bytes(idle[0]);
  assert_int_equal(trim(0), 0);
  assert_int_equal(nx_pool_trim(pool, UINT64_MAX, UINT64_MAX, nx_clock_ns()), 0); /* no time */
  assert_int_equal(charged(), before);
  assert_int_equal(trim(1), first);
  assert_true(is_trimmed(idle[0]) && !is_trimmed(idle[1]) && !is_trimmed(idle[2]));
  assert_int_equal(charged(), before - first);
  assert_ptr_equal(leave_idle(images[3], "1"), idle[0]); /* it has nothing to lose */
  assert_true(trim(UINT64_MAX) > 0);
  assert_int_equal(charged(), 0);
  assert_int_equal(trim(UINT64_MAX), 0); /* each once */
  destroy();
}

static void trim_spares_who_was_used_lately(void **state) {
  (void)state;
  create(3);
  struct nx_instance *old = leave_idle(images[0], "1");
  usleep(2000);
  uint64_t since = nx_clock_ns();
  usleep(2000);
  struct nx_instance *young = leave_idle(images[1], "1");
  assert_true(nx_pool_trim(pool, since, UINT64_MAX, UINT64_MAX) > 0);
  assert_true(is_trimmed(old) && !is_trimmed(young));
  assert_int_equal(nx_pool_trim(pool, since, UINT64_MAX, UINT64_MAX), 0);
  struct nx_instance *used = leave_idle(images[0], "1"); /* a third one is made before any changes its image */
  assert_true(used != young);
  assert_int_equal(nx_pool_trim(pool, since, UINT64_MAX, UINT64_MAX), 0);
  destroy();
}

static void leased_instances_are_not_trimmed(void **state) {
  (void)state;
  create(2);
  struct world world;
  struct nx_reservation r = reserve(8 * MIB);
  struct nx_lease lease = acquire(images[2], &r);
  assert_int_equal(trim(UINT64_MAX), 0);
  run(&lease, "2", &world);
  assert_string_equal(world.returned, "[2,2]");
  nx_pool_release(&lease);
  nx_pool_unreserve(pool, &r);
  destroy();
}

static enum nx_reclaim reclaim_idle(void *calls, uint64_t want, uint64_t deadline_ns, uint64_t *freed) {
  ++*(_Atomic int *)calls;
  uint64_t bytes = nx_pool_trim(pool, UINT64_MAX, want, deadline_ns);
  *freed += bytes;
  return bytes >= want ? NX_RECLAIM_DONE : NX_RECLAIM_NOTHING;
}

static _Atomic int reclaims;

/* An execution that needs more has idle instances give it, on its own thread, from inside the guest. */
static void growth_takes_from_idle_instances(void **state) {
  (void)state;
  create(4);
  struct nx_instance *idle[3];
  for (int i = 0; i < 3; i++) idle[i] = leave_idle(images[i], "8");
  struct nx_reservation r = {0};
  struct nx_lease lease = acquire(images[3], &r);
  uint64_t fill = fill_but(16 * MIB); /* what WORK leaves */
  struct world world;
  int before = reclaims;
  run(&lease, "24", &world);
  assert_true(reclaims > before);
  assert_true(is_trimmed(idle[0]));
  nx_pool_release(&lease);
  nx_pool_unreserve(pool, &r);
  nx_ledger_release(&ledger, NX_LAYER_HTTP, fill);
  destroy();
}

/* ---- Threads ------------------------------------------------------------------------------------------------------------------------ */

static void on_thread(void *(*body)(void *), pthread_t *thread, void *argument) {
  assert_int_equal(pthread_create(thread, NULL, body, argument), 0);
}

static void *trim_all(void *done) {
  trim(UINT64_MAX);
  atomic_store((_Atomic bool *)done, true);
  return NULL;
}

/* What is being trimmed is not running beside it. */
static void a_trim_meanwhile_takes_nothing_from_who_runs_alone(void **state) {
  (void)state;
  enum { IDLE = 24 };
  create(IDLE + 1);
  for (int round = 0; round < 10; round++) {
    struct nx_reservation r[IDLE + 1] = {0};
    struct nx_lease leases[IDLE + 1];
    for (int i = 0; i <= IDLE; i++) leases[i] = acquire(images[0], &r[i]);
    for (int i = 0; i < IDLE; i++) {
      nx_pool_release(&leases[i]);
      nx_pool_unreserve(pool, &r[i]);
    }
    uint64_t fill = fill_but(24 * MIB);
    _Atomic bool done = false;
    pthread_t thread;
    on_thread(trim_all, &thread, &done);
    unsigned refused = 0;
    while (!done) refused += !nx_pool_grant(&leases[IDLE], 1);
    pthread_join(thread, NULL);
    nx_ledger_release(&ledger, NX_LAYER_HTTP, fill);
    nx_pool_release(&leases[IDLE]);
    nx_pool_unreserve(pool, &r[IDLE]);
    assert_int_equal(refused, 0);
  }
  destroy();
}

enum { THREADS = 6, PERMITS = 4 };
static sem_t permits;
static _Atomic unsigned broken, done, refused, short_of_memory;
static _Atomic bool is_over;

static void one_job(unsigned *seed) {
  struct world world;
  struct nx_reservation r = {0};
  struct nx_lease lease;
  struct nx_error why;
  unsigned which = (unsigned)rand_r(seed) % IMAGES, blocks = rand_r(seed) % 4 ? 2 : (unsigned)rand_r(seed) % 320;
  uint64_t bytes = nx_pool_reservation_bytes(pool, images[which]->memory_bytes + (uint64_t)rand_r(seed) % (4 * MIB));
  if (!nx_pool_try_reserve(pool, &r, bytes, rand_r(seed) % 2 ? NX_DEMAND_LARGE : NX_DEMAND_WORK)) {
    atomic_fetch_add(&refused, 1);
    if (rand_r(seed) % 2) return; /* else without one */
  }
  int leases = 1 + rand_r(seed) % 2;
  for (int i = 0; i < leases; i++) {
    if (nx_pool_acquire(pool, images[which], &r, &lease, &why)) {
      atomic_fetch_add(why.code == NX_ERR_OVERLOADED && r.used == 0 ? &refused : &broken, 1);
      continue;
    }
    char args[16], expected[32];
    snprintf(args, sizeof args, "%u", blocks);
    snprintf(expected, sizeof expected, "[%u,%u]", which, blocks);
    struct nx_guest_result result = run(&lease, args, &world);
    bool right = result.end == NX_GUEST_RETURNED && !strcmp(world.returned, expected);
    if (!right && !result.budget_refused) atomic_fetch_add(&broken, 1);
    if (!right) atomic_fetch_add(&short_of_memory, 1);
    if (r.used > r.bytes || r.used < result.memory_peak_bytes + LEASE) atomic_fetch_add(&broken, 1);
    nx_pool_release(&lease);
    atomic_fetch_add(&done, 1);
  }
  nx_pool_unreserve(pool, &r);
}

static void *do_jobs(void *seed) {
  struct nx_error why;
  if (nx_sandbox_thread_enter(&why)) {
    atomic_fetch_add(&broken, 1);
    return NULL;
  }
  for (int i = 0; i < 150; i++) {
    sem_wait(&permits);
    one_job(seed);
    sem_post(&permits);
    if (nx_ledger_total(&ledger) > LIMIT) atomic_fetch_add(&broken, 1);
  }
  nx_sandbox_thread_leave();
  return NULL;
}

static void *trim_and_move_the_budget(void *unused) {
  unsigned seed = 5;
  while (!is_over) {
    trim(rand_r(&seed) % 2 ? 1 : UINT64_MAX);
    nx_ledger_set_budget(&ledger, 64 * MIB + (uint64_t)rand_r(&seed) % (64 * MIB)); /* executions may have to fail */
    usleep((unsigned)rand_r(&seed) % 3000);
  }
  return unused;
}

static void every_charge_is_returned_once(void **state) {
  (void)state;
  pthread_t threads[THREADS], mover;
  unsigned seeds[THREADS];
  create(PERMITS);
  sem_init(&permits, 0, PERMITS);
  on_thread(trim_and_move_the_budget, &mover, NULL);
  for (unsigned i = 0; i < THREADS; i++) {
    seeds[i] = i + 1;
    on_thread(do_jobs, &threads[i], &seeds[i]);
  }
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  is_over = true;
  pthread_join(mover, NULL);
  sem_destroy(&permits);
  assert_int_equal(broken, 0);
  assert_true(done > 100);
  print_message("%u executions, %u refused, %u short of memory\n", done, refused, short_of_memory);
  trim(UINT64_MAX);
  assert_int_equal(charged(), 0);
  destroy();
}

/* ---- Runs --------------------------------------------------------------------------------------------------------------------------- */

static int set_up(void **state) {
  (void)state;
  nx_log_init(STDOUT_FILENO, NX_LOG_ERROR, false);
  struct nx_boot_image boot = nx_boot_image_linked();
  assert_int_equal(nx_sandbox_init(NX_RESET_AUTO, &boot, &err), 0);
  assert_int_equal(nx_sandbox_thread_enter(&err), 0);
  const struct nx_governor_options options = {.ledger = &ledger, .limit_bytes = LIMIT};
  assert_int_equal(nx_governor_create(&governor, &options, &err), 0);
  nx_governor_add_reclaimer(governor,
                            &(struct nx_reclaimer){NX_METRICS_RECLAIM_IDLE_INSTANCES, &reclaims, reclaim_idle});
  struct world world;
  world_open(&world);
  for (int i = 0; i < IMAGES; i++) {
    char source[160], expected[16];
    snprintf(source, sizeof source,
             "const a = []; for (let i = 0; i < $args; i++) a.push(new Uint8Array(65536).fill(1)); return [%d, a.length]", i);
    images[i] = world_load(&world, source);
    assert_non_null(images[i]);
    snprintf(expected, sizeof expected, "[%d,1]", i);
    world_run(&world, "1");
    assert_string_equal(world.returned, expected);
  }
  world_close(&world);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  for (int i = 0; i < IMAGES; i++) nx_image_release(images[i]);
  nx_governor_destroy(governor);
  nx_sandbox_thread_leave();
  nx_sandbox_deinit();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(reservations_are_charged_and_raised),
    cmocka_unit_test(acquire_takes_over_what_the_slot_has),
    cmocka_unit_test(a_reservation_outlives_its_leases),
    cmocka_unit_test(too_small_a_reservation_is_raised),
    cmocka_unit_test(growth_within_the_reservation_asks_nobody),
    cmocka_unit_test(a_budget_lowered_below_what_is_charged_revokes),
    cmocka_unit_test(one_that_runs_alone_may_have_more),
    cmocka_unit_test(the_instance_that_shows_the_image_comes_first),
    cmocka_unit_test(all_are_in_use),
    cmocka_unit_test(without_budget_acquire_changes_nothing),
    cmocka_unit_test(without_address_space_acquire_changes_nothing),
    cmocka_unit_test(trim_gives_what_is_wanted_of_the_coldest),
    cmocka_unit_test(trim_spares_who_was_used_lately),
    cmocka_unit_test(leased_instances_are_not_trimmed),
    cmocka_unit_test(growth_takes_from_idle_instances),
    cmocka_unit_test(a_trim_meanwhile_takes_nothing_from_who_runs_alone),
    cmocka_unit_test(every_charge_is_returned_once),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
