/* SPDX-License-Identifier: Apache-2.0
 * HANDLERS_DIR: what is loaded, what is refused, and what is seen when it changes. */
#include "handler_support.h"

#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "handler/directory.h"

/* ---- A registry that records: what is in service, and how often it was called */

#define MAX_HANDLERS 64

struct service {
  pthread_mutex_t lock;
  struct {
    char name[NX_HANDLER_NAME_MAX + 1], source[64];
    uint32_t timeout_ms; /* from the grants; 0: no grants */
  } handlers[MAX_HANDLERS];
  unsigned count, applied;
  int fail_with; /* code for every call; 0: only sources that begin with '!' fail to compile */
};

static struct service service = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Under the lock: index of the handler, or `count`. */
static unsigned index_of(const char *name) {
  unsigned i = 0;
  while (i < service.count && strcmp(service.handlers[i].name, name)) i++;
  return i;
}

static int record(const char *name, const char *source, size_t bytes, struct nx_grants *grants, struct nx_error *err) {
  if (service.fail_with) return nx_error_set(err, (enum nx_error_code)service.fail_with, "told to fail");
  if (bytes && *source == '!') return nx_error_set(err, NX_ERR_UNPROCESSABLE, "SyntaxError at 1:1");
  unsigned i = index_of(name);
  if (i == MAX_HANDLERS) return nx_error_set(err, NX_ERR_CONFLICT, "full");
  if (i == service.count) service.count++;
  strcpy(service.handlers[i].name, name);
  snprintf(service.handlers[i].source, sizeof service.handlers[i].source, "%.*s", (int)bytes, source);
  service.handlers[i].timeout_ms = grants ? grants->timeout_ms : 0;
  return 0;
}

static int apply(void *opaque, const char *name, const char *source, size_t bytes, struct nx_grants *grants,
                 struct nx_error *err) {
  if (opaque != &service || !source) abort();
  pthread_mutex_lock(&service.lock);
  service.applied++;
  int status = record(name, source, bytes, grants, err);
  pthread_mutex_unlock(&service.lock);
  return status;
}

static void take_out(void *opaque, const char *name) {
  (void)opaque;
  pthread_mutex_lock(&service.lock);
  unsigned i = index_of(name);
  if (i == service.count) abort(); /* never one that was not accepted */
  service.handlers[i] = service.handlers[--service.count];
  pthread_mutex_unlock(&service.lock);
}

/* ---- Helpers */

static struct nx_directory *directory;
static char watched[200];

static int setup(void **state) {
  service.count = service.applied = 0;
  service.fail_with = 0;
  if (scratch_setup(state)) return -1;
  snprintf(watched, sizeof watched, "%s/handlers", scratch);
  capture_log();
  return mkdir(watched, 0755);
}

static int teardown(void **state) {
  nx_directory_destroy(directory);
  directory = NULL;
  return scratch_teardown(state);
}

static int start_at(const char *path, uint32_t rescan_ms, struct nx_error *err) {
  struct nx_directory_opts opts = {.path = path, .max_source_bytes = 1000, .debounce_ms = 20, .rescan_ms = rescan_ms,
                                   .opaque = &service, .apply = apply, .remove = take_out};
  return nx_directory_create(&directory, &opts, err);
}

/* Without looks by the clock: what is seen was told by inotify. */
static void start(void) { assert_int_equal(start_at(watched, 0, NULL), 0); }

static const char *in_dir(const char *file) {
  static char paths[4][512];
  static unsigned next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", watched, file);
  return path;
}

static bool serves(const char *name, const char *source, uint32_t timeout_ms) {
  pthread_mutex_lock(&service.lock);
  unsigned i = index_of(name);
  bool result = i < service.count && !strcmp(service.handlers[i].source, source) &&
                service.handlers[i].timeout_ms == timeout_ms;
  pthread_mutex_unlock(&service.lock);
  return result;
}

static unsigned applied(void) {
  pthread_mutex_lock(&service.lock);
  unsigned result = service.applied;
  pthread_mutex_unlock(&service.lock);
  return result;
}

static unsigned count(void) {
  pthread_mutex_lock(&service.lock);
  unsigned result = service.count;
  pthread_mutex_unlock(&service.lock);
  return result;
}

static struct nx_directory_stats stats(void) {
  struct nx_directory_stats out;
  nx_directory_read_stats(directory, &out);
  return out;
}

/* Waits, for as long as a slow machine may need, until the condition holds. */
#define EVENTUALLY(condition)                                                        \
  do {                                                                               \
    uint64_t until = nx_clock_ns() + 10 * NX_NS_PER_S;                               \
    while (!(condition) && nx_clock_ns() < until) usleep(2000);                      \
    if (!(condition)) fail_msg("line %d: %s did not come to hold", __LINE__, #condition); \
  } while (0)

/* Long enough for a look that should change nothing. */
static void let_it_look(void) { usleep(150000); }

/* ---- At the start */

static void handlers_and_grants_are_loaded_at_the_start(void **state) {
  (void)state;
  write_text(in_dir("a.js"), "A");
  write_text(in_dir("b.js"), "B");
  write_text(in_dir("b.grants.json"), "{\"timeoutMs\":7}");
  write_text(in_dir("empty.js"), "");
  write_text(in_dir("with.dots-and_.js"), "D");
  write_text(in_dir("README.md"), "not one");
  write_text(in_dir(".hidden.js"), "not one");
  write_text(in_dir("c.mjs"), "not one");
  mkdir(in_dir("node_modules"), 0755);
  start();
  assert_int_equal(count(), 4);
  assert_true(serves("a", "A", 0) && serves("b", "B", 7) && serves("empty", "", 0) && serves("with.dots-and_", "D", 0));
  assert_int_equal(stats().in_service, 4);
  assert_int_equal(stats().refused, 0);
  assert_int_equal(logged("handler loaded from its file"), 4);
  let_it_look();
  assert_int_equal(applied(), 4);
}

static void a_missing_directory_is_a_start_error(void **state) {
  (void)state;
  struct nx_error err = {0};
  assert_int_equal(start_at(in_scratch("nowhere"), 0, &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "HANDLERS_DIR"));
  assert_non_null(strstr(err.text, "/nowhere"));
  assert_non_null(strstr(err.text, "No such file or directory"));
  write_text(in_scratch("file"), "x");
  assert_int_equal(start_at(in_scratch("file"), 0, &err), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "Not a directory"));
  assert_int_equal(start_at("", 0, &err), -NX_ERR_CONFIG);
  assert_null(directory);
}

static void what_cannot_be_loaded_is_refused_once(void **state) {
  (void)state;
  char large[1002];
  memset(large, 'x', 1001);
  large[1001] = '\0';
  write_text(in_dir("large.js"), large);
  large[1000] = '\0';
  write_text(in_dir("largest.js"), large);
  write_text(in_dir("bad name.js"), "x");
  write_text(in_dir("-dash.js"), "x");
  write_text(in_dir("syntax.js"), "!");
  write_text(in_dir("grants.js"), "x");
  write_text(in_dir("grants.grants.json"), "{\"timeout\":7}");
  write_text(in_dir("alone.grants.json"), "{}");
  mkdir(in_dir("dir.js"), 0755);
  assert_int_equal(mkfifo(in_dir("fifo.js"), 0644), 0);
  assert_int_equal(symlink("nowhere.js", in_dir("dangling.js")), 0);
  assert_int_equal(symlink("loop.js", in_dir("loop.js")), 0);
  char name[300];
  memset(name, 'n', 200);
  strcpy(name + 200, ".js");
  write_text(in_dir(name), "x");
  start();
  assert_int_equal(count(), 1);
  assert_int_equal(logged("handler=largest"), 1);
  assert_int_equal(stats().refused, 10);
  assert_int_equal(logged("handler file refused"), 10);
  assert_int_equal(logged("larger than"), 1);
  assert_int_equal(logged("cannot be a handler's name"), 3);
  assert_int_equal(logged("SyntaxError at 1:1"), 1);
  assert_int_equal(logged("unknown field 'timeout'"), 1);
  assert_int_equal(logged("no source for these grants"), 1);
  assert_int_equal(logged("not a regular file"), 2);
  write_text(in_dir("new.js"), "x"); /* another look says nothing again */
  EVENTUALLY(serves("new", "x", 0));
  assert_int_equal(logged("handler file refused"), 10);
  assert_int_equal(applied(), 3);
}

static void an_unreadable_file_is_refused(void **state) {
  (void)state;
  if (!geteuid()) skip(); /* root reads everything */
  write_text(in_dir("a.js"), "A");
  assert_int_equal(chmod(in_dir("a.js"), 0), 0);
  start();
  assert_int_equal(stats().refused, 1);
}

/* ---- Changes */

static void changes_are_seen(void **state) {
  (void)state;
  write_text(in_dir("a.js"), "1");
  start();
  write_text(in_dir("a.js"), "2"); /* in place */
  EVENTUALLY(serves("a", "2", 0));
  replace_text(in_dir("a.js"), "3"); /* by rename */
  EVENTUALLY(serves("a", "3", 0));
  write_text(in_dir("b.js"), "B");
  EVENTUALLY(serves("b", "B", 0));
  write_text(in_dir("a.grants.json"), "{\"timeoutMs\":5}");
  EVENTUALLY(serves("a", "3", 5));
  unlink(in_dir("a.grants.json"));
  EVENTUALLY(serves("a", "3", 0));
  assert_int_equal(rename(in_dir("b.js"), in_dir("c.js")), 0);
  EVENTUALLY(serves("c", "B", 0) && count() == 2);
  unlink(in_dir("a.js"));
  EVENTUALLY(count() == 1);
  assert_int_equal(logged("handler removed with its file"), 2);
  unsigned before = applied();
  replace_text(in_dir("c.js"), "B"); /* the same content in a new file */
  let_it_look();
  assert_int_equal(applied(), before);
}

static void a_version_that_fails_leaves_the_previous_one(void **state) {
  (void)state;
  write_text(in_dir("a.js"), "good");
  start();
  replace_text(in_dir("a.js"), "!broken");
  EVENTUALLY(stats().refused == 1);
  assert_true(serves("a", "good", 0));
  assert_int_equal(stats().in_service, 1);
  assert_int_equal(logged("earlierVersionStays=yes"), 1);
  replace_text(in_dir("a.js"), "good"); /* back */
  EVENTUALLY(stats().refused == 0);
  write_text(in_dir("a.grants.json"), "{\"capabilities\":[\"nope\"]}");
  EVENTUALLY(stats().refused == 1);
  replace_text(in_dir("a.js"), "newer"); /* not in service while its grants are wrong */
  let_it_look();
  assert_true(serves("a", "good", 0));
  write_text(in_dir("a.grants.json"), "{\"timeoutMs\":3}");
  EVENTUALLY(serves("a", "newer", 3));
  assert_int_equal(stats().refused, 0);
  replace_text(in_dir("a.js"), "!");
  EVENTUALLY(stats().refused == 1);
  unlink(in_dir("a.js")); /* a refused file that goes takes its earlier version along */
  EVENTUALLY(count() == 0);
  EVENTUALLY(stats().refused == 1); /* the grants stand alone now */
}

static void a_burst_is_one_look(void **state) {
  (void)state;
  start();
  for (int i = 0; i < 200; i++) {
    char text[16];
    sprintf(text, "v%d", i);
    replace_text(in_dir("a.js"), text);
  }
  EVENTUALLY(serves("a", "v199", 0));
  assert_true(applied() < 50);
}

static void a_steady_stream_does_not_keep_it_from_looking(void **state) {
  (void)state;
  start();
  uint64_t until = nx_clock_ns() + 1500 * NX_NS_PER_MS;
  write_text(in_dir("a.js"), "A");
  while (nx_clock_ns() < until) {
    replace_text(in_dir("b.txt"), "x");
    usleep(5000);
  }
  assert_true(serves("a", "A", 0));
}

static void what_failed_for_other_reasons_is_tried_again(void **state) {
  (void)state;
  service.fail_with = NX_ERR_NO_MEMORY;
  write_text(in_dir("a.js"), "A");
  assert_int_equal(start_at(watched, 50, NULL), 0);
  assert_int_equal(stats().refused, 1);
  EVENTUALLY(applied() > 2);
  pthread_mutex_lock(&service.lock);
  service.fail_with = NX_ERR_UNPROCESSABLE;
  unsigned before = service.applied;
  pthread_mutex_unlock(&service.lock);
  EVENTUALLY(applied() > before);
  let_it_look();
  let_it_look();
  assert_int_equal(applied(), before + 1); /* such a failure stays one */
}

static void looks_by_the_clock_find_what_no_event_tells(void **state) {
  (void)state;
  mkdir(in_scratch("elsewhere"), 0755);
  write_text(in_scratch("elsewhere/a"), "1");
  assert_int_equal(symlink("../elsewhere/a", in_dir("a.js")), 0);
  assert_int_equal(start_at(watched, 50, NULL), 0);
  assert_true(serves("a", "1", 0));
  write_text(in_scratch("elsewhere/a"), "2"); /* nothing happens in the directory itself */
  EVENTUALLY(serves("a", "2", 0));
}

/* ---- The directory itself */

static void vanishing_is_survived(void **state) {
  (void)state;
  write_text(in_dir("a.js"), "1");
  start();
  char moved[300];
  snprintf(moved, sizeof moved, "%s.moved", watched);
  assert_int_equal(rename(watched, moved), 0);
  EVENTUALLY(logged("HANDLERS_DIR cannot be read") == 1);
  assert_true(serves("a", "1", 0));
  assert_int_equal(mkdir(watched, 0755), 0);
  write_text(in_dir("b.js"), "2");
  EVENTUALLY(serves("b", "2", 0));
  EVENTUALLY(count() == 1); /* the new directory has no a.js */
  assert_int_equal(logged("readable again"), 1);
  write_text(in_dir("c.js"), "3"); /* and is watched */
  EVENTUALLY(serves("c", "3", 0));
}

static void a_swapped_link_is_followed(void **state) {
  (void)state;
  mkdir(in_scratch("one"), 0755);
  mkdir(in_scratch("two"), 0755);
  write_text(in_scratch("one/a.js"), "1");
  write_text(in_scratch("two/a.js"), "2");
  assert_int_equal(symlink("one", in_scratch("current")), 0);
  char link[300];
  snprintf(link, sizeof link, "%s/current///", scratch);
  assert_int_equal(start_at(link, 0, NULL), 0);
  assert_true(serves("a", "1", 0));
  assert_int_equal(symlink("two", in_scratch("next")), 0);
  assert_int_equal(rename(in_scratch("next"), in_scratch("current")), 0);
  EVENTUALLY(serves("a", "2", 0));
  write_text(in_scratch("two/a.js"), "3");
  EVENTUALLY(serves("a", "3", 0));
  unsigned before = applied();
  write_text(in_scratch("one/a.js"), "4"); /* of no interest any more */
  let_it_look();
  assert_int_equal(applied(), before);
}

/* As the kubelet does it: NAME.js → ..data/NAME.js, ..data → ..TIME, swapped by rename. */
static void make_generation(int number, const char *source, const char *grants) {
  char path[400];
  snprintf(path, sizeof path, "%s/..gen%d", watched, number);
  assert_int_equal(mkdir(path, 0755), 0);
  snprintf(path, sizeof path, "%s/..gen%d/a.js", watched, number);
  write_text(path, source);
  snprintf(path, sizeof path, "%s/..gen%d/a.grants.json", watched, number);
  write_text(path, grants);
}

static void swap_to(int number) {
  char target[32], path[400];
  snprintf(target, sizeof target, "..gen%d", number);
  assert_int_equal(symlink(target, in_dir("..data_tmp")), 0);
  assert_int_equal(rename(in_dir("..data_tmp"), in_dir("..data")), 0);
  if (number == 1) return;
  snprintf(path, sizeof path, "rm -rf %s/..gen%d", watched, number - 1);
  assert_int_equal(system(path), 0);
}

static void a_config_map_is_followed(void **state) {
  (void)state;
  make_generation(1, "g1", "{\"timeoutMs\":1}");
  swap_to(1);
  assert_int_equal(symlink("..data/a.js", in_dir("a.js")), 0);
  assert_int_equal(symlink("..data/a.grants.json", in_dir("a.grants.json")), 0);
  start();
  assert_true(serves("a", "g1", 1));
  make_generation(2, "g2", "{\"timeoutMs\":2}");
  swap_to(2);
  EVENTUALLY(serves("a", "g2", 2));
  for (int i = 3; i < 60; i++) { /* never source and grants of different generations, never gone in between */
    char source[16], grants[32];
    sprintf(source, "g%d", i);
    sprintf(grants, "{\"timeoutMs\":%d}", i);
    make_generation(i, source, grants);
    swap_to(i);
    pthread_mutex_lock(&service.lock);
    char expected[16];
    sprintf(expected, "g%u", service.handlers[0].timeout_ms);
    bool matching = service.count == 1 && !strcmp(service.handlers[0].source, expected);
    pthread_mutex_unlock(&service.lock);
    assert_true(matching);
    usleep((useconds_t)(i % 5) * 10000);
  }
  EVENTUALLY(serves("a", "g59", 59));
  assert_int_equal(logged("handler removed"), 0);
  unlink(in_dir("a.js")); /* a key removed from the map: first its file, later its link */
  EVENTUALLY(count() == 0);
}

static void it_stops_at_once(void **state) {
  (void)state;
  start();
  uint64_t before = nx_clock_ns();
  nx_directory_destroy(directory);
  directory = NULL;
  assert_true(nx_clock_ns() - before < NX_NS_PER_S);
  nx_directory_destroy(NULL);
}

/* Names and contents at random, changed while it looks: what is in service in the end is what lies there. */
static void it_ends_with_what_lies_there(void **state) {
  (void)state;
  srand(6);
  start();
  for (int i = 0; i < 600; i++) {
    char file[32], text[32];
    snprintf(file, sizeof file, "h%d.js", rand() % 10);
    snprintf(text, sizeof text, "%s%d", rand() % 5 ? "" : "!", rand() % 100);
    switch (rand() % 4) {
      case 0: unlink(in_dir(file)); break;
      case 1: write_text(in_dir(file), text); break;
      default: replace_text(in_dir(file), text);
    }
    if (rand() % 10 == 0) usleep((useconds_t)rand() % 40000);
  }
  unsigned expected = 0;
  for (int i = 0; i < 10; i++) {
    char name[16], file[32], text[32];
    snprintf(name, sizeof name, "h%d", i);
    snprintf(file, sizeof file, "%s.js", name);
    snprintf(text, sizeof text, "final%d", i);
    if (i % 3) {
      replace_text(in_dir(file), text);
      expected++;
    } else {
      unlink(in_dir(file));
    }
  }
  EVENTUALLY(count() == expected && serves("h1", "final1", 0) && serves("h8", "final8", 0));
  let_it_look();
  assert_int_equal(count(), expected);
  assert_int_equal(stats().in_service, expected);
  assert_int_equal(stats().refused, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
    TEST(handlers_and_grants_are_loaded_at_the_start),
    TEST(a_missing_directory_is_a_start_error),
    TEST(what_cannot_be_loaded_is_refused_once),
    TEST(an_unreadable_file_is_refused),
    TEST(changes_are_seen),
    TEST(a_version_that_fails_leaves_the_previous_one),
    TEST(a_burst_is_one_look),
    TEST(a_steady_stream_does_not_keep_it_from_looking),
    TEST(what_failed_for_other_reasons_is_tried_again),
    TEST(looks_by_the_clock_find_what_no_event_tells),
    TEST(vanishing_is_survived),
    TEST(a_swapped_link_is_followed),
    TEST(a_config_map_is_followed),
    TEST(it_stops_at_once),
    TEST(it_ends_with_what_lies_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
