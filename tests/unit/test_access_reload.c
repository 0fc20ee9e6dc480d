/* SPDX-License-Identifier: Apache-2.0
 * AUTH_TOKENS_FILE while it changes: whoever asks meanwhile sees one whole version, and threads never wait for long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "access/access.h"
#include "base/clock.h"
#include "base/log.h"

#define ONE "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
#define TWO "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
#define LONG_MS 20000u

static char directory[] = "/tmp/nexus-test-access-XXXXXX";
static char path[64], temp[64];

static void write_file(const char *name, const char *text) {
  FILE *file = fopen(name, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static void replace_file(const char *text) {
  write_file(temp, text);
  assert_int_equal(rename(temp, path), 0);
}

static struct nx_access *open_access(void) {
  struct nx_access *access = NULL;
  struct nx_error err = {0};
  const struct nx_access_opts opts = {.path = path, .debounce_ms = 5, .rescan_ms = 200};
  if (nx_access_create(&access, &opts, &err)) fail_msg("%s", err.text);
  return access;
}

static bool knows(struct nx_access *access, const char *token) {
  struct nx_grantee grantee;
  return nx_access_find(access, token, strlen(token), &grantee);
}

#define wait_until(condition)                                                       \
  do {                                                                              \
    uint64_t deadline = nx_clock_ns() + LONG_MS * NX_NS_PER_MS;                     \
    while (!(condition)) {                                                          \
      if (nx_clock_ns() > deadline) fail_msg("%s did not come", #condition);        \
      nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                      \
    }                                                                               \
  } while (0)

static void what_is_wrong_at_the_start_is_said(void **state) {
  (void)state;
  struct nx_access *access = NULL;
  struct nx_error err = {0};
  const struct nx_access_opts opts = {.path = path};
  unlink(path);
  assert_int_equal(nx_access_create(&access, &opts, &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "AUTH_TOKENS_FILE"));
  assert_non_null(strstr(err.text, "No such file"));
  write_file(path, "acme execute\n");
  assert_int_equal(nx_access_create(&access, &opts, &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "line 1: HASH: expected"));
  const struct nx_access_opts on_directory = {.path = directory};
  assert_int_equal(nx_access_create(&access, &on_directory, &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "not a regular file"));
  nx_access_destroy(NULL);
}

static void changes_are_followed(void **state) {
  (void)state;
  replace_file("acme read " ONE "\n");
  struct nx_access *access = open_access();
  assert_true(knows(access, "one") && !knows(access, "two") && !nx_access_is_stale(access));
  replace_file("acme read " TWO "\n");
  wait_until(knows(access, "two"));
  assert_false(knows(access, "one"));
  write_file(path, "acme read " ONE "\nacme read " TWO "\n"); /* in place */
  wait_until(knows(access, "one") && knows(access, "two"));
  nx_access_destroy(access);
}

static void a_bad_file_leaves_the_tokens_of_before(void **state) {
  (void)state;
  replace_file("acme read " ONE "\n");
  struct nx_access *access = open_access();
  replace_file("");
  wait_until(nx_access_is_stale(access));
  assert_true(knows(access, "one"));
  replace_file("acme read " ONE "\n"); /* the same as before it was bad */
  wait_until(!nx_access_is_stale(access));
  unlink(path);
  wait_until(nx_access_is_stale(access));
  assert_true(knows(access, "one"));
  replace_file("acme read " TWO "\n");
  wait_until(!nx_access_is_stale(access));
  assert_true(knows(access, "two") && !knows(access, "one"));
  nx_access_destroy(access);
}

struct asker {
  struct nx_access *access;
  _Atomic bool stop;
  _Atomic unsigned asked, lost;
};

/* In every version "one" is known, with a scope that tells which version it is. */
static void *ask(void *opaque) {
  struct asker *asker = opaque;
  struct nx_grantee grantee;
  while (!atomic_load(&asker->stop)) {
    bool found = nx_access_find(asker->access, "one", 3, &grantee);
    if (!found || (grantee.scopes != NX_SCOPE_READ && grantee.scopes != NX_SCOPE_EXECUTE)) asker->lost++;
    asker->asked++;
  }
  return NULL;
}

static bool has_scope(struct nx_access *access, unsigned scope) {
  struct nx_grantee grantee;
  return nx_access_find(access, "one", 3, &grantee) && grantee.scopes == scope;
}

static void who_asks_meanwhile_sees_whole_versions(void **state) {
  (void)state;
  replace_file("acme read " ONE "\n");
  struct asker asker = {.access = open_access()};
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, ask, &asker), 0);
  for (int i = 0; i < 20; i++) {
    replace_file(i % 2 ? "acme read " ONE "\n" : "other read " TWO "\nacme execute " ONE "\n");
    wait_until(has_scope(asker.access, i % 2 ? NX_SCOPE_READ : NX_SCOPE_EXECUTE));
  }
  atomic_store(&asker.stop, true);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  assert_true(asker.asked > 0);
  assert_int_equal(asker.lost, 0);
  nx_access_destroy(asker.access);
}

/* A relative path without a slash: its directory is ".", whose parent must not take its watch. */
static void a_file_of_the_working_directory_is_followed(void **state) {
  (void)state;
  struct nx_access *access = NULL;
  const struct nx_access_opts opts = {.path = "tokens", .debounce_ms = 5};
  assert_int_equal(chdir(directory), 0);
  write_file("tokens", "acme read " ONE "\n");
  assert_int_equal(nx_access_create(&access, &opts, NULL), 0);
  write_file("tokens", "acme read " TWO "\n");
  wait_until(knows(access, "two"));
  nx_access_destroy(access);
  assert_int_equal(chdir("/"), 0);
}

/* The directory by a link that lies in it: it is its own parent. */
static void a_directory_inside_itself_is_followed(void **state) {
  (void)state;
  char link[80], inside[96];
  snprintf(link, sizeof link, "%s/self", directory);
  snprintf(inside, sizeof inside, "%s/tokens", link);
  assert_int_equal(symlink(".", link), 0);
  write_file(inside, "acme read " ONE "\n");
  struct nx_access *access = NULL;
  const struct nx_access_opts opts = {.path = inside, .debounce_ms = 5, .rescan_ms = 10 * LONG_MS};
  assert_int_equal(nx_access_create(&access, &opts, NULL), 0);
  int file = open(path, O_WRONLY);
  assert_true(file >= 0);
  assert_int_equal(pwrite(file, "acme read " TWO "\n", sizeof "acme read " TWO, 0), sizeof "acme read " TWO); /* in place */
  close(file);
  wait_until(knows(access, "two"));
  nx_access_destroy(access);
  unlink(link);
}

static int make_directory(void **state) {
  (void)state;
  if (!mkdtemp(directory)) return -1;
  snprintf(path, sizeof path, "%s/tokens", directory);
  snprintf(temp, sizeof temp, "%s/tokens.new", directory);
  return 0;
}

static int remove_directory(void **state) {
  (void)state;
  unlink(path);
  return rmdir(directory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_wrong_at_the_start_is_said),
    cmocka_unit_test(changes_are_followed),
    cmocka_unit_test(a_bad_file_leaves_the_tokens_of_before),
    cmocka_unit_test(who_asks_meanwhile_sees_whole_versions),
    cmocka_unit_test(a_file_of_the_working_directory_is_followed),
    cmocka_unit_test(a_directory_inside_itself_is_followed),
  };
  nx_log_init(STDERR_FILENO, NX_LOG_ERROR, false);
  return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, make_directory, remove_directory);
}
