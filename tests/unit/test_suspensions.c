/* SPDX-License-Identifier: Apache-2.0
 * Suspended executions by name, over memory, a directory and sealed: whose they are, who may read them, and what becomes
 * of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "counting_account.h"
#include "suspend/suspensions.h"

#define OUR_GUEST "1111111111111111111111111111111111111111111111111111111111111111"
#define OTHER_GUEST "2222222222222222222222222222222222222222222222222222222222222222"
#define OUR_KEY 0xa1
#define OTHER_KEY 0xb2
#define NO_KEY 0

static const char source_text[] = "return await $ext.pay.charge(1)";
static const struct nx_bytes source = {source_text, sizeof source_text - 1};
static char directory[] = "/tmp/nexus-test-suspensions-XXXXXX";
static struct counting_account account = COUNTING_ACCOUNT;
static const struct nx_tenant nobody;

/* ---- A server's view of a store ------------------------------------------------------------------------------------------ */

static struct nx_suspensions *open_with(enum nx_suspend_store_kind kind, const char *guest, uint8_t key, uint8_t previous) {
  struct nx_config config = {.suspend_store = {.kind = kind, .dir = directory}, .suspend_max_bytes = 1 << 20};
  struct nx_suspensions *suspensions = NULL;
  memset(config.suspend_key, key, sizeof config.suspend_key);
  memset(config.suspend_key_previous, previous, sizeof config.suspend_key_previous);
  config.state[NX_SETTING_SUSPEND_KEY_PREVIOUS] = previous ? NX_CONFIG_VALUE : NX_CONFIG_ABSENT;
  const struct nx_suspensions_options options = {.config = &config, .guest_id = guest, .account = &account.as_account};
  assert_int_equal(nx_suspensions_create(&suspensions, &options, NULL), 0);
  return suspensions;
}

static struct nx_suspensions *open_kind(enum nx_suspend_store_kind kind) {
  return open_with(kind, OUR_GUEST, OUR_KEY, NO_KEY);
}

static uint64_t in_ms(int64_t ms) { return (uint64_t)((int64_t)(nx_clock_realtime_ns() / NX_NS_PER_MS) + ms); }

static struct nx_record record_until(uint64_t expires_ms, const char *handler) {
  struct nx_record record = {.fixed = {.version = NX_RECORD_VERSION, .expires_ms = expires_ms, .host_calls = 7}};
  crypto_generichash(record.fixed.source_hash, NX_HASH_BYTES, source.data, source.size, NULL, 0);
  record.sections[NX_RECORD_HANDLER] = (struct nx_bytes){handler, strlen(handler)};
  record.sections[NX_RECORD_PATCH] = (struct nx_bytes){"the patch", 9};
  return record;
}

static int keep_until(struct nx_suspensions *s, uint64_t expires_ms, const char *handler, struct nx_buf *name) {
  struct nx_record record = record_until(expires_ms, handler);
  struct nx_refusal refused = {0};
  return nx_suspensions_keep(s, &record, source, 0, name, &refused, NULL);
}

static void keep(struct nx_suspensions *s, struct nx_buf *name) {
  assert_int_equal(keep_until(s, in_ms(60000), "", name), 0);
}

static int take(struct nx_suspensions *s, const struct nx_buf *name, struct nx_taken *out, struct nx_error *err) {
  return nx_suspensions_take(s, &nobody, name->data, name->len, 10000, out, err);
}

static void assert_not_taken(struct nx_suspensions *s, const struct nx_buf *name, enum nx_error_code code, const char *why) {
  struct nx_taken taken = {0};
  struct nx_error err = {0};
  assert_int_equal(take(s, name, &taken, &err), -(int)code);
  if (!strstr(err.text, why)) fail_msg("\"%s\" does not say \"%s\"", err.text, why);
  assert_false(taken.is_leased);
  nx_taken_deinit(&taken);
}

/* And lets it go again. */
static void assert_taken(struct nx_suspensions *s, const struct nx_buf *name) {
  struct nx_taken taken = {0};
  struct nx_error err = {0};
  if (take(s, name, &taken, &err)) fail_msg("%s", err.text);
  assert_int_equal(taken.record.fixed.host_calls, 7);
  assert_memory_equal(taken.record.sections[NX_RECORD_PATCH].data, "the patch", 9);
  nx_suspensions_release(s, &taken);
  nx_taken_deinit(&taken);
}

static int put_back(struct nx_suspensions *s, struct nx_taken *taken, enum nx_stored_state state, struct nx_buf *name) {
  struct nx_record record = record_until(in_ms(60000), "");
  struct nx_refusal refused = {0};
  if (state == NX_STORED_FINISHED) {
    record.sections[NX_RECORD_PATCH] = (struct nx_bytes){0};
    record.sections[NX_RECORD_RESULT] = (struct nx_bytes){"{}", 2};
  }
  return nx_suspensions_put_back(s, taken, &record, state, source, 0, name, &refused, NULL);
}

static const enum nx_suspend_store_kind kinds[] = {NX_SUSPEND_MEMORY, NX_SUSPEND_FILE, NX_SUSPEND_SEALED};
static const enum nx_suspend_store_kind sealing[] = {NX_SUSPEND_FILE, NX_SUSPEND_SEALED};
#define FOR_EACH(kind, list) \
  for (const enum nx_suspend_store_kind *kind = list; kind < list + sizeof list / sizeof *list; kind++)

/* ---- Tests --------------------------------------------------------------------------------------------------------------- */

static void what_is_kept_is_taken(void **state) {
  FOR_EACH(kind, kinds) {
    struct nx_suspensions *s = open_kind(*kind);
    NX_BUF_AUTO name = {0};
    keep(s, &name);
    assert_taken(s, &name);
    assert_taken(s, &name);
    nx_suspensions_destroy(s);
  }
}

static void it_is_put_back_under_its_name(void **state) {
  FOR_EACH(kind, kinds) {
    struct nx_suspensions *s = open_kind(*kind);
    struct nx_taken taken = {0};
    NX_BUF_AUTO name = {0}, again = {0};
    keep(s, &name);
    assert_int_equal(take(s, &name, &taken, NULL), 0);
    assert_int_equal(put_back(s, &taken, NX_STORED_WAITING, &again), 0);
    bool is_same = again.len == name.len && !memcmp(again.data, name.data, name.len);
    assert_int_equal(is_same, *kind != NX_SUSPEND_SEALED); /* a sealed one is another record, so another name */
    assert_false(taken.is_leased);
    nx_taken_deinit(&taken);
    assert_taken(s, &again);
    nx_suspensions_destroy(s);
  }
}

static void one_at_a_time_takes_it(void **state) {
  struct nx_suspensions *s = open_kind(NX_SUSPEND_FILE), *replica = open_kind(NX_SUSPEND_FILE);
  struct nx_taken taken = {0};
  NX_BUF_AUTO name = {0};
  keep(s, &name);
  assert_int_equal(take(s, &name, &taken, NULL), 0);
  assert_not_taken(replica, &name, NX_ERR_BUSY, "resuming");
  assert_int_equal(nx_suspensions_extend(s, &taken, 20000, NULL), 0);
  nx_suspensions_release(s, &taken);
  nx_suspensions_release(s, &taken); /* nothing, the second time */
  nx_taken_deinit(&taken);
  assert_taken(replica, &name);
  nx_suspensions_destroy(replica);
  nx_suspensions_destroy(s);
}

static void a_finished_one_is_only_read(void **state) {
  static const enum nx_suspend_store_kind stores[] = {NX_SUSPEND_MEMORY, NX_SUSPEND_FILE};
  FOR_EACH(kind, stores) {
    struct nx_suspensions *s = open_kind(*kind);
    struct nx_taken taken = {0}, seen = {.bytes.account = &account.as_account};
    NX_BUF_AUTO name = {0}, none = {0};
    keep(s, &name);
    assert_int_equal(take(s, &name, &taken, NULL), 0);
    assert_int_equal(put_back(s, &taken, NX_STORED_FINISHED, &none), 0);
    assert_int_equal(none.len, 0);
    nx_taken_deinit(&taken);
    assert_not_taken(s, &name, NX_ERR_GONE, "finished");
    assert_int_equal(nx_suspensions_read(s, &nobody, name.data, name.len, &seen, NULL), 0);
    assert_int_equal(seen.state, NX_STORED_FINISHED);
    assert_memory_equal(seen.record.sections[NX_RECORD_RESULT].data, "{}", 2);
    nx_taken_deinit(&seen);
    assert_int_equal(nx_suspensions_cancel(s, &nobody, name.data, name.len, NULL), -NX_ERR_GONE);
    nx_suspensions_destroy(s);
  }
}

static void another_guest_does_not_take_it(void **state) {
  FOR_EACH(kind, sealing) {
    struct nx_suspensions *s = open_kind(*kind), *other = open_with(*kind, OTHER_GUEST, OUR_KEY, NO_KEY);
    NX_BUF_AUTO name = {0};
    keep(s, &name);
    assert_not_taken(other, &name, NX_ERR_CONFLICT, OUR_GUEST);
    assert_not_taken(other, &name, NX_ERR_CONFLICT, OTHER_GUEST);
    assert_taken(s, &name); /* it was let go */
    nx_suspensions_destroy(other);
    nx_suspensions_destroy(s);
  }
}

static struct nx_buf keep_until_woken(struct nx_suspensions *s) {
  struct nx_record record = record_until(in_ms(60000), "");
  struct nx_refusal refused = {0};
  struct nx_buf name = {0};
  assert_int_equal(nx_suspensions_keep(s, &record, source, 1, &name, &refused, NULL), 0);
  return name;
}

static bool is_due(struct nx_suspensions *s, const struct nx_buf *wanted) {
  struct nx_suspension_id ids[64];
  bool found = false;
  for (size_t i = nx_suspensions_due(s, in_ms(0), ids, 64); i-- > 0;) {
    char name[2 * NX_SUSPENSION_ID_BYTES + 1];
    nx_suspension_name(name, &ids[i]);
    found |= !memcmp(name, wanted->data, wanted->len);
  }
  return found;
}

static struct nx_store_stats count(struct nx_suspensions *s) {
  struct nx_store_stats stats = {0};
  while (!stats.is_counted) {
    nx_suspensions_sweep(s, in_ms(0));
    nx_suspensions_read_stats(s, &stats);
  }
  return stats;
}

static void the_id_tells_the_guest(void **state) {
  struct nx_suspensions *s = open_kind(NX_SUSPEND_FILE);
  struct nx_suspensions *other = open_with(NX_SUSPEND_FILE, OTHER_GUEST, OUR_KEY, NO_KEY);
  struct nx_buf ours = keep_until_woken(s), again = keep_until_woken(s), theirs = keep_until_woken(other);
  struct nx_store_stats stats = count(s), stats_of_other = count(other);
  assert_memory_equal(ours.data, again.data, 2 * NX_SUSPENSION_PREFIX_BYTES);
  assert_memory_not_equal(ours.data, theirs.data, 2 * NX_SUSPENSION_PREFIX_BYTES);
  assert_true(is_due(s, &ours) && is_due(other, &theirs));
  assert_false(is_due(s, &theirs) || is_due(other, &ours));
  assert_int_equal(stats.waiting, stats_of_other.waiting);
  assert_int_equal(stats.waiting, stats.foreign + stats_of_other.foreign);
  assert_in_range(stats_of_other.foreign, 2, stats.waiting - 1);
  nx_buf_deinit(&theirs);
  nx_buf_deinit(&again);
  nx_buf_deinit(&ours);
  nx_suspensions_destroy(other);
  nx_suspensions_destroy(s);
}

static void expired_ones_are_gone(void **state) {
  FOR_EACH(kind, kinds) {
    struct nx_suspensions *s = open_kind(*kind);
    NX_BUF_AUTO name = {0};
    assert_int_equal(keep_until(s, in_ms(-1), "", &name), 0);
    assert_not_taken(s, &name, NX_ERR_GONE, "expired");
    nx_suspensions_destroy(s);
  }
}

static void keys_are_changed(void **state) {
  FOR_EACH(kind, sealing) {
    struct nx_suspensions *before = open_kind(*kind);
    struct nx_suspensions *both = open_with(*kind, OUR_GUEST, OTHER_KEY, OUR_KEY);
    struct nx_suspensions *after = open_with(*kind, OUR_GUEST, OTHER_KEY, NO_KEY);
    struct nx_taken taken = {0};
    NX_BUF_AUTO name = {0}, again = {0};
    keep(before, &name);
    assert_not_taken(after, &name, NX_ERR_INVALID, "SUSPEND_KEY");
    assert_int_equal(take(both, &name, &taken, NULL), 0);
    assert_int_equal(put_back(both, &taken, NX_STORED_WAITING, &again), 0);
    nx_taken_deinit(&taken);
    assert_taken(after, &again); /* what is put back is sealed with the new key */
    assert_not_taken(before, &again, NX_ERR_INVALID, "SUSPEND_KEY");
    nx_suspensions_destroy(after);
    nx_suspensions_destroy(both);
    nx_suspensions_destroy(before);
  }
}

static void names_that_are_none(void **state) {
  static const char *const names[] = {"", "x", "00112233445566778899aabbccddeef", "00112233445566778899aabbccddeeff0",
                                      "00112233445566778899aabbccddeefg", "../../../../../../../../etc/passwd"};
  struct nx_suspensions *s = open_kind(NX_SUSPEND_FILE), *sealed = open_kind(NX_SUSPEND_SEALED);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const struct nx_buf name = {.data = (char *)names[i], .len = strlen(names[i])};
    struct nx_taken seen = {0};
    assert_not_taken(s, &name, NX_ERR_NOT_FOUND, "no such suspended execution");
    assert_int_equal(nx_suspensions_read(s, &nobody, name.data, name.len, &seen, NULL), -NX_ERR_NOT_FOUND);
    assert_int_equal(nx_suspensions_cancel(s, &nobody, name.data, name.len, NULL), -NX_ERR_NOT_FOUND);
    assert_not_taken(sealed, &name, NX_ERR_INVALID, "");
  }
  nx_suspensions_destroy(sealed);
  nx_suspensions_destroy(s);
}

static const struct nx_tenant ours = {"ours"}, theirs = {"theirs"};

static void keep_for(struct nx_suspensions *s, const struct nx_tenant *tenant, struct nx_buf *name) {
  struct nx_record record = record_until(in_ms(60000), "");
  struct nx_refusal refused = {0};
  record.fixed.tenant = *tenant;
  assert_int_equal(nx_suspensions_keep(s, &record, source, 0, name, &refused, NULL), 0);
}

/* Exactly what is said of ids that there are not. */
static void assert_unknown_to(struct nx_suspensions *s, const struct nx_tenant *asks, const struct nx_buf *name) {
  struct nx_taken taken = {0};
  struct nx_error err = {0}, unknown = {0};
  static const char no_name[] = "00112233445566778899aabbccddeeff";
  assert_int_equal(nx_suspensions_take(s, asks, no_name, sizeof no_name - 1, 10000, &taken, &unknown), -NX_ERR_NOT_FOUND);
  assert_int_equal(nx_suspensions_take(s, asks, name->data, name->len, 10000, &taken, &err), -NX_ERR_NOT_FOUND);
  assert_string_equal(err.text, unknown.text);
  assert_false(taken.is_leased);
  nx_taken_deinit(&taken);
  if (nx_suspensions_are_sealed(s)) return;
  taken = (struct nx_taken){0};
  assert_int_equal(nx_suspensions_read(s, asks, name->data, name->len, &taken, &err), -NX_ERR_NOT_FOUND);
  assert_string_equal(err.text, unknown.text);
  nx_taken_deinit(&taken);
  assert_int_equal(nx_suspensions_cancel(s, asks, name->data, name->len, &err), -NX_ERR_NOT_FOUND);
  assert_string_equal(err.text, unknown.text);
}

static void assert_taken_by(struct nx_suspensions *s, const struct nx_tenant *asks, const struct nx_buf *name) {
  struct nx_taken taken = {0};
  assert_int_equal(nx_suspensions_take(s, asks, name->data, name->len, 10000, &taken, NULL), 0);
  nx_suspensions_release(s, &taken);
  nx_taken_deinit(&taken);
}

static void another_tenant_learns_nothing(void **state) {
  static const enum nx_suspend_store_kind stores[] = {NX_SUSPEND_MEMORY, NX_SUSPEND_FILE, NX_SUSPEND_SEALED};
  FOR_EACH(kind, stores) {
    struct nx_suspensions *s = open_kind(*kind);
    struct nx_taken taken = {0};
    NX_BUF_AUTO name = {0}, none = {0}, nobodys = {0};
    keep_for(s, &ours, &name);
    keep_for(s, &nobody, &nobodys);
    assert_unknown_to(s, &theirs, &name);
    assert_taken_by(s, &ours, &name);
    assert_taken_by(s, &nobody, &name);
    assert_taken_by(s, &theirs, &nobodys);
    if (*kind == NX_SUSPEND_SEALED) {
      nx_suspensions_destroy(s);
      continue;
    }
    assert_int_equal(nx_suspensions_take(s, &ours, name.data, name.len, 10000, &taken, NULL), 0);
    assert_unknown_to(s, &theirs, &name); /* while it is leased */
    struct nx_record record = taken.record;
    struct nx_refusal refused = {0};
    record.sections[NX_RECORD_RESULT] = (struct nx_bytes){"{}", 2};
    assert_int_equal(nx_suspensions_put_back(s, &taken, &record, NX_STORED_FINISHED, source, 0, &none, &refused, NULL), 0);
    nx_taken_deinit(&taken);
    assert_unknown_to(s, &theirs, &name); /* finished */
    taken = (struct nx_taken){0};
    assert_int_equal(nx_suspensions_take(s, &ours, name.data, name.len, 10000, &taken, NULL), -NX_ERR_GONE);
    nx_taken_deinit(&taken);
    nx_buf_reset(&name, 0);
    keep_for(s, &ours, &name);
    assert_int_equal(nx_suspensions_cancel(s, &ours, name.data, name.len, NULL), 0);
    assert_unknown_to(s, &theirs, &name); /* cancelled: */
    assert_unknown_to(s, &ours, &name);   /* not every store knows whose it was */
    nx_suspensions_destroy(s);
  }
}

static void what_cannot_be_unsealed_is_nobodys(void **state) {
  FOR_EACH(kind, sealing) {
    struct nx_suspensions *s = open_kind(*kind), *other = open_with(*kind, OUR_GUEST, OTHER_KEY, NO_KEY);
    NX_BUF_AUTO name = {0};
    keep_for(s, &ours, &name);
    assert_unknown_to(other, &ours, &name);
    nx_suspensions_destroy(other);
    nx_suspensions_destroy(s);
  }
}

static void nobody_looks_at_sealed_ones(void **state) {
  struct nx_suspensions *s = open_kind(NX_SUSPEND_SEALED);
  struct nx_taken seen = {0};
  NX_BUF_AUTO name = {0};
  keep(s, &name);
  assert_int_equal(nx_suspensions_read(s, &nobody, name.data, name.len, &seen, NULL), -NX_ERR_NOT_FOUND);
  assert_int_equal(nx_suspensions_cancel(s, &nobody, name.data, name.len, NULL), -NX_ERR_NOT_FOUND);
  assert_true(nx_suspensions_are_sealed(s) && nx_suspensions_are_durable(s) && !nx_suspensions_block(s));
  nx_suspensions_destroy(s);
}

static int load_source(struct nx_suspensions *s, const char *handler, struct nx_buf *out) {
  struct nx_taken taken = {0};
  NX_BUF_AUTO name = {0};
  assert_int_equal(keep_until(s, in_ms(60000), handler, &name), 0);
  assert_int_equal(take(s, &name, &taken, NULL), 0);
  int status = nx_suspensions_load_source(s, &taken, out, NULL);
  nx_suspensions_release(s, &taken);
  nx_taken_deinit(&taken);
  return status;
}

static void sources_stay_with_them(void **state) {
  FOR_EACH(kind, kinds) {
    struct nx_suspensions *s = open_kind(*kind);
    NX_BUF_AUTO inline_source = {0}, registered = {0};
    assert_int_equal(load_source(s, "", &inline_source), 0);
    assert_int_equal(inline_source.len, source.size);
    assert_memory_equal(inline_source.data, source.data, source.size);
    assert_int_equal(load_source(s, "order", &registered), *kind == NX_SUSPEND_SEALED ? -NX_ERR_NOT_FOUND : 0);
    nx_suspensions_destroy(s);
  }
}

/* Puts other bytes, or another state, beside what is there: somebody who can write to the store. */
static void tamper(const struct nx_buf *name, enum nx_stored_state state, size_t keep_bytes) {
  struct nx_store *store;
  struct nx_suspension_id id;
  struct nx_stored stored = {0};
  struct nx_store_lease lease;
  struct nx_refusal refused = {0};
  assert_int_equal(nx_store_open_file(&store, directory, NULL), 0);
  assert_int_equal(sodium_hex2bin(id.bytes, sizeof id.bytes, name->data, name->len, NULL, NULL, NULL), 0);
  assert_int_equal(store->ops->lease(store, &id, 10000, &stored, &lease, NULL), 0);
  const struct nx_store_item item = {.state = state, .expires_ms = stored.expires_ms,
                                     .bytes = (const uint8_t *)stored.bytes.data, .size = keep_bytes ? stored.bytes.len : 0};
  assert_int_equal(store->ops->commit(store, &lease, &item, &refused, NULL), 0);
  nx_buf_deinit(&stored.bytes);
  store->ops->close(store);
}

static void assert_unreadable(struct nx_suspensions *s, const struct nx_buf *name) {
  struct nx_taken seen = {0};
  struct nx_error err = {0};
  assert_int_equal(nx_suspensions_read(s, &nobody, name->data, name->len, &seen, &err), -NX_ERR_INVALID);
  assert_non_null(strstr(err.text, "has been changed"));
  nx_taken_deinit(&seen);
}

static void states_are_not_believed(void **state) {
  struct nx_suspensions *s = open_kind(NX_SUSPEND_FILE);
  NX_BUF_AUTO waiting = {0}, empty = {0};
  keep(s, &waiting);
  tamper(&waiting, NX_STORED_FINISHED, SIZE_MAX);
  assert_unreadable(s, &waiting);
  keep(s, &empty);
  tamper(&empty, NX_STORED_WAITING, 0);
  assert_unreadable(s, &empty);
  assert_not_taken(s, &empty, NX_ERR_INVALID, "has been changed");
  nx_suspensions_destroy(s);
}

static void without_memory_nothing_is_lost(void **state) {
  FOR_EACH(kind, sealing) {
    struct nx_suspensions *s = open_kind(*kind);
    struct nx_taken taken = {0};
    NX_BUF_AUTO name = {0}, none = {0};
    keep(s, &name);
    account.limit = account.charged + 200;
    assert_int_equal(take(s, &name, &taken, NULL), -NX_ERR_NO_MEMORY);
    nx_taken_deinit(&taken);
    account.limit = SIZE_MAX;
    assert_int_equal(take(s, &name, &taken, NULL), 0);
    account.limit = account.charged + 200;
    assert_int_equal(put_back(s, &taken, NX_STORED_WAITING, &none), -NX_ERR_NO_MEMORY);
    account.limit = SIZE_MAX;
    nx_suspensions_release(s, &taken);
    nx_taken_deinit(&taken);
    assert_taken(s, &name);
    nx_suspensions_destroy(s);
  }
}

static int make_directory(void **state) {
  return sodium_init() < 0 || !mkdtemp(directory);
}

static int remove_directory(void **state) {
  char command[80];
  snprintf(command, sizeof command, "rm -rf %s", directory);
  assert_int_equal(account.charged, 0);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_kept_is_taken),
    cmocka_unit_test(it_is_put_back_under_its_name),
    cmocka_unit_test(one_at_a_time_takes_it),
    cmocka_unit_test(a_finished_one_is_only_read),
    cmocka_unit_test(another_guest_does_not_take_it),
    cmocka_unit_test(the_id_tells_the_guest),
    cmocka_unit_test(expired_ones_are_gone),
    cmocka_unit_test(keys_are_changed),
    cmocka_unit_test(names_that_are_none),
    cmocka_unit_test(another_tenant_learns_nothing),
    cmocka_unit_test(what_cannot_be_unsealed_is_nobodys),
    cmocka_unit_test(nobody_looks_at_sealed_ones),
    cmocka_unit_test(sources_stay_with_them),
    cmocka_unit_test(states_are_not_believed),
    cmocka_unit_test(without_memory_nothing_is_lost),
  };
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
