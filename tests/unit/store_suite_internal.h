/* SPDX-License-Identifier: Apache-2.0
 * Internal to the suite of stores: the two handles of a test, items, and calls with what they return checked. */
#ifndef NX_TESTS_STORE_SUITE_INTERNAL_H
#define NX_TESTS_STORE_SUITE_INTERNAL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "store_suite.h"

#define HOUR_MS UINT64_C(3600000)
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Of the test that runs. `other` is a second handle on the same data, or `store` itself. */
extern struct nx_store *store, *other;
extern const struct store_factory *factory;

int suite_setup(void **state);
int suite_teardown(void **state);

static inline uint64_t now_ms(void) { return nx_clock_realtime_ms(); }

/* For what must come about by itself: looks each millisecond, and fails the test after half a minute. */
#define eventually(condition)                                                       \
  do {                                                                              \
    uint64_t end_ns = nx_clock_ns() + 30 * NX_NS_PER_S;                             \
    while (!(condition)) {                                                          \
      if (nx_clock_ns() > end_ns) fail_msg("has never come about: %s", #condition); \
      usleep(1000);                                                                 \
    }                                                                               \
  } while (0)

/* ---- Items: all refer to one source, which is kept before each test ---------------------------------------------- */

extern const char suite_source[];
extern const uint8_t suite_source_hash[NX_HASH_BYTES];

struct nx_suspension_id id_of(uint64_t number);
/* Expires in an hour, does not wake. */
struct nx_store_item item_of(enum nx_stored_state state, const void *bytes, size_t size);
static inline struct nx_store_item waiting(const char *text) {
  return item_of(NX_STORED_WAITING, text, strlen(text));
}
static inline struct nx_store_item finished(const char *text) {
  return item_of(NX_STORED_FINISHED, text, strlen(text));
}

/* ---- Calls: each returns the store's status, once it has checked that an error has its code and a text ----------- */

int create(struct nx_store *handle, struct nx_suspension_id id, struct nx_store_item item);
/* `out` may be NULL. */
int lease_into(struct nx_store *handle, struct nx_suspension_id id, uint64_t lease_ms, struct nx_store_lease *lease,
               struct nx_stored *out);
static inline int lease(struct nx_store *handle, struct nx_suspension_id id, struct nx_store_lease *lease) {
  return lease_into(handle, id, HOUR_MS, lease, NULL);
}
int extend(struct nx_store *handle, struct nx_store_lease *lease, uint64_t lease_ms);
int commit(struct nx_store *handle, struct nx_store_lease *lease, struct nx_store_item item);
int cancel(struct nx_store *handle, struct nx_suspension_id id);
int read_into(struct nx_store *handle, struct nx_suspension_id id, struct nx_stored *out);
static inline void release(struct nx_store *handle, struct nx_store_lease *held) { handle->ops->release(handle, held); }
static inline void sweep(struct nx_store *handle) { handle->ops->sweep(handle, now_ms()); }
int keep_source(struct nx_store *handle, const uint8_t *hash, const char *source, uint64_t until_ms);
int load_source(struct nx_store *handle, const uint8_t *hash, struct nx_buf *out);

/* The item is there, with this state and these bytes. */
void assert_item(struct nx_store *handle, struct nx_suspension_id id, enum nx_stored_state state, const char *text);
void assert_bytes(const struct nx_buf *bytes, const void *expected, size_t size);

/* ---- Counters: items with a number each, to which racers add one under the lease ----------------------------------- */

void create_counters(void);
/* To the `step`th one, and around. False when one could not be read or written. */
bool increment_counter(struct nx_store *handle, unsigned step);
uint32_t sum_of_counters(void);

int suite_run_items(void);
int suite_run_leases(void);
int suite_run_sharing(void);
int suite_run_races(void);

#endif
