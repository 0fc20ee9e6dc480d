/* SPDX-License-Identifier: Apache-2.0
 * The ledger: charges, refusals, peaks, measured layers, and its invariants under eight threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "memory/ledger.h"

static struct nx_ledger_snapshot snapshot_of(const struct nx_ledger *ledger) {
  struct nx_ledger_snapshot s;
  nx_ledger_snapshot(ledger, &s);
  return s;
}

static void charges_up_to_the_budget(void **state) {
  (void)state;
  struct nx_ledger l = {0};
  assert_false(nx_ledger_charge(&l, NX_LAYER_HTTP, 1)); /* no budget yet */
  nx_ledger_set_budget(&l, 100);
  assert_true(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 60));
  assert_true(nx_ledger_charge(&l, NX_LAYER_HTTP, 40));
  assert_int_equal(nx_ledger_available(&l), 0);
  assert_false(nx_ledger_charge(&l, NX_LAYER_HTTP, 1));
  assert_true(nx_ledger_charge(&l, NX_LAYER_HTTP, 0));
  nx_ledger_release(&l, NX_LAYER_INSTANCES, 10);
  assert_int_equal(nx_ledger_available(&l), 10);
  assert_false(nx_ledger_charge(&l, NX_LAYER_SUSPENDED, 11));
  assert_true(nx_ledger_charge(&l, NX_LAYER_SUSPENDED, 10));
  struct nx_ledger_snapshot s = snapshot_of(&l);
  assert_int_equal(s.budget, 100);
  assert_int_equal(s.total, 100);
  assert_int_equal(s.peak, 100);
  assert_int_equal(s.layers[NX_LAYER_INSTANCES].current, 50);
  assert_int_equal(s.layers[NX_LAYER_INSTANCES].peak, 60);
  assert_int_equal(s.layers[NX_LAYER_HTTP].refusals, 2);
  assert_int_equal(s.layers[NX_LAYER_SUSPENDED].refusals, 1);
  assert_int_equal(s.layers[NX_LAYER_SUSPENDED].current, 10);
}

static void overflow_is_refused(void **state) {
  (void)state;
  struct nx_ledger l = {0};
  nx_ledger_set_budget(&l, UINT64_MAX);
  assert_true(nx_ledger_charge(&l, NX_LAYER_HTTP, 10));
  assert_false(nx_ledger_charge(&l, NX_LAYER_HTTP, UINT64_MAX));
  assert_false(nx_ledger_charge(&l, NX_LAYER_HTTP, UINT64_MAX - 9));
  assert_true(nx_ledger_charge(&l, NX_LAYER_HTTP, UINT64_MAX - 10));
}

static void measured_layers_are_never_refused(void **state) {
  (void)state;
  struct nx_ledger l = {0};
  nx_ledger_set_budget(&l, 100);
  nx_ledger_set(&l, NX_LAYER_PROCESS, 150);
  assert_int_equal(nx_ledger_available(&l), 0);
  assert_false(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 1));
  nx_ledger_set(&l, NX_LAYER_PROCESS, 30);
  nx_ledger_set(&l, NX_LAYER_PROCESS, 30);
  nx_ledger_set(&l, NX_LAYER_KERNEL, 5);
  struct nx_ledger_snapshot s = snapshot_of(&l);
  assert_int_equal(s.total, 35);
  assert_int_equal(s.peak, 150);
  assert_int_equal(s.layers[NX_LAYER_PROCESS].peak, 150);
  assert_int_equal(s.layers[NX_LAYER_PROCESS].current, 30);
  assert_true(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 65));
  nx_ledger_set(&l, NX_LAYER_PROCESS, 0);
  assert_int_equal(nx_ledger_available(&l), 30);
}

static void a_lower_budget_refuses_until_enough_is_released(void **state) {
  (void)state;
  struct nx_ledger l = {0};
  nx_ledger_set_budget(&l, 100);
  assert_true(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 100));
  nx_ledger_set_budget(&l, 50);
  assert_int_equal(nx_ledger_available(&l), 0);
  nx_ledger_release(&l, NX_LAYER_INSTANCES, 50);
  assert_false(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 1));
  nx_ledger_release(&l, NX_LAYER_INSTANCES, 1);
  assert_true(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 1));
}

static void charges_leave_what_is_to_be_spared(void **state) {
  (void)state;
  struct nx_ledger l = {0};
  nx_ledger_set_budget(&l, 100);
  assert_false(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 71, 30));
  assert_true(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 70, 30));
  assert_false(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 1, 30));
  assert_true(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 0, 1000)); /* nothing always fits */
  assert_true(nx_ledger_charge_sparing(&l, NX_LAYER_INSTANCES, 20, 10));
  assert_true(nx_ledger_charge(&l, NX_LAYER_INSTANCES, 10));
  nx_ledger_release(&l, NX_LAYER_HTTP, 70);
  assert_false(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 1, 100));
  assert_false(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 1, 101)); /* more to spare than there is */
  assert_false(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 1, UINT64_MAX));
  assert_false(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, UINT64_MAX, 10));
  assert_true(nx_ledger_charge_sparing(&l, NX_LAYER_HTTP, 1, 69));
  struct nx_ledger_snapshot s = snapshot_of(&l);
  assert_int_equal(s.total, 31);
  assert_int_equal(s.layers[NX_LAYER_HTTP].refusals, 6);
  assert_int_equal(s.layers[NX_LAYER_INSTANCES].refusals, 0);
}

static void layers_have_names(void **state) {
  (void)state;
  assert_int_equal(NX_LAYER_COUNT, 7);
  assert_string_equal(nx_layer_name(NX_LAYER_PROCESS), "process");
  assert_string_equal(nx_layer_name(NX_LAYER_KERNEL), "kernel");
}

/* Runs in a child: the line that was logged comes back, and the child must have aborted. */
static void dies_with(uint64_t charged, enum nx_layer release_from, uint64_t released, const char *expected) {
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) {
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGABRT, SIG_DFL);
    nx_log_init(ends[1], NX_LOG_INFO, false);
    struct nx_ledger l = {0};
    nx_ledger_set_budget(&l, 1000);
    if (!nx_ledger_charge(&l, NX_LAYER_HTTP, charged)) _exit(1);
    nx_ledger_release(&l, release_from, released);
    _exit(2);
  }
  int status;
  char line[512] = "";
  close(ends[1]);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(read(ends[0], line, sizeof line - 1) > 0);
  close(ends[0]);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  if (!strstr(line, expected)) fail_msg("log: %s", line);
}

static void releasing_too_much_aborts(void **state) {
  (void)state;
  dies_with(10, NX_LAYER_HTTP, 11, "released than charged layer=http chargedBytes=10 releasedBytes=11");
  dies_with(10, NX_LAYER_CACHE, 1, "layer=cache chargedBytes=0 releasedBytes=1");
}

/* properties under threads */

enum { THREADS = 8, ROUNDS = 20000, BUDGET = 100000 };

struct worker {
  struct nx_ledger *ledger;
  unsigned seed;
  uint64_t held[NX_LAYER_COUNT], refused[NX_LAYER_COUNT];
  uint64_t passed; /* times the budget was seen to be passed */
};

/* Charges and releases of its own in random order. Measured layers stay out, so the budget bounds the total. */
static void *work(void *arg) {
  struct worker *w = arg;
  for (int i = 0; i < ROUNDS; i++) {
    enum nx_layer layer = (enum nx_layer)(rand_r(&w->seed) % NX_LAYER_COUNT);
    uint64_t bytes = (uint64_t)rand_r(&w->seed) % (BUDGET / 4);
    if (rand_r(&w->seed) % 3) {
      if (nx_ledger_charge(w->ledger, layer, bytes))
        w->held[layer] += bytes;
      else
        w->refused[layer]++;
    } else if (w->held[layer]) {
      bytes = bytes % w->held[layer] + 1;
      nx_ledger_release(w->ledger, layer, bytes);
      w->held[layer] -= bytes;
    }
    struct nx_ledger_snapshot s;
    nx_ledger_snapshot(w->ledger, &s);
    if (s.total > BUDGET || s.peak > BUDGET) w->passed++;
  }
  return NULL;
}

static void run_workers(struct worker *workers, void *(*body)(void *), struct nx_ledger *l) {
  pthread_t threads[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    workers[i].ledger = l;
    workers[i].seed = i + 1;
    assert_int_equal(pthread_create(&threads[i], NULL, body, &workers[i]), 0);
  }
  for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

static void racing_charges_never_pass_the_budget(void **state) {
  (void)state;
  static struct nx_ledger l;
  static struct worker workers[THREADS];
  nx_ledger_set_budget(&l, BUDGET);
  run_workers(workers, work, &l);
  struct nx_ledger_snapshot s = snapshot_of(&l);
  uint64_t total = 0, refused_in_all = 0;
  for (int layer = 0; layer < NX_LAYER_COUNT; layer++) {
    uint64_t held = 0, refused = 0;
    for (int i = 0; i < THREADS; i++) {
      held += workers[i].held[layer];
      refused += workers[i].refused[layer];
      assert_int_equal(workers[i].passed, 0);
    }
    assert_int_equal(s.layers[layer].current, held);
    assert_int_equal(s.layers[layer].refusals, refused);
    assert_true(s.layers[layer].peak >= held && s.layers[layer].peak <= BUDGET);
    total += held;
    refused_in_all += refused;
  }
  assert_int_equal(s.total, total);
  assert_true(s.peak <= BUDGET && s.peak > BUDGET / 2);
  assert_true(refused_in_all > 100);
}

/* All threads want all of it: exactly one at a time has it. */
static void *want_everything(void *arg) {
  static _Atomic int owners;
  struct worker *w = arg;
  for (int i = 0; i < ROUNDS; i++) {
    if (!nx_ledger_charge(w->ledger, NX_LAYER_INSTANCES, BUDGET)) continue;
    if (atomic_fetch_add(&owners, 1)) w->passed++;
    w->held[0]++;
    atomic_fetch_sub(&owners, 1);
    nx_ledger_release(w->ledger, NX_LAYER_INSTANCES, BUDGET);
  }
  return NULL;
}

static void never_two_at_once(void **state) {
  (void)state;
  static struct nx_ledger l;
  static struct worker workers[THREADS];
  nx_ledger_set_budget(&l, BUDGET);
  run_workers(workers, want_everything, &l);
  uint64_t had = 0;
  for (int i = 0; i < THREADS; i++) {
    assert_int_equal(workers[i].passed, 0);
    had += workers[i].held[0];
  }
  struct nx_ledger_snapshot s = snapshot_of(&l);
  assert_int_equal(s.total, 0);
  assert_int_equal(had + s.layers[NX_LAYER_INSTANCES].refusals, THREADS * ROUNDS);
}

/* Those that spare and those that do not, at once: what is spared stays. */
static void *charge_sparing(void *arg) {
  struct worker *w = arg;
  for (int i = 0; i < ROUNDS; i++) {
    uint64_t bytes = (uint64_t)rand_r(&w->seed) % (BUDGET / 4);
    if (!nx_ledger_charge_sparing(w->ledger, NX_LAYER_INSTANCES, bytes, BUDGET / 3)) continue;
    if (nx_ledger_total(w->ledger) > BUDGET - BUDGET / 3) w->passed++;
    nx_ledger_release(w->ledger, NX_LAYER_INSTANCES, bytes);
  }
  return NULL;
}

static void racing_charges_leave_what_is_spared(void **state) {
  (void)state;
  static struct nx_ledger l;
  static struct worker workers[THREADS];
  nx_ledger_set_budget(&l, BUDGET);
  run_workers(workers, charge_sparing, &l);
  for (int i = 0; i < THREADS; i++) assert_int_equal(workers[i].passed, 0);
  struct nx_ledger_snapshot s = snapshot_of(&l);
  assert_int_equal(s.total, 0);
  assert_true(s.peak <= BUDGET - BUDGET / 3);
}

/* Measured layers set by racing threads beside charges: the sums agree in the end, and nothing underflows. */
static void *set_and_charge(void *arg) {
  struct worker *w = arg;
  for (int i = 0; i < ROUNDS; i++) {
    nx_ledger_set(w->ledger, rand_r(&w->seed) % 2 ? NX_LAYER_PROCESS : NX_LAYER_KERNEL,
                  (uint64_t)rand_r(&w->seed) % BUDGET);
    if (!nx_ledger_charge(w->ledger, NX_LAYER_HTTP, 7)) continue;
    nx_ledger_release(w->ledger, NX_LAYER_HTTP, 7);
  }
  return NULL;
}

static void racing_sets_keep_the_sums(void **state) {
  (void)state;
  static struct nx_ledger l;
  static struct worker workers[THREADS];
  nx_ledger_set_budget(&l, BUDGET);
  run_workers(workers, set_and_charge, &l);
  nx_ledger_set(&l, NX_LAYER_PROCESS, 11);
  nx_ledger_set(&l, NX_LAYER_KERNEL, 22);
  struct nx_ledger_snapshot s = snapshot_of(&l);
  assert_int_equal(s.total, 33);
  assert_int_equal(s.layers[NX_LAYER_HTTP].current, 0);
  assert_true(s.layers[NX_LAYER_PROCESS].peak < BUDGET);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(charges_up_to_the_budget),
    cmocka_unit_test(overflow_is_refused),
    cmocka_unit_test(measured_layers_are_never_refused),
    cmocka_unit_test(a_lower_budget_refuses_until_enough_is_released),
    cmocka_unit_test(charges_leave_what_is_to_be_spared),
    cmocka_unit_test(layers_have_names),
    cmocka_unit_test(releasing_too_much_aborts),
    cmocka_unit_test(racing_charges_never_pass_the_budget),
    cmocka_unit_test(never_two_at_once),
    cmocka_unit_test(racing_charges_leave_what_is_spared),
    cmocka_unit_test(racing_sets_keep_the_sums),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
