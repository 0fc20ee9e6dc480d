/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_request.h"

#include <string.h>
#include <strings.h>

#include <sodium.h>
#include <yyjson.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- Headers ---------------------------------------------------------------------------------------------------- */

static bool is_token(const char *text, size_t bytes) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
  for (size_t i = 0; i < bytes; i++)
    if (!text[i] || !strchr(letters, text[i])) return false;
  return bytes > 0;
}

/* They would say something else about the message than libcurl does, or are between two hops only. */
static bool is_forbidden(const char *name, size_t bytes) {
  static const char *const names[] = {"Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "TE",
                                      "Trailer", "Expect", "Keep-Alive"};
  static const char proxy[] = "Proxy-";
  if (bytes >= sizeof proxy - 1 && !strncasecmp(name, proxy, sizeof proxy - 1)) return true;
  for (size_t i = 0; i < COUNT(names); i++)
    if (strlen(names[i]) == bytes && !strncasecmp(name, names[i], bytes)) return true;
  return false;
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static bool is_value(const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    unsigned char c = (unsigned char)text[i];
    if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
  }
  return true;
}

/* Looked at after each header: what did not fit may have been cut anywhere. */
static int check_headers_fit(const struct nx_net_request *request, struct nx_error *err) {
  if (request->headers.starved_bytes) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the request's headers");
  if (request->headers.failed)
    return nx_error_set(err, NX_ERR_INVALID, "headers: more than %zu bytes", NX_NET_REQUEST_HEADER_BYTES_MAX);
  return 0;
}

static int add_header(struct nx_net_request *request, yyjson_val *name, yyjson_val *value, struct nx_error *err) {
  if (!yyjson_is_str(name) || !yyjson_is_str(value))
    return nx_error_set(err, NX_ERR_INVALID, "headers: names and values must be strings");
  const char *name_text = yyjson_get_str(name), *text = yyjson_get_str(value);
  size_t name_bytes = yyjson_get_len(name), bytes = yyjson_get_len(value);
  if (!is_token(name_text, name_bytes)) return nx_error_set(err, NX_ERR_INVALID, "headers: a name is not valid");
  if (is_forbidden(name_text, name_bytes))
    return nx_error_set(err, NX_ERR_INVALID, "headers: %.*s cannot be set", (int)name_bytes, name_text);
  for (; bytes && is_blank(*text); bytes--) text++;
  while (bytes && is_blank(text[bytes - 1])) bytes--;
  if (!is_value(text, bytes))
    return nx_error_set(err, NX_ERR_INVALID, "headers: the value of %.64s has control characters", name_text);
  nx_buf_add(&request->headers, name_text, name_bytes);
  nx_buf_str(&request->headers, bytes ? ": " : ";");
  nx_buf_add(&request->headers, text, bytes);
  nx_buf_char(&request->headers, 0);
  return check_headers_fit(request, err);
}

static int add_pairs(struct nx_net_request *request, yyjson_val *pairs, struct nx_error *err) {
  yyjson_arr_iter iter = yyjson_arr_iter_with(pairs);
  int status = 0;
  for (yyjson_val *pair; !status && (pair = yyjson_arr_iter_next(&iter));)
    status = yyjson_arr_size(pair) == 2
               ? add_header(request, yyjson_arr_get_first(pair), yyjson_arr_get_last(pair), err)
               : nx_error_set(err, NX_ERR_INVALID, "headers: an entry is not [name, value]");
  return status;
}

static int add_members(struct nx_net_request *request, yyjson_val *members, struct nx_error *err) {
  yyjson_obj_iter iter = yyjson_obj_iter_with(members);
  int status = 0;
  for (yyjson_val *name; !status && (name = yyjson_obj_iter_next(&iter));)
    status = add_header(request, name, yyjson_obj_iter_get_val(name), err);
  return status;
}

static int take_headers(struct nx_net_request *request, yyjson_val *headers, const char *traceparent,
                        struct nx_error *err) {
  int status = 0;
  if (yyjson_is_arr(headers))
    status = add_pairs(request, headers, err);
  else if (yyjson_is_obj(headers))
    status = add_members(request, headers, err);
  else if (headers)
    status = nx_error_set(err, NX_ERR_INVALID, "headers: expected an object or an array of pairs");
  if (status) return status;
  if (*traceparent && is_value(traceparent, strlen(traceparent)) && !nx__net_request_has_header(request, "traceparent")) {
    nx_buf_lit(&request->headers, "traceparent: ");
    nx_buf_add(&request->headers, traceparent, strlen(traceparent) + 1);
  }
  return check_headers_fit(request, err);
}

bool nx__net_header_is(const char *header, const char *name) {
  size_t bytes = strlen(name);
  return !strncasecmp(header, name, bytes) && (header[bytes] == ':' || header[bytes] == ';');
}

const char *nx__net_request_next_header(const struct nx_net_request *request, const char *previous) {
  const struct nx_buf *headers = &request->headers;
  size_t at = previous ? (size_t)(previous - headers->data) + strlen(previous) + 1 : 0;
  return at < headers->len ? headers->data + at : NULL;
}

bool nx__net_request_has_header(const struct nx_net_request *request, const char *name) {
  const char *header = NULL;
  while ((header = nx__net_request_next_header(request, header)))
    if (nx__net_header_is(header, name)) return true;
  return false;
}

/* ---- URL, method, body, time ------------------------------------------------------------------------------------ */

static int take_url(struct nx_net_request *request, yyjson_val *url, struct nx_error *err) {
  if (!yyjson_is_str(url)) return nx_error_set(err, NX_ERR_INVALID, "expected a URL and, if wanted, an object of options");
  const char *text = yyjson_get_str(url);
  size_t bytes = yyjson_get_len(url);
  if (bytes > NX_NET_URL_BYTES_MAX)
    return nx_error_set(err, NX_ERR_INVALID, "the URL has more than %zu bytes", NX_NET_URL_BYTES_MAX);
  if (memchr(text, 0, bytes)) return nx_error_set(err, NX_ERR_INVALID, "the URL is not valid");
  nx_buf_add(&request->url, text, bytes + 1);
  return request->url.failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the URL") : 0;
}

/* These six are written in capitals whatever the handler wrote, others are left as they are (fetch standard). */
static void normalize(char *method) {
  static const char *const usual[] = {"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"};
  for (size_t i = 0; i < COUNT(usual); i++)
    if (!strcasecmp(method, usual[i])) strcpy(method, usual[i]);
}

static int take_method(struct nx_net_request *request, yyjson_val *method, struct nx_error *err) {
  static const char *const forbidden[] = {"CONNECT", "TRACE", "TRACK"};
  if (!method) {
    strcpy(request->method, "GET");
    return 0;
  }
  const char *text = yyjson_get_str(method);
  size_t bytes = yyjson_get_len(method);
  if (!text || bytes > NX_NET_METHOD_BYTES_MAX || !is_token(text, bytes))
    return nx_error_set(err, NX_ERR_INVALID, "the method is not valid");
  memcpy(request->method, text, bytes + 1);
  normalize(request->method);
  for (size_t i = 0; i < COUNT(forbidden); i++)
    if (!strcasecmp(request->method, forbidden[i]))
      return nx_error_set(err, NX_ERR_INVALID, "the method %s cannot be used", forbidden[i]);
  return 0;
}

static int take_text(struct nx_net_request *request, const char *text, size_t bytes, struct nx_error *err) {
  nx_buf_add(&request->body, text, bytes);
  return request->body.failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the request's body") : 0;
}

static int take_base64(struct nx_net_request *request, const char *text, size_t bytes, struct nx_error *err) {
  size_t most = bytes / 4 * 3 + 1; /* not 0, since an empty text has to decode too */
  char *room = nx_buf_reserve(&request->body, most);
  if (!room) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the request's body");
  if (sodium_base642bin((unsigned char *)room, most, text, bytes, NULL, &request->body.len, NULL,
                        sodium_base64_VARIANT_ORIGINAL))
    return nx_error_set(err, NX_ERR_INVALID, "bodyBase64: not valid base64");
  return 0;
}

static int take_body(struct nx_net_request *request, yyjson_val *text, yyjson_val *base64, struct nx_error *err) {
  yyjson_val *body = text ? text : base64;
  if (!body) return 0;
  if (text && base64) return nx_error_set(err, NX_ERR_INVALID, "body and bodyBase64 exclude each other");
  if (!yyjson_is_str(body)) return nx_error_set(err, NX_ERR_INVALID, "the body must be a string");
  if (!strcmp(request->method, "GET") || !strcmp(request->method, "HEAD"))
    return nx_error_set(err, NX_ERR_INVALID, "a %s request has no body", request->method);
  request->has_body = true;
  return (text ? take_text : take_base64)(request, yyjson_get_str(body), yyjson_get_len(body), err);
}

static int take_timeout(struct nx_net_request *request, yyjson_val *timeout_ms, struct nx_error *err) {
  if (!timeout_ms) return 0;
  double value = yyjson_get_num(timeout_ms);
  if (!(value > 0)) return nx_error_set(err, NX_ERR_INVALID, "timeoutMs must be a number above 0");
  request->timeout_ms = value < 1 ? 1 : value < 1e15 ? (uint64_t)value : UINT64_MAX;
  return 0;
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

/* NULL for null as well: both mean that the handler gave none. */
static yyjson_val *member(yyjson_val *options, const char *name) {
  yyjson_val *value = yyjson_obj_get(options, name);
  return yyjson_is_null(value) ? NULL : value;
}

static int take_all(struct nx_net_request *request, yyjson_val *args, const char *traceparent, struct nx_error *err) {
  yyjson_val *options = yyjson_arr_get(args, 1);
  if (options && !yyjson_is_null(options) && !yyjson_is_obj(options))
    return nx_error_set(err, NX_ERR_INVALID, "the options are not an object");
  int status = take_url(request, yyjson_arr_get_first(args), err);
  if (!status) status = take_method(request, member(options, "method"), err);
  if (!status) status = take_headers(request, member(options, "headers"), traceparent, err);
  if (!status) status = take_body(request, member(options, "body"), member(options, "bodyBase64"), err);
  if (!status) status = take_timeout(request, member(options, "timeoutMs"), err);
  return status;
}

int nx__net_request_init(struct nx_net_request *request, const char *args, size_t args_bytes, const char *traceparent,
                         struct nx_account *account, struct nx_error *err) {
  *request = (struct nx_net_request){.url.account = account, .body.account = account};
  request->headers = (struct nx_buf){.account = account, .limit = NX_NET_REQUEST_HEADER_BYTES_MAX};
  size_t tree_bytes = yyjson_read_max_memory_usage(args_bytes, YYJSON_READ_NOFLAG);
  if (!nx_account_charge(account, tree_bytes)) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the arguments");
  yyjson_doc *doc = yyjson_read(args, args_bytes, YYJSON_READ_NOFLAG);
  int status = doc ? take_all(request, yyjson_doc_get_root(doc), traceparent, err)
                   : nx_error_set(err, NX_ERR_INVALID, "the arguments are not valid JSON");
  yyjson_doc_free(doc);
  nx_account_release(account, tree_bytes);
  return status;
}

void nx__net_request_deinit(struct nx_net_request *request) {
  nx_buf_deinit(&request->url);
  nx_buf_deinit(&request->headers);
  nx_buf_deinit(&request->body);
}
