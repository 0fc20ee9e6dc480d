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
  c->patch.account = c->incoming.account = c->brought.account = account;
  c->name.account = c->source.account = c->taken.bytes.account = account;
  c->tenant = job->tenant;
  if (job->entry) memcpy(c->handler, job->entry->name, sizeof c->handler);
  if (job->traceparent.bytes <= NX_TRACEPARENT_MAX && job->traceparent.data)
    memcpy(c->traceparent, job->traceparent.data, job->traceparent.bytes);
  job->_continuation = c;
  return c;
}

const char *nx_job_handler_name(const struct nx_job *job) {
  if (job->entry) return job->entry->name;
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

/* ---- Records -------------------------------------------------------------------------------------------------------- */

static int no_memory(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a suspended execution");
}

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
    .tenant = c->tenant,
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
  if (texts->grants.failed || texts->request.failed) return no_memory(err);
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
  job->_continuation->tenant = in->tenant;
  job->_continuation->memory_bytes = in->memory_bytes;
  job->_continuation->suspensions = in->suspensions;
  job->_continuation->fetched_to = job->_continuation->stored_to = in->last_call_id; /* who suspended it made those requests */
}

static int damaged(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_INVALID, "the suspended execution is damaged");
}

static int load_calls(struct nx_execution *x, struct nx_bytes section, struct nx_error *err) {
  x->calls.block.account = x->account;
  if (nx_calls_load(&x->calls, section.data, section.size)) return 0;
  return x->calls.block.failed ? no_memory(err) : damaged(err);
}

static int load_effects(struct nx_execution *x, const struct nx_bytes *sections, struct nx_error *err) {
  struct nx_buf *const lists[] = {&x->mutations, &x->events, &x->view, &x->logs};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    const struct nx_bytes *section = &sections[NX_RECORD_MUTATIONS + i];
    lists[i]->account = x->account;
    nx_buf_add(lists[i], section->data, section->size);
    if (lists[i]->failed) return no_memory(err);
  }
  return 0;
}

int nx__continuation_load(struct nx_job *job, struct nx_error *err) {
  struct nx__continuation *c = job->_continuation;
  struct nx_execution *x = &job->execution;
  const struct nx_record *record = &c->taken.record;
  const struct nx_bytes *sections = record->sections;
  load_numbers(job, &record->fixed);
  if (!load_text(c->handler, sizeof c->handler, sections[NX_RECORD_HANDLER]) ||
      !load_text(c->traceparent, sizeof c->traceparent, sections[NX_RECORD_TRACEPARENT]))
    return damaged(err);
  int status = load_calls(x, sections[NX_RECORD_CALLS], err);
  if (!status) status = load_effects(x, sections, err);
  if (!status && record->fixed.flags & NX_RECORD_HAS_GRANTS) {
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
