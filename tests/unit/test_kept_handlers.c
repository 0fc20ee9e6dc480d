/* SPDX-License-Identifier: Apache-2.0
 * Handlers and sources in a store that somebody else can write to, before, while and after the key changes. */
#include "handler_support.h"

#include "suspend/kept_handlers.h"

#define OLD_KEY 0xa1
#define NEW_KEY 0xb2
#define NO_KEY 0

/* A server's view. All have one store, as replicas would. */
struct view {
  struct nx_sealer sealer;
  struct nx_kept_handlers kept;
};
static struct nx_store *store;
static struct view before, swapped, after; /* the old key; the new one, and the old one still accepted; the new one */

static const char text[] = "return 1";
static uint8_t hash[NX_HASH_BYTES];

static void open_view(struct view *view, uint8_t key, uint8_t previous) {
  uint8_t keys[2][NX_SEAL_KEY_BYTES];
  memset(keys[0], key, sizeof keys[0]);
  memset(keys[1], previous, sizeof keys[1]);
  nx_sealer_init(&view->sealer, keys[0], previous ? keys[1] : NULL);
  view->kept = (struct nx_kept_handlers){.store = store, .sealer = &view->sealer, .account = &handler_account.as_account};
}

static int setup(void **state) {
  if (scratch_setup(state)) return -1;
  assert_int_equal(nx_store_open_file(&store, scratch, NULL), 0);
  nx_handler_hash_source(hash, text, sizeof text - 1);
  open_view(&before, OLD_KEY, NO_KEY);
  open_view(&swapped, NEW_KEY, OLD_KEY);
  open_view(&after, NEW_KEY, NO_KEY);
  return 0;
}

static int teardown(void **state) {
  store->ops->close(store);
  assert_int_equal(handler_account.charged, 0);
  return scratch_teardown(state);
}

/* ---- Shorthand */

static int put_when(struct view *view, const char *name, const char *grants, uint64_t expected) {
  struct nx_kept_handler handler = {0};
  struct nx_refusal refused = {0};
  memcpy(handler.source_hash, hash, sizeof hash);
  nx_buf_str(&handler.grants, grants);
  int status = nx_kept_put_source(&view->kept, hash, text, sizeof text - 1, &refused, NULL);
  if (!status) status = nx_kept_put(&view->kept, name, &handler, expected, NULL);
  nx_buf_deinit(&handler.grants);
  return status;
}

static void put(struct view *view, const char *name, const char *grants) {
  assert_int_equal(put_when(view, name, grants, NX_HANDLER_ANY), 0);
}

static int load(struct view *view, struct nx_buf *out) { return nx_kept_load_source(&view->kept, hash, out, NULL); }

static void assert_refused(struct view *view, const char *name) {
  struct nx_kept_handler handler = {0};
  assert_int_equal(nx_kept_get(&view->kept, name, &handler, NULL), -NX_ERR_INVALID);
  assert_int_equal(handler.grants.len, 0);
}

/* With its source. */
static void assert_there(struct view *view, const char *name, const char *grants) {
  struct nx_kept_handler handler = {0};
  struct nx_buf source = {0};
  assert_int_equal(nx_kept_get(&view->kept, name, &handler, NULL), 0);
  assert_memory_equal(handler.source_hash, hash, sizeof hash);
  nx_buf_char(&handler.grants, 0);
  assert_string_equal(handler.grants.data, grants);
  assert_int_equal(load(view, &source), 0);
  nx_buf_char(&source, 0);
  assert_string_equal(source.data, text);
  nx_buf_deinit(&source);
  nx_buf_deinit(&handler.grants);
}

/* The store has of `to` what it has of `from`: somebody writes to it. */
static void copy_handler(const char *from, const char *to) {
  struct nx_stored_handler stored = {0};
  assert_int_equal(store->ops->get_handler(store, from, &stored, NULL), 0);
  assert_int_equal(store->ops->put_handler(store, to, &stored, NX_HANDLER_ANY, NULL), 0);
  nx_buf_deinit(&stored.bytes);
}

static void replace_source(struct view *view, const void *bytes, size_t size) {
  struct nx_refusal refused = {0};
  uint8_t name[NX_HASH_BYTES];
  nx_kept_source_name(&view->kept, hash, name);
  assert_int_equal(store->ops->keep_source(store, name, bytes, size, UINT64_MAX, &refused, NULL), 0);
}

/* ---- Tests */

static void what_is_put_is_there(void **state) {
  put(&before, "h", "{\"timeoutMs\":5}");
  put(&before, "without", "");
  assert_there(&before, "h", "{\"timeoutMs\":5}");
  assert_there(&before, "without", "");
}

static void names_of_sources_tell_nothing(void **state) {
  uint8_t names[2][NX_HASH_BYTES];
  nx_kept_source_name(&before.kept, hash, names[0]);
  nx_kept_source_name(&after.kept, hash, names[1]);
  assert_memory_not_equal(names[0], hash, sizeof hash);
  assert_memory_not_equal(names[0], names[1], sizeof hash);
}

static void a_handler_of_another_name_is_refused(void **state) {
  put(&before, "mighty", "{\"timeoutMs\":5}");
  put(&before, "h", "");
  copy_handler("mighty", "h");
  assert_refused(&before, "h");
  assert_there(&before, "mighty", "{\"timeoutMs\":5}");
}

static void what_is_refused_counts_as_none(void **state) {
  put(&before, "h", "");
  assert_int_equal(put_when(&before, "h", "{}", NX_HANDLER_NONE), -NX_ERR_CONFLICT);
  assert_refused(&after, "h");
  assert_int_equal(put_when(&after, "h", "{}", NX_HANDLER_NONE), 0);
  assert_there(&after, "h", "{}");
}

static void a_source_must_be_that_one_and_sealed(void **state) {
  struct nx_stored_handler handler = {0};
  struct nx_buf out = {0};
  put(&before, "h", "");
  replace_source(&before, text, sizeof text - 1);
  assert_int_equal(load(&before, &out), -NX_ERR_INVALID);
  assert_int_equal(store->ops->get_handler(store, "h", &handler, NULL), 0);
  replace_source(&before, handler.bytes.data, handler.bytes.len); /* sealed by us, but as something else */
  assert_int_equal(load(&before, &out), -NX_ERR_INVALID);
  assert_int_equal(out.len, 0);
  put(&before, "h", ""); /* heals it */
  assert_there(&before, "h", "");
  nx_buf_deinit(&handler.bytes);
  nx_buf_deinit(&out);
}

static void a_source_is_kept_without_being_sealed_again(void **state) {
  struct nx_refusal refused = {0};
  struct nx_buf first = {0}, second = {0};
  uint8_t name[NX_HASH_BYTES];
  nx_kept_source_name(&before.kept, hash, name);
  for (struct nx_buf *sealed = &first; sealed; sealed = sealed == &first ? &second : NULL) {
    assert_int_equal(nx_kept_keep_source(&before.kept, hash, text, sizeof text - 1, UINT64_MAX, &refused, NULL), 0);
    assert_int_equal(store->ops->load_source(store, name, sealed, NULL), 0);
  }
  assert_int_equal(first.len, second.len);
  assert_memory_equal(first.data, second.data, first.len); /* the nonce is random */
  nx_buf_deinit(&first);
  nx_buf_deinit(&second);
}

static void a_change_of_keys(void **state) {
  put(&before, "h", "{}");
  assert_refused(&after, "h");
  assert_there(&swapped, "h", "{}");
  assert_int_equal(nx_kept_reseal(&swapped.kept, "h", NULL), 0);
  assert_there(&after, "h", "{}");
  assert_there(&swapped, "h", "{}");
  assert_refused(&before, "h");
  uint64_t version = nx_kept_version(&after.kept);
  assert_int_equal(nx_kept_reseal(&swapped.kept, "h", NULL), 0); /* nothing is left to do */
  assert_int_equal(nx_kept_reseal(&swapped.kept, "none", NULL), 0);
  assert_int_equal(nx_kept_version(&after.kept), version);
}

/* Other grants for a handler whose source lies where the previous key had it. */
static void the_source_moves_with_its_handler(void **state) {
  struct nx_kept_handler handler = {0};
  put(&before, "h", "");
  memcpy(handler.source_hash, hash, sizeof hash);
  nx_buf_str(&handler.grants, "{}");
  assert_int_equal(nx_kept_put(&swapped.kept, "h", &handler, NX_HANDLER_ANY, NULL), 0);
  assert_there(&after, "h", "{}");
  nx_buf_deinit(&handler.grants);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
  const struct CMUnitTest tests[] = {
    TEST(what_is_put_is_there),
    TEST(names_of_sources_tell_nothing),
    TEST(a_handler_of_another_name_is_refused),
    TEST(what_is_refused_counts_as_none),
    TEST(a_source_must_be_that_one_and_sealed),
    TEST(a_source_is_kept_without_being_sealed_again),
    TEST(a_change_of_keys),
    TEST(the_source_moves_with_its_handler),
  };
  return cmocka_run_group_tests(tests, base_setup, base_teardown);
}
