/* SPDX-License-Identifier: Apache-2.0
 * Two registries that follow one store in a directory. */
#include "handler_support.h"

#include <pthread.h>
#include <sched.h>

#include "exec/shared_handlers.h"

struct replica {
  struct nx_registry *registry;
  struct nx_store *store;
  struct nx_sealer sealer;
  struct nx_kept_handlers kept;
  struct nx_shared *shared;
};
static struct replica a, b;

/* What the store of `b` does, where a test wants it otherwise. */
static struct nx_store_ops ops;
static const struct nx_store_ops *real;
static unsigned lists, gets, failures;

static int count_list(struct nx_store *store, nx_visit_handler_fn *visit, void *self, struct nx_error *err) {
  lists++;
  if (!failures) return real->list_handlers(store, visit, self, err);
  failures--;
  return nx_error_set(err, NX_ERR_UNAVAILABLE, "the disk is away");
}

static int count_get(struct nx_store *store, const char *name, struct nx_stored_handler *out, struct nx_error *err) {
  gets++;
  return real->get_handler(store, name, out, err);
}

static void open_replica(struct replica *replica) {
  const struct nx_registry_opts opts = {.cache_max_bytes = 1 << 20, .cache_max_count = 8};
  struct nx_error err;
  if (nx_store_open_file(&replica->store, scratch, &err)) fail_msg("%s", err.text);
  assert_int_equal(nx_registry_create(&replica->registry, &opts, &err), 0);
  const uint8_t key[NX_SEAL_KEY_BYTES] = {1};
  nx_sealer_init(&replica->sealer, key, NULL);
  replica->kept = (struct nx_kept_handlers){.store = replica->store, .sealer = &replica->sealer};
  assert_int_equal(nx_shared_create(&replica->shared, &replica->kept, replica->registry, &err), 0);
}

static void close_replica(struct replica *replica) {
  nx_shared_destroy(replica->shared);
  nx_registry_destroy(replica->registry);
  replica->store->ops->close(replica->store);
}

static int setup(void **state) {
  if (scratch_setup(state)) return -1;
  open_replica(&a);
  open_replica(&b);
  real = b.store->ops;
  ops = *real;
  ops.list_handlers = count_list;
  ops.get_handler = count_get;
  b.store->ops = &ops;
  lists = gets = failures = 0;
  return 0;
}

static int teardown(void **state) {
  close_replica(&b);
  close_replica(&a);
  assert_int_equal(handler_account.charged, 0);
  return scratch_teardown(state);
}

/* ---- Shorthand */

static struct nx_entry *get(const struct replica *replica, const char *name) {
  return nx_registry_get(replica->registry, name, strlen(name));
}

static int put_when(struct replica *replica, const char *name, const char *source, struct nx_condition condition,
                    bool *created) {
  uint8_t hash[NX_HASH_BYTES];
  struct nx_error err = {0};
  nx_handler_hash_source(hash, source, strlen(source));
  const struct nx_shared_change change = {
    .name = name, .source_hash = hash, .source = source, .source_bytes = strlen(source), .condition = condition};
  int status = nx_shared_put(replica->shared, &change, created, &err);
  assert_int_equal(err.code, -status); /* untouched on success */
  return status;
}

static void put(struct replica *replica, const char *name, const char *source) {
  assert_int_equal(put_when(replica, name, source, (struct nx_condition){0}, NULL), 0);
}

static int grant(struct replica *replica, const char *name, const char *json, bool *created) {
  struct nx_grants *grants;
  assert_int_equal(nx_grants_parse(&grants, json, strlen(json), NULL), 0);
  const struct nx_shared_change change = {.name = name, .set_grants = true, .grants = grants};
  int status = nx_shared_put(replica->shared, &change, created, NULL);
  nx_grants_release(grants);
  return status;
}

static int drop(struct replica *replica, const char *name) {
  const struct nx_condition any = {0};
  return nx_shared_remove(replica->shared, name, &any, NULL);
}

static void sync_up(struct replica *replica) { assert_int_equal(nx_shared_sync(replica->shared, NULL), 0); }

/* `source` NULL: the name must not be there. */
static void assert_has(const struct replica *replica, const char *name, const char *source, uint32_t timeout_ms) {
  uint8_t hash[NX_HASH_BYTES];
  struct nx_entry *entry = get(replica, name);
  if (!source) {
    assert_null(entry);
    return;
  }
  assert_non_null(entry);
  nx_handler_hash_source(hash, source, strlen(source));
  assert_memory_equal(entry->source_hash, hash, NX_HASH_BYTES);
  assert_int_equal(entry->grants ? entry->grants->timeout_ms : 0, timeout_ms);
  assert_int_equal(entry->origin, NX_ORIGIN_STORE);
  nx_entry_release(entry);
}

/* ---- Following */

static void what_one_puts_the_other_has(void **state) {
  (void)state;
  bool created = false;
  sync_up(&b);
  assert_false(nx_shared_is_stale(b.shared));
  assert_int_equal(put_when(&a, "h", "return 1", (struct nx_condition){0}, &created), 0);
  assert_true(created);
  assert_has(&a, "h", "return 1", 0);
  assert_has(&b, "h", NULL, 0);
  assert_true(nx_shared_is_stale(b.shared));
  sync_up(&b);
  assert_false(nx_shared_is_stale(b.shared));
  assert_has(&b, "h", "return 1", 0);
  assert_int_equal(put_when(&b, "h", "return 2", (struct nx_condition){0}, &created), 0);
  assert_false(created);
  assert_int_equal(grant(&b, "h", "{\"timeoutMs\":5}", &created), 0);
  assert_true(created);
  sync_up(&a);
  assert_has(&a, "h", "return 2", 5);
  assert_int_equal(drop(&a, "h"), 0);
  assert_int_equal(drop(&b, "h"), -NX_ERR_NOT_FOUND);
  assert_int_equal(grant(&b, "h", "{}", NULL), -NX_ERR_NOT_FOUND);
  assert_has(&b, "h", NULL, 0);
}

static void only_what_has_changed_is_read(void **state) {
  (void)state;
  char name[8];
  for (int i = 0; i < 20; i++) {
    snprintf(name, sizeof name, "h%d", i);
    put(&a, name, "return 0");
  }
  sync_up(&b);
  assert_int_equal(gets, 20);
  sync_up(&b);
  assert_int_equal(lists, 1);
  put(&a, "h7", "return 7");
  sync_up(&b);
  assert_int_equal(lists, 2);
  assert_int_equal(gets, 21);
}

static uint64_t no_version(struct nx_store *store) { return 0; }

static void a_store_that_sees_no_changes_is_read_each_time(void **state) {
  (void)state;
  ops.handlers_version = no_version;
  for (unsigned i = 1; i <= 3; i++) {
    assert_true(nx_shared_is_stale(b.shared));
    sync_up(&b);
    assert_int_equal(lists, i);
  }
  put(&b, "h", "return 1");
  assert_has(&b, "h", "return 1", 0);
}

static void what_is_compiled_here_is_used(void **state) {
  (void)state;
  struct nx_handler *handler = nx_registry_keep(b.registry, make_handler("return 1"));
  put(&a, "h", "return 1");
  put(&a, "other", "return 2");
  sync_up(&b);
  struct nx_entry *entry = get(&b, "h"), *other = get(&b, "other");
  assert_ptr_equal(entry->handler, handler);
  assert_null(other->handler);
  nx_entry_release(entry);
  nx_entry_release(other);
  nx_handler_release(handler);
}

static void the_source_comes_from_the_store(void **state) {
  (void)state;
  struct nx_buf source = {0};
  put(&a, "h", "return 1");
  sync_up(&b);
  struct nx_entry *entry = get(&b, "h");
  assert_int_equal(nx_shared_load_source(b.shared, entry, &source, NULL), 0);
  assert_text(&source, "return 1");
  nx_buf_deinit(&source);
  nx_entry_release(entry);
}

static void a_damaged_one_does_not_hide_the_others(void **state) {
  (void)state;
  put(&a, "bad", "return 1");
  put(&a, "good", "return 1");
  sync_up(&b);
  write_bytes(in_scratch("v1/handlers/bad"), "rubbish", 7);
  put(&a, "good", "return 2");
  sync_up(&b);
  assert_has(&b, "good", "return 2", 0);
  assert_null(get(&b, "bad")); /* what was known of it counts no more: other replicas never knew it */
  put(&b, "new", "return 3");
  assert_has(&b, "new", "return 3", 0);
  put(&b, "bad", "return 4");
  assert_has(&b, "bad", "return 4", 0);
}

/* ---- A store that fails */

static void what_is_known_stays_while_the_store_is_away(void **state) {
  (void)state;
  put(&a, "h", "return 1");
  failures = 1;
  assert_false(nx_shared_is_complete(b.shared));
  assert_int_equal(nx_shared_sync(b.shared, NULL), -NX_ERR_UNAVAILABLE);
  assert_false(nx_shared_is_complete(b.shared));
  assert_false(nx_shared_is_stale(b.shared)); /* left alone for a while */
  assert_int_equal(put_when(&b, "h", "return 2", (struct nx_condition){0}, NULL), -NX_ERR_UNAVAILABLE);
  assert_int_equal(lists, 1);
  while (!nx_shared_is_stale(b.shared)) usleep(1000);
  sync_up(&b);
  assert_true(nx_shared_is_complete(b.shared));
  assert_has(&b, "h", "return 1", 0);
  put(&a, "h", "return 2");
  failures = 1;
  assert_int_equal(nx_shared_sync(b.shared, NULL), -NX_ERR_UNAVAILABLE);
  assert_has(&b, "h", "return 1", 0);
}

static int fail_put(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                    uint64_t expected, struct nx_error *err) {
  return nx_error_set(err, NX_ERR_UNAVAILABLE, "the disk is full");
}

static void a_put_that_fails_changes_nothing(void **state) {
  (void)state;
  put(&b, "h", "return 1");
  ops.put_handler = fail_put;
  assert_int_equal(put_when(&b, "h", "return 2", (struct nx_condition){0}, NULL), -NX_ERR_UNAVAILABLE);
  assert_int_equal(grant(&b, "h", "{\"timeoutMs\":5}", NULL), -NX_ERR_UNAVAILABLE);
  sync_up(&b);
  assert_has(&b, "h", "return 1", 0);
}

/* ---- Both at once */

/* In the moment before b's change the other replica makes one of its own. */
static int put_too_late(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                        uint64_t expected, struct nx_error *err) {
  ops.put_handler = real->put_handler;
  assert_int_equal(grant(&a, name, "{\"timeoutMs\":7}", NULL), 0);
  return real->put_handler(store, name, handler, expected, err);
}

static void who_comes_too_late_begins_again(void **state) {
  (void)state;
  put(&a, "h", "return 1");
  ops.put_handler = put_too_late;
  put(&b, "h", "return 2");
  assert_has(&b, "h", "return 2", 7);
  sync_up(&a);
  assert_has(&a, "h", "return 2", 7);
}

static int put_never(struct nx_store *store, const char *name, const struct nx_stored_handler *handler,
                     uint64_t expected, struct nx_error *err) {
  return nx_error_set(err, NX_ERR_CONFLICT, "somebody else was faster");
}

static void who_is_always_too_late_gives_up(void **state) {
  (void)state;
  ops.put_handler = put_never;
  assert_int_equal(put_when(&b, "h", "return 1", (struct nx_condition){0}, NULL), -NX_ERR_UNAVAILABLE);
}

static void conditions_are_about_the_store(void **state) {
  (void)state;
  uint8_t hash[NX_HASH_BYTES];
  const struct nx_condition is_new = {.must_not_exist = true}, is_there = {.must_exist = true}, is_one = {.hash = hash};
  nx_handler_hash_source(hash, "return 1", 8);
  sync_up(&b);
  assert_int_equal(put_when(&b, "h", "return 1", is_there, NULL), -NX_ERR_PRECONDITION);
  put(&a, "h", "return 1");
  assert_int_equal(put_when(&b, "h", "return 2", is_new, NULL), -NX_ERR_PRECONDITION);
  assert_int_equal(put_when(&b, "h", "return 2", is_one, NULL), 0);
  assert_int_equal(put_when(&a, "h", "return 3", is_one, NULL), -NX_ERR_PRECONDITION);
  assert_int_equal(nx_shared_remove(a.shared, "h", &is_one, NULL), -NX_ERR_PRECONDITION);
  assert_has(&a, "h", "return 2", 0);
}

static void *change_and_follow(void *argument) {
  struct replica *replica = argument;
  char source[32];
  for (int i = 0; i < 40; i++) {
    snprintf(source, sizeof source, "return %d", i);
    /* On a machine that stands still one may come too late again and again. */
    while (put_when(replica, "h", source, (struct nx_condition){0}, NULL) == -NX_ERR_UNAVAILABLE) sched_yield();
    while (grant(replica, "h", "{\"timeoutMs\":9}", NULL) == -NX_ERR_UNAVAILABLE) sched_yield();
    if (nx_shared_is_stale(replica->shared)) sync_up(replica);
    nx_entry_release(get(replica, "h"));
  }
  return NULL;
}

static void many_threads(void **state) {
  (void)state;
  pthread_t threads[4];
  b.store->ops = real; /* its counters are for one thread */
  for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, change_and_follow, i % 2 ? &a : &b), 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  sync_up(&a);
  sync_up(&b);
  assert_has(&a, "h", "return 39", 9);
  assert_has(&b, "h", "return 39", 9);
}

/* ---- Files beside the store */

static void put_file(const char *name, const char *source) {
  struct nx_handler *handler = make_handler(source);
  const struct nx_registration what = {.name = name, .handler = handler, .origin = NX_ORIGIN_FILE, .set_grants = true};
  assert_int_equal(nx_registry_put(b.registry, &what, NULL, NULL), 0);
  nx_handler_release(handler);
}

static void a_file_hides_until_it_goes(void **state) {
  (void)state;
  put(&a, "h", "return 'store'");
  sync_up(&b);
  put_file("h", "return 'file'");
  put(&a, "h", "return 'newer'");
  sync_up(&b);
  struct nx_entry *entry = get(&b, "h");
  assert_string_equal(entry->handler->source, "return 'file'");
  nx_entry_release(entry);
  assert_int_equal(put_when(&b, "h", "return 1", (struct nx_condition){0}, NULL), -NX_ERR_CONFLICT);
  assert_int_equal(grant(&b, "h", "{}", NULL), -NX_ERR_CONFLICT);
  assert_int_equal(drop(&b, "h"), -NX_ERR_CONFLICT);
  assert_int_equal(drop(&a, "h"), 0);
  sync_up(&b);
  entry = get(&b, "h");
  assert_int_equal(entry->origin, NX_ORIGIN_FILE);
  nx_entry_release(entry);
  put(&a, "h", "return 'again'");
  sync_up(&b);
  nx_shared_remove_file(b.shared, "h");
  assert_has(&b, "h", "return 'again'", 0);
  put_file("other", "return 'file'");
  nx_shared_remove_file(b.shared, "other");
  assert_null(nx_registry_get(b.registry, "other", 5));
}

static void *look_for_it(void *stop) {
  uintptr_t absent = 0;
  while (!atomic_load((_Atomic bool *)stop)) {
    struct nx_entry *entry = nx_registry_get(b.registry, "h", 1);
    absent += !entry;
    nx_entry_release(entry);
  }
  return (void *)absent;
}

static void a_file_that_goes_leaves_no_gap(void **state) {
  (void)state;
  _Atomic bool stop = false;
  pthread_t thread;
  void *absent;
  put(&a, "h", "return 'store'");
  sync_up(&b);
  assert_int_equal(pthread_create(&thread, NULL, look_for_it, &stop), 0);
  for (int i = 0; i < 300; i++) {
    put_file("h", "return 'file'");
    nx_shared_remove_file(b.shared, "h");
  }
  stop = true;
  pthread_join(thread, &absent);
  assert_int_equal((uintptr_t)absent, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
    TEST(what_one_puts_the_other_has),
    TEST(only_what_has_changed_is_read),
    TEST(a_store_that_sees_no_changes_is_read_each_time),
    TEST(what_is_compiled_here_is_used),
    TEST(the_source_comes_from_the_store),
    TEST(a_damaged_one_does_not_hide_the_others),
    TEST(what_is_known_stays_while_the_store_is_away),
    TEST(a_put_that_fails_changes_nothing),
    TEST(who_comes_too_late_begins_again),
    TEST(who_is_always_too_late_gives_up),
    TEST(conditions_are_about_the_store),
    TEST(many_threads),
    TEST(a_file_hides_until_it_goes),
    TEST(a_file_that_goes_leaves_no_gap),
  };
  return cmocka_run_group_tests(tests, base_setup, base_teardown);
}
