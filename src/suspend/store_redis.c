/* SPDX-License-Identifier: Apache-2.0
 *
 * Items and sources in Redis 6 or later. Whatever must be one step is an operation of store_redis.lua; here are its
 * arguments, and its answers are checked: whoever can write to the Redis may have planted anything.
 *
 * The server must not evict keys (maxmemory-policy noeviction), and should write its data to disk; without that a
 * restart of it loses what is suspended. Leases and expiry go by its clock. */
#include "suspend/store_redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "sandbox/random.h"

/* A source for a handler is kept just before the handler refers to it. */
#define SOURCE_OF_HANDLER_MS (UINT64_C(3600) * 1000)

static const char *const state_words[] = {
  [NX_STORED_WAITING] = "waiting", [NX_STORED_FINISHED] = "finished", [NX_STORED_CANCELLED] = "cancelled"};
#define STATES (sizeof state_words / sizeof *state_words)

/* ---- Questions and answers --------------------------------------------------------------------------------------- */

struct nx__redis_token nx__redis_token_of(uint64_t number) {
  struct nx__redis_token token;
  snprintf(token.text, sizeof token.text, "%016llx", (unsigned long long)number);
  return token;
}

uint64_t nx__redis_random_number(void) {
  uint64_t number;
  nx_random_bytes(&number, sizeof number);
  return number;
}

bool nx__redis_parse_number(const redisReply *text, uint64_t *number) {
  if (!text->len || text->len > 19 || strspn(text->str, "0123456789") != text->len) return false;
  *number = strtoull(text->str, NULL, 10);
  return true;
}

int nx__redis_damaged(const struct nx__redis_store *store, const char *what, struct nx_error *err) {
  return nx_error_set(err, NX_ERR_INVALID, "the Redis at %s keeps %s that is damaged or not ours",
                      nx__redis_link_name(store->link), what);
}

static bool is_strings(const redisReply *reply) {
  if (reply->type != REDIS_REPLY_ARRAY || !reply->elements) return false;
  for (size_t i = 0; i < reply->elements; i++)
    if (reply->element[i]->type != REDIS_REPLY_STRING) return false;
  return true;
}

/* What the first word of an answer means. */
static int judge(const struct nx__redis_store *store, const redisReply *reply, size_t count, struct nx_error *err) {
  static const struct { const char *word; enum nx_error_code code; const char *text; } words[] = {
    {"none", NX_ERR_NOT_FOUND, "there is no such suspended execution"},
    {"gone", NX_ERR_GONE, "the suspended execution is finished, cancelled or no longer leased"},
    {"busy", NX_ERR_BUSY, "the suspended execution is being resumed"},
    {"exists", NX_ERR_CONFLICT, "there is a suspended execution with this id"},
    {"changed", NX_ERR_CONFLICT, "the handler has been changed meanwhile"},
  };
  if (!is_strings(reply)) return nx__redis_damaged(store, "something", err);
  const char *word = reply->element[0]->str;
  if (!strcmp(word, "ok") && reply->elements >= count) return 0;
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (!strcmp(word, words[i].word)) return nx_error_set(err, words[i].code, "%s", words[i].text);
  return nx__redis_damaged(store, "something", err);
}

int nx__redis_ask(struct nx__redis_store *store, struct nx__redis_command *command, size_t count, redisReply **out,
                  struct nx_error *err) {
  redisReply *reply;
  int status = nx__redis_run(store->link, command, &reply, err);
  if (status) return status;
  status = judge(store, reply, count, err);
  if (status == 0 || status == -NX_ERR_GONE)
    *out = reply;
  else
    freeReplyObject(reply);
  return status;
}

int nx__redis_tell(struct nx__redis_store *store, struct nx__redis_command *command, struct nx_error *err) {
  redisReply *reply = NULL;
  int status = nx__redis_ask(store, command, 1, &reply, err);
  freeReplyObject(reply);
  return status;
}

/* How a server that is full refuses. Nobody knows how full. */
static int say_refused(int status, size_t bytes, struct nx_refusal *refused) {
  if (status == -NX_ERR_OVERLOADED) *refused = (struct nx_refusal){.layer = "store", .requested_bytes = bytes};
  return status;
}

static int check_size(size_t bytes, struct nx_error *err) {
  if (bytes <= NX__REDIS_VALUE_MAX_BYTES) return 0;
  return nx_error_set(err, NX_ERR_TOO_LARGE, "%zu MiB are to be stored, and Redis takes %u MiB at most", bytes >> 20,
                      NX__REDIS_VALUE_MAX_BYTES >> 20);
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

struct id_text {
  char hex[2 * NX_SUSPENSION_ID_BYTES + 1];
};

static struct id_text text_of(const struct nx_suspension_id *id) {
  struct id_text text;
  sodium_bin2hex(text.hex, sizeof text.hex, id->bytes, sizeof id->bytes);
  return text;
}

static bool parse_id(const redisReply *text, struct nx_suspension_id *id) {
  size_t bytes;
  if (text->len != 2 * sizeof id->bytes) return false;
  int status = sodium_hex2bin(id->bytes, sizeof id->bytes, text->str, text->len, NULL, &bytes, NULL);
  return !status && bytes == sizeof id->bytes;
}

/* [word, state, expires, wake, bytes] */
enum { ITEM_STATE = 1, ITEM_EXPIRES, ITEM_WAKE, ITEM_BYTES, ITEM_ELEMENTS };

static bool parse_item(const redisReply *reply, struct nx_stored *out) {
  if (reply->elements != ITEM_ELEMENTS) return false;
  size_t state = 0;
  while (state < STATES && strcmp(reply->element[ITEM_STATE]->str, state_words[state])) state++;
  out->state = (enum nx_stored_state)state;
  return state < STATES && nx__redis_parse_number(reply->element[ITEM_EXPIRES], &out->expires_ms) &&
         nx__redis_parse_number(reply->element[ITEM_WAKE], &out->wake_ms);
}

static int take_item(const struct nx__redis_store *store, const redisReply *reply, struct nx_stored *out,
                     struct nx_error *err) {
  if (!parse_item(reply, out)) return nx__redis_damaged(store, "a suspended execution", err);
  nx_buf_add(&out->bytes, reply->element[ITEM_BYTES]->str, reply->element[ITEM_BYTES]->len);
  if (out->bytes.failed)
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a suspended execution of %zu bytes",
                        reply->element[ITEM_BYTES]->len);
  return 0;
}

/* `operation` is "create" or "commit". */
static int put_item(struct nx_store *base, const char *operation, const struct nx_suspension_id *id, uint64_t token,
                    const struct nx_store_item *item, struct nx_refusal *refused, struct nx_error *err) {
  struct nx__redis_command command;
  const struct id_text id_text = text_of(id);
  const struct nx__redis_token token_text = nx__redis_token_of(token);
  char hash[NX__REDIS_HASH_CHARS + 1];
  int status = check_size(item->size, err);
  if (status) return status;
  nx__redis_begin(&command, operation);
  nx__redis_add_text(&command, id_text.hex);
  nx__redis_add_text(&command, token_text.text);
  nx__redis_add_text(&command, state_words[item->state]);
  nx__redis_add_number(&command, item->expires_ms);
  nx__redis_add_number(&command, item->wake_ms);
  nx__redis_add_text(&command, sodium_bin2hex(hash, sizeof hash, item->source_name, NX_HASH_BYTES));
  nx__redis_add(&command, item->bytes, item->size);
  return say_refused(nx__redis_tell(nx__redis_store_of(base), &command, err), item->size, refused);
}

static int create(struct nx_store *base, const struct nx_suspension_id *id, const struct nx_store_item *item,
                  struct nx_refusal *refused, struct nx_error *err) {
  return put_item(base, "create", id, nx__redis_random_number(), item, refused, err);
}

static int commit(struct nx_store *base, struct nx_store_lease *lease, const struct nx_store_item *item,
                  struct nx_refusal *refused, struct nx_error *err) {
  return put_item(base, "commit", &lease->id, lease->token, item, refused, err);
}

/* "lease", "extend", "release", "cancel": OPERATION ID TOKEN, and the first two for how long. */
struct operation_on_item {
  struct nx__redis_command command;
  struct id_text id;
  struct nx__redis_token token;
};

static void begin_on_item(struct operation_on_item *on, const char *operation, const struct nx_suspension_id *id,
                          uint64_t token) {
  on->id = text_of(id);
  on->token = nx__redis_token_of(token);
  nx__redis_begin(&on->command, operation);
  nx__redis_add_text(&on->command, on->id.hex);
  nx__redis_add_text(&on->command, on->token.text);
}

/* When it fails, the lease ends when its time has passed. */
static void release(struct nx_store *base, struct nx_store_lease *lease) {
  struct operation_on_item on;
  begin_on_item(&on, "release", &lease->id, lease->token);
  nx__redis_tell(nx__redis_store_of(base), &on.command, NULL);
}

static int lease(struct nx_store *base, const struct nx_suspension_id *id, uint64_t lease_ms, struct nx_stored *out,
                 struct nx_store_lease *lease_out, struct nx_error *err) {
  struct nx__redis_store *store = nx__redis_store_of(base);
  struct nx_store_lease taken = {.id = *id, .token = nx__redis_random_number()};
  struct operation_on_item on;
  redisReply *reply = NULL;
  begin_on_item(&on, "lease", id, taken.token);
  nx__redis_add_number(&on.command, lease_ms);
  int status = nx__redis_ask(store, &on.command, ITEM_ELEMENTS, &reply, err);
  if (!reply) return status;
  int item_status = take_item(store, reply, out, err);
  freeReplyObject(reply);
  if (item_status && !status) release(base, &taken);
  if (item_status) return item_status;
  *lease_out = taken;
  return status;
}

static int extend(struct nx_store *base, struct nx_store_lease *lease, uint64_t lease_ms, struct nx_error *err) {
  struct operation_on_item on;
  begin_on_item(&on, "extend", &lease->id, lease->token);
  nx__redis_add_number(&on.command, lease_ms);
  return nx__redis_tell(nx__redis_store_of(base), &on.command, err);
}

static int cancel(struct nx_store *base, const struct nx_suspension_id *id, struct nx_error *err) {
  struct operation_on_item on;
  begin_on_item(&on, "cancel", id, nx__redis_random_number());
  return nx__redis_tell(nx__redis_store_of(base), &on.command, err);
}

static int read_item(struct nx_store *base, const struct nx_suspension_id *id, struct nx_stored *out,
                     struct nx_error *err) {
  struct nx__redis_store *store = nx__redis_store_of(base);
  struct nx__redis_command command;
  const struct id_text id_text = text_of(id);
  redisReply *reply = NULL;
  nx__redis_begin(&command, "read");
  nx__redis_add_text(&command, id_text.hex);
  int status = nx__redis_ask(store, &command, ITEM_ELEMENTS, &reply, err);
  if (!status) status = take_item(store, reply, out, err);
  freeReplyObject(reply);
  return status;
}

static size_t due(struct nx_store *base, uint64_t now_ms, struct nx_suspension_id *ids, size_t max) {
  struct nx__redis_command command;
  redisReply *reply = NULL;
  size_t found = 0;
  struct nx__redis_store *store = nx__redis_store_of(base);
  uint64_t offset = atomic_load(&store->due_offset), seen = 0;
  nx__redis_begin(&command, "due");
  nx__redis_add_number(&command, now_ms);
  nx__redis_add_number(&command, max);
  nx__redis_add_number(&command, offset);
  if (!nx__redis_ask(store, &command, 2, &reply, NULL)) nx__redis_parse_number(reply->element[1], &seen);
  atomic_store(&store->due_offset, seen == max ? offset + max : 0);
  for (size_t i = 2; reply && i < reply->elements && found < max; i++)
    found += parse_id(reply->element[i], &ids[found]);
  freeReplyObject(reply);
  return found;
}

/* Brings the figures, too, so that whoever reads them waits for nobody. */
static void sweep(struct nx_store *base, uint64_t now_ms) {
  (void)now_ms; /* the server's clock counts */
  struct nx__redis_store *store = nx__redis_store_of(base);
  struct nx__redis_command command;
  redisReply *reply = NULL;
  uint64_t waiting, own;
  char prefix[2 * NX_SUSPENSION_PREFIX_BYTES + 1] = "";
  if (base->own.is_set) sodium_bin2hex(prefix, sizeof prefix, base->own.bytes, sizeof base->own.bytes);
  nx__redis_begin(&command, "sweep");
  nx__redis_add_text(&command, prefix);
  if (!nx__redis_ask(store, &command, 3, &reply, NULL) && nx__redis_parse_number(reply->element[1], &waiting) &&
      nx__redis_parse_number(reply->element[2], &own)) {
    atomic_store(&store->waiting, waiting);
    atomic_store(&store->foreign, waiting > own ? waiting - own : 0);
    atomic_store(&store->is_counted, true);
  }
  freeReplyObject(reply);
}

static void read_stats(struct nx_store *base, struct nx_store_stats *out) {
  struct nx__redis_store *store = nx__redis_store_of(base);
  *out = (struct nx_store_stats){.waiting = atomic_load(&store->waiting),
                                 .foreign = atomic_load(&store->foreign),
                                 .is_counted = atomic_load(&store->is_counted)};
}

/* ---- Sources ----------------------------------------------------------------------------------------------------- */

static int keep_source(struct nx_store *base, const uint8_t hash[NX_HASH_BYTES], const char *source, size_t bytes,
                       uint64_t until_ms, struct nx_refusal *refused, struct nx_error *err) {
  struct nx__redis_store *store = nx__redis_store_of(base);
  struct nx__redis_command command;
  char hex[NX__REDIS_HASH_CHARS + 1];
  int status = check_size(bytes, err);
  if (status) return status;
  if (until_ms == UINT64_MAX) until_ms = nx_clock_realtime_ms() + SOURCE_OF_HANDLER_MS;
  nx__redis_begin(&command, "keep_source");
  nx__redis_add_text(&command, sodium_bin2hex(hex, sizeof hex, hash, NX_HASH_BYTES));
  nx__redis_add_number(&command, until_ms);
  if (source) nx__redis_add(&command, source, bytes);
  return say_refused(nx__redis_tell(store, &command, err), bytes, refused);
}

static int load_source(struct nx_store *base, const uint8_t hash[NX_HASH_BYTES], struct nx_buf *out,
                       struct nx_error *err) {
  struct nx__redis_command command;
  char hex[NX__REDIS_HASH_CHARS + 1];
  redisReply *reply;
  nx__redis_begin(&command, "load_source");
  nx__redis_add_text(&command, sodium_bin2hex(hex, sizeof hex, hash, NX_HASH_BYTES));
  int status = nx__redis_ask(nx__redis_store_of(base), &command, 2, &reply, err);
  if (status == -NX_ERR_NOT_FOUND)
    return nx_error_set(err, NX_ERR_NOT_FOUND, "the source %.16s… is not kept", hex);
  if (status) return status;
  nx_buf_add(out, reply->element[1]->str, reply->element[1]->len);
  freeReplyObject(reply);
  return out->failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the source of a handler") : 0;
}

/* ---- The store --------------------------------------------------------------------------------------------------- */

static void close_store(struct nx_store *base) {
  struct nx__redis_store *store = nx__redis_store_of(base);
  nx__redis_watch_stop(store->watch);
  nx__redis_link_destroy(store->link);
  free(store);
}

static const struct nx_store_ops operations = {
  .name = "redis",
  .blocks = true,
  .shares_handlers = true,
  .create = create,
  .lease = lease,
  .extend = extend,
  .commit = commit,
  .release = release,
  .read = read_item,
  .cancel = cancel,
  .due = due,
  .sweep = sweep,
  .keep_source = keep_source,
  .load_source = load_source,
  .put_handler = nx__redis_put_handler,
  .get_handler = nx__redis_get_handler,
  .remove_handler = nx__redis_remove_handler,
  .list_handlers = nx__redis_list_handlers,
  .handlers_version = nx__redis_handlers_version,
  .read_stats = read_stats,
  .close = close_store,
};

int nx_store_open_redis(struct nx_store **out, const struct nx_suspend_store *address, struct nx_error *err) {
  struct nx__redis_store *store = calloc(1, sizeof *store);
  if (!store) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the store of suspended executions");
  store->base.ops = &operations;
  snprintf(store->channel, sizeof store->channel, NX__REDIS_ROOT "changed:%u", address->redis_db);
  int status = nx__redis_link_create(&store->link, address, err);
  if (status) goto no_link;
  status = nx__redis_watch_start(&store->watch, store->link, store->channel, err);
  if (status) goto no_watch;
  *out = &store->base;
  return 0;

no_watch:
  nx__redis_link_destroy(store->link);
no_link:
  free(store);
  return status;
}
