/* SPDX-License-Identifier: Apache-2.0
 * The suite of stores: sources, data that outlive a handle, and handlers over replicas. */
#include "store_suite_internal.h"

#include <stdio.h>

/* ---- Sources ----------------------------------------------------------------------------------------------------- */

static const uint8_t hash_a[NX_HASH_BYTES] = {0xaa, 1}, hash_b[NX_HASH_BYTES] = {0xaa, 2};

static void assert_source(struct nx_store *handle, const uint8_t *hash, const char *text) {
  struct nx_buf out = {0};
  assert_int_equal(load_source(handle, hash, &out), 0);
  assert_bytes(&out, text, strlen(text));
  nx_buf_deinit(&out);
}

static void create_from(uint64_t number, const uint8_t *hash, uint64_t expires_ms) {
  struct nx_store_item item = waiting("waits");
  item.expires_ms = expires_ms;
  memcpy(item.source_name, hash, NX_HASH_BYTES);
  assert_int_equal(create(store, id_of(number), item), 0);
}

static int load_after_sweep(const uint8_t *hash) {
  sweep(store);
  return load_source(other, hash, NULL);
}

static void sources_are_found_by_hash(void **state) {
  assert_int_equal(load_source(store, hash_a, NULL), -NX_ERR_NOT_FOUND);
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + HOUR_MS), 0);
  assert_int_equal(keep_source(other, hash_b, "return 2", now_ms() + HOUR_MS), 0);
  assert_int_equal(keep_source(other, hash_a, "return 1", now_ms() + HOUR_MS), 0); /* again */
  for (int i = 0; i < 3; i++) {
    assert_source(i % 2 ? store : other, hash_a, "return 1");
    assert_source(i % 2 ? store : other, hash_b, "return 2");
    sweep(store);
  }
}

static void a_shorter_time_takes_nothing_back(void **state) {
  uint64_t until_ms = now_ms() + 50;
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + HOUR_MS), 0);
  assert_int_equal(keep_source(store, hash_a, "return 1", until_ms), 0);
  eventually(now_ms() > until_ms);
  assert_int_equal(load_after_sweep(hash_a), 0);
}

static void a_source_stays_as_long_as_an_item_refers_to_it(void **state) {
  uint64_t until_ms = now_ms() + 1000, expires_ms = now_ms() + 2500; /* time enough for the items to be made */
  assert_int_equal(keep_source(store, hash_a, "return 1", until_ms), 0);
  assert_int_equal(keep_source(store, hash_b, "return 2", until_ms), 0);
  create_from(1, hash_a, expires_ms);
  create_from(2, hash_b, now_ms() + HOUR_MS);
  eventually(now_ms() > until_ms);
  assert_int_equal(load_after_sweep(hash_b), 0);
  eventually(load_after_sweep(hash_a) == -NX_ERR_NOT_FOUND);
  assert_true(now_ms() >= expires_ms);
  assert_source(store, hash_b, "return 2");
}

static void a_commit_keeps_the_source_for_longer(void **state) {
  struct nx_store_lease held;
  uint64_t until_ms = now_ms() + 2000; /* time enough for the commit */
  assert_int_equal(keep_source(store, hash_a, "return 1", until_ms), 0);
  create_from(1, hash_a, until_ms);
  assert_int_equal(lease(other, id_of(1), &held), 0);
  struct nx_store_item item = waiting("longer");
  memcpy(item.source_name, hash_a, NX_HASH_BYTES);
  assert_int_equal(commit(other, &held, item), 0);
  eventually(now_ms() > until_ms);
  assert_int_equal(load_after_sweep(hash_a), 0);
}

static void an_unused_source_goes_after_its_time(void **state) {
  assert_int_equal(keep_source(store, hash_a, "return 1", now_ms() + 50), 0);
  eventually(load_after_sweep(hash_a) == -NX_ERR_NOT_FOUND);
  assert_source(store, suite_source_hash, suite_source);
}

/* ---- Data outlive a handle --------------------------------------------------------------------------------------- */

static void data_outlive_all_handles(void **state) {
  if (!factory->open_again) skip();
  struct nx_store_lease held;
  assert_int_equal(create(store, id_of(1), waiting("waits")), 0);
  assert_int_equal(create(store, id_of(2), finished("done")), 0);
  other->ops->close(other);
  store->ops->close(store);
  store = factory->open_again();
  other = factory->open_again();
  assert_item(store, id_of(1), NX_STORED_WAITING, "waits");
  assert_item(other, id_of(2), NX_STORED_FINISHED, "done");
  assert_source(store, suite_source_hash, suite_source);
  assert_int_equal(lease(store, id_of(1), &held), 0);
  assert_int_equal(commit(store, &held, finished("done")), 0);
}

/* ---- Handlers ---------------------------------------------------------------------------------------------------- */

static int put_expecting(struct nx_store *handle, const char *name, const uint8_t *hash, const char *grants,
                         uint64_t expected) {
  struct nx_error err = {0};
  struct nx_stored_handler handler = {0};
  memcpy(handler.source_name, hash, NX_HASH_BYTES);
  nx_buf_str(&handler.bytes, grants);
  int status = handle->ops->put_handler(handle, name, &handler, expected, &err);
  nx_buf_deinit(&handler.bytes);
  return status;
}

static int put_handler(struct nx_store *handle, const char *name, const uint8_t *hash, const char *grants) {
  return put_expecting(handle, name, hash, grants, NX_HANDLER_ANY);
}

static int get_handler(struct nx_store *handle, const char *name, struct nx_stored_handler *out) {
  struct nx_error err = {0};
  return handle->ops->get_handler(handle, name, out, &err);
}

static int remove_expecting(struct nx_store *handle, const char *name, uint64_t expected) {
  struct nx_error err = {0};
  return handle->ops->remove_handler(handle, name, expected, &err);
}

static int remove_handler(struct nx_store *handle, const char *name) {
  return remove_expecting(handle, name, NX_HANDLER_ANY);
}

static uint64_t version_at(struct nx_store *handle) { return handle->ops->handlers_version(handle); }

/* Returns the handler's version. */
static uint64_t assert_handler(struct nx_store *handle, const char *name, const uint8_t *hash, const char *grants) {
  struct nx_stored_handler out = {0};
  assert_int_equal(get_handler(handle, name, &out), 0);
  assert_memory_equal(out.source_name, hash, NX_HASH_BYTES);
  assert_bytes(&out.bytes, grants, strlen(grants));
  nx_buf_deinit(&out.bytes);
  return out.version;
}

static int handlers_setup(void **state) {
  suite_setup(state);
  if (!store->ops->shares_handlers) return 0;
  assert_int_equal(keep_source(store, hash_a, "return 1", UINT64_MAX), 0);
  assert_int_equal(keep_source(store, hash_b, "return 2", UINT64_MAX), 0);
  return 0;
}

static void handlers_are_put_replaced_and_removed(void **state) {
  if (!store->ops->shares_handlers) skip();
  assert_int_equal(get_handler(store, "cart", &(struct nx_stored_handler){0}), -NX_ERR_NOT_FOUND);
  assert_int_equal(put_handler(store, "cart", hash_a, ""), 0);
  uint64_t first = assert_handler(other, "cart", hash_a, "");
  assert_int_equal(put_handler(other, "cart", hash_b, "{\"timeoutMs\":5}"), 0);
  uint64_t second = assert_handler(store, "cart", hash_b, "{\"timeoutMs\":5}");
  assert_int_equal(put_handler(store, "cart", hash_b, "{}"), 0); /* other grants are a change, too */
  uint64_t third = assert_handler(other, "cart", hash_b, "{}");
  assert_true(first != second && second != third && first != third);
  assert_int_equal(assert_handler(store, "cart", hash_b, "{}"), third);
  assert_int_equal(remove_handler(other, "cart"), 0);
  assert_int_equal(get_handler(store, "cart", &(struct nx_stored_handler){0}), -NX_ERR_NOT_FOUND);
}

static void changes_show_at_every_handle(void **state) {
  if (!store->ops->shares_handlers) skip();
  for (int i = 0; i < 6; i++) {
    struct nx_store *from = i % 2 ? store : other;
    uint64_t at_store = version_at(store), at_other = version_at(other);
    int status = i % 3 == 2 ? remove_handler(from, "cart") : put_handler(from, "cart", i % 3 ? hash_b : hash_a, "");
    assert_int_equal(status, 0);
    eventually(version_at(store) != at_store);
    eventually(version_at(other) != at_other);
  }
}

static void a_change_happens_to_the_expected_version_only(void **state) {
  if (!store->ops->shares_handlers) skip();
  assert_int_equal(put_expecting(store, "cart", hash_a, "", 5), -NX_ERR_CONFLICT);
  assert_int_equal(remove_expecting(store, "cart", 5), -NX_ERR_CONFLICT);
  assert_int_equal(remove_expecting(store, "cart", NX_HANDLER_NONE), -NX_ERR_NOT_FOUND);
  assert_int_equal(put_expecting(store, "cart", hash_a, "", NX_HANDLER_NONE), 0);
  uint64_t first = assert_handler(other, "cart", hash_a, "");
  assert_int_equal(put_expecting(other, "cart", hash_b, "", NX_HANDLER_NONE), -NX_ERR_CONFLICT);
  assert_int_equal(put_expecting(other, "cart", hash_b, "", first), 0);
  assert_int_equal(put_expecting(store, "cart", hash_a, "{}", first), -NX_ERR_CONFLICT);
  assert_int_equal(remove_expecting(store, "cart", first), -NX_ERR_CONFLICT);
  uint64_t second = assert_handler(store, "cart", hash_b, "");
  assert_int_equal(remove_expecting(store, "cart", second), 0);
  assert_int_equal(put_expecting(other, "cart", hash_b, "", second), -NX_ERR_CONFLICT);
}

struct names {
  char text[16][32];
  uint64_t version[16];
  size_t count;
};

static void visit(void *self, const char *name, uint64_t version) {
  struct names *names = self;
  if (names->count == COUNT(names->text)) return;
  strncpy(names->text[names->count], name, sizeof *names->text - 1);
  names->version[names->count] = version;
  names->count++;
}

static bool lists(struct nx_store *handle, const char *name, size_t count) {
  struct names names = {0};
  struct nx_error err = {0};
  assert_int_equal(handle->ops->list_handlers(handle, visit, &names, &err), 0);
  assert_int_equal(names.count, count);
  for (size_t i = 0; i < count; i++)
    if (!strcmp(names.text[i], name)) return names.version[i] == assert_handler(handle, name, hash_a, "");
  return false;
}

static void handlers_are_listed(void **state) {
  if (!store->ops->shares_handlers) skip();
  static const char *const names[] = {"cart", "cart2", "Cart", "a-b_c", "x"};
  assert_false(lists(store, "cart", 0));
  for (size_t i = 0; i < COUNT(names); i++) assert_int_equal(put_handler(store, names[i], hash_a, ""), 0);
  for (size_t i = 0; i < COUNT(names); i++) assert_true(lists(i % 2 ? store : other, names[i], COUNT(names)));
  assert_int_equal(remove_handler(store, "cart"), 0);
  assert_false(lists(other, "cart", COUNT(names) - 1));
  assert_true(lists(other, "cart2", COUNT(names) - 1));
}

static void the_source_of_a_handler_stays(void **state) {
  if (!store->ops->shares_handlers) skip();
  assert_int_equal(put_handler(store, "cart", hash_a, ""), 0);
  create_from(1, hash_a, now_ms() + 50);
  eventually(read_into(store, id_of(1), NULL) == -NX_ERR_NOT_FOUND);
  sweep(other);
  assert_int_equal(load_after_sweep(hash_a), 0);
  assert_int_equal(remove_handler(store, "cart"), 0);
  assert_int_equal(put_handler(store, "cart", hash_b, ""), 0);
  assert_int_equal(load_after_sweep(hash_b), 0);
}

static void handlers_outlive_all_handles(void **state) {
  if (!store->ops->shares_handlers) skip();
  assert_int_equal(put_handler(store, "cart", hash_a, "{}"), 0);
  other->ops->close(other);
  store->ops->close(store);
  store = factory->open_again();
  other = factory->open_again();
  assert_handler(store, "cart", hash_a, "{}");
  assert_source(other, hash_a, "return 1");
}

int suite_run_sharing(void) {
#define T(test) cmocka_unit_test_setup_teardown(test, suite_setup, suite_teardown)
#define H(test) cmocka_unit_test_setup_teardown(test, handlers_setup, suite_teardown)
  const struct CMUnitTest sharing[] = {
    T(sources_are_found_by_hash),
    T(a_shorter_time_takes_nothing_back),
    T(a_source_stays_as_long_as_an_item_refers_to_it),
    T(a_commit_keeps_the_source_for_longer),
    T(an_unused_source_goes_after_its_time),
    T(data_outlive_all_handles),
    H(handlers_are_put_replaced_and_removed),
    H(changes_show_at_every_handle),
    H(a_change_happens_to_the_expected_version_only),
    H(handlers_are_listed),
    H(the_source_of_a_handler_stays),
    H(handlers_outlive_all_handles),
  };
#undef T
#undef H
  return cmocka_run_group_tests(sharing, NULL, NULL);
}
