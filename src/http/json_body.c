/* SPDX-License-Identifier: Apache-2.0 */
#include "http/json_body.h"

#include <stdio.h>
#include <stdlib.h>

#include "http/problem.h"

bool nx__json_body_open(struct nx_request *request, struct nx__json_body *out) {
  struct nx_http_response *response = &request->exchange->response;
  struct nx_str body = request->exchange->request.body;
  yyjson_read_err fault;
  /* What the parser may take for such a body, and the texts that are written from its tree one at a time. */
  out->_tree_bytes = yyjson_read_max_memory_usage(body.len, YYJSON_READ_BIGNUM_AS_RAW) + body.len;
  if (!nx_account_charge(request->app->account, out->_tree_bytes)) {
    nx__app_refuse_memory(request->app, response, "no memory for the request", out->_tree_bytes);
    return false;
  }
  out->doc = yyjson_read_opts((char *)(uintptr_t)(body.len ? body.data : ""), body.len, YYJSON_READ_BIGNUM_AS_RAW, NULL,
                              &fault);
  out->root = yyjson_doc_get_root(out->doc);
  if (out->doc) return true;
  nx_account_release(request->app->account, out->_tree_bytes);
  char detail[192];
  snprintf(detail, sizeof detail, "body: not valid JSON: %s at byte %zu", fault.msg, fault.pos);
  nx_problem_write(response, 400, "INVALID_REQUEST", detail);
  return false;
}

void nx__json_body_close(struct nx_request *request, struct nx__json_body *body) {
  yyjson_doc_free(body->doc);
  nx_account_release(request->app->account, body->_tree_bytes);
}

int nx__json_members(yyjson_val *object, const char *what, const char *const *names, size_t count, yyjson_val **out,
                     struct nx_error *err) {
  if (!yyjson_is_obj(object)) return nx_error_set(err, NX_ERR_INVALID, "%s: expected a JSON object", what);
  yyjson_obj_iter iter = yyjson_obj_iter_with(object);
  for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
    size_t i = 0;
    while (i < count && !yyjson_equals_str(key, names[i])) i++;
    if (i == count) return nx_error_set(err, NX_ERR_INVALID, "%.64s: unknown field", yyjson_get_str(key));
    if (out[i]) return nx_error_set(err, NX_ERR_INVALID, "%s: given twice", names[i]);
    out[i] = yyjson_obj_iter_get_val(key);
  }
  return 0;
}

void nx__json_add(struct nx_buf *out, yyjson_val *value) {
  size_t bytes;
  char *text = yyjson_val_write(value, 0, &bytes);
  if (text)
    nx_buf_add(out, text, bytes);
  else
    out->failed = true;
  free(text);
}
