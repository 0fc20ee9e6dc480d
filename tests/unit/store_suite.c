/* SPDX-License-Identifier: Apache-2.0
 * The suite of stores: its handles and its checked calls. */
#include "store_suite_internal.h"

struct nx_store *store, *other;
const struct store_factory *factory;

const char suite_source[] = "return $args.answer";
const uint8_t suite_source_hash[NX_HASH_BYTES] = {0x5e, 1, 2, 3};

int suite_setup(void **state) {
  store = factory->open();
  other = factory->open_again ? factory->open_again() : store;
  assert_int_equal(keep_source(store, suite_source_hash, suite_source, now_ms() + HOUR_MS), 0);
  return 0;
}

int suite_teardown(void **state) {
  if (other != store) other->ops->close(other);
  store->ops->close(store);
  store = other = NULL;
  return 0;
}

struct nx_suspension_id id_of(uint64_t number) {
  struct nx_suspension_id id = {.bytes = {0xa5, 0x17}};
  memcpy(id.bytes + sizeof id.bytes - sizeof number, &number, sizeof number);
  return id;
}

struct nx_store_item item_of(enum nx_stored_state state, const void *bytes, size_t size) {
  struct nx_store_item item = {.state = state, .expires_ms = now_ms() + HOUR_MS, .bytes = bytes, .size = size};
  memcpy(item.source_name, suite_source_hash, NX_HASH_BYTES);
  return item;
}

/* Not by assert: threads call this, and cmocka's jumps belong to the main one. */
static int checked(int status, const struct nx_error *err) {
  bool fits = status == 0 ? err->text[0] == 0 : status == -(int)err->code && err->text[0];
  return fits ? status : -1000;
}

int create(struct nx_store *handle, struct nx_suspension_id id, struct nx_store_item item) {
  struct nx_error err = {0};
  struct nx_refusal refused = {0};
  return checked(handle->ops->create(handle, &id, &item, &refused, &err), &err);
}

int lease_into(struct nx_store *handle, struct nx_suspension_id id, uint64_t lease_ms, struct nx_store_lease *out_lease,
               struct nx_stored *out) {
  struct nx_error err = {0};
  struct nx_stored unused = {0};
  int status = checked(handle->ops->lease(handle, &id, lease_ms, out ? out : &unused, out_lease, &err), &err);
  nx_buf_deinit(&unused.bytes);
  return status;
}

int extend(struct nx_store *handle, struct nx_store_lease *held, uint64_t lease_ms) {
  struct nx_error err = {0};
  return checked(handle->ops->extend(handle, held, lease_ms, &err), &err);
}

int commit(struct nx_store *handle, struct nx_store_lease *held, struct nx_store_item item) {
  struct nx_error err = {0};
  struct nx_refusal refused = {0};
  return checked(handle->ops->commit(handle, held, &item, &refused, &err), &err);
}

int cancel(struct nx_store *handle, struct nx_suspension_id id) {
  struct nx_error err = {0};
  return checked(handle->ops->cancel(handle, &id, &err), &err);
}

int read_into(struct nx_store *handle, struct nx_suspension_id id, struct nx_stored *out) {
  struct nx_error err = {0};
  struct nx_stored unused = {0};
  int status = checked(handle->ops->read(handle, &id, out ? out : &unused, &err), &err);
  nx_buf_deinit(&unused.bytes);
  return status;
}

int keep_source(struct nx_store *handle, const uint8_t *hash, const char *source, uint64_t until_ms) {
  struct nx_error err = {0};
  struct nx_refusal refused = {0};
  return checked(handle->ops->keep_source(handle, hash, source, strlen(source), until_ms, &refused, &err), &err);
}

int load_source(struct nx_store *handle, const uint8_t *hash, struct nx_buf *out) {
  struct nx_error err = {0};
  struct nx_buf unused = {0};
  int status = checked(handle->ops->load_source(handle, hash, out ? out : &unused, &err), &err);
  nx_buf_deinit(&unused);
  return status;
}

void assert_bytes(const struct nx_buf *bytes, const void *expected, size_t size) {
  assert_int_equal(bytes->len, size);
  if (size) assert_memory_equal(bytes->data, expected, size);
}

void assert_item(struct nx_store *handle, struct nx_suspension_id id, enum nx_stored_state state, const char *text) {
  struct nx_stored out = {0};
  assert_int_equal(read_into(handle, id, &out), 0);
  assert_int_equal(out.state, state);
  assert_bytes(&out.bytes, text, strlen(text));
  nx_buf_deinit(&out.bytes);
}

enum { COUNTERS = 3 };

void create_counters(void) {
  static const uint32_t zero;
  for (uint64_t i = 0; i < COUNTERS; i++)
    assert_int_equal(create(store, id_of(i), item_of(NX_STORED_WAITING, &zero, sizeof zero)), 0);
}

bool increment_counter(struct nx_store *handle, unsigned step) {
  struct nx_store_lease held;
  struct nx_stored out = {0};
  struct nx_suspension_id id = id_of(step % COUNTERS);
  uint32_t value;
  int status;
  while ((status = lease_into(handle, id, HOUR_MS, &held, &out)) == -NX_ERR_BUSY) usleep(100);
  bool fits = status == 0 && out.bytes.len == sizeof value;
  if (fits) {
    memcpy(&value, out.bytes.data, sizeof value);
    value++;
    fits = commit(handle, &held, item_of(NX_STORED_WAITING, &value, sizeof value)) == 0;
  }
  nx_buf_deinit(&out.bytes);
  return fits;
}

uint32_t sum_of_counters(void) {
  uint32_t sum = 0;
  for (uint64_t i = 0; i < COUNTERS; i++) {
    struct nx_stored out = {0};
    uint32_t value;
    assert_int_equal(read_into(store, id_of(i), &out), 0);
    assert_int_equal(out.bytes.len, sizeof value);
    memcpy(&value, out.bytes.data, sizeof value);
    nx_buf_deinit(&out.bytes);
    sum += value;
  }
  return sum;
}

int store_suite_run(const struct store_factory *of) {
  factory = of;
  return suite_run_items() + suite_run_leases() + suite_run_sharing() + suite_run_races();
}
