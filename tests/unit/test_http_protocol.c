/* SPDX-License-Identifier: Apache-2.0
 *
 * What the HTTP server takes for a request, what it refuses, and in which form it answers: literal bytes, cut at
 * all places, through real sockets. */
#include "http_support.h"

/* --- one request each ---------------------------------------------------------------------------------------- */

struct row {
  const char *name;
  const char *bytes;
  size_t len;
  int status;
  bool closes;
  const char *body; /* NULL: any */
};
#define ROW(name, bytes, status, closes, body) {name, bytes, sizeof(bytes) - 1, status, closes, body}

static const struct row good[] = {
  ROW("get", GET("/x"), 200, false, "/x"),
  ROW("query", "GET /headers?a=b?c HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "||||||a=b?c"),
  ROW("known headers",
      "GET /headers HTTP/1.1\r\nhOST: a:80\r\ncontent-TYPE:text/x \t \r\nIf-Match: \"1\"\r\nIf-None-Match:\"2\"\r\n"
      "Authorization: Bearer t\r\ntraceparent: 00-1\r\nX-Request-Id: r\r\nX-Other: \x80\xff\r\n\r\n",
      200, false, "text/x|\"1\"|\"2\"|Bearer t|00-1|r|"),
  ROW("empty header value", "GET /headers HTTP/1.1\r\nHost: a\r\nContent-Type:\r\nX:\r\n\r\n", 200, false, "||||||"),
  ROW("the first traceparent counts", "GET /headers HTTP/1.1\r\nHost: a\r\ntraceparent: 1\r\ntraceparent: 2\r\n\r\n",
      200, false, "||||1||"),
  ROW("head", "HEAD /big?100 HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, ""),
  ROW("options", "OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/x"),
  ROW("options *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "*"),
  ROW("put", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", 200, false, "ab"),
  ROW("delete", "DELETE /d HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/d"),
  ROW("other method", "PATCH /p HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/p"),
  ROW("empty host", "GET /x HTTP/1.1\r\nHost:\r\n\r\n", 200, false, "/x"),
  ROW("ipv6 host", "GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, false, "/x"),
  ROW("leading empty line", "\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/x"),
  ROW("escapes stay", "GET /a%20b/../c;d HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/a%20b/../c;d"),
  ROW("absolute form", "GET http://h:1/x?q HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/x"),
  ROW("absolute form without path", "GET http://h HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/"),
  ROW("absolute form with query only", "GET http://h?q HTTP/1.1\r\nHost: a\r\n\r\n", 200, false, "/"),
  ROW("length 0", POST "Content-Length: 0\r\n\r\n", 200, false, "/"),
  ROW("length", POST "Content-Length: 3\r\n\r\nabc", 200, false, "abc"),
  ROW("length with leading zeros", POST "Content-Length: 003\r\n\r\nabc", 200, false, "abc"),
  ROW("body on get", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200, false, "abc"),
  ROW("binary body", POST "Content-Length: 3\r\n\r\n\r\n\xff", 200, false, "\r\n\xff"),
  ROW("chunked", CHUNKED "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", 200, false, "abcd"),
  ROW("chunked, capital", POST "Transfer-Encoding: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", 200, false,
      "0123456789"),
  ROW("chunked, empty", CHUNKED "0\r\n\r\n", 200, false, "/"),
  ROW("chunked, leading zeros", CHUNKED "0003\r\nabc\r\n000\r\n\r\n", 200, false, "abc"),
  ROW("chunk extension", CHUNKED "3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n", 200, false, "abc"),
  ROW("trailers", CHUNKED "3\r\nabc\r\n0\r\nX: y\r\nHost: b\r\n\r\n", 200, false, "abc"),
  ROW("close", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, true, "/x"),
  ROW("close in a list", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE\r\n\r\n", 200, true, "/x"),
  ROW("the application closes", GET("/close"), 200, true, "/close"),
  ROW("1.0", "GET /x HTTP/1.0\r\n\r\n", 200, true, "/x"),
  ROW("1.0 kept alive", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, false, "/x"),
  ROW("1.0 ignores expect", "GET /x HTTP/1.0\r\nExpect: more\r\n\r\n", 200, true, "/x"),
  ROW("upgrade is ignored", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 200,
      false, "/x"),
  ROW("h2c is ignored",
      POST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\nContent-Length: 2\r\n\r\nok",
      200, false, "ok"),
  ROW("no content", GET("/none"), 204, false, ""),
  ROW("not modified", GET("/unchanged"), 304, false, ""),
  ROW("expect without body", "GET /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 200, false, "/x"),
  ROW("expect with the body already there", POST "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nok", 200, false,
      "ok"),
};

static const struct row bad[] = {
  ROW("no host", "GET / HTTP/1.1\r\n\r\n", 400, true, NULL),
  ROW("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, true, NULL),
  ROW("host with space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, true, NULL),
  ROW("host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, true, NULL),
  ROW("two authorizations", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nAuthorization: c\r\n\r\n", 400, true,
      NULL),
  ROW("length and chunked", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunked and length", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("two lengths", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, true, NULL),
  ROW("two different lengths", POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400, true, NULL),
  ROW("list of lengths", POST "Content-Length: 3, 3\r\n\r\nabc", 400, true, NULL),
  ROW("two words of length", POST "Content-Length: 3 3\r\n\r\nabc", 400, true, NULL),
  ROW("negative length", POST "Content-Length: -1\r\n\r\n", 400, true, NULL),
  ROW("plus length", POST "Content-Length: +1\r\n\r\na", 400, true, NULL),
  ROW("hex length", POST "Content-Length: 0x1\r\n\r\na", 400, true, NULL),
  ROW("empty length", POST "Content-Length:\r\n\r\n", 400, true, NULL),
  ROW("length overflows", POST "Content-Length: 18446744073709551616\r\n\r\n", 400, true, NULL),
  ROW("length overflows far", POST "Content-Length: 99999999999999999999999999\r\n\r\n", 400, true, NULL),
  ROW("largest length", POST "Content-Length: 18446744073709551615\r\n\r\n", 413, true, NULL),
  ROW("bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("bare LF after header", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400, true, NULL),
  ROW("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, true, NULL),
  ROW("bare LF in front", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("bare CR after header", "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, true, NULL),
  ROW("bare LF after chunk size", CHUNKED "3\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("bare LF after chunk", CHUNKED "3\r\nabc\n0\r\n\r\n", 400, true, NULL),
  ROW("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, true, NULL),
  ROW("obs-fold by tab", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", 400, true, NULL),
  ROW("space before first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, true, NULL),
  ROW("space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, true, NULL),
  ROW("tab before colon", POST "Content-Length\t: 3\r\n\r\nabc", 400, true, NULL),
  ROW("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", 400, true, NULL),
  ROW("empty header name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400, true, NULL),
  ROW("gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunked, gzip", POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunked, chunked", POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunked twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true,
      NULL),
  ROW("xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunkedx", POST "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("identity", POST "Transfer-Encoding: identity\r\n\r\n", 400, true, NULL),
  ROW("quoted chunked", POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("empty coding", POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunked with vertical tab", POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunked in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size not hex", CHUNKED "x\r\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size empty", CHUNKED "\r\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size negative", CHUNKED "-3\r\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size 0x", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size with space", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size overflows", CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk longer than its size", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 400, true, NULL),
  ROW("chunk size huge", CHUNKED "ffffffffffffffff\r\n", 413, true, NULL),
  ROW("NUL in header", POST "X: a\0b\r\n\r\n", 400, true, NULL),
  ROW("NUL in name", POST "X\0Y: b\r\n\r\n", 400, true, NULL),
  ROW("control in header", POST "X: a\x01\r\n\r\n", 400, true, NULL),
  ROW("DEL in header", POST "X: a\x7f\r\n\r\n", 400, true, NULL),
  ROW("control in target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("NUL in target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("tab in target", "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("obs-text in target", "GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("fragment in target", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("relative target", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("star for get", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("star with path", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("trailing space in the request line", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("unknown method", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("connect", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405, true, NULL),
  ROW("connect with more", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" GET("/x"), 405, true, NULL),
  ROW("expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417, true, NULL),
  ROW("0.9", "GET /\r\n", 505, true, NULL),
  ROW("0.9 with headers", "GET /\r\nHost: a\r\n\r\n", 505, true, NULL),
  ROW("0.9 by name", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505, true, NULL),
  ROW("1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, true, NULL),
  ROW("lower-case http", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("rtsp", "OPTIONS / RTSP/1.0\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("ice", "SOURCE / ICE/1.0\r\nHost: a\r\n\r\n", 400, true, NULL),
  ROW("http/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, true, NULL),
  ROW("tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, true, NULL),
  ROW("body too large", POST "Content-Length: 65537\r\n\r\n", 413, true, NULL),
  ROW("body too large, expecting", POST "Content-Length: 65537\r\nExpect: 100-continue\r\n\r\n", 413, true, NULL),
  ROW("chunk too large", CHUNKED "10001\r\n", 413, true, NULL),
  ROW("length in trailer", CHUNKED "3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n", 400, true, NULL),
  ROW("control in trailer", CHUNKED "3\r\nabc\r\n0\r\nX: \x01\r\n\r\n", 400, true, NULL),
};

/* Sends the row in two parts, cut at `cut`. */
static void check_row(const struct row *row, size_t cut, bool is_good) {
  unsigned handled = atomic_load(&app->handled), refused = atomic_load(&app->refused);
  int fd = dial();
  assert_true(try_say(fd, row->bytes, cut));
  if (cut && cut < row->len) usleep(200); /* only a hint to the server to read the first part by itself */
  try_say(fd, row->bytes + cut, row->len - cut);
  struct reply reply = hear_for(fd, !strncmp(row->bytes, "HEAD", 4));
  if (reply.status == 100) {
    free(reply.body);
    reply = hear(fd);
  }
  if (reply.status != row->status || reply.closes != row->closes)
    fail_msg("%s, cut at %zu: status %d, %s", row->name, cut, reply.status, reply.closes ? "closes" : "stays");
  if (row->body && strcmp(reply.body, row->body)) fail_msg("%s: body \"%s\"", row->name, reply.body);
  if (!is_good) assert_non_null(strstr(reply.body, "\"detail\":\""));
  free(reply.body);
  if (row->closes) {
    assert_true(ended_in_order(fd));
  } else {
    say(fd, GET("/again"));
    expect(fd, 200, "/again");
  }
  assert_int_equal(atomic_load(&app->handled) - handled, is_good ? row->closes ? 1 : 2 : 0);
  assert_int_equal(atomic_load(&app->refused) - refused, is_good ? 0 : 1);
  close(fd);
}

static void test_good_requests(void **state) {
  (void)state;
  start(defaults());
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) check_row(&good[i], good[i].len, true);
  stop();
}

static void test_bad_requests(void **state) {
  (void)state;
  start(defaults());
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) check_row(&bad[i], bad[i].len, false);
  EVENTUALLY(stats().connections == 0);
  stop();
}

/* The parser must not care where reads cut a request. */
static void test_every_cut(void **state) {
  (void)state;
  start(defaults());
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    for (size_t cut = 1; cut < good[i].len; cut += good[i].len > 60 ? 3 : 1) check_row(&good[i], cut, true);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    for (size_t cut = 2; cut < bad[i].len; cut += 5) check_row(&bad[i], cut, false);
  stop();
}

static void test_byte_by_byte(void **state) {
  (void)state;
  static const char request[] = POST "Transfer-Encoding: chunked\r\nX-Request-Id: 1\r\n\r\n"
                                     "3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n";
  start(defaults());
  int fd = dial();
  for (int round = 0; round < 2; round++) {
    for (size_t i = 0; i + 1 < sizeof request; i++) {
      assert_true(try_say(fd, request + i, 1));
      usleep(100);
    }
    expect(fd, 200, "abcde");
  }
  close(fd);
  stop();
}

/* Checks the Date line (IMF-fixdate, a few seconds old at most) and takes it out. */
static void cut_date(char *head) {
  struct tm t = {0};
  char *date = strstr(head, "Date: "), *end = date ? strptime(date, "Date: %a, %d %b %Y %H:%M:%S GMT", &t) : NULL;
  assert_non_null(end);
  assert_int_equal(end - date, 35);
  assert_memory_equal(end, "\r\n", 2);
  assert_true(labs((long)(timegm(&t) - time(NULL))) < 60);
  memmove(date, end + 2, strlen(end + 2) + 1);
}

static void test_response_head(void **state) {
  (void)state;
  start(defaults());
  int fd = dial();
  say(fd, GET("/headers"));
  struct reply reply = hear(fd);
  cut_date(reply.head);
  assert_string_equal(reply.head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n"
                                  "X-One: 1\r\nX-Two: 2\r\n\r\n");
  free(reply.body);
  say(fd, "HEAD /big?4000000 HTTP/1.1\r\nHost: a\r\n\r\n");
  reply = hear_for(fd, true);
  assert_non_null(header(&reply, "\r\nContent-Length: 4000000\r\n"));
  free(reply.body);
  say(fd, GET("/none"));
  reply = hear(fd);
  cut_date(reply.head);
  assert_string_equal(reply.head, "HTTP/1.1 204 No Content\r\n\r\n");
  free(reply.body);
  say(fd, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  reply = hear(fd);
  assert_non_null(header(&reply, "\r\nConnection: keep-alive\r\n"));
  free(reply.body);
  say(fd, "HEAD /\x01 HTTP/1.1\r\n\r\n"); /* a refused HEAD has no body either */
  reply = hear_for(fd, true);
  assert_int_equal(reply.status, 400);
  free(reply.body);
  assert_true(ended_in_order(fd));
  close(fd);
  stop();
}

/* --- limits -------------------------------------------------------------------------------------------------- */

static int status_for(char *request) {
  int fd = dial();
  try_say(fd, request, strlen(request));
  int status = status_of(fd);
  if (status >= 400) assert_true(ended_in_order(fd));
  close(fd);
  free(request);
  return status;
}

static void test_header_limit(void **state) {
  (void)state;
  start(defaults());
  size_t rest = strlen("GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n");
  assert_int_equal(status_for(filled("GET / HTTP/1.1\r\nHost: a\r\nX: ", 8 * KIB - rest, "\r\n\r\n")), 200);
  assert_int_equal(status_for(filled("GET / HTTP/1.1\r\nHost: a\r\nX: ", 8 * KIB - rest + 1, "\r\n\r\n")), 431);
  assert_int_equal(status_for(filled("GET / HTTP/1.1\r\nHost: a\r\nX: ", 100 * KIB, "\r\n\r\n")), 431);
  assert_int_equal(status_for(filled("GET /", 100 * KIB, " HTTP/1.1\r\nHost: a\r\n\r\n")), 414);
  assert_int_equal(status_for(filled("GET / HTTP/1.1\r\nHost: a\r\n", 100 * KIB, ": a\r\n\r\n")), 431);
  char *empty_lines = filled("", 100 * KIB, "");
  for (size_t i = 0; empty_lines[i]; i++) empty_lines[i] = "\r\n"[i % 2];
  assert_int_equal(status_for(empty_lines), 414);
  stop();
}

static void test_body_limit(void **state) {
  (void)state;
  start(defaults());
  assert_int_equal(status_for(filled(POST "Content-Length: 65536\r\n\r\n", 64 * KIB, "")), 200);
  assert_int_equal(status_for(filled(POST "Content-Length: 65537\r\n\r\n", 64 * KIB + 1, "")), 413);
  assert_int_equal(status_for(filled(POST "Content-Length: 900000\r\n\r\n", 900000, "")), 413);
  assert_int_equal(status_for(filled(CHUNKED "10000\r\n", 64 * KIB, "\r\n0\r\n\r\n")), 200);
  assert_int_equal(status_for(filled(CHUNKED "10000\r\n", 64 * KIB, "\r\n1\r\nx\r\n0\r\n\r\n")), 413);
  /* Framing that is not body has a limit too. */
  char *zeros = filled(CHUNKED, 500 * KIB, "1\r\nx\r\n0\r\n\r\n");
  memset(zeros + strlen(CHUNKED), '0', 500 * KIB);
  assert_int_equal(status_for(zeros), 431);
  assert_int_equal(status_for(filled(CHUNKED "1;", 500 * KIB, "\r\nx\r\n0\r\n\r\n")), 431);
  assert_int_equal(status_for(filled(CHUNKED "1\r\nx\r\n0\r\nT: ", 500 * KIB, "\r\n\r\n")), 431);
  stop();
}

/* 64 KiB in chunks of one byte each: joined, and no more memory than the body needs. */
static void test_many_small_chunks(void **state) {
  (void)state;
  start(defaults());
  int fd = dial();
  say(fd, CHUNKED);
  for (int i = 0; i < 1024; i++) {
    char block[64 * 6 + 1];
    for (int j = 0; j < 64; j++) sprintf(block + j * 6, "1\r\n%c\r\n", 'a' + (i + j) % 26);
    say(fd, block);
  }
  assert_true(http_buffers.charged < 256 * KIB);
  say(fd, "0\r\n\r\n");
  struct reply reply = hear(fd);
  assert_int_equal(reply.len, 64 * KIB);
  for (int i = 0; i < 1024; i++)
    for (int j = 0; j < 64; j++) assert_int_equal(reply.body[i * 64 + j], 'a' + (i + j) % 26);
  free(reply.body);
  close(fd);
  stop();
}

static void test_continue(void **state) {
  (void)state;
  start(defaults());
  int fd = dial();
  for (int round = 0; round < 2; round++) {
    say(fd, POST "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    struct reply reply = hear(fd);
    assert_string_equal(reply.head, "HTTP/1.1 100 Continue\r\n\r\n");
    free(reply.body);
    say(fd, "ok");
    expect(fd, 200, "ok");
    say(fd, POST "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    expect(fd, 100, NULL);
    say(fd, "2\r\nok\r\n0\r\n\r\n");
    expect(fd, 200, "ok");
  }
  close(fd);
  stop();
}

/* The client hears it before it sends its body, and the connection ends politely although it sends on. */
static void test_answer_from_the_head(void **state) {
  (void)state;
  static const char *const framings[] = {"Content-Length: 60000\r\n", "Transfer-Encoding: chunked\r\n",
                                         "Content-Length: 60000\r\nExpect: 100-continue\r\n",
                                         "Content-Length: 60000\r\nConnection: close\r\n"};
  start(defaults());
  for (size_t i = 0; i < sizeof framings / sizeof *framings; i++) {
    NX_BUF_AUTO text = {0};
    int fd = dial();
    nx_buf_printf(&text, "POST /early HTTP/1.1\r\nHost: a\r\nAuthorization: it is me\r\n%s\r\n", framings[i]);
    assert_true(try_say(fd, text.data, text.len));
    expect(fd, 401, "it is me");
    while (text.len < 60000) nx_buf_char(&text, 'x');
    assert_true(try_say(fd, text.data, text.len));
    assert_true(ended_in_order(fd));
    close(fd);
  }
  assert_int_equal(atomic_load(&app->handled), 0);
  EVENTUALLY(atomic_load(&app->finished) == sizeof framings / sizeof *framings);
  int fd = dial(); /* with the body there is nothing to be early for */
  say(fd, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok");
  expect(fd, 200, "ok");
  close(fd);
  stop();
}

/* --- pipelining, fairness, ends ------------------------------------------------------------------------------ */

static void test_pipelining(void **state) {
  (void)state;
  start(defaults());
  int fd = dial();
  struct nx_buf all = {0};
  for (int i = 0; i < 500; i++) {
    char body[16];
    sprintf(body, "n%d", i);
    if (i % 2)
      nx_buf_printf(&all, POST "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
      nx_buf_printf(&all, CHUNKED "%zx\r\n%s\r\n0\r\n\r\n", strlen(body), body);
  }
  nx_buf_printf(&all, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET("/never"));
  assert_true(try_say(fd, all.data, all.len));
  for (int i = 0; i < 500; i++) {
    char body[16];
    sprintf(body, "n%d", i);
    expect(fd, 200, body);
  }
  expect(fd, 200, "/x");
  assert_true(ended_in_order(fd));
  assert_int_equal(atomic_load(&app->handled), 501);
  nx_buf_deinit(&all);
  close(fd);
  stop();
}

/* The FIN comes with the data, or right behind it: edge-triggered epoll says so once. */
static void test_half_closed(void **state) {
  (void)state;
  start(defaults());
  for (int i = 0; i < 500; i++) {
    int fd = dial();
    say(fd, GET("/a") GET("/b") GET("/c"));
    if (i % 3 == 0) usleep((useconds_t)(i % 50));
    shutdown(fd, SHUT_WR);
    expect(fd, 200, "/a");
    expect(fd, 200, "/b");
    expect(fd, 200, "/c");
    assert_true(ended_in_order(fd));
    close(fd);
  }
  EVENTUALLY(stats().connections == 0);
  stop();
}

static void test_peer_leaves(void **state) {
  (void)state;
  static const char *const said[] = {"", "GET", POST "Content-Length: 9\r\n\r\nab", GET("/x"), GET("/big?4000000"),
                                     GET("/x") GET("/big?4000000") GET("/y"), "nonsense\r\n\r\n"};
  start(defaults());
  for (int i = 0; i < 700; i++) {
    int fd = dial();
    say(fd, said[i % 7]);
    struct linger reset = {.l_onoff = 1};
    if (i % 2) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
  }
  EVENTUALLY(stats().connections == 0);
  stop();
}

static void *hammer(void *argument) {
  unsigned seed = (unsigned)(uintptr_t)argument;
  for (int round = 0; round < 40; round++) {
    int fd = dial();
    int count = 1 + rand_r(&seed) % 30;
    struct nx_buf all = {0};
    for (int i = 0; i < count; i++) nx_buf_printf(&all, POST "Content-Length: 6\r\n\r\n%06d", i);
    int heard = 0;
    for (size_t at = 0; at < all.len;) {
      size_t piece = 1 + (size_t)rand_r(&seed) % 200;
      if (piece > all.len - at) piece = all.len - at;
      assert_true(try_say(fd, all.data + at, piece));
      at += piece;
      while (heard < count && readable(fd, 0)) {
        char body[16];
        sprintf(body, "%06d", heard++);
        expect(fd, 200, body);
      }
    }
    if (round % 2) shutdown(fd, SHUT_WR);
    for (char body[16]; heard < count;) {
      sprintf(body, "%06d", heard++);
      expect(fd, 200, body);
    }
    if (round % 2) assert_true(ended_in_order(fd));
    nx_buf_deinit(&all);
    close(fd);
  }
  return NULL;
}

static void test_hammer(void **state) {
  (void)state;
  start(defaults());
  pthread_t clients[8];
  for (uintptr_t i = 0; i < 8; i++) pthread_create(&clients[i], NULL, hammer, (void *)(i + 1));
  for (int i = 0; i < 8; i++) pthread_join(clients[i], NULL);
  EVENTUALLY(stats().connections == 0);
  assert_int_equal(atomic_load(&app->handled), atomic_load(&app->finished));
  stop();
}

int main(void) {
  prepare_process();
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_good_requests),
    cmocka_unit_test(test_bad_requests),
    cmocka_unit_test(test_every_cut),
    cmocka_unit_test(test_byte_by_byte),
    cmocka_unit_test(test_response_head),
    cmocka_unit_test(test_header_limit),
    cmocka_unit_test(test_body_limit),
    cmocka_unit_test(test_many_small_chunks),
    cmocka_unit_test(test_continue),
    cmocka_unit_test(test_answer_from_the_head),
    cmocka_unit_test(test_pipelining),
    cmocka_unit_test(test_half_closed),
    cmocka_unit_test(test_peer_leaves),
    cmocka_unit_test(test_hammer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
