/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/host_calls.h"

#include <string.h>

#include <yyjson.h>

#include "base/clock.h"
#include "base/json_text.h"
#include "base/log.h"
#include "exec/execution.h"

/* $log lines also go to the process log, as far as its rate allows. */
#define LOG_LINE_BYTES 1024u
#define ERROR_TEXT_BYTES (128u * 1024u)
#define ERROR_MESSAGE_BYTES 8192u
#define ERROR_STACK_BYTES 16384u

/* A request of `net` ends long before this; one that has not was lost with the process that made it. */
#define NET_LOST_AFTER_MS 120000u

/* The shim reports once or twice: a value that has no JSON form is reported as an error after all. */
#define REPORTS_MAX 8u

struct text {
  const char *data;
  uint32_t bytes;
};

/* ---- Limits: passing one leaves the guest and does not come back ------------------------------------------------- */

static _Noreturn void stop(struct nx_execution *x, const char *what, uint32_t limit) {
  nx_execution_fail(x, NX_OUTCOME_RESOURCE_LIMIT, "%s: the limit is %u", what, limit);
  nx_guest_stop();
}

static uint64_t output_bytes(const struct nx_execution *x) {
  return x->value.len + x->mutations.len + x->events.len + x->view.len + x->logs.len + x->calls.block.len;
}

static _Noreturn void stop_for_output(struct nx_execution *x) {
  stop(x, "too many bytes of result, effects and logs", x->limits.output_bytes);
}

/* Before anything reads the texts: what cannot fit must not cost the host time either. */
static void check_size(struct nx_execution *x, uint64_t bytes) {
  if (output_bytes(x) + bytes > x->limits.output_bytes) stop_for_output(x);
}

/* A list may grow by what is left of the output; escaping makes texts longer, so this is checked as they are written. */
static void open_list(struct nx_execution *x, struct nx_buf *list) {
  x->_mark = list->len;
  list->limit = list->len + (x->limits.output_bytes - output_bytes(x));
}

static void close_list(struct nx_execution *x, struct nx_buf *list) {
  if (!list->failed) return;
  bool starved = list->starved_bytes;
  list->len = x->_mark; /* what does not fit leaves no half item: logs are shown after all */
  list->failed = false;
  list->starved_bytes = 0;
  if (!starved) stop_for_output(x);
  nx_execution_fail_for_budget(x);
  nx_guest_stop();
}

/* ---- Effects: {"operation":"set","key":…,"value":…} and the like --------------------------------------------------- */

static void open_item(struct nx_execution *x, struct nx_buf *list) {
  open_list(x, list);
  nx_buf_str(list, list->len ? ",{" : "{");
}

static void close_item(struct nx_execution *x, struct nx_buf *list) {
  nx_buf_char(list, '}');
  close_list(x, list);
}

static void add_string_member(struct nx_buf *list, const char *name, struct text value) {
  nx_buf_printf(list, "\"%s\":", name);
  nx_buf_json_string(list, value.data, value.bytes);
}

/* `json` is the guest's text: it goes into our own JSON only when it is one whole value. */
static bool is_json(struct text json) { return nx_json_is_valid(json.data, json.bytes, NULL); }

static bool is_utf8(struct text key) {
  for (uint32_t i = 0; i < key.bytes;) {
    size_t sequence = nx_utf8_sequence(key.data + i, key.bytes - i);
    if (!sequence) return false;
    i += (uint32_t)sequence;
  }
  return true;
}

static bool allowed(struct nx_execution *x, enum nx_capability_kind kind, struct text name) {
  if (nx_rights_allow(&x->rights, kind, name.data, name.bytes)) return true;
  x->was_denied = true;
  return false;
}

static int32_t change_state(struct nx_execution *x, const char *operation, struct text key, const struct text *value) {
  if (!is_utf8(key) || (value && !is_json(*value))) return NX_REPLY_BAD_CALL;
  if (!allowed(x, NX_CAP_STATE_WRITE, key)) return NX_REPLY_DENIED;
  if (++x->mutation_count > x->limits.state_mutations) stop(x, "too many state mutations", x->limits.state_mutations);
  open_item(x, &x->mutations);
  nx_buf_printf(&x->mutations, "\"operation\":\"%s\",", operation);
  add_string_member(&x->mutations, "key", key);
  if (value) {
    nx_buf_lit(&x->mutations, ",\"value\":");
    nx_buf_add(&x->mutations, value->data, value->bytes);
  }
  close_item(x, &x->mutations);
  return NX_REPLY_OK;
}

static int32_t may_read(struct nx_execution *x, struct text key) {
  return allowed(x, NX_CAP_STATE_READ, key) ? NX_REPLY_OK : NX_REPLY_DENIED;
}

static int32_t emit(struct nx_execution *x, struct text name, struct text payload) {
  if (!is_utf8(name) || (payload.bytes && !is_json(payload))) return NX_REPLY_BAD_CALL;
  if (!allowed(x, NX_CAP_EVENTS_EMIT, name)) return NX_REPLY_DENIED;
  if (++x->event_count > x->limits.events) stop(x, "too many events", x->limits.events);
  open_item(x, &x->events);
  add_string_member(&x->events, "name", name);
  if (payload.bytes) {
    nx_buf_lit(&x->events, ",\"payload\":");
    nx_buf_add(&x->events, payload.data, payload.bytes);
  }
  close_item(x, &x->events);
  return NX_REPLY_OK;
}

/* Splits "first NUL second". */
static bool split(struct text both, struct text *first, struct text *second) {
  const char *nul = memchr(both.data, 0, both.bytes);
  if (!nul) return false;
  *first = (struct text){both.data, (uint32_t)(nul - both.data)};
  *second = (struct text){nul + 1, both.bytes - first->bytes - 1};
  return true;
}

static int32_t command_view(struct nx_execution *x, struct text what, struct text args) {
  struct text type, component;
  if (!split(what, &type, &component) || !is_utf8(what) || !is_json(args)) return NX_REPLY_BAD_CALL;
  if (!allowed(x, NX_CAP_VIEW_UPDATE, component)) return NX_REPLY_DENIED;
  open_item(x, &x->view);
  add_string_member(&x->view, "type", type);
  nx_buf_char(&x->view, ',');
  add_string_member(&x->view, "componentId", component);
  nx_buf_lit(&x->view, ",\"args\":");
  nx_buf_add(&x->view, args.data, args.bytes);
  close_item(x, &x->view);
  return NX_REPLY_OK;
}

static bool text_is(struct text text, const char *word) {
  return text.bytes == strlen(word) && !memcmp(text.data, word, text.bytes);
}

/* A wait that is longer than this is one until the suspension expires. */
#define SLEEP_MAX_MS 1e12

/* [ms] of time.sleep, as setTimeout takes it: what is no number, or negative, is 0. */
static uint64_t sleep_ms(struct text args) {
  yyjson_doc *doc = yyjson_read(args.data, args.bytes, 0);
  double ms = yyjson_get_num(yyjson_arr_get_first(yyjson_doc_get_root(doc)));
  yyjson_doc_free(doc);
  return ms > 0 ? (uint64_t)(ms < SLEEP_MAX_MS ? ms : SLEEP_MAX_MS) : 0;
}

/* Which calls nexus serves itself. Those of `net` need no map of extensions: nobody but nexus could permit them more
 * narrowly than by the hosts of NET_ALLOW. */
static bool is_permitted(struct nx_execution *x, const struct nx_call *call, struct text extension, struct text method) {
  switch (call->kind) {
  case NX_CALL_TIME: return text_is(method, "sleep");
  case NX_CALL_NET: return text_is(method, "fetch");
  case NX_CALL_CALLER:
    return nx_rights_allow_method(&x->rights, extension.data, extension.bytes, method.data, method.bytes);
  }
  return false;
}

static int32_t call_extension(struct nx_execution *x, struct text what, struct text args) {
  struct text extension, method;
  if (!split(what, &extension, &method) || !is_utf8(what) || !is_json(args)) return NX_REPLY_BAD_CALL;
  if (!allowed(x, NX_CAP_EXT, extension)) return NX_REPLY_DENIED;
  struct nx_call call = {
    .id = x->last_call_id + 1,
    .kind = text_is(extension, "time") ? NX_CALL_TIME : text_is(extension, "net") ? NX_CALL_NET : NX_CALL_CALLER,
    .extension = extension.data, .extension_bytes = extension.bytes,
    .method = method.data, .method_bytes = method.bytes,
    .args = args.data, .args_bytes = args.bytes,
  };
  if (!is_permitted(x, &call, extension, method)) return NX_REPLY_UNAVAILABLE;
  if (call.kind == NX_CALL_TIME) call.due_ms = nx_clock_realtime_ms() + sleep_ms(args);
  if (call.kind == NX_CALL_NET) call.due_ms = nx_clock_realtime_ms() + NET_LOST_AFTER_MS;
  if (!nx_calls_add(&x->calls, &call)) {
    nx_execution_fail_for_budget(x);
    nx_guest_stop();
  }
  return (int32_t)++x->last_call_id;
}

/* The guest does not wait for it any more. */
static int32_t cancel_call(struct nx_execution *x, struct text id) {
  uint32_t number = 0;
  for (uint32_t i = 0; i < id.bytes && number < UINT32_MAX / 10 - 1; i++) {
    if (id.data[i] < '0' || id.data[i] > '9') return NX_REPLY_BAD_CALL;
    number = number * 10 + (uint32_t)(id.data[i] - '0');
  }
  return nx_calls_close(&x->calls, number) ? NX_REPLY_OK : NX_REPLY_UNAVAILABLE;
}

/* ---- Logs ------------------------------------------------------------------------------------------------------------ */

static const char *known_level(struct text level) {
  static const char *const levels[] = {"debug", "info", "warn", "error"};
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
    if (strlen(levels[i]) == level.bytes && !memcmp(levels[i], level.data, level.bytes)) return levels[i];
  return "info";
}

static void log_to_process(const struct nx_execution *x, const char *level, struct text message) {
  if (!nx_log_enabled(NX_LOG_INFO) || !nx_log_take()) return;
  char line[LOG_LINE_BYTES + 1];
  size_t bytes = message.bytes < LOG_LINE_BYTES ? message.bytes : LOG_LINE_BYTES;
  memcpy(line, message.data, bytes);
  line[bytes] = 0;
  nx_log(NX_LOG_INFO, "handler log", "executionId", x->id, "handlerLevel", level, "text", line, NULL);
}

static int32_t log_line(struct nx_execution *x, struct text level_text, struct text message) {
  const char *level = known_level(level_text);
  open_item(x, &x->logs);
  nx_buf_printf(&x->logs, "\"level\":\"%s\",", level);
  add_string_member(&x->logs, "message", message);
  close_item(x, &x->logs);
  log_to_process(x, level, message);
  return NX_REPLY_OK;
}

/* ---- The end ------------------------------------------------------------------------------------------------------------ */

static int32_t take_value(struct nx_execution *x, struct text json) {
  struct nx_json_fault fault;
  nx_buf_reset(&x->value, x->limits.output_bytes);
  if (json.bytes && !nx_json_is_valid(json.data, json.bytes, &fault)) {
    nx_execution_fail(x, NX_OUTCOME_RESOURCE_LIMIT, "the return value cannot be passed on: %s", fault.reason);
    nx_guest_stop();
  }
  open_list(x, &x->value);
  nx_buf_add(&x->value, json.data, json.bytes);
  close_list(x, &x->value);
  x->has_value = json.bytes > 0;
  x->outcome = NX_OUTCOME_SUCCESS;
  return NX_REPLY_OK;
}

static void copy_member(yyjson_val *object, const char *name, struct nx_buf *out, size_t most) {
  yyjson_val *value = yyjson_obj_get(object, name);
  if (!yyjson_is_str(value)) return;
  size_t bytes = yyjson_get_len(value);
  nx_buf_add(out, yyjson_get_str(value), bytes < most ? bytes : most);
}

static uint32_t position_member(yyjson_val *object, const char *name) {
  yyjson_val *value = yyjson_obj_get(object, name);
  return yyjson_is_uint(value) && yyjson_get_uint(value) <= UINT32_MAX ? (uint32_t)yyjson_get_uint(value) : 0;
}

/* {name, message, stack, line, column}. Which outcome it is depends on facts of the host's, not on the name alone:
 * a handler may throw whatever it likes. */
static int32_t take_error(struct nx_execution *x, struct text json) {
  if (json.bytes > ERROR_TEXT_BYTES) {
    nx_execution_fail(x, NX_OUTCOME_EXECUTION_ERROR, "the handler threw an error that is too large to pass on");
    return NX_REPLY_OK;
  }
  yyjson_doc *doc = yyjson_read(json.data, json.bytes, 0);
  yyjson_val *object = yyjson_doc_get_root(doc);
  nx_execution_fail(x, NX_OUTCOME_EXECUTION_ERROR, "%s", "");
  copy_member(object, "message", &x->error.message, ERROR_MESSAGE_BYTES);
  if (!x->error.message.len) nx_buf_lit(&x->error.message, "the handler threw an error without a message");
  copy_member(object, "stack", &x->error.stack, ERROR_STACK_BYTES);
  x->error.line = position_member(object, "line");
  x->error.column = position_member(object, "column");
  if (x->was_denied && yyjson_equals_str(yyjson_obj_get(object, "name"), "PermissionError"))
    x->outcome = NX_OUTCOME_PERMISSION_DENIED;
  yyjson_doc_free(doc);
  return NX_REPLY_OK;
}

int32_t nx__host_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b, uint32_t b_bytes) {
  struct nx_execution *x = opaque;
  struct text first = {a, a_bytes}, second = {b, b_bytes};
  check_size(x, (uint64_t)a_bytes + b_bytes);
  if (op == NX_OP_RETURN || op == NX_OP_THROW) {
    if (++x->_reports > REPORTS_MAX) stop(x, "too many results", REPORTS_MAX);
    return op == NX_OP_RETURN ? take_value(x, first) : take_error(x, first);
  }
  if (++x->host_calls > x->limits.host_calls) stop(x, "too many host calls", x->limits.host_calls);
  switch (op) {
  case NX_OP_LOG: return log_line(x, first, second);
  case NX_OP_STATE_SET: return change_state(x, "set", first, &second);
  case NX_OP_STATE_DELETE: return change_state(x, "delete", first, NULL);
  case NX_OP_STATE_READ: return may_read(x, first);
  case NX_OP_EMIT: return emit(x, first, second);
  case NX_OP_VIEW: return command_view(x, first, second);
  case NX_OP_EXT_CALL: return call_extension(x, first, second);
  case NX_OP_EXT_CANCEL: return cancel_call(x, first);
  default: return NX_REPLY_BAD_CALL;
  }
}
