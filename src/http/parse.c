/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes → nx_http_request, by llhttp with every leniency off, plus the rules that llhttp leaves to its user.
 * The request stays where it was read: header values are spans of the input buffer, and the pieces of a chunked body
 * are moved together in place. */
#include "http/conn.h"

#include <string.h>
#include <strings.h>

static const struct {
  const char *name;
  bool once; /* a second one makes the request ambiguous; of the others the first counts */
} known[NX__HTTP_HEADER_COUNT] = {
  [NX__HTTP_HOST] = {"host", true},
  [NX__HTTP_CONTENT_TYPE] = {"content-type", true},
  [NX__HTTP_AUTHORIZATION] = {"authorization", true},
  [NX__HTTP_EXPECT] = {"expect", true},
  [NX__HTTP_TRANSFER_ENCODING] = {"transfer-encoding", true},
  [NX__HTTP_IF_MATCH] = {"if-match", false},
  [NX__HTTP_IF_NONE_MATCH] = {"if-none-match", false},
  [NX__HTTP_TRACEPARENT] = {"traceparent", false},
  [NX__HTTP_REQUEST_ID] = {"x-request-id", false},
};

/* `status` 0: the usual one of the code. Returns what makes llhttp stop. */
static int refuse(struct nx_http_io *io, enum nx_error_code code, int status, const char *detail) {
  io->refusal = (struct nx__http_refusal){code, status ? status : nx_error_http_status(code), detail, 0};
  return HPE_USER;
}

static struct nx_str text_of(const struct nx_http_io *io, struct nx__http_span span) {
  if (!span.at) return (struct nx_str){0};
  return (struct nx_str){io->in.data + io->start + span.at, span.len};
}

static bool equals(struct nx_str text, const char *lower_case) {
  return text.len == strlen(lower_case) && !strncasecmp(text.data, lower_case, text.len);
}

static size_t offset_of(const struct nx_http_io *io, const char *at) {
  return (size_t)(at - io->in.data) - io->start;
}

/* llhttp reports a span once per call that saw a part of it; the parts are neighbours in the buffer. */
static void extend(struct nx_http_io *io, struct nx__http_span *span, const char *at, size_t len) {
  if (!span->at) span->at = (uint32_t)offset_of(io, at);
  span->len += (uint32_t)len;
}

/* --- request line -------------------------------------------------------------------------------------------- */

static int on_url(llhttp_t *parser, const char *at, size_t len) {
  struct nx_http_io *io = parser->data;
  /* llhttp skips any number of spaces; the grammar has one, and a method stands before it. */
  if (!io->target.at && at[-2] == ' ') return refuse(io, NX_ERR_INVALID, 0, "more than one space before the target");
  extend(io, &io->target, at, len);
  return 0;
}

static int on_url_complete(llhttp_t *parser) {
  struct nx_http_io *io = parser->data;
  io->target_done = true;
  return 0;
}

/* llhttp also speaks RTSP and ICE. */
static int on_protocol(llhttp_t *parser, const char *at, size_t len) {
  bool other = len && (*at == 'R' || *at == 'I');
  return other ? refuse(parser->data, NX_ERR_INVALID, 0, "the protocol is not HTTP") : 0;
}

static int check_version(struct nx_http_io *io) {
  if (io->parser.http_major == 1) return 0;
  return refuse(io, NX_ERR_INVALID, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
}

static int on_version_complete(llhttp_t *parser) { return check_version(parser->data); }

/* Origin form as it is, absolute form from its path on, "*" for OPTIONS only. */
static bool split_target(struct nx_http_io *io) {
  struct nx_http_request *request = &io->exchange.request;
  struct nx_str target = text_of(io, io->target);
  const char *path = target.data, *end = target.data + target.len;
  for (const char *c = path; c < end; c++)
    if (*c <= ' ' || *c >= 0x7f || *c == '#') return false; /* char may be signed: obs-text is below ' ' then */
  if (*path != '/' && *path != '*') {
    const char *authority = memmem(path, target.len, "://", 3);
    if (!authority) return false;
    for (path = authority + 3; path < end && *path != '/' && *path != '?';) path++;
  }
  const char *mark = path < end ? memchr(path, '?', (size_t)(end - path)) : NULL;
  request->path = (struct nx_str){path, (size_t)((mark ? mark : end) - path)};
  if (mark) request->query = (struct nx_str){mark + 1, (size_t)(end - mark - 1)};
  if (!request->path.len) request->path = (struct nx_str){"/", 1};
  return *request->path.data == '/' || (request->method == NX_HTTP_OPTIONS && target.len == 1);
}

static enum nx_http_method method_of(const llhttp_t *parser) {
  switch (parser->method) {
  case HTTP_GET: return NX_HTTP_GET;
  case HTTP_HEAD: return NX_HTTP_HEAD;
  case HTTP_POST: return NX_HTTP_POST;
  case HTTP_PUT: return NX_HTTP_PUT;
  case HTTP_DELETE: return NX_HTTP_DELETE;
  case HTTP_OPTIONS: return NX_HTTP_OPTIONS;
  default: return NX_HTTP_OTHER;
  }
}

/* --- headers (and trailers, which are checked for syntax only) ----------------------------------------------- */

static int on_header_field(llhttp_t *parser, const char *at, size_t len) {
  struct nx_http_io *io = parser->data;
  if (io->headers_done) return 0;
  if (io->in_value) {
    io->in_value = false;
    io->name = io->value = (struct nx__http_span){0};
  }
  extend(io, &io->name, at, len);
  return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len) {
  struct nx_http_io *io = parser->data;
  if (!io->headers_done) extend(io, &io->value, at, len);
  return 0;
}

static int on_header_value_complete(llhttp_t *parser) {
  struct nx_http_io *io = parser->data;
  if (io->headers_done) return 0;
  io->in_value = true; /* and over: the next thing is another field */
  struct nx_str name = text_of(io, io->name), value = text_of(io, io->value);
  for (unsigned i = 0; i < NX__HTTP_HEADER_COUNT; i++) {
    if (!equals(name, known[i].name)) continue;
    if (io->headers[i].at)
      return known[i].once ? refuse(io, NX_ERR_INVALID, 0, "a header that may come only once came twice") : 0;
    while (value.len && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t')) value.len--;
    io->headers[i] = (struct nx__http_span){value.data ? io->value.at : io->name.at, (uint32_t)value.len};
    return 0;
  }
  return 0;
}

static bool valid_host(struct nx_str host) {
  for (size_t i = 0; i < host.len; i++)
    if (host.data[i] <= ' ' || host.data[i] >= 0x7f || strchr("/\\@?#,<>\"{}|^`", host.data[i])) return false;
  return true;
}

/* What makes framing or routing ambiguous. Nothing here may read past the headers: the body may not be there. */
static int check_headers(struct nx_http_io *io, const llhttp_t *parser) {
  struct nx_str host = text_of(io, io->headers[NX__HTTP_HOST]);
  struct nx_str coding = text_of(io, io->headers[NX__HTTP_TRANSFER_ENCODING]);
  if (check_version(io)) return HPE_USER; /* HTTP/0.9 has none to complete */
  if (parser->method == HTTP_CONNECT) return refuse(io, NX_ERR_METHOD, 0, "nexus is not a proxy");
  if (!host.data && parser->http_minor >= 1) return refuse(io, NX_ERR_INVALID, 0, "the Host header is missing");
  if (!valid_host(host)) return refuse(io, NX_ERR_INVALID, 0, "the Host header is not a host");
  if (coding.data && (parser->http_minor == 0 || (parser->flags & F_CONTENT_LENGTH) || !equals(coding, "chunked")))
    return refuse(io, NX_ERR_INVALID, 0, "Transfer-Encoding must be exactly chunked, in HTTP/1.1, without a length");
  io->exchange.request.method = method_of(parser);
  return split_target(io) ? 0 : refuse(io, NX_ERR_INVALID, 0, "the request target is not valid");
}

/* Expect is answered only where a body is still to come. */
static int check_expectation(struct nx_http_io *io, const llhttp_t *parser) {
  struct nx_str expect = text_of(io, io->headers[NX__HTTP_EXPECT]);
  if (!expect.data || parser->http_minor == 0) return 0;
  if (!equals(expect, "100-continue")) return refuse(io, NX_ERR_INVALID, 417, "the expectation is not known");
  io->expects_continue = (parser->flags & F_CHUNKED) || parser->content_length > 0;
  return 0;
}

/* `bytes` more of the body are announced: an answer need not wait until they were sent. */
static int check_body_size(struct nx_http_io *io, uint64_t bytes) {
  if (bytes <= io->limits->max_body_bytes - io->body_len) return 0;
  return refuse(io, NX_ERR_TOO_LARGE, 0, "the request body is larger than this server accepts");
}

static int on_headers_complete(llhttp_t *parser) {
  struct nx_http_io *io = parser->data;
  io->headers_done = true;
  parser->upgrade = 0; /* an Upgrade header is ignored, and the parser goes on speaking HTTP/1.1 */
  uint64_t announced = parser->flags & F_CONTENT_LENGTH ? parser->content_length : 0;
  /* -1, because other positive values than these errors have a meaning to llhttp here. */
  return check_headers(io, parser) || check_body_size(io, announced) || check_expectation(io, parser) ? -1 : 0;
}

/* --- body ---------------------------------------------------------------------------------------------------- */

static int on_chunk_header(llhttp_t *parser) {
  return check_body_size(parser->data, parser->content_length);
}

static int on_body(llhttp_t *parser, const char *at, size_t len) {
  struct nx_http_io *io = parser->data;
  if (!io->body_at) io->body_at = offset_of(io, at);
  char *to = io->in.data + io->start + io->body_at + io->body_len;
  if (to != at) memmove(to, at, len); /* to < at: chunk framing in between */
  io->body_len += len;
  return 0;
}

static int on_message_complete(llhttp_t *parser) {
  struct nx_http_io *io = parser->data;
  io->keep_alive = llhttp_should_keep_alive(parser) && !(parser->flags & F_CONNECTION_CLOSE);
  return HPE_PAUSED; /* the next request waits until this one is answered */
}

/* --- driving ------------------------------------------------------------------------------------------------- */

static const llhttp_settings_t settings = {
  .on_url = on_url,
  .on_url_complete = on_url_complete,
  .on_protocol = on_protocol,
  .on_version_complete = on_version_complete,
  .on_header_field = on_header_field,
  .on_header_value = on_header_value,
  .on_header_value_complete = on_header_value_complete,
  .on_headers_complete = on_headers_complete,
  .on_chunk_header = on_chunk_header,
  .on_body = on_body,
  .on_message_complete = on_message_complete,
};

void nx__http_parse_begin(struct nx_http_io *io) {
  llhttp_init(&io->parser, HTTP_REQUEST, &settings);
  io->parser.data = io;
  io->parsed = io->start;
  io->target = io->name = io->value = (struct nx__http_span){0};
  memset(io->headers, 0, sizeof io->headers);
  io->body_at = io->body_len = io->framing_bytes = 0;
  io->in_value = io->target_done = io->headers_done = io->expects_continue = io->keep_alive = false;
  io->refusal = (struct nx__http_refusal){0};
  io->exchange.request = (struct nx_http_request){.method = NX_HTTP_OTHER};
}

void nx__http_parse_fill(struct nx_http_io *io) {
  struct nx_http_request *request = &io->exchange.request;
  split_target(io); /* again: the buffer may have moved since the headers were complete */
  request->content_type = text_of(io, io->headers[NX__HTTP_CONTENT_TYPE]);
  request->authorization = text_of(io, io->headers[NX__HTTP_AUTHORIZATION]);
  request->if_match = text_of(io, io->headers[NX__HTTP_IF_MATCH]);
  request->if_none_match = text_of(io, io->headers[NX__HTTP_IF_NONE_MATCH]);
  request->traceparent = text_of(io, io->headers[NX__HTTP_TRACEPARENT]);
  request->request_id = text_of(io, io->headers[NX__HTTP_REQUEST_ID]);
}

/* The next bytes for llhttp. Of a request head it never sees more than it may have. */
static size_t next_piece(struct nx_http_io *io) {
  size_t bytes = io->in.len - io->parsed;
  if (io->headers_done) return bytes;
  size_t room = io->limits->max_header_bytes - (io->parsed - io->start);
  if (!room)
    refuse(io, NX_ERR_HEADERS_TOO_LARGE, io->target_done ? 0 : 414,
           io->target_done ? "the request headers are larger than this server accepts"
                           : "the request target is longer than this server accepts");
  return bytes < room ? bytes : room;
}

static enum nx__http_parse syntax_error(struct nx_http_io *io, llhttp_errno_t error) {
  bool h2 = error == HPE_PAUSED_H2_UPGRADE;
  if (io->refusal.code == NX_OK) refuse(io, NX_ERR_INVALID, h2 ? 505 : 0, llhttp_get_error_reason(&io->parser));
  return NX__HTTP_REFUSED;
}

/* Cuts the framing of a chunked body out of the buffer, so that it holds the head and the body only. Framing has its
 * own limit: it may be long without being body (extensions, leading zeros, trailers). */
static enum nx__http_parse drop_framing(struct nx_http_io *io) {
  if (!io->body_at) io->body_at = io->parsed - io->start;
  size_t kept = io->start + io->body_at + io->body_len;
  io->framing_bytes += io->in.len - kept;
  io->in.len = io->parsed = kept;
  if (io->framing_bytes <= io->limits->max_header_bytes + 8 * io->body_len) return NX__HTTP_MORE;
  refuse(io, NX_ERR_HEADERS_TOO_LARGE, 0, "the chunked body has too many bytes of framing");
  return NX__HTTP_REFUSED;
}

enum nx__http_parse nx__http_parse(struct nx_http_io *io) {
  while (io->parsed < io->in.len) {
    size_t bytes = next_piece(io);
    const char *at = io->in.data + io->parsed;
    if (io->parsed == io->start && *at == '\n') refuse(io, NX_ERR_INVALID, 0, "a bare line feed");
    if (io->refusal.code != NX_OK) return NX__HTTP_REFUSED;
    llhttp_errno_t error = llhttp_execute(&io->parser, at, bytes);
    if (error == HPE_PAUSED) {
      io->parsed = (size_t)(llhttp_get_error_pos(&io->parser) - io->in.data);
      nx__http_parse_fill(io);
      if (io->body_len)
        io->exchange.request.body = (struct nx_str){io->in.data + io->start + io->body_at, io->body_len};
      return NX__HTTP_COMPLETE;
    }
    if (error != HPE_OK) return syntax_error(io, error);
    io->parsed += bytes;
  }
  /* A line that ends without a version is HTTP/0.9, and there are no headers to wait for. llhttp sets the minor
   * version with the byte that follows. */
  bool versionless = io->target.at && io->parser.http_major == 0;
  if (versionless && (io->parser.http_minor == 9 || io->in.data[io->parsed - 1] == '\n')) {
    check_version(io);
    return NX__HTTP_REFUSED;
  }
  return io->headers_done && (io->parser.flags & F_CHUNKED) ? drop_framing(io) : NX__HTTP_MORE;
}

bool nx__http_parse_is_head(const struct nx_http_io *io) { return io->parser.method == HTTP_HEAD; }
