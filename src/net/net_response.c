/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_response.h"

#include <ctype.h>
#include <string.h>

#include <sodium.h>

#include "base/json_text.h"

/* ---- Collecting ------------------------------------------------------------------------------------------------- */

void nx__net_response_init(struct nx_net_response *response, size_t max_body_bytes, struct nx_account *account) {
  *response = (struct nx_net_response){.body.account = account, ._headers.account = account};
  response->body.limit = max_body_bytes;
}

void nx__net_response_deinit(struct nx_net_response *response) {
  nx_buf_deinit(&response->body);
  nx_buf_deinit(&response->_headers);
}

void nx__net_response_reset(struct nx_net_response *response) {
  nx_buf_reset(&response->body, 0);
  nx_buf_reset(&response->_headers, 0);
  *response = (struct nx_net_response){.body = response->body, ._headers = response->_headers};
}

/* "HTTP/1.1 200 Some words"; the number is known to libcurl. */
static void take_status_line(struct nx_net_response *response, const char *line, size_t bytes) {
  nx_buf_reset(&response->_headers, NX_NET_RESPONSE_HEAD_BYTES_MAX);
  response->_header_count = 0;
  response->_head_is_over = false;
  const char *end = line + bytes, *text = memchr(line, ' ', bytes);
  if (text) text = memchr(text + 1, ' ', (size_t)(end - text - 1));
  size_t text_bytes = text ? (size_t)(end - ++text) : 0;
  if (text_bytes >= sizeof response->status_text) text_bytes = sizeof response->status_text - 1;
  memcpy(response->status_text, text ? text : "", text_bytes);
  response->status_text[text_bytes] = 0;
}

static const char *skip_blanks(const char *text, const char *end) {
  while (text < end && (*text == ' ' || *text == '\t')) text++;
  return text;
}

/* A line that begins with a blank goes on with the value before (obsolete, but servers may). */
static void take_continuation(struct nx_net_response *response, const char *line, size_t bytes) {
  if (!response->_headers.len) return;
  response->_headers.len--; /* its line end */
  const char *text = skip_blanks(line, line + bytes);
  nx_buf_char(&response->_headers, ' ');
  nx_buf_add(&response->_headers, text, (size_t)(line + bytes - text));
  nx_buf_char(&response->_headers, '\n');
}

static void take_header(struct nx_net_response *response, const char *line, size_t bytes) {
  const char *colon = memchr(line, ':', bytes), *end = line + bytes;
  if (!colon || colon == line) return;
  response->_header_count++;
  for (const char *c = line; c < colon; c++) nx_buf_char(&response->_headers, (char)tolower((unsigned char)*c));
  const char *value = skip_blanks(colon + 1, end);
  nx_buf_char(&response->_headers, ':');
  nx_buf_add(&response->_headers, value, (size_t)(end - value));
  nx_buf_char(&response->_headers, '\n');
}

int nx__net_response_add_line(struct nx_net_response *response, const char *line, size_t bytes, struct nx_error *err) {
  static const char version[] = "HTTP/";
  response->_head_bytes += bytes;
  if (response->_head_bytes > NX_NET_RESPONSE_HEAD_BYTES_MAX)
    return nx_error_set(err, NX_ERR_INVALID, "the response's headers have more than %zu bytes",
                        NX_NET_RESPONSE_HEAD_BYTES_MAX);
  while (bytes && strchr("\r\n\t ", line[bytes - 1])) bytes--;
  bool is_status_line = bytes >= sizeof version - 1 && !memcmp(line, version, sizeof version - 1);
  if (is_status_line && !response->body.len)
    take_status_line(response, line, bytes); /* after an interim response the next one begins */
  else if (!bytes)
    response->_head_is_over = true;
  else if (response->_head_is_over)
    return 0; /* trailers are not shown */
  else if (*line == ' ' || *line == '\t')
    take_continuation(response, line, bytes);
  else
    take_header(response, line, bytes);
  if (response->_headers.failed) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the response's headers");
  return response->_header_count <= NX_NET_RESPONSE_HEADERS_MAX
           ? 0
           : nx_error_set(err, NX_ERR_INVALID, "the response has more than %u headers", NX_NET_RESPONSE_HEADERS_MAX);
}

int nx__net_response_add_body(struct nx_net_response *response, const char *data, size_t bytes, struct nx_error *err) {
  if (response->body.limit - response->body.len < bytes)
    return nx_error_set(err, NX_ERR_INVALID, "the response has more than %zu bytes", response->body.limit);
  nx_buf_add(&response->body, data, bytes);
  return response->body.failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the response") : 0;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

struct header {
  const char *name, *value;
  size_t name_bytes, value_bytes;
};

static size_t split(const struct nx_buf *lines, struct header headers[NX_NET_RESPONSE_HEADERS_MAX]) {
  size_t count = 0;
  const char *end = lines->data + lines->len;
  for (const char *line = lines->data; lines->len && line < end; count++) {
    const char *newline = memchr(line, '\n', (size_t)(end - line));
    const char *colon = memchr(line, ':', (size_t)(newline - line));
    headers[count] = (struct header){line, colon + 1, (size_t)(colon - line), (size_t)(newline - colon - 1)};
    line = newline + 1;
  }
  return count;
}

static bool have_same_name(const struct header *a, const struct header *b) {
  return a->name_bytes == b->name_bytes && !memcmp(a->name, b->name, a->name_bytes);
}

static bool is_first_of_its_name(const struct header *headers, size_t at) {
  for (size_t i = 0; i < at; i++)
    if (have_same_name(&headers[i], &headers[at])) return false;
  return true;
}

/* An array, because the values of this one header have commas of their own. */
static void write_array(const struct header *first, const struct header *end, struct nx_buf *out) {
  const char *separator = "[";
  for (const struct header *header = first; header < end; header++) {
    if (!have_same_name(header, first)) continue;
    nx_buf_str(out, separator);
    nx_buf_json_string(out, header->value, header->value_bytes);
    separator = ",";
  }
  nx_buf_char(out, ']');
}

static void write_joined(const struct header *first, const struct header *end, struct nx_buf *out) {
  NX_BUF_AUTO joined = {.account = out->account};
  for (const struct header *header = first; header < end; header++) {
    if (!have_same_name(header, first)) continue;
    if (header != first) nx_buf_lit(&joined, ", ");
    nx_buf_add(&joined, header->value, header->value_bytes);
  }
  nx_buf_json_string(out, joined.data, joined.len);
  out->failed |= joined.failed;
}

static bool is_repeated(const struct header *first, const struct header *end) {
  for (const struct header *header = first + 1; header < end; header++)
    if (have_same_name(header, first)) return true;
  return false;
}

static void write_headers(const struct nx_buf *lines, struct nx_buf *out) {
  static const struct header set_cookie = {.name = "set-cookie", .name_bytes = sizeof "set-cookie" - 1};
  struct header headers[NX_NET_RESPONSE_HEADERS_MAX];
  const struct header *end = headers + split(lines, headers);
  const char *separator = "{";
  for (const struct header *header = headers; header < end; header++) {
    if (!is_first_of_its_name(headers, (size_t)(header - headers))) continue;
    nx_buf_str(out, separator);
    nx_buf_json_string(out, header->name, header->name_bytes);
    nx_buf_char(out, ':');
    bool as_array = have_same_name(header, &set_cookie) && is_repeated(header, end);
    (as_array ? write_array : write_joined)(header, end, out);
    separator = ",";
  }
  nx_buf_str(out, *separator == '{' ? "{}" : "}");
}

static bool is_utf8(const char *text, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    size_t sequence = (unsigned char)text[at] < 0x80 ? 1 : nx_utf8_sequence(text + at, bytes - at);
    if (!sequence) return false;
    at += sequence;
  }
  return true;
}

static void write_base64(const struct nx_buf *body, struct nx_buf *out) {
  size_t bytes = sodium_base64_ENCODED_LEN(body->len, sodium_base64_VARIANT_ORIGINAL); /* with a NUL */
  char *room = nx_buf_reserve(out, bytes);
  if (!room) return;
  sodium_bin2base64(room, bytes, (const unsigned char *)body->data, body->len, sodium_base64_VARIANT_ORIGINAL);
  out->len += bytes - 1;
}

static void write_body(const struct nx_buf *body, struct nx_buf *out) {
  if (is_utf8(body->data, body->len)) {
    nx_buf_lit(out, ",\"body\":");
    nx_buf_json_string(out, body->data, body->len);
  } else {
    nx_buf_lit(out, ",\"bodyBase64\":\"");
    write_base64(body, out);
    nx_buf_char(out, '"');
  }
}

int nx__net_response_write(struct nx_net_response *response, unsigned status, const char *url, bool redirected,
                           struct nx_buf *out, struct nx_error *err) {
  nx_buf_lit(out, "{\"status\":");
  nx_buf_u64(out, status);
  nx_buf_lit(out, ",\"statusText\":");
  nx_buf_json_string(out, response->status_text, strlen(response->status_text));
  nx_buf_lit(out, ",\"url\":");
  nx_buf_json_string(out, url, strlen(url));
  nx_buf_str(out, redirected ? ",\"redirected\":true,\"headers\":" : ",\"redirected\":false,\"headers\":");
  write_headers(&response->_headers, out);
  write_body(&response->body, out);
  nx_buf_char(out, '}');
  nx_buf_deinit(&response->body);
  return out->failed ? nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the response") : 0;
}
