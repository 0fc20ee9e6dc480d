/* SPDX-License-Identifier: Apache-2.0
 * The registry: names, conditions, grants, contents in order of use, many threads. */
#include "handler_support.h"

#include <pthread.h>

#include "handler/registry.h"

static struct nx_registry *registry;

static int setup(void **state) {
  (void)state;
  struct nx_registry_opts opts = {.cache_max_bytes = 1 << 20, .cache_max_count = 8};
  return nx_registry_create(&registry, &opts, NULL);
}

/* Nothing of any test may stay. */
static int teardown(void **state) {
  (void)state;
  nx_registry_destroy(registry);
  registry = NULL;
  assert_int_equal(handler_account.charged, 0);
  return 0;
}

static int put_with(const char *name, const char *source, struct nx_registration what, struct nx_error *err) {
  struct nx_handler *handler = make_handler(source);
  what.name = name;
  what.handler = handler;
  if (!what.origin) what.origin = NX_ORIGIN_API;
  int status = nx_registry_put(registry, &what, NULL, err);
  nx_handler_release(handler);
  return status;
}

static void put(const char *name, const char *source) {
  assert_int_equal(put_with(name, source, (struct nx_registration){0}, NULL), 0);
}

static struct nx_entry *get(const char *name) { return nx_registry_get(registry, name, strlen(name)); }

static struct nx_registry_stats stats(void) {
  struct nx_registry_stats out;
  nx_registry_read_stats(registry, &out);
  assert_int_equal(nx_registry_bytes(registry), out.registered_bytes + out.cached_bytes);
  return out;
}

static bool is_cached(const char *source) {
  uint8_t hash[NX_HASH_BYTES];
  nx_handler_hash_source(hash, source, strlen(source));
  struct nx_handler *handler = nx_registry_find(registry, hash);
  nx_handler_release(handler);
  return handler != NULL;
}

static void keep(const char *source) { nx_handler_release(nx_registry_keep(registry, make_handler(source))); }

/* names */

static void what_was_put_is_got(void **state) {
  (void)state;
  bool created = false;
  struct nx_handler *handler = make_handler("return 1");
  struct nx_registration what = {.name = "a", .handler = handler, .origin = NX_ORIGIN_FILE};
  assert_null(get("a"));
  assert_int_equal(nx_registry_put(registry, &what, &created, NULL), 0);
  assert_true(created);
  assert_int_equal(nx_registry_put(registry, &what, &created, NULL), 0);
  assert_false(created);
  nx_handler_release(handler);
  struct nx_entry *entry = get("a");
  assert_string_equal(entry->name, "a");
  assert_string_equal(entry->handler->source, "return 1");
  assert_int_equal(entry->origin, NX_ORIGIN_FILE);
  assert_string_equal(nx_origin_name(entry->origin), "file");
  assert_null(entry->grants);
  nx_entry_release(entry);
  assert_null(nx_registry_get(registry, "a\0", 2));
  assert_null(nx_registry_get(registry, "", 0));
  assert_null(get("b"));
  char name[200];
  memset(name, 'a', sizeof name);
  assert_null(nx_registry_get(registry, name, sizeof name));
  assert_null(nx_registry_get(registry, name, NX_HANDLER_NAME_MAX));
}

static void what_is_not_compiled_here_is_bound_later(void **state) {
  (void)state;
  struct nx_handler *handler = make_handler("return 1");
  struct nx_registration what = {
    .name = "a", .source_hash = handler->source_hash, .version = 7, .origin = NX_ORIGIN_STORE};
  assert_int_equal(nx_registry_put(registry, &what, NULL, NULL), 0);
  struct nx_entry *entry = get("a");
  assert_null(entry->handler);
  assert_memory_equal(entry->source_hash, handler->source_hash, NX_HASH_BYTES);
  assert_int_equal(stats().registered_bytes, 0);
  nx_registry_bind(registry, entry, handler);
  struct nx_entry *bound = get("a");
  assert_string_equal(bound->handler->source, "return 1");
  assert_int_equal(bound->version, 7);
  assert_true(stats().registered_bytes > 0);
  put("a", "return 2");
  nx_registry_bind(registry, entry, handler); /* too late */
  nx_registry_bind(registry, bound, handler);
  nx_entry_release(bound);
  bound = get("a");
  assert_string_equal(bound->handler->source, "return 2");
  assert_int_equal(nx_registry_put(registry, &what, NULL, NULL), 0);
  assert_int_equal(nx_registry_set_grants(registry, "a", NULL, NULL), 0);
  nx_entry_release(bound);
  nx_entry_release(entry);
  nx_handler_release(handler);
}

static void the_very_entry_is_compared(void **state) {
  (void)state;
  struct nx_error err = {0};
  const struct nx_condition none = {.is_compared = true};
  assert_int_equal(put_with("a", "1", (struct nx_registration){.condition = none}, &err), 0);
  assert_int_equal(put_with("a", "1", (struct nx_registration){.condition = none}, &err), -NX_ERR_PRECONDITION);
  struct nx_entry *entry = get("a");
  const struct nx_condition same = {.is_compared = true, .entry = entry};
  assert_int_equal(put_with("a", "1", (struct nx_registration){.condition = same}, &err), 0);
  assert_int_equal(nx_registry_remove(registry, "a", &same, &err), -NX_ERR_PRECONDITION);
  nx_entry_release(entry);
}

static void bad_names_are_refused(void **state) {
  (void)state;
  struct nx_error err = {0};
  assert_int_equal(put_with("../x", "1", (struct nx_registration){0}, &err), -NX_ERR_INVALID);
  assert_int_equal(put_with("", "1", (struct nx_registration){0}, &err), -NX_ERR_INVALID);
  assert_int_equal(nx_registry_remove(registry, "../x", NULL, &err), -NX_ERR_NOT_FOUND);
  assert_int_equal(nx_registry_set_grants(registry, "../x", NULL, &err), -NX_ERR_NOT_FOUND);
  assert_int_equal(stats().registered, 0);
}

static void a_replaced_handler_lives_until_it_is_released(void **state) {
  (void)state;
  put("a", "return 1");
  struct nx_entry *old = get("a");
  nx_entry_count_execution(old);
  put("a", "return 2");
  nx_entry_count_execution(old); /* ends after the replacement */
  struct nx_entry *now = get("a");
  assert_string_equal(old->handler->source, "return 1");
  assert_string_equal(now->handler->source, "return 2");
  nx_entry_count_execution(now);
  assert_int_equal(nx_entry_executions(now), 3);
  assert_int_equal(nx_registry_remove(registry, "a", NULL, NULL), 0);
  assert_null(get("a"));
  nx_registry_drop_cold(registry, SIZE_MAX);
  assert_int_equal(nx_registry_bytes(registry), 0);
  assert_string_equal(old->handler->source, "return 1");
  assert_true(handler_account.charged > 0);
  nx_entry_release(old);
  nx_entry_release(now);
  assert_int_equal(handler_account.charged, 0);
  put("a", "return 3");
  now = get("a");
  assert_int_equal(nx_entry_executions(now), 0);
  nx_entry_release(now);
}

static void conditions(void **state) {
  (void)state;
  struct nx_error err = {0};
  uint8_t one[NX_HASH_BYTES], two[NX_HASH_BYTES];
  nx_handler_hash_source(one, "1", 1);
  nx_handler_hash_source(two, "2", 1);
#define WHEN(...) (struct nx_registration){.condition = {__VA_ARGS__}}
  assert_int_equal(put_with("a", "1", WHEN(.hash = one), &err), -NX_ERR_PRECONDITION);
  assert_string_equal(err.text, "handler 'a' does not exist");
  assert_int_equal(put_with("a", "1", WHEN(.must_exist = true), &err), -NX_ERR_PRECONDITION);
  assert_int_equal(stats().cached, 1); /* compiled all the same, so worth keeping */
  assert_int_equal(put_with("a", "1", WHEN(.must_not_exist = true), &err), 0);
  assert_int_equal(put_with("a", "2", WHEN(.must_not_exist = true), &err), -NX_ERR_PRECONDITION);
  assert_string_equal(err.text, "handler 'a' exists already");
  assert_int_equal(put_with("a", "2", WHEN(.hash = two), &err), -NX_ERR_PRECONDITION);
  assert_int_equal(put_with("a", "2", WHEN(.origin = NX_ORIGIN_FILE), &err), -NX_ERR_PRECONDITION);
  assert_int_equal(put_with("a", "2", WHEN(.hash = one, .must_exist = true, .origin = NX_ORIGIN_API), &err), 0);
  struct nx_condition condition = {.hash = one};
  assert_int_equal(nx_registry_remove(registry, "a", &condition, &err), -NX_ERR_PRECONDITION);
  assert_string_equal(err.text, "handler 'a' has another version than the one expected");
  condition = (struct nx_condition){.origin = NX_ORIGIN_FILE};
  assert_int_equal(nx_registry_remove(registry, "a", &condition, &err), -NX_ERR_PRECONDITION);
  assert_string_equal(err.text, "handler 'a' was set through the API");
  condition = (struct nx_condition){.hash = two};
  assert_int_equal(nx_registry_remove(registry, "a", &condition, &err), 0);
  assert_int_equal(nx_registry_remove(registry, "a", &condition, &err), -NX_ERR_NOT_FOUND);
  assert_string_equal(err.text, "there is no handler 'a'");
}

static struct nx_grants *grants_of(const char *json) {
  struct nx_grants *grants = NULL;
  assert_int_equal(nx_grants_parse(&grants, json, strlen(json), NULL), 0);
  return grants;
}

static uint32_t timeout_of(const char *name) {
  struct nx_entry *entry = get(name);
  uint32_t result = entry->grants ? entry->grants->timeout_ms : 0;
  nx_entry_release(entry);
  return result;
}

static void grants_stay_when_the_source_changes(void **state) {
  (void)state;
  struct nx_grants *grants = grants_of("{\"timeoutMs\":11}"), *others = grants_of("{\"timeoutMs\":22}");
  put("a", "1");
  struct nx_entry *before = get("a");
  assert_int_equal(nx_registry_set_grants(registry, "a", grants, NULL), 0);
  assert_null(before->grants); /* a running execution keeps those it began with */
  nx_entry_release(before);
  assert_int_equal(timeout_of("a"), 11);
  put("a", "2");
  assert_int_equal(timeout_of("a"), 11);
  put_with("a", "3", (struct nx_registration){.set_grants = true, .grants = others}, NULL);
  assert_int_equal(timeout_of("a"), 22);
  put_with("a", "4", (struct nx_registration){.set_grants = true}, NULL);
  assert_int_equal(timeout_of("a"), 0);
  assert_int_equal(nx_registry_set_grants(registry, "a", grants, NULL), 0);
  assert_int_equal(nx_registry_set_grants(registry, "a", NULL, NULL), 0);
  assert_int_equal(timeout_of("a"), 0);
  assert_int_equal(nx_registry_set_grants(registry, "b", grants, NULL), -NX_ERR_NOT_FOUND);
  struct nx_registry_stats now = stats();
  assert_int_equal(now.registered, 1);
  assert_int_equal(now.cached, 3);
  nx_grants_release(grants);
  nx_grants_release(others);
}

static void the_list_is_sorted(void **state) {
  (void)state;
  struct nx_registry_list list;
  assert_int_equal(nx_registry_list(registry, &list, NULL), 0);
  assert_int_equal(list.count, 0);
  nx_registry_list_deinit(&list);
  char name[16], source[16];
  for (int i = 0; i < 1000; i++) {
    sprintf(name, "n%03d", i * 7 % 1000);
    sprintf(source, "return %d", i % 10);
    put(name, source);
  }
  assert_int_equal(nx_registry_list(registry, &list, NULL), 0);
  assert_int_equal(list.count, 1000);
  for (int i = 0; i < 1000; i++) {
    sprintf(name, "n%03d", i);
    assert_string_equal(list.entries[i]->name, name);
  }
  struct nx_registry_stats now = stats();
  assert_int_equal(now.registered, 1000);
  assert_int_equal(now.registered_bytes, 10 * list.entries[0]->handler->bytes); /* equal sources are kept once */
  nx_registry_list_deinit(&list);
  for (int i = 0; i < 1000; i++) {
    sprintf(name, "n%03d", i);
    assert_int_equal(nx_registry_remove(registry, name, NULL, NULL), 0);
  }
  now = stats();
  assert_int_equal(now.registered, 0);
  assert_int_equal(now.registered_bytes, 0);
  assert_int_equal(now.cached, 8);
}

static void the_number_of_names_is_bounded(void **state) {
  (void)state;
  nx_registry_destroy(registry);
  struct nx_registry_opts opts = {.max_registered = 3};
  assert_int_equal(nx_registry_create(&registry, &opts, NULL), 0);
  struct nx_error err = {0};
  put("a", "1");
  put("b", "2");
  put("c", "3");
  assert_int_equal(put_with("d", "4", (struct nx_registration){0}, &err), -NX_ERR_CONFLICT);
  put("c", "5");
  assert_int_equal(nx_registry_remove(registry, "a", NULL, NULL), 0);
  put("d", "4");
  assert_int_equal(stats().cached, 0); /* no room for what is not registered */
}

/* contents */

static void equal_sources_share_a_handler(void **state) {
  (void)state;
  put("a", "same");
  put("b", "same");
  struct nx_entry *a = get("a"), *b = get("b");
  assert_ptr_equal(a->handler, b->handler);
  struct nx_handler *other = make_handler("same"), *kept = nx_registry_keep(registry, other);
  assert_ptr_equal(kept, a->handler);
  nx_handler_release(kept);
  kept = nx_registry_keep(registry, nx_handler_hold(a->handler));
  assert_ptr_equal(kept, a->handler);
  nx_handler_release(kept);
  nx_entry_release(a);
  nx_entry_release(b);
  assert_int_equal(stats().cached, 0);
  assert_int_equal(nx_registry_remove(registry, "a", NULL, NULL), 0);
  assert_int_equal(stats().cached, 0);
  assert_int_equal(nx_registry_remove(registry, "b", NULL, NULL), 0);
  assert_int_equal(stats().cached, 1);
  assert_true(is_cached("same"));
  put("c", "same"); /* taken out of the order of use again */
  assert_int_equal(stats().cached, 0);
  assert_int_equal(nx_registry_drop_cold(registry, SIZE_MAX), 0);
  assert_true(is_cached("same"));
}

static void the_least_recently_used_go_first(void **state) {
  (void)state;
  const char *const sources[] = {"0", "1", "2", "3", "4", "5", "6", "7"};
  for (int i = 0; i < 8; i++) keep(sources[i]);
  assert_int_equal(stats().cached, 8);
  assert_true(is_cached("0")); /* used again, so "1" is the oldest */
  keep("8");
  assert_false(is_cached("1"));
  assert_true(is_cached("0"));
  keep("2");
  keep("9");
  assert_false(is_cached("3"));
  assert_true(is_cached("2"));
  struct nx_registry_stats now = stats();
  assert_int_equal(now.cached, 8);
  assert_int_equal(now.hits, 3);
  assert_int_equal(now.misses, 2);
  size_t one = now.cached_bytes / 8;
  assert_int_equal(nx_registry_drop_cold(registry, 1), one);
  assert_int_equal(nx_registry_drop_cold(registry, 2 * one), 2 * one);
  assert_int_equal(stats().cached, 5);
  assert_true(is_cached("2"));
  assert_int_equal(nx_registry_drop_cold(registry, SIZE_MAX), 5 * one);
  assert_int_equal(nx_registry_drop_cold(registry, SIZE_MAX), 0);
}

static void what_was_not_used_for_a_period_goes(void **state) {
  (void)state;
  for (int i = 0; i < 4; i++) keep((const char *const[]){"0", "1", "2", "3"}[i]);
  size_t one = stats().cached_bytes / 4;
  assert_int_equal(nx_registry_drop_unused(registry), 0);
  assert_true(is_cached("1"));
  keep("3");
  keep("4");
  assert_int_equal(nx_registry_drop_unused(registry), 2 * one);
  assert_false(is_cached("0"));
  assert_false(is_cached("2"));
  assert_int_equal(stats().cached, 3);
  assert_int_equal(nx_registry_drop_unused(registry), 3 * one);
  assert_int_equal(nx_registry_drop_unused(registry), 0);
}

static void the_bytes_kept_are_bounded(void **state) {
  (void)state;
  nx_registry_destroy(registry);
  struct nx_handler *handler = make_handler("x");
  struct nx_registry_opts opts = {.cache_max_bytes = 3 * handler->bytes, .cache_max_count = 100};
  nx_handler_release(handler);
  assert_int_equal(nx_registry_create(&registry, &opts, NULL), 0);
  char source[2] = "0";
  for (; *source <= '9'; ++*source) keep(source);
  assert_int_equal(stats().cached, 3);
  assert_true(is_cached("7") && is_cached("8") && is_cached("9"));
  char *huge = calloc(1, 4 * opts.cache_max_bytes + 1);
  memset(huge, 'h', 4 * opts.cache_max_bytes);
  struct nx_handler *large = nx_registry_keep(registry, make_handler(huge)); /* larger than all: used, not kept */
  assert_int_equal(large->source_bytes, 4 * opts.cache_max_bytes);
  nx_handler_release(large);
  assert_int_equal(stats().cached, 0);
  free(huge);
}

/* threads */

#define NAMES 4
static _Atomic bool stop_threads;
static _Atomic uint64_t executions;

static void *reader(void *opaque) {
  unsigned seed = (unsigned)(uintptr_t)opaque;
  while (!stop_threads) {
    char name[] = {'n', (char)('0' + rand_r(&seed) % NAMES), '\0'};
    struct nx_entry *entry = get(name);
    if (!entry) continue;
    if (entry->name[1] != name[1] || entry->handler->source[0] != 's') abort();
    nx_entry_count_execution(entry);
    executions++;
    nx_entry_release(entry);
  }
  return NULL;
}

static void *writer(void *opaque) {
  unsigned seed = (unsigned)(uintptr_t)opaque;
  struct nx_grants *grants = grants_of("{\"timeoutMs\":5}");
  for (int i = 0; i < 1500; i++) {
    char name[] = {'n', (char)('0' + rand_r(&seed) % NAMES), '\0'}, source[16];
    sprintf(source, "s%d", rand_r(&seed) % 12);
    switch (rand_r(&seed) % 7) {
      case 0: nx_registry_remove(registry, name, NULL, NULL); break;
      case 1: nx_registry_set_grants(registry, name, grants, NULL); break;
      case 2: keep(source); break;
      case 3: nx_registry_drop_cold(registry, 4096); break;
      case 4: {
        struct nx_registry_list list;
        if (nx_registry_list(registry, &list, NULL)) abort();
        nx_registry_list_deinit(&list);
        is_cached(source);
        break;
      }
      case 5: nx_registry_drop_unused(registry); break;
      default: put(name, source);
    }
  }
  nx_grants_release(grants);
  return NULL;
}

static void many_threads(void **state) {
  (void)state;
  pthread_t readers[3], writers[3];
  stop_threads = false;
  for (uintptr_t i = 0; i < 3; i++) {
    assert_int_equal(pthread_create(&readers[i], NULL, reader, (void *)(i + 1)), 0);
    assert_int_equal(pthread_create(&writers[i], NULL, writer, (void *)(i + 10)), 0);
  }
  for (int i = 0; i < 3; i++) pthread_join(writers[i], NULL);
  stop_threads = true;
  for (int i = 0; i < 3; i++) pthread_join(readers[i], NULL);
  struct nx_registry_stats now = stats();
  assert_true(now.registered <= NAMES && now.cached <= 8);
  assert_true(executions > 0);
  nx_registry_drop_cold(registry, SIZE_MAX);
  assert_int_equal(handler_account.charged, stats().registered_bytes);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
    TEST(what_was_put_is_got),
    TEST(what_is_not_compiled_here_is_bound_later),
    TEST(the_very_entry_is_compared),
    TEST(bad_names_are_refused),
    TEST(a_replaced_handler_lives_until_it_is_released),
    TEST(conditions),
    TEST(grants_stay_when_the_source_changes),
    TEST(the_list_is_sorted),
    TEST(the_number_of_names_is_bounded),
    TEST(equal_sources_share_a_handler),
    TEST(the_least_recently_used_go_first),
    TEST(what_was_not_used_for_a_period_goes),
    TEST(the_bytes_kept_are_bounded),
    TEST(many_threads),
  };
  return cmocka_run_group_tests(tests, base_setup, base_teardown);
}
