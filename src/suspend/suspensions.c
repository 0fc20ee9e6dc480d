/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/suspensions.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "handler/handler.h"
#include "sandbox/random.h"
#include "suspend/sealed.h"

struct nx_suspensions {
  struct nx_store *store; /* first (tests look for it); NULL: sealed */
  struct nx_kept_handlers handlers;
  struct nx_sealer sealer;
  bool seals; /* what is written outlives this process, and can be read by others */
  uint8_t guest_id[NX_HASH_BYTES];
  struct nx_suspension_prefix prefix;
  struct nx_account *account;
};

/* ---- Life ----------------------------------------------------------------------------------------------------------- */

static int open_store(struct nx_suspensions *suspensions, const struct nx_suspensions_options *options,
                      struct nx_error *err) {
  const struct nx_config *config = options->config;
  const struct nx_store_options memory = {config->suspend_max_bytes, options->account, options->governor};
  switch (config->suspend_store.kind) {
  case NX_SUSPEND_MEMORY: return nx_store_open_memory(&suspensions->store, &memory, err);
  case NX_SUSPEND_FILE: return nx_store_open_file(&suspensions->store, config->suspend_store.dir, err);
  case NX_SUSPEND_REDIS: return nx_store_open_redis(&suspensions->store, &config->suspend_store, err);
  case NX_SUSPEND_SEALED: return 0;
  }
  return 0;
}

int nx_suspensions_create(struct nx_suspensions **out, const struct nx_suspensions_options *options,
                          struct nx_error *err) {
  struct nx_suspensions *suspensions = calloc(1, sizeof *suspensions);
  if (!suspensions) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the suspended executions");
  const struct nx_config *config = options->config;
  suspensions->account = options->account;
  suspensions->seals = config->suspend_store.kind != NX_SUSPEND_MEMORY;
  nx_hash_from_hex(suspensions->guest_id, options->guest_id, strlen(options->guest_id));
  suspensions->prefix = nx_suspension_prefix_of(options->guest_id);
  bool has_previous = config->state[NX_SETTING_SUSPEND_KEY_PREVIOUS] == NX_CONFIG_VALUE;
  if (suspensions->seals)
    nx_sealer_init(&suspensions->sealer, config->suspend_key, has_previous ? config->suspend_key_previous : NULL);
  int status = open_store(suspensions, options, err);
  if (status) {
    nx_suspensions_destroy(suspensions);
    return status;
  }
  if (suspensions->store) suspensions->store->own = suspensions->prefix;
  suspensions->handlers.store = suspensions->store;
  suspensions->handlers.sealer = suspensions->seals ? &suspensions->sealer : NULL;
  suspensions->handlers.account = suspensions->account;
  *out = suspensions;
  return 0;
}

void nx_suspensions_destroy(struct nx_suspensions *suspensions) {
  if (!suspensions) return;
  if (suspensions->store) suspensions->store->ops->close(suspensions->store);
  nx_sealer_deinit(&suspensions->sealer);
  free(suspensions);
}

bool nx_suspensions_block(const struct nx_suspensions *s) { return s->store && s->store->ops->blocks; }
bool nx_suspensions_are_durable(const struct nx_suspensions *s) { return s->seals; }
bool nx_suspensions_are_sealed(const struct nx_suspensions *s) { return !s->store; }
struct nx_kept_handlers *nx_suspensions_handlers(struct nx_suspensions *s) { return &s->handlers; }
bool nx_suspensions_share_handlers(const struct nx_suspensions *s) { return s->store && s->store->ops->shares_handlers; }

void nx_suspensions_read_stats(struct nx_suspensions *s, struct nx_store_stats *out) {
  *out = (struct nx_store_stats){0};
  if (s->store) s->store->ops->read_stats(s->store, out);
}

void nx_taken_deinit(struct nx_taken *taken) { nx_buf_deinit(&taken->bytes); }

/* ---- Names ---------------------------------------------------------------------------------------------------------- */

void nx_suspension_name(char name[2 * NX_SUSPENSION_ID_BYTES + 1], const struct nx_suspension_id *id) {
  sodium_bin2hex(name, 2 * NX_SUSPENSION_ID_BYTES + 1, id->bytes, sizeof id->bytes);
}

struct nx_suspension_prefix nx_suspension_prefix_of(const char *guest_id) {
  struct nx_suspension_prefix prefix = {.is_set = true};
  uint8_t hash[crypto_generichash_BYTES];
  crypto_generichash(hash, sizeof hash, (const uint8_t *)guest_id, strlen(guest_id), NULL, 0);
  memcpy(prefix.bytes, hash, sizeof prefix.bytes);
  return prefix;
}

/* The rest is random: nobody guesses one. */
static struct nx_suspension_id make_id(const struct nx_suspensions *s) {
  struct nx_suspension_id id;
  nx_random_bytes(id.bytes, sizeof id.bytes);
  memcpy(id.bytes, s->prefix.bytes, sizeof s->prefix.bytes);
  return id;
}

static int no_such(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NOT_FOUND, "there is no such suspended execution");
}

static int parse_name(const char *name, size_t bytes, struct nx_suspension_id *id, struct nx_error *err) {
  size_t got;
  if (bytes == 2 * sizeof id->bytes && !sodium_hex2bin(id->bytes, sizeof id->bytes, name, bytes, NULL, &got, NULL) &&
      got == sizeof id->bytes)
    return 0;
  return no_such(err);
}

/* ---- Tenants -------------------------------------------------------------------------------------------------------- */

/* What became of opening it (`status`), as one who asks may know it. */
static int check_tenant(const struct nx_tenant *asks, const struct nx_taken *opened, int status, struct nx_error *err) {
  if (nx_tenant_is_nobody(asks)) return status;
  if (status == -NX_ERR_NOT_FOUND || status == -NX_ERR_INVALID) return no_such(err);
  if (status) return status;
  bool has_owner = opened->bytes.len && opened->state != NX_STORED_CANCELLED;
  return has_owner && nx_tenant_may(asks, &opened->record.fixed.tenant) ? 0 : no_such(err);
}

/* ---- Sealed continuations: the name is the record --------------------------------------------------------------------- */

static int refuse_sealed(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NOT_FOUND, "this server keeps nothing of suspended executions (SUSPEND_STORE=sealed): "
                      "they can only be resumed, with POST /v1/resume");
}

static int check(const struct nx_suspensions *s, const struct nx_record *record, struct nx_error *err) {
  if (memcmp(record->fixed.guest_id, s->guest_id, NX_HASH_BYTES)) {
    char theirs[2 * NX_HASH_BYTES + 1], ours[2 * NX_HASH_BYTES + 1];
    nx_hash_to_hex(theirs, record->fixed.guest_id);
    nx_hash_to_hex(ours, s->guest_id);
    return nx_error_set(err, NX_ERR_CONFLICT, "suspended by a nexus with guest %s; this one has guest %s and cannot "
                        "resume it", theirs, ours);
  }
  if (record->fixed.expires_ms <= nx_clock_realtime_ms())
    return nx_error_set(err, NX_ERR_GONE, "the suspended execution has expired");
  return 0;
}

static int take_sealed(struct nx_suspensions *s, const struct nx_tenant *asks, const char *name, size_t bytes,
                       struct nx_taken *out, struct nx_error *err) {
  int status = nx_sealed_read(&s->sealer, name, bytes, &out->bytes, err);
  if (!status) status = nx_record_decode(&out->record, out->bytes.data, out->bytes.len, err);
  status = check_tenant(asks, out, status, err);
  return status ? status : check(s, &out->record, err);
}

static int write_sealed(struct nx_suspensions *s, struct nx_record *record, struct nx_bytes source, struct nx_buf *name,
                        struct nx_error *err) {
  NX_BUF_AUTO packed = {.account = s->account}, plain = {.account = s->account};
  if (!record->sections[NX_RECORD_HANDLER].size) {
    nx_sealed_pack_source(source, &packed);
    record->sections[NX_RECORD_SOURCE] = (struct nx_bytes){packed.data, packed.len};
  }
  nx_record_encode(record, &plain);
  if (packed.failed || plain.failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a sealed continuation");
  return nx_sealed_write(&s->sealer, plain.data, plain.len, name, err);
}

/* ---- In a store ------------------------------------------------------------------------------------------------------- */

static int no_memory(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a suspended execution");
}

static int add_name(const struct nx_suspension_id *id, struct nx_buf *out, struct nx_error *err) {
  char name[2 * NX_SUSPENSION_ID_BYTES + 1];
  nx_suspension_name(name, id);
  nx_buf_str(out, name);
  return out->failed ? no_memory(err) : 0;
}

/* The record as the store gets it. */
static int wrap(struct nx_suspensions *s, const struct nx_suspension_id *id, const struct nx_record *record,
                struct nx_buf *out, struct nx_error *err) {
  if (!s->seals) {
    nx_record_encode(record, out);
    return out->failed ? no_memory(err) : 0;
  }
  NX_BUF_AUTO plain = {.account = s->account};
  nx_record_encode(record, &plain);
  if (plain.failed) return no_memory(err);
  return nx_seal(&s->sealer, id->bytes, sizeof id->bytes, (const uint8_t *)plain.data, plain.len, out, err);
}

/* The state lies beside what is sealed; whoever can write there must not make one pass for the other. */
static int check_state(const struct nx_taken *taken, struct nx_error *err) {
  bool is_dropped = !taken->bytes.len, has_result = taken->record.sections[NX_RECORD_RESULT].size != 0;
  switch (taken->state) {
  case NX_STORED_CANCELLED: return 0;
  case NX_STORED_FINISHED:
    if (has_result || is_dropped) return 0;
    break;
  case NX_STORED_WAITING:
    if (!has_result && !is_dropped) return 0;
  }
  return nx_error_set(err, NX_ERR_INVALID, "the state of the suspended execution has been changed in the store");
}

/* And back. An item whose bytes were dropped to make room decodes to nothing. */
static int unwrap(struct nx_suspensions *s, const struct nx_tenant *asks, const struct nx_suspension_id *id,
                  struct nx_stored *stored, struct nx_taken *out, struct nx_error *err) {
  int status = 0;
  out->state = stored->state;
  if (s->seals && stored->bytes.len) {
    out->bytes.account = s->account;
    status = nx_unseal(&s->sealer, id->bytes, sizeof id->bytes, (const uint8_t *)stored->bytes.data, stored->bytes.len,
                       &out->bytes, err);
    nx_buf_deinit(&stored->bytes);
  } else {
    out->bytes = stored->bytes;
  }
  if (!status && out->bytes.len) status = nx_record_decode(&out->record, out->bytes.data, out->bytes.len, err);
  status = check_tenant(asks, out, status, err);
  return status ? status : check_state(out, err);
}

/* Without a lease, in any state. */
static int read_item(struct nx_suspensions *s, const struct nx_tenant *asks, const struct nx_suspension_id *id,
                     struct nx_taken *out, struct nx_error *err) {
  struct nx_stored stored = {.bytes.account = s->account};
  int status = s->store->ops->read(s->store, id, &stored, err);
  if (!status) return unwrap(s, asks, id, &stored, out, err);
  nx_buf_deinit(&stored.bytes);
  return check_tenant(asks, out, status, err);
}

/* Before anything is done to it, or said of it: a lease, or that there is one, is a word as well. */
static int look_first(struct nx_suspensions *s, const struct nx_tenant *asks, const struct nx_suspension_id *id,
                      struct nx_error *err) {
  struct nx_taken seen = {0};
  int status = nx_tenant_is_nobody(asks) ? 0 : read_item(s, asks, id, &seen, err);
  nx_taken_deinit(&seen);
  return status;
}

static struct nx_store_item item_of(const struct nx_suspensions *s, const struct nx_record *record,
                                    enum nx_stored_state state, uint64_t wake_ms, const struct nx_buf *wrapped) {
  struct nx_store_item item = {
    .state = state,
    .expires_ms = record->fixed.expires_ms,
    .wake_ms = wake_ms,
    .bytes = (const uint8_t *)wrapped->data,
    .size = wrapped->len,
  };
  nx_kept_source_name(&s->handlers, record->fixed.source_hash, item.source_name);
  return item;
}

static int keep_source(struct nx_suspensions *s, const struct nx_record *record, struct nx_bytes source,
                       struct nx_refusal *refused, struct nx_error *err) {
  return nx_kept_keep_source(&s->handlers, record->fixed.source_hash, source.data, source.size, record->fixed.expires_ms,
                             refused, err);
}

int nx_suspensions_keep(struct nx_suspensions *s, struct nx_record *record, struct nx_bytes source, uint64_t wake_ms,
                        struct nx_buf *name, struct nx_refusal *refused, struct nx_error *err) {
  memcpy(record->fixed.guest_id, s->guest_id, NX_HASH_BYTES);
  if (!s->store) return write_sealed(s, record, source, name, err);
  const struct nx_suspension_id id = make_id(s);
  NX_BUF_AUTO wrapped = {.account = s->account};
  int status = keep_source(s, record, source, refused, err);
  if (!status) status = wrap(s, &id, record, &wrapped, err);
  if (status) return status;
  const struct nx_store_item item = item_of(s, record, NX_STORED_WAITING, wake_ms, &wrapped);
  status = s->store->ops->create(s->store, &id, &item, refused, err);
  return status ? status : add_name(&id, name, err);
}

int nx_suspensions_take(struct nx_suspensions *s, const struct nx_tenant *asks, const char *name, size_t name_bytes,
                        uint64_t lease_ms, struct nx_taken *out, struct nx_error *err) {
  out->bytes.account = s->account;
  if (!s->store) return take_sealed(s, asks, name, name_bytes, out, err);
  struct nx_suspension_id id;
  struct nx_stored stored = {.bytes.account = s->account};
  int status = parse_name(name, name_bytes, &id, err);
  if (!status) status = look_first(s, asks, &id, err);
  if (!status) status = s->store->ops->lease(s->store, &id, lease_ms, &stored, &out->lease, err);
  if (status) {
    nx_buf_deinit(&stored.bytes);
    return status;
  }
  out->is_leased = true;
  status = unwrap(s, asks, &id, &stored, out, err);
  if (!status) status = check(s, &out->record, err);
  if (status) nx_suspensions_release(s, out);
  return status;
}

int nx_suspensions_extend(struct nx_suspensions *s, struct nx_taken *taken, uint64_t lease_ms, struct nx_error *err) {
  return taken->is_leased ? s->store->ops->extend(s->store, &taken->lease, lease_ms, err) : 0;
}

int nx_suspensions_put_back(struct nx_suspensions *s, struct nx_taken *taken, struct nx_record *record,
                            enum nx_stored_state state, struct nx_bytes source, uint64_t wake_ms, struct nx_buf *name,
                            struct nx_refusal *refused, struct nx_error *err) {
  memcpy(record->fixed.guest_id, s->guest_id, NX_HASH_BYTES);
  if (!s->store) return state == NX_STORED_WAITING ? write_sealed(s, record, source, name, err) : 0;
  NX_BUF_AUTO wrapped = {.account = s->account};
  /* Else it is there since the first suspension; but under the previous key that was in another place. */
  int status = state == NX_STORED_WAITING && s->sealer.has_previous ? keep_source(s, record, source, refused, err) : 0;
  if (!status) status = wrap(s, &taken->lease.id, record, &wrapped, err);
  if (status) return status;
  const struct nx_store_item item = item_of(s, record, state, wake_ms, &wrapped);
  status = s->store->ops->commit(s->store, &taken->lease, &item, refused, err);
  if (status == -NX_ERR_OVERLOADED || status == -NX_ERR_UNAVAILABLE) return status; /* the caller releases */
  taken->is_leased = false;
  return status || state != NX_STORED_WAITING ? status : add_name(&taken->lease.id, name, err);
}

void nx_suspensions_release(struct nx_suspensions *s, struct nx_taken *taken) {
  if (!taken->is_leased) return;
  s->store->ops->release(s->store, &taken->lease);
  taken->is_leased = false;
}

int nx_suspensions_read(struct nx_suspensions *s, const struct nx_tenant *asks, const char *name, size_t name_bytes,
                        struct nx_taken *out, struct nx_error *err) {
  if (!s->store) return refuse_sealed(err);
  struct nx_suspension_id id;
  int status = parse_name(name, name_bytes, &id, err);
  return status ? status : read_item(s, asks, &id, out, err);
}

int nx_suspensions_cancel(struct nx_suspensions *s, const struct nx_tenant *asks, const char *name, size_t name_bytes,
                          struct nx_error *err) {
  if (!s->store) return refuse_sealed(err);
  struct nx_suspension_id id;
  int status = parse_name(name, name_bytes, &id, err);
  if (!status) status = look_first(s, asks, &id, err);
  return status ? status : s->store->ops->cancel(s->store, &id, err);
}

int nx_suspensions_load_source(struct nx_suspensions *s, const struct nx_taken *taken, struct nx_buf *out,
                               struct nx_error *err) {
  struct nx_bytes packed = taken->record.sections[NX_RECORD_SOURCE];
  if (packed.size) return nx_sealed_unpack_source(packed, out, err);
  if (!s->store) return nx_error_set(err, NX_ERR_NOT_FOUND, "the continuation carries no source");
  return nx_kept_load_source(&s->handlers, taken->record.fixed.source_hash, out, err);
}

size_t nx_suspensions_due(struct nx_suspensions *s, uint64_t now_ms, struct nx_suspension_id *ids, size_t max) {
  size_t found = s->store ? s->store->ops->due(s->store, now_ms, ids, max) : 0, ours = 0;
  for (size_t i = 0; i < found; i++)
    if (nx_store_owns(s->store, &ids[i])) ids[ours++] = ids[i];
  return ours;
}

void nx_suspensions_sweep(struct nx_suspensions *s, uint64_t now_ms) {
  if (s->store) s->store->ops->sweep(s->store, now_ms);
}
