/* SPDX-License-Identifier: Apache-2.0
 * The governor's looks and glances: what it makes of a fake cgroup tree, and what it measures. */
#include "governor_support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fake_tree.h"
#include "memory/process_memory.h"

static struct nx_cgroup *cgroup;
static int log_file = -1;
static struct hoard hoard;

/* ---- Looking at a fake tree ----------------------------------------------------------------------------------------------- */

/* In figures of a fixed width, so that a reader never sees half of one. */
static void put_limit(uint64_t bytes) {
  char text[32];
  snprintf(text, sizeof text, "%020llu\n", (unsigned long long)bytes);
  put("sys/fs/cgroup/memory.max", text);
}

struct use {
  uint64_t anon, shmem, kernel, sock, inactive_file;
};

static void put_use(struct use use) {
  char text[256];
  snprintf(text, sizeof text, "anon %llu\nkernel %llu\nsock %llu\nshmem %llu\ninactive_file %llu\n",
           (unsigned long long)use.anon, (unsigned long long)use.kernel, (unsigned long long)use.sock,
           (unsigned long long)use.shmem, (unsigned long long)use.inactive_file);
  put("sys/fs/cgroup/memory.stat", text);
  snprintf(text, sizeof text, "%llu\n",
           (unsigned long long)(use.anon + use.shmem + use.kernel + use.sock + use.inactive_file));
  put("sys/fs/cgroup/memory.current", text);
}

static void put_pressure(const char *some_avg10) {
  char text[128];
  snprintf(text, sizeof text, "some avg10=%s avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
           some_avg10);
  put("sys/fs/cgroup/memory.pressure", text);
}

static int make_tree(void **state) {
  if (make_root(state)) return -1;
  put("proc/self/cgroup", "0::/\n");
  put("proc/self/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
  put("proc/meminfo", "MemTotal:       1073741824 kB\n");
  put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
  put_limit(64 * GIB);
  put_use((struct use){0});
  put_pressure("0.00");
  return nx_cgroup_open(&cgroup, root, NULL);
}

static int drop_tree(void **state) {
  nx_cgroup_close(cgroup);
  cgroup = NULL;
  return drop_root(state);
}

/* 64 GiB, which no process of a test can fill, and a tenth in reserve. */
#define LIMIT (64 * GIB)
static uint64_t budget_of(uint64_t limit) { return limit - (limit / 100 * 10 + limit % 100 * 10 / 100); }

static void create_on_tree(uint64_t limit, bool is_set) {
  create((struct nx_governor_options){
    .cgroup = cgroup, .limit_bytes = limit, .limit_is_set = is_set, .reserve_percent = 10});
}

static uint64_t clock_ms = 1000;
static void look(void) { nx_governor_look(governor, (clock_ms += 250) * NX_NS_PER_MS); }

static void assert_limit(uint64_t limit) {
  struct nx_governor_status s = status_now();
  assert_int_equal(s.limit_bytes, limit);
  assert_int_equal(s.budget_bytes, budget_of(limit));
  assert_int_equal(nx_ledger_budget(&ledger), budget_of(limit));
}

static void looks_follow_the_limit(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  assert_limit(LIMIT);
  look();
  assert_limit(LIMIT);
  put_limit(32 * GIB);
  look();
  assert_limit(32 * GIB);
  put_limit(48 * GIB);
  look();
  assert_limit(48 * GIB);
  put("sys/fs/cgroup/memory.max", "garbage\n"); /* not known: not "none" */
  look();
  assert_limit(48 * GIB);
  put("sys/fs/cgroup/memory.max", "max\n"); /* what it was is the best that is known */
  look();
  assert_limit(48 * GIB);
  destroy();
}

static void a_limit_that_is_set_is_only_lowered(void **state) {
  (void)state;
  create_on_tree(16 * GIB, true);
  look();
  assert_limit(16 * GIB);
  put_limit(8 * GIB);
  look();
  assert_limit(8 * GIB);
  put_limit(9 * GIB);
  look();
  assert_limit(9 * GIB);
  put_limit(100 * GIB);
  look();
  assert_limit(16 * GIB);
  put_limit(8 * GIB);
  look();
  put("sys/fs/cgroup/memory.max", "garbage\n");
  look();
  assert_limit(8 * GIB);
  put("sys/fs/cgroup/memory.max", "max\n"); /* configuration says what it is */
  look();
  assert_limit(16 * GIB);
  destroy();
}

static void glances_only_lower(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  put_limit(32 * GIB);
  nx_governor_glance(governor);
  assert_limit(32 * GIB);
  assert_false(nx_governor_try_charge(governor, NX_LAYER_HTTP, budget_of(32 * GIB) - 64 * MIB + 1, NX_DEMAND_LARGE));
  put_limit(40 * GIB);
  nx_governor_glance(governor);
  assert_limit(32 * GIB);
  put("sys/fs/cgroup/memory.max", "max\n");
  nx_governor_glance(governor);
  assert_limit(32 * GIB);
  put_limit(40 * GIB);
  look();
  assert_limit(40 * GIB);
  destroy();
  create_simple(100, 10); /* without a cgroup there is nothing to see */
  nx_governor_glance(governor);
  assert_int_equal(status_now().limit_bytes, 100);
  destroy();
}

static void what_is_used_but_not_charged_is_taken_off(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  look();
  uint64_t accounted = nx_ledger_total(&ledger);
  put_use((struct use){.anon = accounted + GIB, .shmem = GIB, .kernel = 0, .sock = 0, .inactive_file = 5 * GIB});
  for (int i = 0; i < 3; i++) {
    look();
    assert_limit(LIMIT);
  }
  look();
  struct nx_governor_status s = status_now();
  assert_in_range(s.budget_bytes, budget_of(LIMIT) - 2 * GIB - 32 * MIB, budget_of(LIMIT) - 2 * GIB + 32 * MIB);
  assert_in_range(s.unaccounted_bytes, 2 * GIB - 32 * MIB, 2 * GIB + 32 * MIB); /* page cache that can be dropped is none */
  assert_false(s.unaccounted_is_high);
  charge(NX_LAYER_INSTANCES, 2 * GIB); /* somebody names it after all */
  look();
  s = status_now();
  assert_in_range(s.budget_bytes, budget_of(LIMIT) - 32 * MIB, budget_of(LIMIT));
  put_use((struct use){0});
  look();
  assert_limit(LIMIT);
  assert_int_equal(status_now().unaccounted_bytes, 0);
  release(NX_LAYER_INSTANCES, 2 * GIB);
  destroy();
}

static unsigned logged(const char *what) {
  static char text[1 << 16];
  ssize_t n = pread(log_file, text, sizeof text - 1, 0);
  text[n > 0 ? n : 0] = 0;
  unsigned count = 0;
  for (const char *at = text; (at = strstr(at, what)); at += strlen(what)) count++;
  return count;
}

static void much_that_nobody_names_is_said_once(void **state) {
  (void)state;
  static const char text[] = "no layer accounts for";
  create_on_tree(LIMIT, false);
  unsigned before = logged(text);
  look();
  put_use((struct use){.anon = nx_ledger_total(&ledger) + 7 * GIB});
  nx_governor_look(governor, 1000 * NX_NS_PER_S);
  nx_governor_look(governor, 1029 * NX_NS_PER_S);
  assert_false(status_now().unaccounted_is_high);
  nx_governor_look(governor, 1030 * NX_NS_PER_S);
  assert_true(status_now().unaccounted_is_high);
  nx_governor_look(governor, 1031 * NX_NS_PER_S);
  assert_true(status_now().unaccounted_is_high);
  assert_int_equal(logged(text), before + 1);
  put_use((struct use){0});
  nx_governor_look(governor, 1032 * NX_NS_PER_S);
  assert_false(status_now().unaccounted_is_high);
  destroy();
}

static void limits_that_change_are_logged(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  unsigned before = logged("memory limit has changed");
  put_limit(3 * GIB);
  nx_governor_glance(governor);
  nx_governor_glance(governor);
  look();
  assert_int_equal(logged("memory limit has changed fromBytes=68719476736 toBytes=3221225472"), 1);
  assert_int_equal(logged("memory limit has changed"), before + 1);
  destroy();
}

static void looks_decide_and_give_back(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  hoard = (struct hoard){.held = 30 * GIB};
  nx_governor_add_reclaimer(governor, &(struct nx_reclaimer){NX_METRICS_RECLAIM_HANDLER_IMAGES, &hoard, give_back});
  charge(NX_LAYER_SUSPENDED, 30 * GIB);
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_NORMAL);
  assert_int_equal(hoard.calls, 0);
  put_use((struct use){.anon = 40 * GIB, .kernel = 8 * GIB}); /* 48 of 64 */
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_RECLAIMING);
  assert_int_equal(status_now().state, NX_GOVERNOR_RECLAIMING);
  assert_int_equal(hoard.calls, 1);
  assert_int_equal(hoard.wanted, 48 * GIB - LIMIT / 100 * 60);
  assert_true(hoard.time_ns <= (int64_t)(5 * NX_NS_PER_MS));
  put_use((struct use){.anon = 58 * GIB});
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_SHEDDING);
  put_use((struct use){0});
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_SHEDDING);
  clock_ms += 1000;
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_NORMAL);
  unsigned calls = hoard.calls;
  put_pressure("10.01");
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_RECLAIMING);
  assert_int_equal(hoard.calls, calls + 1);
  assert_int_equal(hoard.wanted, 1);
  release(NX_LAYER_SUSPENDED, hoard.held);
  destroy();
}

/* A cgroup without a limit has others in it: what it uses says nothing about us. */
static void without_a_limit_only_the_ledger_counts(void **state) {
  (void)state;
  put("sys/fs/cgroup/memory.max", "max\n");
  put_use((struct use){.anon = 500 * GIB});
  put_pressure("99.00");
  create_on_tree(LIMIT, true);
  for (int i = 0; i < 6; i++) look();
  assert_limit(LIMIT);
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_NORMAL);
  assert_int_equal(status_now().unaccounted_bytes, 0);
  assert_int_equal(status_now().kernel.anon_bytes.value, 500 * GIB);
  destroy();
  create_simple(LIMIT, 10);
  for (int i = 0; i < 6; i++) look();
  assert_limit(LIMIT);
  charge(NX_LAYER_INSTANCES, 50 * GIB);
  look();
  assert_int_equal(nx_governor_state(governor), NX_GOVERNOR_RECLAIMING);
  release(NX_LAYER_INSTANCES, 50 * GIB);
  destroy();
}

/* What old kernels do not say is the working set's, or measured. */
static void a_stat_without_parts_falls_back(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  look();
  char text[64];
  put("sys/fs/cgroup/memory.stat", "inactive_file 1073741824\n");
  snprintf(text, sizeof text, "%llu\n", (unsigned long long)(nx_ledger_total(&ledger) + 3 * GIB));
  put("sys/fs/cgroup/memory.current", text);
  for (int i = 0; i < 4; i++) look();
  assert_in_range(status_now().budget_bytes, budget_of(LIMIT) - 2 * GIB - 32 * MIB, budget_of(LIMIT) - 2 * GIB + 32 * MIB);
  struct nx_process_memory own;
  assert_int_equal(nx_process_memory_read(&own, NULL), 0);
  uint64_t kernel = nx_ledger_current(&ledger, NX_LAYER_KERNEL);
  assert_in_range(kernel, own.page_table_bytes / 2, 2 * own.page_table_bytes + 2 * own.threads * 16 * KIB);
  destroy();
}

/* ---- Measured layers ------------------------------------------------------------------------------------------------------ */

static void the_kernels_memory_is_without_sockets_that_are_charged(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  struct nx_account *sockets = nx_governor_account(governor, NX_LAYER_HTTP, NX_DEMAND_SERVE);
  put_use((struct use){.kernel = 5 * MIB, .sock = 3 * MIB});
  look();
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_KERNEL), 8 * MIB);
  assert_true(nx_account_charge(sockets, 2 * MIB));
  look();
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_KERNEL), 6 * MIB);
  assert_true(nx_account_charge(sockets, 2 * MIB));
  look();
  assert_int_equal(nx_ledger_current(&ledger, NX_LAYER_KERNEL), 5 * MIB);
  nx_account_release(sockets, 4 * MIB);
  destroy();
}

static uint64_t process_bytes(void) {
  look();
  return nx_ledger_current(&ledger, NX_LAYER_PROCESS);
}

/* Others hold what they charged before they touch it: then the process seems small, and must not be believed at once. */
static void the_process_is_the_largest_of_the_last_looks(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  char *much = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(much, MAP_FAILED);
  memset(much, 1, 64 * MIB);
  uint64_t before = process_bytes();
  assert_true(before >= 64 * MIB);
  charge(NX_LAYER_INSTANCES, 4 * GIB);
  for (int i = 0; i < 31; i++) assert_true(process_bytes() >= before - 8 * MIB);
  assert_true(process_bytes() < before - 32 * MIB);
  release(NX_LAYER_INSTANCES, 4 * GIB);
  assert_true(process_bytes() >= before - 8 * MIB);
  munmap(much, 64 * MIB);
  destroy();
}

static void the_base_image_counts_once(void **state) {
  (void)state;
  create_on_tree(LIMIT, false);
  uint64_t without = process_bytes();
  destroy();
  create((struct nx_governor_options){.cgroup = cgroup, .limit_bytes = LIMIT, .base_image_bytes = GIB});
  assert_in_range(process_bytes(), without + GIB - 32 * MIB, without + GIB + 32 * MIB);
  destroy();
}

/* ---- Threads ---------------------------------------------------------------------------------------------------------------- */

/* A limit that a glance saw lowered stays so, though a look that began before comes to its end after it. */
static _Atomic bool looking;

static void *look_all_the_time(void *unused) {
  uint64_t now_ns = 0;
  while (looking) nx_governor_look(governor, now_ns += NX_NS_PER_MS);
  return unused;
}

static void lower_and_glance(void) {
  put_limit(32 * GIB);
  do nx_governor_glance(governor);
  while (status_now().limit_bytes != 32 * GIB);
}

static void looks_do_not_undo_glances(void **state) {
  (void)state;
  pthread_t thread;
  unsigned raised = 0;
  create_on_tree(LIMIT, false);
  looking = true;
  assert_int_equal(pthread_create(&thread, NULL, look_all_the_time, NULL), 0);
  uint64_t until = nx_clock_ns() + 2 * NX_NS_PER_S;
  for (; nx_clock_ns() < until; raised++) {
    put_limit(LIMIT);
    while (status_now().limit_bytes != LIMIT) usleep(20);
    usleep((unsigned)rand() % 300);
    lower_and_glance();
    for (int i = 0; i < 40; i++) {
      struct nx_governor_status s = status_now();
      if (s.limit_bytes != 32 * GIB || s.budget_bytes > budget_of(32 * GIB)) {
        looking = false;
        pthread_join(thread, NULL);
        fail_msg("limit %llu, budget %llu after it was lowered, round %u", (unsigned long long)s.limit_bytes,
                 (unsigned long long)s.budget_bytes, raised);
      }
      usleep(10);
    }
  }
  looking = false;
  pthread_join(thread, NULL);
  destroy();
}

static void *charge_and_release(void *seed) {
  struct nx_account *account = nx_governor_account(governor, NX_LAYER_INSTANCES, NX_DEMAND_WORK);
  while (looking) {
    size_t bytes = (size_t)rand_r(seed) % (64 * MIB);
    if (nx_account_charge(account, bytes)) nx_account_release(account, bytes);
  }
  return NULL;
}

static void others_charge_meanwhile(void **state) {
  (void)state;
  pthread_t threads[4];
  unsigned seeds[4] = {1, 2, 3, 4}, seed = 5;
  create_on_tree(LIMIT, false);
  looking = true;
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, charge_and_release, &seeds[i]), 0);
  for (int i = 0; i < 300; i++) {
    put_limit((uint64_t)rand_r(&seed) * 32);
    put_use((struct use){.anon = (uint64_t)rand_r(&seed) * 16});
    nx_governor_glance(governor);
    if (i % 2) look();
    struct nx_governor_status s = status_now();
    assert_true(s.budget_bytes <= budget_of(s.limit_bytes));
  }
  looking = false;
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  destroy();
}

/* ---- Runs --------------------------------------------------------------------------------------------------------------------- */

static int set_up(void **state) {
  (void)state;
  log_file = memfd_create("log", MFD_CLOEXEC);
  nx_log_init(log_file, NX_LOG_INFO, false);
  return log_file < 0;
}

int main(void) {
#define ON_TREE(f) cmocka_unit_test_setup_teardown(f, make_tree, drop_tree)
  const struct CMUnitTest tests[] = {
    ON_TREE(looks_follow_the_limit),
    ON_TREE(a_limit_that_is_set_is_only_lowered),
    ON_TREE(glances_only_lower),
    ON_TREE(what_is_used_but_not_charged_is_taken_off),
    ON_TREE(much_that_nobody_names_is_said_once),
    ON_TREE(limits_that_change_are_logged),
    ON_TREE(looks_decide_and_give_back),
    ON_TREE(without_a_limit_only_the_ledger_counts),
    ON_TREE(a_stat_without_parts_falls_back),
    ON_TREE(the_kernels_memory_is_without_sockets_that_are_charged),
    ON_TREE(the_process_is_the_largest_of_the_last_looks),
    ON_TREE(the_base_image_counts_once),
    ON_TREE(looks_do_not_undo_glances),
    ON_TREE(others_charge_meanwhile),
  };
  return cmocka_run_group_tests(tests, set_up, NULL);
}
