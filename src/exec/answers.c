/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers to calls that an execution waits for: those its caller brings, those that came in, and those that are due. */
#include <stdlib.h>
#include <string.h>

#include "exec/continuation.h"

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
