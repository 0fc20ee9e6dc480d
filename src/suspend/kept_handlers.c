/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/kept_handlers.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/log.h"
#include "handler/handler.h"

/* ---- What is sealed, and as what -------------------------------------------------------------------------------------- */

/* A suspension's context is its id alone: these are longer than any, so that nothing passes for the other. */
static const char handler_label[] = "nexus: handler of the store ";
static const char source_label[] = "nexus: source of the store  ";
static_assert(sizeof handler_label > NX_SUSPENSION_ID_BYTES + 1 && sizeof handler_label == sizeof source_label, "contexts");

struct context {
  uint8_t bytes[sizeof handler_label + NX_HANDLER_NAME_MAX];
  size_t size;
};
static_assert(NX_HANDLER_NAME_MAX >= NX_HASH_BYTES, "both fit");

static struct context context_of(const char label[sizeof handler_label], const void *what, size_t bytes) {
  struct context context = {.size = sizeof handler_label + bytes};
  memcpy(context.bytes, label, sizeof handler_label);
  memcpy(context.bytes + sizeof handler_label, what, bytes);
  return context;
}

static struct context context_of_handler(const char *name) {
  return context_of(handler_label, name, strnlen(name, NX_HANDLER_NAME_MAX));
}

static int seal(const struct nx_kept_handlers *kept, const struct context *context, const void *plain, size_t bytes,
                struct nx_buf *out, struct nx_error *err) {
  return nx_seal(kept->sealer, context->bytes, context->size, plain, bytes, out, err);
}

static int unseal(const struct nx_kept_handlers *kept, const struct context *context, const struct nx_buf *sealed,
                  struct nx_buf *out, struct nx_error *err) {
  return nx_unseal(kept->sealer, context->bytes, context->size, (const uint8_t *)sealed->data, sealed->len, out, err);
}

/* ---- What is refused ---------------------------------------------------------------------------------------------------- */

/* Whether it is the first time that these bytes are refused there. Now and then one is taken for another, and not
 * logged. */
static bool is_news(struct nx_kept_handlers *kept, const struct context *context, const struct nx_buf *sealed) {
  crypto_generichash_state state;
  uint64_t hash[crypto_generichash_BYTES_MIN / sizeof(uint64_t)];
  crypto_generichash_init(&state, NULL, 0, sizeof hash);
  crypto_generichash_update(&state, context->bytes, context->size);
  crypto_generichash_update(&state, (const uint8_t *)sealed->data, sealed->len);
  crypto_generichash_final(&state, (uint8_t *)hash, sizeof hash);
  uint64_t bit = UINT64_C(1) << hash[0] % 64;
  return !(atomic_fetch_or(&kept->_told[hash[1] % NX_KEPT_TOLD_WORDS], bit) & bit);
}

static int refuse_source(struct nx_kept_handlers *kept, const struct context *context, const uint8_t *hash,
                         const struct nx_buf *sealed, const struct nx_error *why, struct nx_error *err) {
  char hex[2 * NX_HASH_BYTES + 1], reason[sizeof why->text];
  nx_hash_to_hex(hex, hash);
  snprintf(reason, sizeof reason, "%s", why->text);
  if (is_news(kept, context, sealed))
    nx_log(NX_LOG_WARN, "a source of the store is not used: PUT the handler that has it again", "source", hex, "reason",
           reason, NULL);
  return nx_error_set(err, NX_ERR_INVALID, "the source %.16s… in the store: %s", hex, reason);
}

static void log_refused_handler(struct nx_kept_handlers *kept, const char *name, const struct nx_buf *sealed,
                                const struct nx_error *why) {
  const struct context context = context_of_handler(name);
  if (is_news(kept, &context, sealed))
    nx_log(NX_LOG_WARN, "a handler of the store is not used, as if it were not there: PUT it and its grants again, or start "
           "with the key that sealed it as SUSPEND_KEY_PREVIOUS", "handler", name, "reason", why->text, NULL);
}

/* ---- Sources ------------------------------------------------------------------------------------------------------------ */

void nx_kept_source_name(const struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES],
                         uint8_t name[NX_HASH_BYTES]) {
  memcpy(name, hash, NX_HASH_BYTES);
  if (kept->sealer) nx_sealer_hash(kept->sealer->key, hash, NX_HASH_BYTES, name);
}

static int give_source(struct nx_kept_handlers *kept, const uint8_t *hash, const char *source, size_t bytes,
                       uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err) {
  const struct context context = context_of(source_label, hash, NX_HASH_BYTES);
  uint8_t name[NX_HASH_BYTES];
  NX_BUF_AUTO sealed = {.account = kept->account};
  nx_kept_source_name(kept, hash, name);
  int status = kept->sealer ? seal(kept, &context, source, bytes, &sealed, err) : 0;
  if (status) return status;
  return kept->store->ops->keep_source(kept->store, name, kept->sealer ? sealed.data : source,
                                       kept->sealer ? sealed.len : bytes, until_ms, refused, err);
}

int nx_kept_keep_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                        uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err) {
  uint8_t name[NX_HASH_BYTES];
  struct nx_error absent;
  nx_kept_source_name(kept, hash, name);
  int status = kept->store->ops->keep_source(kept->store, name, NULL, 0, until_ms, refused, &absent);
  if (status == -NX_ERR_NOT_FOUND || status == -NX_ERR_INVALID)
    return give_source(kept, hash, source, bytes, until_ms, refused, err);
  if (status && err) *err = absent;
  return status;
}

int nx_kept_put_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                       struct nx_refusal *refused, struct nx_error *err) {
  return give_source(kept, hash, source, bytes, UINT64_MAX, refused, err);
}

/* Under the current key, then under the previous one. */
static int find_source(const struct nx_kept_handlers *kept, const uint8_t *hash, struct nx_buf *sealed,
                       struct nx_error *err) {
  const struct nx_sealer *sealer = kept->sealer;
  uint8_t name[NX_HASH_BYTES];
  nx_kept_source_name(kept, hash, name);
  int status = kept->store->ops->load_source(kept->store, name, sealed, err);
  if (status != -NX_ERR_NOT_FOUND || !sealer->has_previous) return status;
  nx_sealer_hash(sealer->previous, hash, NX_HASH_BYTES, name);
  return kept->store->ops->load_source(kept->store, name, sealed, err);
}

int nx_kept_load_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out,
                        struct nx_error *err) {
  if (!kept->sealer) return kept->store->ops->load_source(kept->store, hash, out, err);
  const struct context context = context_of(source_label, hash, NX_HASH_BYTES);
  NX_BUF_AUTO sealed = {.account = kept->account};
  struct nx_error why;
  int status = find_source(kept, hash, &sealed, &why);
  if (!status) status = unseal(kept, &context, &sealed, out, &why);
  if (status == -NX_ERR_INVALID) return refuse_source(kept, &context, hash, &sealed, &why, err);
  if (status && err) *err = why;
  return status;
}

int nx_kept_load_source_of(struct nx_kept_handlers *kept, const char *name, const uint8_t hash[NX_HASH_BYTES],
                           struct nx_buf *out, struct nx_error *err) {
  int status = nx_kept_load_source(kept, hash, out, err);
  if (status == -NX_ERR_NOT_FOUND)
    return nx_error_set(err, NX_ERR_UNAVAILABLE, "the store has the source of this handler no more; try again");
  if (status == -NX_ERR_INVALID)
    return nx_error_set(err, NX_ERR_NOT_FOUND, "the source of the handler \"%.64s\" in the store is damaged, or not "
                        "sealed with our keys: PUT it again", name);
  return status;
}

/* ---- Handlers ------------------------------------------------------------------------------------------------------------- */

static int wrap(const struct nx_kept_handlers *kept, const char *name, const struct nx_kept_handler *handler,
                struct nx_stored_handler *out, struct nx_error *err) {
  const struct context context = context_of_handler(name);
  NX_BUF_AUTO plain = {.account = kept->account};
  nx_kept_source_name(kept, handler->source_hash, out->source_name);
  nx_buf_add(&plain, handler->source_hash, NX_HASH_BYTES);
  nx_buf_add(&plain, handler->grants.data, handler->grants.len);
  if (plain.failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the handler \"%.64s\"", name);
  return seal(kept, &context, plain.data, plain.len, &out->bytes, err);
}

static int unwrap(const struct nx_kept_handlers *kept, const char *name, const struct nx_stored_handler *stored,
                  struct nx_kept_handler *out, struct nx_error *err) {
  const struct context context = context_of_handler(name);
  NX_BUF_AUTO plain = {.account = kept->account};
  int status = unseal(kept, &context, &stored->bytes, &plain, err);
  if (status) return status;
  if (plain.len < NX_HASH_BYTES) return nx_error_set(err, NX_ERR_INVALID, "it is cut short");
  memcpy(out->source_hash, plain.data, NX_HASH_BYTES);
  nx_buf_add(&out->grants, plain.data + NX_HASH_BYTES, plain.len - NX_HASH_BYTES);
  return out->grants.failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the grants of \"%.64s\"", name) : 0;
}

/* NX_ERR_INVALID sets the version, too, when it is not the store itself that refuses. */
static int get(struct nx_kept_handlers *kept, const char *name, struct nx_kept_handler *out, bool *is_of_previous_key,
               struct nx_error *err) {
  struct nx_stored_handler stored = {.bytes.account = kept->account};
  struct nx_error why;
  int status = kept->store->ops->get_handler(kept->store, name, &stored, &why);
  out->version = status ? NX_HANDLER_NONE : stored.version;
  if (!status) status = unwrap(kept, name, &stored, out, &why);
  *is_of_previous_key = !status && nx_is_sealed_with_previous(kept->sealer, (const uint8_t *)stored.bytes.data);
  if (status == -NX_ERR_INVALID) log_refused_handler(kept, name, &stored.bytes, &why);
  if (status && err) *err = why;
  nx_buf_deinit(&stored.bytes);
  return status;
}

int nx_kept_get(struct nx_kept_handlers *kept, const char *name, struct nx_kept_handler *out, struct nx_error *err) {
  bool is_of_previous_key;
  return get(kept, name, out, &is_of_previous_key, err);
}

/* The version of one that would be refused, which a put may replace as if there were none. */
static bool is_refused(struct nx_kept_handlers *kept, const char *name, uint64_t *version) {
  struct nx_kept_handler found = {.grants.account = kept->account};
  int status = nx_kept_get(kept, name, &found, NULL);
  *version = found.version;
  nx_buf_deinit(&found.grants);
  return status == -NX_ERR_INVALID;
}

/* A handler that keeps its source while the key changes. */
static int move_source(struct nx_kept_handlers *kept, const uint8_t hash[NX_HASH_BYTES], struct nx_error *err) {
  struct nx_refusal refused = {0};
  uint8_t name[NX_HASH_BYTES];
  NX_BUF_AUTO source = {.account = kept->account};
  nx_kept_source_name(kept, hash, name);
  if (!kept->store->ops->keep_source(kept->store, name, NULL, 0, UINT64_MAX, &refused, NULL)) return 0;
  int status = nx_kept_load_source(kept, hash, &source, err);
  return status ? status : nx_kept_put_source(kept, hash, source.data ? source.data : "", source.len, &refused, err);
}

int nx_kept_put(struct nx_kept_handlers *kept, const char *name, const struct nx_kept_handler *handler, uint64_t expected,
                struct nx_error *err) {
  const struct nx_store_ops *ops = kept->store->ops;
  struct nx_stored_handler stored = {.bytes.account = kept->account};
  int status = kept->sealer->has_previous ? move_source(kept, handler->source_hash, err) : 0;
  if (!status) status = wrap(kept, name, handler, &stored, err);
  if (!status) status = ops->put_handler(kept->store, name, &stored, expected, err);
  if (status == -NX_ERR_CONFLICT && expected == NX_HANDLER_NONE && is_refused(kept, name, &expected))
    status = ops->put_handler(kept->store, name, &stored, expected, err);
  nx_buf_deinit(&stored.bytes);
  return status;
}

int nx_kept_remove(struct nx_kept_handlers *kept, const char *name, uint64_t expected, struct nx_error *err) {
  return kept->store->ops->remove_handler(kept->store, name, expected, err);
}

int nx_kept_list(struct nx_kept_handlers *kept, nx_visit_handler_fn *visit, void *self, struct nx_error *err) {
  return kept->store->ops->list_handlers(kept->store, visit, self, err);
}

uint64_t nx_kept_version(struct nx_kept_handlers *kept) { return kept->store->ops->handlers_version(kept->store); }

/* ---- A change of keys ------------------------------------------------------------------------------------------------------ */

bool nx_kept_may_need_reseal(const struct nx_kept_handlers *kept) { return kept->sealer && kept->sealer->has_previous; }

int nx_kept_reseal(struct nx_kept_handlers *kept, const char *name, struct nx_error *err) {
  struct nx_kept_handler handler = {.grants.account = kept->account};
  bool is_of_previous_key;
  int status = get(kept, name, &handler, &is_of_previous_key, err);
  bool is_there = !status;
  if (is_there && is_of_previous_key) status = nx_kept_put(kept, name, &handler, handler.version, err);
  nx_buf_deinit(&handler.grants);
  bool nothing_to_do = !is_there && (status == -NX_ERR_NOT_FOUND || status == -NX_ERR_INVALID);
  return nothing_to_do || status == -NX_ERR_CONFLICT ? 0 : status;
}
