/* SPDX-License-Identifier: Apache-2.0
 * The store in a directory that several processes share, and some of them are killed. */
#include "store_file_support.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

enum { PROCESSES = 4 };

/* The child's exit status is what `run_child` returns. */
static pid_t start(int (*run_child)(unsigned number), unsigned number) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) _exit(run_child(number));
  return child;
}

static int wait_for(pid_t child) {
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

/* ---- Processes that want the same items -------------------------------------------------------------------------- */

enum { INCREMENTS = 100 };

static int increment_many(unsigned number) {
  struct nx_store *mine = open_again();
  bool fits = true;
  for (unsigned i = 0; i < INCREMENTS && fits; i++) fits = increment_counter(mine, number + i);
  mine->ops->close(mine);
  return !fits;
}

static void no_commit_is_lost_between_processes(void **state) {
  pid_t children[PROCESSES];
  create_counters();
  for (unsigned i = 0; i < PROCESSES; i++) children[i] = start(increment_many, i);
  for (unsigned i = 0; i < PROCESSES; i++) assert_int_equal(wait_for(children[i]), 0);
  assert_int_equal(sum_of_counters(), PROCESSES * INCREMENTS);
}

/* ---- Killed while they write ------------------------------------------------------------------------------------- */

enum { ITEMS = 100000, STEPS = 4, ACKNOWLEDGED = 3000 };

/* What a child knows to be on the disk: item `number` is at `step`, or its handler was put `number` times. */
struct acknowledgement {
  uint32_t child, number, step; /* step STEPS: the handler */
};

static int pipe_fds[2];

static bool acknowledge(unsigned child, uint32_t number, uint32_t step) {
  const struct acknowledgement ack = {child, number, step};
  return write(pipe_fds[1], &ack, sizeof ack) == sizeof ack;
}

static struct nx_suspension_id id_for(unsigned child, uint32_t number) {
  return id_of(((uint64_t)child << 32) + number);
}

/* Large enough that a kill may come in the middle of a write, and the same all over. */
static struct nx_store_item item_at(uint32_t step) {
  static char bytes[20000];
  memset(bytes, 'a' + (int)step, sizeof bytes);
  return item_of(step == STEPS - 1 ? NX_STORED_FINISHED : NX_STORED_WAITING, bytes, sizeof bytes);
}

static bool put_numbered(struct nx_store *mine, unsigned child, uint32_t number) {
  struct nx_error err = {0};
  struct nx_stored_handler handler = {0};
  char name[16];
  snprintf(name, sizeof name, "handler-%u", child);
  nx_buf_u64(&handler.bytes, number);
  int status = mine->ops->put_handler(mine, name, &handler, NX_HANDLER_ANY, &err);
  nx_buf_deinit(&handler.bytes);
  return status == 0 && acknowledge(child, number, STEPS);
}

static bool write_one(struct nx_store *mine, unsigned child, uint32_t number) {
  struct nx_suspension_id id = id_for(child, number);
  if (create(mine, id, item_at(0)) || !acknowledge(child, number, 0)) return false;
  for (uint32_t step = 1; step < STEPS; step++) {
    struct nx_store_lease held;
    if (lease(mine, id, &held) || commit(mine, &held, item_at(step)) || !acknowledge(child, number, step)) return false;
  }
  return put_numbered(mine, child, number);
}

static int write_until_killed(unsigned child) {
  struct nx_store *mine = open_again();
  for (uint32_t number = 0; number < ITEMS; number++)
    if (!write_one(mine, child, number)) return 1;
  return 2;
}

static void assert_at_least(const struct acknowledgement *ack) {
  struct nx_stored out = {0};
  assert_int_equal(read_into(store, id_for(ack->child, ack->number), &out), 0);
  struct nx_store_item least = item_at(ack->step);
  assert_int_equal(out.bytes.len, least.size);
  assert_true(out.bytes.data[0] >= (char)least.bytes[0]);
  for (size_t i = 1; i < out.bytes.len; i++) assert_int_equal(out.bytes.data[i], out.bytes.data[0]);
  nx_buf_deinit(&out.bytes);
}

static void assert_handler_at_least(const struct acknowledgement *ack) {
  struct nx_error err = {0};
  struct nx_stored_handler out = {0};
  char name[16];
  snprintf(name, sizeof name, "handler-%u", ack->child);
  assert_int_equal(store->ops->get_handler(store, name, &out, &err), 0);
  nx_buf_char(&out.bytes, 0);
  assert_true(strtoul(out.bytes.data, NULL, 10) >= ack->number);
  nx_buf_deinit(&out.bytes);
}

/* Whatever has an item's name can be read as one. */
static unsigned assert_all_are_whole(void) {
  unsigned count = 0;
  DIR *entries = opendir(path_of("items", ""));
  assert_non_null(entries);
  for (struct dirent *entry; (entry = readdir(entries));) {
    struct nx_suspension_id id;
    if (entry->d_name[0] == '.') continue;
    for (size_t i = 0; i < sizeof id.bytes; i++)
      assert_int_equal(sscanf(entry->d_name + 2 * i, "%2hhx", &id.bytes[i]), 1);
    assert_int_equal(read_into(store, id, NULL), 0);
    count++;
  }
  closedir(entries);
  return count;
}

static void what_was_acknowledged_survives_a_kill(void **state) {
  static struct acknowledgement acks[ACKNOWLEDGED + 8192]; /* and what a pipe holds */
  pid_t children[PROCESSES];
  unsigned count = 0;
  assert_int_equal(pipe(pipe_fds), 0);
  for (unsigned i = 0; i < PROCESSES; i++) children[i] = start(write_until_killed, i);
  close(pipe_fds[1]);
  for (ssize_t n; (n = read(pipe_fds[0], &acks[count % COUNT(acks)], sizeof *acks)) > 0;) {
    assert_int_equal(n, sizeof *acks);
    assert_true(++count < COUNT(acks));
    /* one after the other, each in the middle of something; the rest of the pipe is read then */
    for (unsigned i = 0; i < PROCESSES; i++)
      if (count == ACKNOWLEDGED - 100 * i) kill(children[i], SIGKILL);
  }
  close(pipe_fds[0]);
  for (unsigned i = 0; i < PROCESSES; i++) assert_true(WIFSIGNALED(wait_for(children[i])));
  assert_true(count >= ACKNOWLEDGED);
  for (unsigned i = 0; i < count; i++) {
    if (acks[i].step == STEPS)
      assert_handler_at_least(&acks[i]);
    else
      assert_at_least(&acks[i]);
  }
  unsigned whole = assert_all_are_whole();
  print_message("%u acknowledgements, %u items\n", count, whole);
}

/* ---- Killed while they have a lease ------------------------------------------------------------------------------ */

static int lease_and_wait(unsigned number) {
  struct nx_store_lease held;
  struct nx_store *mine = open_again();
  int status = lease(mine, id_of(number), &held);
  if (write(pipe_fds[1], &status, sizeof status) != sizeof status) return 1;
  for (;;) pause();
}

static void a_killed_process_has_no_lease(void **state) {
  struct nx_store_lease held;
  struct nx_suspension_id ids[1];
  struct nx_store_item item = waiting("timer");
  int status;
  item.wake_ms = now_ms();
  assert_int_equal(create(store, id_of(1), item), 0);
  assert_int_equal(pipe(pipe_fds), 0);
  pid_t child = start(lease_and_wait, 1);
  assert_int_equal(read(pipe_fds[0], &status, sizeof status), sizeof status);
  assert_int_equal(status, 0);
  assert_int_equal(lease(store, id_of(1), &held), -NX_ERR_BUSY);
  assert_int_equal(store->ops->due(store, now_ms(), ids, 1), 0);
  kill(child, SIGKILL);
  assert_true(WIFSIGNALED(wait_for(child)));
  eventually(store->ops->due(store, now_ms(), ids, 1) == 1);
  assert_int_equal(lease(store, id_of(1), &held), 0); /* at once, not after an hour */
  assert_int_equal(commit(store, &held, finished("by the next one")), 0);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
  const struct CMUnitTest tests[] = {
    T(no_commit_is_lost_between_processes),
    T(what_was_acknowledged_survives_a_kill),
    T(a_killed_process_has_no_lease),
  };
#undef T
  if (!make_store_dir()) return 1;
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  run("rm -rf %s");
  return failed;
}
