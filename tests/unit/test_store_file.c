/* SPDX-License-Identifier: Apache-2.0
 * The store in a directory: the suite, then files that are damaged, foreign or in the way, what a pass deletes, and disks
 * that fail. Processes that die: test_store_file_crash.c. */
#include "store_file_support.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

static const uint8_t hash_a[NX_HASH_BYTES] = {0xaa, 1};
static const char hash_a_name[] = "aa01000000000000000000000000000000000000000000000000000000000000";

static const char *item_path(uint64_t number) {
  char name[2 * NX_SUSPENSION_ID_BYTES + 1];
  struct nx_suspension_id id = id_of(number);
  for (size_t i = 0; i < sizeof id.bytes; i++) snprintf(name + 2 * i, 3, "%02x", id.bytes[i]);
  return path_of("items", name);
}

static struct nx_store_item waiting_for_a_day(const char *text) {
  struct nx_store_item item = waiting(text);
  item.expires_ms = now_ms() + 24 * HOUR_MS;
  return item;
}

static void sweep_at(uint64_t ms) { store->ops->sweep(store, ms); }

struct content {
  char bytes[512];
  size_t size;
};

static struct content content_of(const char *path) {
  struct content content = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  assert_true(fd >= 0);
  ssize_t n = read(fd, content.bytes, sizeof content.bytes);
  close(fd);
  assert_in_range(n, 1, sizeof content.bytes - 1);
  content.size = (size_t)n;
  return content;
}

static void overwrite(const char *path, const char *bytes, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, size), size);
  close(fd);
}

static bool exists(const char *path) {
  struct stat st;
  return !lstat(path, &st);
}

/* ---- Damage ------------------------------------------------------------------------------------------------------ */

/* Every truncation, every byte changed, one byte more, and noise; then the file as it was. */
static void damage_in_every_way(const char *path_to_copy, void (*check)(void)) {
  char path[256];
  strcpy(path, path_to_copy);
  struct content good = content_of(path), bad = good;
  for (size_t size = 0; size < good.size; size++) {
    overwrite(path, good.bytes, size);
    check();
  }
  for (size_t i = 0; i < good.size; i++) {
    bad.bytes[i] ^= 1;
    overwrite(path, bad.bytes, good.size);
    check();
    bad.bytes[i] = good.bytes[i];
  }
  overwrite(path, good.bytes, good.size + 1);
  check();
  unsigned seed = 1;
  for (unsigned round = 0; round < 100; round++) {
    size_t size = (unsigned)rand_r(&seed) % sizeof bad.bytes;
    for (size_t i = round % 2 ? 8 : 0; i < size; i++) bad.bytes[i] = (char)rand_r(&seed);
    overwrite(path, bad.bytes, size);
    check();
  }
  overwrite(path, good.bytes, good.size);
}

static void item_is_damaged(void) {
  struct nx_store_lease held;
  assert_int_equal(read_into(store, id_of(1), NULL), -NX_ERR_INVALID);
  assert_int_equal(lease(store, id_of(1), &held), -NX_ERR_INVALID);
  sweep_at(now_ms()); /* too young to be deleted */
}

static void a_damaged_item_is_refused(void **state) {
  assert_int_equal(create(store, id_of(1), waiting_for_a_day("waits")), 0);
  damage_in_every_way(item_path(1), item_is_damaged);
  assert_item(store, id_of(1), NX_STORED_WAITING, "waits");
  assert_int_equal(cancel(store, id_of(1)), 0);
}

static void an_item_under_another_name_is_refused(void **state) {
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  struct content content = content_of(item_path(1));
  overwrite(item_path(2), content.bytes, content.size);
  assert_int_equal(read_into(store, id_of(2), NULL), -NX_ERR_INVALID);
  assert_int_equal(cancel(store, id_of(2)), -NX_ERR_INVALID);
}

static void source_is_damaged(void) { assert_int_equal(load_source(store, hash_a, NULL), -NX_ERR_INVALID); }

static void a_damaged_source_is_refused_and_replaced(void **state) {
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + HOUR_MS), 0);
  damage_in_every_way(path_of("sources", hash_a_name), source_is_damaged);
  overwrite(path_of("sources", hash_a_name), "", 0);
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + HOUR_MS), 0);
  assert_int_equal(load_source(store, hash_a, NULL), 0);
}

static int get_handler(const char *name) {
  struct nx_stored_handler out = {0};
  struct nx_error err = {0};
  int status = store->ops->get_handler(store, name, &out, &err);
  nx_buf_deinit(&out.bytes);
  return status;
}

static int put_handler(const char *name) {
  struct nx_stored_handler handler = {0};
  struct nx_error err = {0};
  memcpy(handler.source_name, hash_a, sizeof hash_a);
  nx_buf_lit(&handler.bytes, "{}");
  int status = store->ops->put_handler(store, name, &handler, NX_HANDLER_ANY, &err);
  nx_buf_deinit(&handler.bytes);
  return status;
}

static int remove_handler(const char *name) {
  struct nx_error err = {0};
  return store->ops->remove_handler(store, name, NX_HANDLER_ANY, &err);
}

static void handler_is_damaged(void) { assert_int_equal(get_handler("cart"), -NX_ERR_INVALID); }

static void a_damaged_handler_is_refused_and_replaced(void **state) {
  assert_int_equal(put_handler("cart"), 0);
  damage_in_every_way(path_of("handlers", "cart"), handler_is_damaged);
  overwrite(path_of("handlers", "cart"), "", 0);
  assert_int_equal(put_handler("cart"), 0);
  assert_int_equal(get_handler("cart"), 0);
  overwrite(path_of("handlers", "cart"), "", 0);
  assert_int_equal(remove_handler("cart"), 0);
  assert_int_equal(remove_handler("cart"), -NX_ERR_NOT_FOUND);
}

static void names_of_handlers_are_checked(void **state) {
  static const char *const names[] = {"", ".", "..", "../items/x", "a/b", ".nx-tmp-1"};
  for (size_t i = 0; i < COUNT(names); i++) {
    assert_int_equal(put_handler(names[i]), -NX_ERR_INVALID);
    assert_int_equal(get_handler(names[i]), -NX_ERR_INVALID);
    assert_int_equal(remove_handler(names[i]), -NX_ERR_INVALID);
  }
}

/* ---- What is planted --------------------------------------------------------------------------------------------- */

static void links_and_pipes_are_not_opened(void **state) {
  char outside_path[96];
  snprintf(outside_path, sizeof outside_path, "%s/outside", store_dir);
  assert_int_equal(create(store, id_of(1), waiting_for_a_day("waits")), 0);
  run("cd %s && cp v1/items/* outside");
  assert_int_equal(symlink(outside_path, item_path(2)), 0);
  assert_int_equal(mkfifo(item_path(3), 0600), 0);
  assert_int_equal(mkdir(item_path(4), 0700), 0);
  for (uint64_t i = 2; i < 5; i++) {
    struct nx_store_lease held;
    assert_int_equal(read_into(store, id_of(i), NULL), -NX_ERR_INVALID);
    assert_int_equal(lease(store, id_of(i), &held), -NX_ERR_INVALID);
    assert_int_equal(cancel(store, id_of(i)), -NX_ERR_INVALID);
  }
  assert_int_equal(symlink(outside_path, path_of("sources", hash_a_name)), 0);
  assert_int_equal(load_source(store, hash_a, NULL), -NX_ERR_INVALID);
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + HOUR_MS), 0); /* in place of the link */
  assert_int_equal(load_source(store, hash_a, NULL), 0);
  struct content inside = content_of(item_path(1)), outside = content_of(outside_path);
  assert_memory_equal(&inside, &outside, sizeof inside);
  sweep_at(now_ms() + 2 * HOUR_MS);
  assert_true(exists(outside_path));
  unlink(outside_path);
}

static void a_linked_directory_is_refused(void **state) {
  struct nx_store *opened;
  struct nx_error err = {0};
  run("cd %s/v1 && mv items elsewhere && ln -s elsewhere items");
  assert_int_equal(nx_store_open_file(&opened, store_dir, &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, store_dir));
  assert_non_null(strstr(err.text, "items"));
}

static void an_id_is_used_once(void **state) {
  assert_int_equal(create(store, id_of(1), waiting("first")), 0);
  assert_int_equal(create(other, id_of(1), waiting("second")), -NX_ERR_CONFLICT);
  assert_item(store, id_of(1), NX_STORED_WAITING, "first");
}

static void nobody_else_may_read(void **state) {
  struct stat st;
  mode_t before = umask(0);
  store->ops->close(store);
  store = open_empty();
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(put_handler("cart"), 0);
  umask(before);
  assert_int_equal(stat(item_path(1), &st), 0);
  assert_int_equal(st.st_mode & 07777, 0600);
  assert_int_equal(stat(path_of("handlers", "cart"), &st), 0);
  assert_int_equal(st.st_mode & 07777, 0600);
  assert_int_equal(stat(path_of("items", ""), &st), 0);
  assert_int_equal(st.st_mode & 07777, 0700);
}

/* ---- The pass ---------------------------------------------------------------------------------------------------- */

static void what_is_left_over_is_deleted_when_it_is_old(void **state) {
  static const char *const kinds[] = {"items", "sources", "handlers"};
  assert_int_equal(create(store, id_of(1), waiting_for_a_day("waits")), 0);
  overwrite(item_path(2), "damaged", 7);
  overwrite(path_of("sources", hash_a_name), "damaged", 7);
  for (size_t i = 0; i < COUNT(kinds); i++) {
    overwrite(path_of(kinds[i], NX_FS_TEMP_PREFIX "0123456789abcdef"), "half a fi", 9);
    overwrite(path_of(kinds[i], "~foreign"), "", 0);
    overwrite(path_of(kinds[i], ".foreign"), "", 0);
  }
  sweep_at(now_ms());
  for (size_t i = 0; i < COUNT(kinds); i++) assert_true(exists(path_of(kinds[i], NX_FS_TEMP_PREFIX "0123456789abcdef")));
  assert_true(exists(item_path(2)) && exists(path_of("sources", hash_a_name)));
  sweep_at(now_ms() + 2 * HOUR_MS);
  for (size_t i = 0; i < COUNT(kinds); i++) {
    assert_false(exists(path_of(kinds[i], NX_FS_TEMP_PREFIX "0123456789abcdef")));
    assert_true(exists(path_of(kinds[i], "~foreign")) && exists(path_of(kinds[i], ".foreign")));
  }
  assert_false(exists(item_path(2)));
  assert_false(exists(path_of("sources", hash_a_name)));
  assert_item(store, id_of(1), NX_STORED_WAITING, "waits");
}

static void a_pass_deletes_files_that_are_over(void **state) {
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), waiting("one hour")), 0);
  assert_int_equal(create(store, id_of(2), waiting("leased")), 0);
  assert_int_equal(create(store, id_of(3), waiting_for_a_day("one day")), 0);
  assert_int_equal(lease(other, id_of(2), &held), 0);
  sweep_at(now_ms() + 2 * HOUR_MS);
  assert_false(exists(item_path(1)));
  assert_true(exists(item_path(2)) && exists(item_path(3)));
  release(other, &held);
  sweep_at(now_ms() + 2 * HOUR_MS);
  assert_false(exists(item_path(2)));
}

static void a_step_of_the_pass_is_bounded(void **state) {
  enum { ITEMS = 5000 };
  const struct timespec future[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) + 100000}};
  for (uint64_t i = 0; i < ITEMS; i++) {
    overwrite(item_path(i), "", 0);
    assert_int_equal(utimensat(AT_FDCWD, item_path(i), future, 0), 0);
  }
  struct nx_store_stats stats;
  sweep_at(now_ms());
  store->ops->read_stats(store, &stats);
  assert_int_equal(stats.waiting, 0);
  sweep_at(now_ms());
  store->ops->read_stats(store, &stats);
  assert_int_equal(stats.waiting, ITEMS);
}

static void a_handlers_source_stays_until_it_is_removed(void **state) {
  assert_int_equal(keep_source(store, hash_a, "return 1", UINT64_MAX), 0);
  assert_int_equal(put_handler("cart"), 0);
  for (uint64_t hours = 0; hours < 50; hours += 7) {
    sweep_at(now_ms() + hours * HOUR_MS);
    assert_int_equal(load_source(other, hash_a, NULL), 0);
  }
  assert_int_equal(remove_handler("cart"), 0);
  sweep_at(now_ms() + 100 * HOUR_MS);
  assert_int_equal(load_source(other, hash_a, NULL), -NX_ERR_NOT_FOUND);
}

static void every_change_of_a_handler_changes_the_version(void **state) {
  uint64_t last = other->ops->handlers_version(other);
  for (unsigned i = 0; i < 200; i++) {
    assert_int_equal(i % 3 == 2 ? remove_handler("cart") : put_handler("cart"), 0);
    uint64_t version = other->ops->handlers_version(other);
    assert_true(version != last);
    last = version;
  }
}

/* ---- Disks that fail --------------------------------------------------------------------------------------------- */

static bool says(struct nx_store *handle, uint64_t number, const char *advice) {
  struct nx_error err = {0};
  struct nx_refusal refused = {0};
  static const char large[100000];
  struct nx_suspension_id id = id_of(number);
  struct nx_store_item item = item_of(NX_STORED_WAITING, large, sizeof large);
  return handle->ops->create(handle, &id, &item, &refused, &err) == -NX_ERR_UNAVAILABLE && strstr(err.text, advice);
}

static void a_removed_directory_is_unavailable(void **state) {
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  run("rm -r %s/v1");
  assert_true(says(store, 2, "restart"));
  assert_int_equal(read_into(store, id_of(1), NULL), -NX_ERR_UNAVAILABLE);
  assert_int_equal(lease(store, id_of(1), &held), -NX_ERR_UNAVAILABLE);
  assert_int_equal(put_handler("cart"), -NX_ERR_UNAVAILABLE);
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + HOUR_MS), -NX_ERR_UNAVAILABLE);
  sweep_at(now_ms());
}

static void a_directory_that_cannot_be_made_is_an_error_of_the_configuration(void **state) {
  struct nx_store *opened;
  struct nx_error err = {0};
  assert_int_equal(nx_store_open_file(&opened, "/proc/nexus-store", &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "/proc/nexus-store"));
  assert_non_null(strstr(err.text, "No such file"));
}

/* In a child with mounts of its own: 0, or the number of the step that failed. */
static int use_a_small_disk(void) {
#define STEP(n, condition) do { if (!(condition)) return (n); } while (0)
  STEP(77, !unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
  STEP(77, !mount("none", store_dir, "tmpfs", 0, "size=256k"));
  struct nx_store *small, *unused;
  struct nx_store_lease held;
  struct nx_error err;
  STEP(1, !nx_store_open_file(&small, store_dir, NULL));
  STEP(2, create(small, id_of(1), waiting("waits")) == 0);
  STEP(3, says(small, 2, "free space") || says(small, 3, "free space") || says(small, 4, "free space"));
  STEP(4, read_into(small, id_of(1), NULL) == 0);
  STEP(5, lease(small, id_of(1), &held) == 0);
  static const char large[200000];
  STEP(6, commit(small, &held, item_of(NX_STORED_FINISHED, large, sizeof large)) == -NX_ERR_UNAVAILABLE);
  STEP(7, lease(small, id_of(1), &(struct nx_store_lease){0}) == -NX_ERR_BUSY);
  release(small, &held);
  STEP(8, lease(small, id_of(1), &held) == 0);
  STEP(9, commit(small, &held, finished("small")) == 0);
  STEP(10, create(small, id_of(9), waiting("waits")) == 0);
  store = small;
  STEP(11, put_handler("cart") == 0);
  STEP(12, !mount("none", store_dir, NULL, MS_REMOUNT | MS_RDONLY, NULL));
  STEP(13, says(small, 5, "writable"));
  STEP(14, cancel(small, id_of(9)) == -NX_ERR_UNAVAILABLE);
  STEP(15, read_into(small, id_of(9), NULL) == 0);
  STEP(16, remove_handler("cart") == -NX_ERR_UNAVAILABLE && put_handler("cart") == -NX_ERR_UNAVAILABLE);
  STEP(17, get_handler("cart") == 0);
  STEP(18, nx_store_open_file(&unused, store_dir, &err) == -NX_ERR_CONFIG && strstr(err.text, "Read-only"));
  small->ops->close(small);
  return 0;
#undef STEP
}

static void a_full_disk_and_one_for_reading_only(void **state) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (!child) _exit(use_a_small_disk());
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    print_message("[  NOTE    ] not permitted to mount: full disk skipped\n");
    skip();
  }
  assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
  const struct CMUnitTest files[] = {
    T(a_damaged_item_is_refused),
    T(an_item_under_another_name_is_refused),
    T(a_damaged_source_is_refused_and_replaced),
    T(a_damaged_handler_is_refused_and_replaced),
    T(names_of_handlers_are_checked),
    T(links_and_pipes_are_not_opened),
    T(a_linked_directory_is_refused),
    T(an_id_is_used_once),
    T(nobody_else_may_read),
    T(what_is_left_over_is_deleted_when_it_is_old),
    T(a_pass_deletes_files_that_are_over),
    T(a_step_of_the_pass_is_bounded),
    T(a_handlers_source_stays_until_it_is_removed),
    T(every_change_of_a_handler_changes_the_version),
    T(a_removed_directory_is_unavailable),
    T(a_directory_that_cannot_be_made_is_an_error_of_the_configuration),
    T(a_full_disk_and_one_for_reading_only),
  };
#undef T
  if (!make_store_dir()) return 1;
  int failed = store_suite_run(&file_factory);
  failed += cmocka_run_group_tests(files, NULL, NULL);
  run("rm -rf %s");
  return failed;
}
