/* SPDX-License-Identifier: Apache-2.0
 *
 * The net extension against a server of its own on 127.0.0.1, names included: nothing leaves the machine. */
#include "net_support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#define BODY_BYTES_MAX ((size_t)64 << 10)

static struct nx_net *net;

static struct nx_net *create(const char *format, ...) {
  char list[512];
  va_list values;
  va_start(values, format);
  vsnprintf(list, sizeof list, format, values);
  va_end(values);
  struct nx_net_options options = {.allow = list, .account = &account.as_account, .max_body_bytes = BODY_BYTES_MAX,
                                   .max_timeout_ms = 30000, .max_concurrent = 8};
  struct nx_net *created;
  struct nx_error err = {0};
  if (nx_net_create(&created, &options, &err)) fail_msg("%s", err.text);
  return created;
}

static int setup(void **state) {
  (void)state;
  server_start();
  account.limit = (size_t)-1;
  net = create("127.0.0.1:%u,loop.test:%u,slow.test:%u,mapped.test:%u,none.test:%u,localhost:%u", server.port, server.port,
               server.port, server.port, server.port, server.port);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  nx_net_destroy(net);
  net = NULL;
  server_stop();
  assert_int_equal(account.charged, 0);
  return 0;
}

#define HERE "http://127.0.0.1:%u"

/* ---- What is sent --------------------------------------------------------------------------------------------------- */

static void test_get(void **state) {
  const char *json = get(net, "['" HERE "/hello#part']", server.port);
  char want[256];
  snprintf(want, sizeof want, "{\"status\":200,\"statusText\":\"Fine\",\"url\":\"http://127.0.0.1:%u/hello\",\"redirected\":false,"
           "\"headers\":{\"content-length\":\"5\"},\"body\":\"hello\"}", server.port);
  assert_string_equal(json, want);
  assert_has(get(net, "['" HERE "/missing', null]", server.port), "\"status\":404,\"statusText\":\"Not Found\"");
}

static void test_urls_are_encoded(void **state) {
  const char *json = get(net, "['" HERE "/echo/\xc3\xbc%%20%%C3?\xc3\xbc=+']", server.port);
  assert_has(json, "GET /echo/%c3%bc%20%C3?%c3%bc=+ HTTP/1.1\\r\\n");
}

static void test_default_headers(void **state) {
  const char *json = get(net, "['" HERE "/echo']", server.port);
  assert_has(json, "GET /echo HTTP/1.1\\r\\n");
  assert_has(json, "User-Agent: nexus/");
  assert_has(json, "traceparent: 00-trace-parent-01\\r\\n");
  assert_lacks(json, "Accept-Encoding");
  assert_lacks(json, "\\r\\nContent-");
}

static void test_headers_of_the_handler(void **state) {
  const char *json = get(net, "['" HERE "/echo', {'headers': {'X-A': ' a b ', 'x-empty': '', 'user-agent': 'mine',"
                              "'Traceparent': 'own'}, 'unknown': 1}]", server.port);
  assert_has(json, "X-A: a b\\r\\n");
  assert_has(json, "x-empty:\\r\\n");
  assert_has(json, "user-agent: mine\\r\\n");
  assert_has(json, "Traceparent: own\\r\\n");
  assert_lacks(json, "nexus/");
  assert_lacks(json, "trace-parent");
  json = get(net, "['" HERE "/echo', {'headers': [['X-A', '1'], ['X-A', '2']]}]", server.port);
  assert_has(json, "X-A: 1\\r\\nX-A: 2\\r\\n");
}

static void test_methods_and_bodies(void **state) {
  const char *json = get(net, "['" HERE "/echo', {'method': 'post', 'body': 'h\xc3\xa9'}]", server.port);
  assert_has(json, "POST /echo");
  assert_has(json, "Content-Length: 3\\r\\n");
  assert_lacks(json, "Content-Type");
  assert_has(json, "\\r\\n\\r\\nh\xc3\xa9\"");
  json = get(net, "['" HERE "/echo', {'method': 'PUT', 'bodyBase64': 'YWI=', 'headers': {'Content-Type': 'a/b'}}]", server.port);
  assert_has(json, "Content-Type: a/b\\r\\n");
  assert_has(json, "\\r\\n\\r\\nab\"");
  assert_has(get(net, "['" HERE "/echo', {'method': 'POST'}]", server.port), "Content-Length: 0\\r\\n");
  assert_has(get(net, "['" HERE "/echo', {'method': 'PUT', 'bodyBase64': ''}]", server.port), "Content-Length: 0\\r\\n");
  assert_lacks(get(net, "['" HERE "/echo', {'method': 'DELETE'}]", server.port), "Content-Length: 0");
  assert_has(get(net, "['" HERE "/echo', {'method': 'patch', 'body': 'x'}]", server.port), "patch /echo");
  assert_has(get(net, "['" HERE "/big/9', {'method': 'HEAD'}]", server.port), "\"body\":\"\"");
}

/* Larger than libcurl would send without asking first (Expect: 100-continue). */
static void test_large_request_body(void **state) {
  static char body[40001];
  memset(body, 'y', sizeof body - 1);
  const char *json = get(net, "['" HERE "/echo', {'method': 'POST', 'body': '%s'}]", server.port, body);
  assert_has(json, "Content-Length: 40000\\r\\n");
  assert_lacks(json, "Expect");
  assert_has(json, body);
}

static void test_arguments_that_are_refused(void **state) {
  static const struct { const char *args, *message; } rows[] = {
    {"", "not valid JSON"}, {"{", "not valid JSON"}, {"{}", "expected a URL"}, {"[]", "expected a URL"}, {"[1]", "expected a URL"},
    {"['http://127.0.0.1/', 1]", "not an object"}, {"['http://127.0.0.1/\\u0000']", "the URL is not valid"},
    {"['u', {'method': 1}]", "the method is not valid"}, {"['u', {'method': 'A B'}]", "the method is not valid"},
    {"['u', {'method': ''}]", "the method is not valid"}, {"['u', {'method': 'GET\\r\\nX: y'}]", "the method is not valid"},
    {"['u', {'method': 'G\\u0000'}]", "the method is not valid"}, {"['u', {'method': 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'}]", "the method"},
    {"['u', {'method': 'connect'}]", "CONNECT cannot be used"}, {"['u', {'method': 'TRACE'}]", "TRACE cannot be used"},
    {"['u', {'headers': 1}]", "expected an object"}, {"['u', {'headers': {'a': 1}}]", "must be strings"},
    {"['u', {'headers': [['a']]}]", "[name, value]"}, {"['u', {'headers': ['ab']}]", "[name, value]"},
    {"['u', {'headers': {'a b': 'c'}}]", "a name is not valid"}, {"['u', {'headers': {'': 'c'}}]", "a name is not valid"},
    {"['u', {'headers': {'a:': 'c'}}]", "a name is not valid"}, {"['u', {'headers': {'a\\u0000': 'c'}}]", "a name is not valid"},
    {"['u', {'headers': {'a': 'b\\r\\nc: d'}}]", "control characters"}, {"['u', {'headers': {'a': 'b\\u0000c'}}]", "control characters"},
    {"['u', {'headers': {'a': 'b\\nc'}}]", "control characters"}, {"['u', {'headers': {'HOST': 'x'}}]", "HOST cannot be set"},
    {"['u', {'headers': {'Connection': 'x'}}]", "cannot be set"}, {"['u', {'headers': {'Content-length': '1'}}]", "cannot be set"},
    {"['u', {'headers': {'Transfer-Encoding': 'x'}}]", "cannot be set"}, {"['u', {'headers': {'Upgrade': 'x'}}]", "cannot be set"},
    {"['u', {'headers': {'te': 'x'}}]", "cannot be set"}, {"['u', {'headers': {'Trailer': 'x'}}]", "cannot be set"},
    {"['u', {'headers': {'Expect': 'x'}}]", "cannot be set"}, {"['u', {'headers': {'Proxy-Authorization': 'x'}}]", "cannot be set"},
    {"['u', {'headers': {'proxy-x': 'x'}}]", "cannot be set"}, {"['u', {'headers': {'Keep-Alive': 'x'}}]", "cannot be set"},
    {"['u', {'body': 'x'}]", "GET request has no body"}, {"['u', {'method': 'HEAD', 'body': ''}]", "HEAD request has no body"},
    {"['u', {'method': 'POST', 'body': {}}]", "must be a string"}, {"['u', {'method': 'POST', 'bodyBase64': 'a'}]", "not valid base64"},
    {"['u', {'method': 'POST', 'bodyBase64': 'YWI=x'}]", "not valid base64"}, {"['u', {'method': 'POST', 'body': 'a', 'bodyBase64': 'YWI='}]", "exclude"},
    {"['u', {'timeoutMs': 0}]", "timeoutMs"}, {"['u', {'timeoutMs': -1}]", "timeoutMs"}, {"['u', {'timeoutMs': '1'}]", "timeoutMs"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const char *json = refused(net, rows[i].args);
    if (!strstr(json, rows[i].message) || strncmp(json, "\"net.fetch: ", 12)) fail_msg("%s: %s", rows[i].args, json);
  }
  assert_int_equal(server.connections, 0);
}

static void test_too_many_request_headers(void **state) {
  static char value[65536];
  memset(value, 'v', sizeof value - 1);
  assert_has(refused(net, "['u', {'headers': {'a': '%s'}}]", value), "headers: more than 65536 bytes");
  assert_has(refused(net, "['%s']", value), "the URL has more than 16384 bytes");
}

/* ---- Where it may go ------------------------------------------------------------------------------------------------ */

static void test_urls_that_are_refused(void **state) {
  static const struct { const char *url, *message; } rows[] = {
    {"", "URL"}, {"/path", "http"}, {"127.0.0.1", "http"}, {"//127.0.0.1/", "URL"}, {"file:///etc/passwd", "http"},
    {"ftp://127.0.0.1/", "http"}, {"gopher://127.0.0.1/", "http"}, {"dict://127.0.0.1/", "http"}, {"javascript:0", "URL"},
    {"http://u@127.0.0.1:%u/", "user name"}, {"http://u:p@127.0.0.1:%u/", "user name"}, {"http://allowed.test@127.0.0.1/", "user name"},
    {"http://127.0.0.1/", "not allowed"}, {"http://127.0.0.1:1/", "not allowed"}, {"https://127.0.0.1/", "not allowed"},
    {"http://127.0.0.2:%u/", "not allowed"}, {"http://example.test/", "not allowed"}, {"http://[::1]:%u/", "not allowed"},
    {"http://a b/", "URL"}, {"http://127.0.0.1:99999/", "URL"}, {"http://127.0.0.1 :%u/", "URL"}, {"http:///x", "not allowed"},
    {"http://[fe80::1%%25lo]:%u/", "URL"}, {"http://127.0.0.1:%u\\\\@x.test/", ""}, {"http://x.test#@127.0.0.1:%u/", "not allowed"},
    {"http://127.0.0.1:%u\\n/", "URL"}, {"http://127.0.0.1:%u/\\r\\nX: y", "URL"}, {"http://b\\u00fc.test/", "not allowed"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    char url[256], args[300];
    snprintf(url, sizeof url, rows[i].url, server.port);
    snprintf(args, sizeof args, "['%s']", url);
    const char *json = refused(net, "%s", args);
    if (!strstr(json, rows[i].message)) fail_msg("%s: %s", args, json);
  }
  assert_int_equal(server.connections, 0);
}

/* With every name allowed, addresses must still be public ones. */
static void test_addresses_that_are_refused(void **state) {
  struct nx_net *open = create("*:%u", server.port);
  static const char *const hosts[] = {
    "127.0.0.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0", "127.0.0.1.", "%31%32%37.0.0.1",
    "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[::]", "10.0.0.1", "169.254.169.254", "[fe80::1]",
    "localhost", "LOCALHOST", "localhost.", "loop.test", "mapped.test", "metadata.test", "private.test", "six.test",
  };
  for (size_t i = 0; i < COUNT(hosts); i++) {
    const char *json = refused(open, "['http://%s:%u/hello']", hosts[i], server.port);
    if (!strstr(json, "is not public") && !strstr(json, "not allowed") && !strstr(json, "not valid") && !strstr(json, "not known"))
      fail_msg("%s: %s", hosts[i], json);
  }
  assert_int_equal(server.connections, 0);
  nx_net_destroy(open);
}

static void test_names_whose_address_is_listed(void **state) {
  assert_has(get(net, "['http://loop.test:%u/hello']", server.port), "hello");
  assert_has(get(net, "['http://LOOP.test.:%u/hello']", server.port), "hello");
  assert_has(get(net, "['http://localhost:%u/hello']", server.port), "hello");
  assert_has(get(net, "['http://2130706433:%u/hello']", server.port), "hello"); /* 127.0.0.1, which is listed */
  assert_has(refused(net, "['http://none.test:%u/']", server.port), "none.test: the name is not known");
  struct nx_net *names = create("localhost:%u,loop.test:%u", server.port, server.port);
  assert_has(refused(names, "['http://localhost:%u/hello']", server.port), "localhost is not public");
  assert_has(refused(names, "['http://loop.test:%u/hello']", server.port), "loop.test is not public");
  nx_net_destroy(names);
  struct nx_net *mixed = create("mixed.test:%u,127.0.0.1:%u", server.port, server.port);
  assert_has(get(mixed, "['http://mixed.test:%u/hello']", server.port), "hello");
  nx_net_destroy(mixed);
  struct nx_net *network = create("loop.test:%u,127.0.0.0/8", server.port);
  assert_has(get(network, "['http://loop.test:%u/hello']", server.port), "hello");
  nx_net_destroy(network);
}

static void test_proxies_of_the_environment(void **state) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
  assert_has(get(net, "['" HERE "/hello']", server.port), "hello");
  unsetenv("http_proxy");
  unsetenv("ALL_PROXY");
}

/* ---- Redirects ------------------------------------------------------------------------------------------------------ */

static void test_redirects(void **state) {
  static const struct { int status; const char *method, *then; bool keeps_body; } rows[] = {
    {301, "POST", "GET ", false}, {302, "POST", "GET ", false}, {303, "POST", "GET ", false}, {303, "PUT", "GET ", false},
    {301, "PUT", "PUT ", true}, {302, "DELETE", "DELETE ", true}, {307, "POST", "POST ", true}, {308, "PUT", "PUT ", true},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const char *json = get(net, "['" HERE "/r/%d//echo', {'method': '%s', 'body': 'the-body', 'headers': {'Content-Type': 'a/b',"
                                "'Authorization': 'secret'}}]", server.port, rows[i].status, rows[i].method);
    assert_has(json, "\"redirected\":true");
    assert_has(json, rows[i].then);
    assert_has(json, "Authorization: secret"); /* the same origin */
    assert_int_equal(strstr(json, "the-body") != NULL, rows[i].keeps_body);
    assert_int_equal(strstr(json, "a/b") != NULL, rows[i].keeps_body);
  }
  assert_has(get(net, "['" HERE "/r/303//big/5', {'method': 'HEAD'}]", server.port), "\"body\":\"\"");
  assert_has(get(net, "['" HERE "/r/300//hello']", server.port), "\"status\":300");
  assert_has(get(net, "['" HERE "/a/../relative']", server.port), "/hello\",\"redirected\":true");
}

static void test_redirects_to_refused_places(void **state) {
  static const char *const places[] = {
    "http://127.0.0.2:80/", "http://x.test/", "http://169.254.169.254/latest/", "file:///etc/passwd", "ftp://127.0.0.1/",
    "http://[::1]/", "http://2130706433/", "//x.test/", "http://u:p@127.0.0.1/",
  };
  for (size_t i = 0; i < COUNT(places); i++)
    assert_has(refused(net, "['" HERE "/r/302/%s']", server.port, places[i]), "net.fetch: redirected: ");
  struct nx_net *open = create("*:%u,127.0.0.1:%u", server.port, server.port);
  assert_has(refused(open, "['" HERE "/r/302/http://private.test:%u/']", server.port, server.port), "private.test is not public");
  nx_net_destroy(open);
}

static void test_redirects_without_end(void **state) {
  char path[512] = "";
  for (int i = 0; i < 10; i++) strcat(path, "/r/302/");
  assert_has(get(net, "['" HERE "%s/hello']", server.port, path), "hello");
  assert_has(refused(net, "['" HERE "/r/302/%s/hello']", server.port, path), "more than 10 redirects");
}

static void test_credentials_stay_with_their_origin(void **state) {
  static const char options[] = "{'headers': {'Authorization': 'secret', 'cookie': 'secret', 'X-Other': 'kept'}}";
  const char *json = get(net, "['" HERE "/r/307/http://loop.test:%u/echo', %s]", server.port, server.port, options);
  assert_lacks(json, "secret");
  assert_has(json, "X-Other: kept");
  json = get(net, "['" HERE "/r/307/http://loop.test:%u/r/307/http://127.0.0.1:%u/echo', %s]", server.port, server.port,
             server.port, options);
  assert_lacks(json, "secret"); /* back again, by a stranger's word */
}

static void test_cookies_are_not_kept(void **state) {
  get(net, "['" HERE "/cookie']", server.port);
  assert_lacks(get(net, "['" HERE "/echo']", server.port), "cookie");
}

/* ---- What comes back ------------------------------------------------------------------------------------------------ */

static void test_response_headers(void **state) {
  assert_has(get(net, "['" HERE "/headers']", server.port),
             "\"headers\":{\"content-length\":\"0\",\"x-one\":\"a, b\",\"set-cookie\":[\"c=1, x\",\"d=2\"],\"folded\":\"e f\","
             "\"empty\":\"\",\"__proto__\":\"p\"},\"body\":\"\"}");
  assert_has(get(net, "['" HERE "/cookie']", server.port), "\"set-cookie\":\"c=1\"");
  assert_has(get(net, "['" HERE "/interim']", server.port),
             "\"headers\":{\"transfer-encoding\":\"chunked\",\"x-late\":\"1\"},\"body\":\"ab\"}");
}

static void test_response_bodies(void **state) {
  assert_has(get(net, "['" HERE "/binary']", server.port), "\"bodyBase64\":\"/wAB\"}");
  assert_has(get(net, "['" HERE "/utf8']", server.port), "\"body\":\"\xe2\x82\xac\\\"\\n\\u0000\"}");
  assert_has(get(net, "['" HERE "/big/%zu']", server.port, BODY_BYTES_MAX), "xxxx");
}

static void test_responses_that_are_too_large(void **state) {
  assert_has(refused(net, "['" HERE "/big/%zu']", server.port, BODY_BYTES_MAX + 1), "the response has more than 65536 bytes");
  assert_has(refused(net, "['" HERE "/endless/%zu']", server.port, BODY_BYTES_MAX * 40), "the response has more than 65536 bytes");
  assert_has(refused(net, "['" HERE "/longhead']", server.port), "the response's headers have more than 65536 bytes");
  assert_has(refused(net, "['" HERE "/manyheaders']", server.port), "the response has more than 256 headers");
}

static void test_connections_that_are_cut(void **state) {
  assert_has(refused(net, "['" HERE "/cut']", server.port), "127.0.0.1: the connection was cut");
  assert_has(refused(net, "['" HERE "/nothing']", server.port), "127.0.0.1: the connection was cut");
  assert_has(refused(net, "['" HERE "/nonsense']", server.port), "127.0.0.1: the answer is not HTTP");
}

static void test_nobody_listens(void **state) {
  uint16_t port;
  close(listen_on_loopback(&port));
  struct nx_net *other = create("127.0.0.1:%u", port);
  assert_has(refused(other, "['" HERE "/']", port), "127.0.0.1: cannot connect");
  nx_net_destroy(other);
}

/* ---- Memory --------------------------------------------------------------------------------------------------------- */

static void test_memory_that_is_refused(void **state) {
  get(net, "['" HERE "/hello']", server.port);
  struct reply reply = REPLY;
  account.limit = 100;
  assert_null(begin(net, &reply, "['" HERE "/hello']", server.port));
  assert_int_equal(reply.calls, 0);
  bool succeeded = false;
  for (size_t limit = 4 << 10; !succeeded; limit += 4 << 10) {
    account.limit = limit;
    reply.calls = 0;
    if (!begin(net, &reply, "['" HERE "/big/60000', {'headers': {'a': 'b'}}]", server.port)) continue;
    reply_await(&reply);
    succeeded = reply.success;
    if (!succeeded) assert_has(reply.json, "\"net.fetch: no memory");
  }
  free(reply.json);
}

/* ---- Time, order, end ----------------------------------------------------------------------------------------------- */

static void test_timeouts(void **state) {
  assert_has(refused(net, "['" HERE "/hang', {'timeoutMs': 50}]", server.port), "timed out after 50 ms");
  assert_has(refused(net, "['" HERE "/half', {'timeoutMs': 50.5}]", server.port), "timed out after 50 ms");
  struct nx_net_options options = {.allow = "127.0.0.0/8,*", .max_body_bytes = 1, .max_timeout_ms = 60, .max_concurrent = 1};
  struct nx_net *strict;
  char list[64];
  snprintf(list, sizeof list, "127.0.0.1:%u", server.port);
  options.allow = list;
  assert_int_equal(nx_net_create(&strict, &options, NULL), 0);
  assert_has(refused(strict, "['" HERE "/hang']", server.port), "timed out after 60 ms");
  assert_has(refused(strict, "['" HERE "/hang', {'timeoutMs': 1e300}]", server.port), "timed out after 60 ms");
  /* The second waits for the place of the first, and its time runs. */
  struct reply first = REPLY, second = REPLY;
  begin(strict, &first, "['" HERE "/hang']", server.port);
  begin(strict, &second, "['" HERE "/hang', {'timeoutMs': 10}]", server.port);
  reply_await(&second);
  assert_has(second.json, "timed out after 10 ms");
  reply_await(&first);
  nx_net_destroy(strict);
  free(first.json);
  free(second.json);
}

static void abandon_and_await(struct nx_net_fetch *fetch, struct reply *reply) {
  nx_net_abandon(net, fetch);
  reply_await(reply);
  assert_has(reply->json, "cancelled");
  free(reply->json);
}

static void test_abandon(void **state) {
  struct reply reply = REPLY;
  struct nx_net_fetch *fetch = begin(net, &reply, "['" HERE "/hang']", server.port);
  server_await_hanging(1);
  abandon_and_await(fetch, &reply);
  assert_false(reply.success);
}

/* A lookup cannot be cut: the fetch ends at once, its place is free when the lookup has ended, others go on. */
static void test_slow_lookups(void **state) {
  struct reply first = REPLY, late[8] = {[0 ... 7] = REPLY};
  struct nx_net_fetch *fetches[COUNT(late)];
  gate_close(&slow_names);
  struct nx_net_fetch *fetch = begin(net, &first, "['http://slow.test:%u/hello']", server.port);
  gate_await(&slow_names, 1);
  abandon_and_await(fetch, &first);
  assert_has(refused(net, "['http://slow.test:%u/hello', {'timeoutMs': 20}]", server.port), "timed out after 20 ms");
  assert_has(get(net, "['" HERE "/hello']", server.port), "hello");
  /* Places are taken by lookups that nobody waits for: some of these get none. */
  for (size_t i = 0; i < COUNT(late); i++) fetches[i] = begin(net, &late[i], "['http://slow.test:%u/hello']", server.port);
  gate_await(&slow_names, 8);
  for (size_t i = 0; i < COUNT(late); i++) abandon_and_await(fetches[i], &late[i]);
  assert_int_equal(slow_names.arrived, 8);
  gate_open(&slow_names);
  assert_has(get(net, "['http://slow.test:%u/hello']", server.port), "hello");
  assert_int_equal(server.requests, 2); /* what nobody waits for is not sent */
}

static void test_many_at_once(void **state) {
  enum { MANY = 200 };
  static struct reply replies[MANY];
  for (size_t i = 0; i < MANY; i++) {
    replies[i] = (struct reply)REPLY;
    assert_non_null(begin(net, &replies[i], "['" HERE "/echo?%zu']", server.port, i));
  }
  for (size_t i = 0; i < MANY; i++) {
    char want[32];
    snprintf(want, sizeof want, "/echo?%zu ", i);
    reply_await(&replies[i]);
    assert_true(replies[i].success);
    assert_has(replies[i].json, want);
    assert_int_equal(replies[i].calls, 1);
    free(replies[i].json);
  }
  assert_true(server.connections <= 16); /* eight places, connections are used again */
}

static void test_too_many_wait(void **state) {
  enum { PLACES = 8, WAITING = 1024 };
  static struct reply hanging[PLACES], waiting[WAITING + 1];
  for (size_t i = 0; i < PLACES; i++) {
    hanging[i] = (struct reply)REPLY;
    assert_non_null(begin(net, &hanging[i], "['" HERE "/hang']", server.port));
  }
  server_await_hanging(PLACES);
  for (size_t i = 0; i <= WAITING; i++) {
    waiting[i] = (struct reply)REPLY;
    assert_non_null(begin(net, &waiting[i], "['" HERE "/hello']", server.port));
  }
  reply_await(&waiting[WAITING]);
  assert_has(waiting[WAITING].json, "more than 1024 requests are waiting");
  nx_net_destroy(net); /* with all of them open */
  net = NULL;
  for (size_t i = 0; i < PLACES + WAITING + 1; i++) {
    struct reply *reply = i < PLACES ? &hanging[i] : &waiting[i - PLACES];
    assert_int_equal(reply->calls, 1);
    assert_false(reply->success);
    if (i < PLACES + WAITING) assert_has(reply->json, "the server is shutting down");
    free(reply->json);
  }
}

static void test_destroy_during_a_lookup(void **state) {
  struct reply reply = REPLY;
  gate_close(&slow_names);
  assert_non_null(begin(net, &reply, "['http://slow.test:%u/hello']", server.port));
  gate_await(&slow_names, 1);
  nx_net_destroy(net); /* does not wait for it */
  net = NULL;
  assert_int_equal(reply.calls, 1);
  assert_has(reply.json, "the server is shutting down");
  gate_open(&slow_names);
  free(reply.json);
}

static void fetch_again(void *opaque, bool success, const char *json, size_t bytes) {
  begin(net, opaque, "['" HERE "/hello']", server.port);
}

static void test_fetch_from_done(void **state) {
  struct reply reply = REPLY;
  static const char args[] = "[]";
  assert_non_null(nx_net_fetch(net, args, sizeof args - 1, "", fetch_again, &reply));
  reply_await(&reply);
  assert_true(reply.success);
  free(reply.json);
}

static void test_unused_client_has_no_thread(void **state) { nx_net_destroy(create("*")); }

/* Both flavours of the library, and none. */
static void test_libraries(void **state) {
  struct nx_net_options options = {.allow = "*"};
  struct nx_net *none = NULL;
  struct nx_error err = {0};
  hidden_libraries = "libcurl";
  assert_int_equal(nx_net_create(&none, &options, &err), -NX_ERR_CONFIG);
  assert_has(err.text, "NET_ALLOW needs libcurl: install the package libcurl4");
  hidden_libraries = "libcurl.so";
  if (!nx_net_create(&none, &options, NULL)) nx_net_destroy(none); /* where libcurl-gnutls is installed */
  hidden_libraries = NULL;
}

static void test_lists_that_do_not_parse(void **state) {
  struct nx_net_options options = {.allow = "http://x"};
  struct nx_net *none = NULL;
  struct nx_error err = {0};
  assert_int_equal(nx_net_create(&none, &options, &err), -NX_ERR_CONFIG);
  assert_has(err.text, "http://x");
}

/* ---- TLS ------------------------------------------------------------------------------------------------------------ */

/* Prints its port, then accepts until it is ended. */
static const char tls_server[] =
  "import os, socket, ssl, subprocess, sys, tempfile\n"
  "with tempfile.TemporaryDirectory() as d:\n"
  "  subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', d + '/k', '-out', d + '/c', '-days', '2',\n"
  "    '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'], check=True, stderr=subprocess.DEVNULL)\n"
  "  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
  "  context.load_cert_chain(d + '/c', d + '/k')\n"
  "s = socket.create_server(('127.0.0.1', 0))\n"
  "os.write(1, b'%d\\n' % s.getsockname()[1])\n"
  "while True:\n"
  "  try: context.wrap_socket(s.accept()[0], server_side=True)\n"
  "  except OSError: pass\n";

static pid_t start_tls_server(unsigned *port) {
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  pid_t pid = fork();
  if (!pid) {
    dup2(ends[1], STDOUT_FILENO);
    execlp("python3", "python3", "-c", tls_server, NULL);
    _exit(127);
  }
  close(ends[1]);
  FILE *out = fdopen(ends[0], "r");
  bool is_up = fscanf(out, "%u", port) == 1;
  fclose(out);
  if (is_up) return pid;
  waitpid(pid, NULL, 0);
  return -1;
}

static void test_certificates_are_checked(void **state) {
  unsigned port;
  pid_t pid = start_tls_server(&port);
  if (pid < 0) skip(); /* no openssl or no python3 */
  struct nx_net *tls = create("127.0.0.1:%u,localhost:%u", port, port);
  assert_has(refused(tls, "['https://127.0.0.1:%u/']", port), "127.0.0.1: the server's certificate is not valid");
  assert_has(refused(tls, "['https://localhost:%u/']", port), "localhost: the server's certificate is not valid");
  nx_net_destroy(tls);
  kill(pid, SIGTERM);
  waitpid(pid, NULL, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
    CASE(test_get), CASE(test_urls_are_encoded), CASE(test_default_headers), CASE(test_headers_of_the_handler), CASE(test_methods_and_bodies),
    CASE(test_large_request_body), CASE(test_arguments_that_are_refused), CASE(test_too_many_request_headers),
    CASE(test_urls_that_are_refused), CASE(test_addresses_that_are_refused), CASE(test_names_whose_address_is_listed),
    CASE(test_proxies_of_the_environment), CASE(test_redirects), CASE(test_redirects_to_refused_places),
    CASE(test_redirects_without_end), CASE(test_credentials_stay_with_their_origin), CASE(test_cookies_are_not_kept),
    CASE(test_response_headers), CASE(test_response_bodies), CASE(test_responses_that_are_too_large),
    CASE(test_connections_that_are_cut), CASE(test_nobody_listens), CASE(test_memory_that_is_refused), CASE(test_timeouts),
    CASE(test_abandon), CASE(test_slow_lookups), CASE(test_many_at_once), CASE(test_too_many_wait),
    CASE(test_destroy_during_a_lookup), CASE(test_fetch_from_done), CASE(test_unused_client_has_no_thread),
    CASE(test_libraries), CASE(test_lists_that_do_not_parse), CASE(test_certificates_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
