/* SPDX-License-Identifier: Apache-2.0 */
#include "exec/continuation.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>
#include <yyjson.h>

struct nx__continuation *nx__continuation_of(struct nx_job *job, struct nx_account *account) {
  if (job->_continuation) return job->_continuation;
  struct nx__continuation *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->job = job;
  c->patch.account = c->incoming.account = c->brought.account = c->name.account = c->source.account = c->taken.bytes.account = account;
  if (job->entry) memcpy(c->handler, job->entry->name, sizeof c->handler);
  if (job->traceparent.bytes <= NX_TRACEPARENT_MAX && job->traceparent.data)
    memcpy(c->traceparent, job->traceparent.data, job->traceparent.bytes);
  job->_continuation = c;
  return c;
}

const char *nx_job_handler_name(const struct nx_job *job) {
  return job->_continuation ? job->_continuation->handler : "";
}

void nx__continuation_free(struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  if (!c) return;
  nx_buf_deinit(&c->patch);
  nx_buf_deinit(&c->incoming);
  nx_buf_deinit(&c->brought);
  nx_buf_deinit(&c->name);
  nx_buf_deinit(&c->source);
  nx_taken_deinit(&c->taken);
  nx_capabilities_deinit(&c->grants);
  nx_capabilities_deinit(&c->request);
  free(c);
  job->_continuation = NULL;
}

/* ---- Answers -------------------------------------------------------------------------------------------------------- */

/* What precedes the JSON of an answer. */
struct packed {
  uint32_t call_id;
  uint32_t success;
  size_t bytes;
};

bool nx__incoming_add(struct nx_buf *list, const struct nx__incoming *answer) {
  const struct packed head = {answer->call_id, answer->success, answer->bytes};
  if (!nx_buf_reserve(list, sizeof head + answer->bytes)) return false;
  nx_buf_add(list, &head, sizeof head);
  nx_buf_add(list, answer->json, answer->bytes);
  return true;
}

bool nx__incoming_next(const struct nx_buf *list, size_t *at, struct nx__incoming *out) {
  struct packed head;
  if (*at == list->len) return false;
  memcpy(&head, list->data + *at, sizeof head);
  *out = (struct nx__incoming){head.call_id, head.success, list->data + *at + sizeof head, head.bytes};
  *at += sizeof head + head.bytes;
  return true;
}

static void write_answer(struct nx_buf *out, uint32_t call_id, bool success, const char *json, size_t bytes) {
  nx_buf_str(out, out->data[out->len - 1] == '[' ? "{\"callId\":" : ",{\"callId\":");
  nx_buf_u64(out, call_id);
  nx_buf_str(out, success ? ",\"success\":true" : ",\"success\":false");
  if (bytes) {
    nx_buf_str(out, success ? ",\"value\":" : ",\"error\":");
    nx_buf_add(out, json, bytes);
  }
  nx_buf_char(out, '}');
}

static size_t count_incoming(const struct nx_buf *incoming) {
  struct nx__incoming in;
  size_t count = 0;
  for (size_t at = 0; nx__incoming_next(incoming, &at, &in);) count++;
  return count;
}

/* Those to calls that the guest has cancelled, or has had an answer to, are dropped. */
static void write_incoming(struct nx_calls *calls, const struct nx_buf *incoming, struct nx_buf *out) {
  struct nx__incoming in;
  size_t count = count_incoming(incoming), i = 0;
  if (!count) return;
  struct nx_call_mark *marks = calloc(count, sizeof *marks);
  if (!marks) {
    out->failed = true;
    return;
  }
  for (size_t at = 0; nx__incoming_next(incoming, &at, &in);) marks[i++].id = in.call_id;
  nx_calls_mark(calls, marks, count);
  nx_calls_close_marked(calls, marks, count);
  for (size_t at = 0; nx__incoming_next(incoming, &at, &in);) {
    struct nx_call_mark *mark = nx_call_mark_find(marks, count, in.call_id);
    if (mark->is_open) write_answer(out, in.call_id, in.success, in.json, in.bytes);
    mark->is_open = false;
  }
  free(marks);
}

static bool is_due(const struct nx_call *call, uint64_t now_ms, bool net_is_on) {
  if (call->kind == NX_CALL_NET && !net_is_on) return true;
  return call->kind != NX_CALL_CALLER && call->due_ms <= now_ms;
}

/* Calls that are due, to be answered in the order of their times. */
struct due {
  uint64_t now_ms;
  bool net_is_on;
  size_t count;
  struct due_call {
    uint64_t due_ms;
    uint32_t id;
    enum nx_call_kind kind;
  } *calls;
};

static bool take_due(void *self, const struct nx_call *call) {
  struct due *due = self;
  if (!is_due(call, due->now_ms, due->net_is_on)) return false;
  due->calls[due->count++] = (struct due_call){call->due_ms, call->id, call->kind};
  return true;
}

static int by_time(const void *a, const void *b) {
  const struct due_call *first = a, *second = b;
  if (first->due_ms != second->due_ms) return first->due_ms < second->due_ms ? -1 : 1;
  return first->id < second->id ? -1 : 1;
}

static void write_due(const struct due *due, struct nx_buf *out) {
  static const char off[] = "\"net.fetch: requests are off: NET_ALLOW is not set\"";
  static const char lost[] = "\"net.fetch: the request was lost: nexus was restarted\"";
  for (size_t i = 0; i < due->count; i++) {
    bool sleeps = due->calls[i].kind == NX_CALL_TIME;
    const char *why = sleeps ? NULL : due->net_is_on ? lost : off;
    write_answer(out, due->calls[i].id, sleeps, why, why ? strlen(why) : 0);
  }
}

static size_t count_due(const struct nx_calls *calls, uint64_t now_ms, bool net_is_on) {
  struct nx_call call;
  size_t count = 0;
  for (size_t at = 0; nx_calls_next(calls, &at, &call);) count += is_due(&call, now_ms, net_is_on);
  return count;
}

static void collect_due(struct nx_calls *calls, uint64_t now_ms, bool net_is_on, struct nx_buf *out) {
  struct due due = {.now_ms = now_ms, .net_is_on = net_is_on};
  size_t count = count_due(calls, now_ms, net_is_on);
  if (!count) return;
  due.calls = calloc(count, sizeof *due.calls);
  if (!due.calls) {
    out->failed = true;
    return;
  }
  nx_calls_close_if(calls, take_due, &due);
  qsort(due.calls, due.count, sizeof *due.calls, by_time);
  write_due(&due, out);
  free(due.calls);
}

bool nx__continuation_collect(struct nx_job *job, const struct nx_buf *incoming, uint64_t now_ms, bool net_is_on,
                              struct nx_buf *out) {
  struct nx_calls *calls = &job->execution.calls;
  size_t begin = out->len;
  nx_buf_char(out, '[');
  if (out->failed) return false;
  collect_due(calls, now_ms, net_is_on, out);
  write_incoming(calls, incoming, out);
  if (out->len == begin + 1) {
    out->len = begin;
    return false;
  }
  nx_buf_char(out, ']');
  return !out->failed;
}

/* 0: there is none. */
static uint32_t first_callers(const struct nx_calls *calls) {
  struct nx_call call;
  for (size_t at = 0; nx_calls_next(calls, &at, &call);)
    if (call.kind == NX_CALL_CALLER) return call.id;
  return 0;
}

static int check_answer(const struct nx_execution *x, const struct nx_call_mark *mark, struct nx_error *err) {
  if (!mark->id) return nx_error_set(err, NX_ERR_CONFLICT, "all calls of this execution have been answered");
  if (mark->id > x->last_call_id)
    return nx_error_set(err, NX_ERR_INVALID, "callId %u: this execution has made no such call", mark->id);
  if (!mark->is_open) return nx_error_set(err, NX_ERR_CONFLICT, "call %u has been answered already", mark->id);
  if (mark->kind != NX_CALL_CALLER)
    return nx_error_set(err, NX_ERR_CONFLICT, "call %u is one that nexus answers itself", mark->id);
  return 0;
}

static uint32_t answered_call(const struct nx_job *job, size_t i) {
  return job->answers[i].call_id ? job->answers[i].call_id : first_callers(&job->execution.calls);
}

static int check_once(const struct nx_call_mark *sorted, size_t count, struct nx_error *err) {
  for (size_t i = 1; i < count; i++)
    if (sorted[i].id == sorted[i - 1].id)
      return nx_error_set(err, NX_ERR_INVALID, "results: call %u is answered twice", sorted[i].id);
  return 0;
}

static int add_answers(struct nx_job *job, struct nx_call_mark *marks, struct nx_error *err) {
  for (size_t i = 0; i < job->answer_count; i++) marks[i].id = answered_call(job, i);
  nx_calls_mark(&job->execution.calls, marks, job->answer_count);
  int status = check_once(marks, job->answer_count, err);
  for (size_t i = 0; !status && i < job->answer_count; i++) {
    const struct nx_answer *answer = &job->answers[i];
    const struct nx__incoming in = {answered_call(job, i), answer->success, answer->json.data, answer->json.bytes};
    status = check_answer(&job->execution, nx_call_mark_find(marks, job->answer_count, in.call_id), err);
    if (!status && !nx__incoming_add(&job->_continuation->incoming, &in))
      status = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the results");
  }
  return status;
}

int nx__continuation_take_answers(struct nx_job *job, struct nx_error *err) {
  if (!job->answer_count) return 0;
  struct nx_call_mark *marks = calloc(job->answer_count, sizeof *marks);
  if (!marks) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the results");
  int status = add_answers(job, marks, err);
  free(marks);
  return status;
}

/* ---- Records -------------------------------------------------------------------------------------------------------- */

static struct nx_bytes bytes_of(const struct nx_buf *buf) { return (struct nx_bytes){buf->data, buf->len}; }
static struct nx_bytes text_bytes(const char *text) { return (struct nx_bytes){text, strlen(text)}; }

static void write_rights(const struct nx_capabilities *set, struct nx_buf *out) {
  if (!set) return;
  nx_buf_char(out, '{');
  nx_capabilities_write(set, out);
  nx_buf_char(out, '}');
}

static void save_numbers(const struct nx_job *job, uint64_t expires_ms, struct nx_record_fixed *out) {
  const struct nx_execution *x = &job->execution;
  const struct nx__continuation *c = job->_continuation;
  *out = (struct nx_record_fixed){
    .version = NX_RECORD_VERSION,
    .flags = (x->rights.grants ? NX_RECORD_HAS_GRANTS : 0u) | (x->rights.request ? NX_RECORD_HAS_REQUEST : 0u) |
             (x->was_denied ? NX_RECORD_WAS_DENIED : 0u),
    .expires_ms = expires_ms,
    .began_ns = x->began_ns,
    .timeout_ns = x->limits.timeout_ns,
    .running_ns = x->duration_ns,
    .memory_limit_bytes = x->limits.memory_bytes,
    .stack_limit_bytes = x->limits.stack_bytes,
    .max_host_calls = x->limits.host_calls,
    .host_calls = x->host_calls,
    .max_state_mutations = x->limits.state_mutations,
    .state_mutations = x->mutation_count,
    .max_events = x->limits.events,
    .events = x->event_count,
    .max_output_bytes = x->limits.output_bytes,
    .last_call_id = x->last_call_id,
    .memory_bytes = c->memory_bytes,
    .suspensions = c->suspensions,
  };
  sodium_hex2bin(out->execution_id, sizeof out->execution_id, x->id, strlen(x->id), NULL, NULL, NULL);
  memcpy(out->source_hash, x->handler->source_hash, NX_HASH_BYTES);
  memcpy(out->image_hash, x->handler->image->hash, NX_HASH_BYTES);
}

int nx__continuation_save(const struct nx_job *job, uint64_t expires_ms, struct nx_record *out,
                          struct nx__record_texts *texts, struct nx_error *err) {
  const struct nx_execution *x = &job->execution;
  const struct nx__continuation *c = job->_continuation;
  save_numbers(job, expires_ms, &out->fixed);
  write_rights(x->rights.grants, &texts->grants);
  write_rights(x->rights.request, &texts->request);
  if (texts->grants.failed || texts->request.failed)
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a suspended execution");
  struct nx_bytes *sections = out->sections;
  sections[NX_RECORD_HANDLER] = text_bytes(c->handler);
  sections[NX_RECORD_GRANTS] = bytes_of(&texts->grants);
  sections[NX_RECORD_REQUEST] = bytes_of(&texts->request);
  sections[NX_RECORD_TRACEPARENT] = text_bytes(c->traceparent);
  sections[NX_RECORD_CALLS] = bytes_of(&x->calls.block);
  if (job->_is_own) { /* nobody has seen these yet */
    sections[NX_RECORD_MUTATIONS] = bytes_of(&x->mutations);
    sections[NX_RECORD_EVENTS] = bytes_of(&x->events);
    sections[NX_RECORD_VIEW] = bytes_of(&x->view);
    sections[NX_RECORD_LOGS] = bytes_of(&x->logs);
  }
  sections[NX_RECORD_PATCH] = bytes_of(&c->patch);
  return 0;
}

void nx__record_texts_deinit(struct nx__record_texts *texts) {
  nx_buf_deinit(&texts->grants);
  nx_buf_deinit(&texts->request);
}

static int load_rights(struct nx_capabilities *out, struct nx_bytes json, struct nx_error *err) {
  yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
  if (!doc) return nx_error_set(err, NX_ERR_INVALID, "the suspended execution's rights are damaged");
  yyjson_val *root = yyjson_doc_get_root(doc);
  int status = nx_capabilities_parse(out, yyjson_obj_get(root, "capabilities"), yyjson_obj_get(root, "extensions"), err);
  yyjson_doc_free(doc);
  return status;
}

static bool load_text(char *out, size_t room, struct nx_bytes text) {
  if (text.size >= room) return false;
  memcpy(out, text.data, text.size);
  out[text.size] = 0;
  return true;
}

static void load_numbers(struct nx_job *job, const struct nx_record_fixed *in) {
  struct nx_execution *x = &job->execution;
  x->limits = (struct nx_execution_limits){
    .timeout_ns = in->timeout_ns,
    .memory_bytes = in->memory_limit_bytes,
    .stack_bytes = in->stack_limit_bytes,
    .host_calls = in->max_host_calls,
    .state_mutations = in->max_state_mutations,
    .events = in->max_events,
    .output_bytes = in->max_output_bytes,
  };
  x->was_denied = in->flags & NX_RECORD_WAS_DENIED;
  x->began_ns = in->began_ns;
  x->duration_ns = x->earlier_ns = in->running_ns;
  x->host_calls = in->host_calls;
  x->mutation_count = in->state_mutations;
  x->event_count = in->events;
  x->last_call_id = in->last_call_id;
  sodium_bin2hex(x->id, sizeof x->id, in->execution_id, sizeof in->execution_id);
  job->_continuation->memory_bytes = in->memory_bytes;
  job->_continuation->suspensions = in->suspensions;
  job->_continuation->fetched_to = job->_continuation->stored_to = in->last_call_id; /* who suspended it made those requests */
}

static bool load_effects(struct nx_execution *x, const struct nx_bytes *sections) {
  struct nx_buf *const lists[] = {&x->mutations, &x->events, &x->view, &x->logs};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    const struct nx_bytes *section = &sections[NX_RECORD_MUTATIONS + i];
    lists[i]->account = x->account;
    nx_buf_add(lists[i], section->data, section->size);
    if (lists[i]->failed) return false;
  }
  return true;
}

int nx__continuation_load(struct nx_job *job, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  struct nx_execution *x = &job->execution;
  const struct nx_record *record = &c->taken.record;
  const struct nx_bytes *sections = record->sections;
  load_numbers(job, &record->fixed);
  x->calls.block.account = x->account;
  if (!load_text(c->handler, sizeof c->handler, sections[NX_RECORD_HANDLER]) ||
      !load_text(c->traceparent, sizeof c->traceparent, sections[NX_RECORD_TRACEPARENT]))
    return nx_error_set(err, NX_ERR_INVALID, "the suspended execution is damaged");
  if (!nx_calls_load(&x->calls, sections[NX_RECORD_CALLS].data, sections[NX_RECORD_CALLS].size) ||
      !load_effects(x, sections))
    return nx_error_set(err, x->calls.block.failed || x->mutations.failed || x->events.failed || x->view.failed ||
                             x->logs.failed ? NX_ERR_NO_MEMORY : NX_ERR_INVALID,
                        "the suspended execution cannot be loaded");
  int status = 0;
  if (record->fixed.flags & NX_RECORD_HAS_GRANTS) {
    status = load_rights(&c->grants, sections[NX_RECORD_GRANTS], err);
    x->rights.grants = &c->grants;
  }
  if (!status && record->fixed.flags & NX_RECORD_HAS_REQUEST) {
    status = load_rights(&c->request, sections[NX_RECORD_REQUEST], err);
    x->rights.request = &c->request;
  }
  return status;
}

void nx__continuation_unload(struct nx_job *job) {
  struct nx__continuation *c = job->_continuation;
  struct nx_account *account = job->execution.account;
  if (job->_owns_handler) nx_handler_release(job->execution.handler);
  job->_owns_handler = false;
  nx_execution_deinit(&job->execution);
  job->execution = (struct nx_execution){.account = account};
  nx_capabilities_deinit(&c->grants);
  nx_capabilities_deinit(&c->request);
  nx_buf_reset(&c->incoming, 0);
  nx_buf_reset(&c->taken.bytes, 0);
  nx_buf_reset(&c->source, 0);
  nx_buf_reset(&c->patch, 0);
  c->taken.record = (struct nx_record){0};
  job->source = (struct nx_text){0};
  job->refusal = (struct nx_error){0};
  job->refused = (struct nx_refusal){0};
}

struct nx_bytes nx__continuation_patch(const struct nx__continuation *c) {
  return c->patch.len ? bytes_of(&c->patch) : c->taken.record.sections[NX_RECORD_PATCH];
}

/* The patch is the last section, so that cutting it off leaves the others; they may move with the block. */
void nx__continuation_drop_patch(struct nx__continuation *c) {
  struct nx_buf *bytes = &c->taken.bytes;
  struct nx_bytes *sections = c->taken.record.sections;
  size_t offsets[NX_RECORD_SECTIONS];
  nx_buf_deinit(&c->patch);
  if (!sections[NX_RECORD_PATCH].size) return;
  for (int i = 0; i < NX_RECORD_SECTIONS; i++) offsets[i] = (size_t)((const char *)sections[i].data - bytes->data);
  bytes->len -= sections[NX_RECORD_PATCH].size;
  sections[NX_RECORD_PATCH].size = 0;
  nx_buf_shrink(bytes);
  for (int i = 0; i < NX_RECORD_SECTIONS; i++) sections[i].data = bytes->data + offsets[i];
}
