/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/fetch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"

#define HEAD_BYTES_MAX ((size_t)64 << 10)

/* ---- Where ------------------------------------------------------------------------------------------------------- */

struct url {
  char host[256]; /* without brackets */
  char port[6];
  bool brackets;
};

/* What may be shown on a terminal and sent in a Host header. */
static bool is_host(const char *host, bool brackets) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
  static const char address[] = "0123456789abcdefABCDEF:.";
  return *host && !host[strspn(host, brackets ? address : letters)];
}

static bool is_port(const char *port) {
  size_t digits = strspn(port, "0123456789");
  return digits && digits <= 5 && !port[digits] && atoi(port) > 0 && atoi(port) <= UINT16_MAX;
}

static bool split(struct url *url, const char *text) {
  static const char scheme[] = "http://";
  if (strncmp(text, scheme, sizeof scheme - 1)) return false;
  text += sizeof scheme - 1;
  url->brackets = *text == '[';
  text += url->brackets;
  size_t host_bytes = strcspn(text, url->brackets ? "]" : ":/");
  if (host_bytes >= sizeof url->host) return false;
  memcpy(url->host, text, host_bytes);
  url->host[host_bytes] = 0;
  text += host_bytes;
  if (url->brackets && *text++ != ']') return false;
  size_t port_bytes = *text == ':' ? strcspn(++text, "/") : 0;
  if (port_bytes >= sizeof url->port || (!port_bytes && text[-1] == ':')) return false;
  memcpy(url->port, port_bytes ? text : "80", port_bytes ? port_bytes : 2);
  url->port[port_bytes ? port_bytes : 2] = 0;
  text += port_bytes;
  return (!*text || !strcmp(text, "/")) && is_host(url->host, url->brackets) && is_port(url->port);
}

static void take_addresses(struct nx_fetch_server *server, const struct addrinfo *found) {
  for (; found && server->_count < NX_FETCH_ADDRESSES_MAX; found = found->ai_next)
    if (found->ai_addrlen <= sizeof *server->_addresses)
      memcpy(&server->_addresses[server->_count++], found->ai_addr, found->ai_addrlen);
}

int nx_fetch_server_parse(struct nx_fetch_server *server, const char *text, struct nx_error *err) {
  struct url url = {0};
  *server = (struct nx_fetch_server){0};
  if (!split(&url, text)) return nx_error_set(err, NX_ERR_CONFIG, "the URL must be http://HOST:PORT");
  snprintf(server->name, sizeof server->name, url.brackets ? "http://[%s]:%s" : "http://%s:%s", url.host, url.port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = url.brackets ? AF_INET6 : AF_UNSPEC}, *found;
  int status = getaddrinfo(url.host, url.port, &hints, &found);
  if (status) return nx_error_set(err, NX_ERR_NOT_FOUND, "%.200s: %s", url.host, gai_strerror(status));
  take_addresses(server, found);
  freeaddrinfo(found);
  return 0;
}

void nx_fetch_server_local(struct nx_fetch_server *server, const struct nx_config *config) {
  uint16_t port = config->admin_port ? config->admin_port : config->port;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  char host[INET6_ADDRSTRLEN] = "";
  *server = (struct nx_fetch_server){._count = 1};
  if (inet_pton(AF_INET6, config->host, &v6.sin6_addr) == 1) {
    if (IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr)) v6.sin6_addr = in6addr_loopback;
    memcpy(server->_addresses, &v6, sizeof v6);
    inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
    snprintf(server->name, sizeof server->name, "http://[%s]:%u", host, port);
    return;
  }
  if (inet_pton(AF_INET, config->host, &v4.sin_addr) != 1 || v4.sin_addr.s_addr == INADDR_ANY)
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  memcpy(server->_addresses, &v4, sizeof v4);
  inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
  snprintf(server->name, sizeof server->name, "http://%s:%u", host, port);
}

int nx_fetch_server_set_token(struct nx_fetch_server *server, const char *token, struct nx_error *err) {
  size_t bytes = strlen(token), visible = 0;
  while (token[visible] > ' ' && token[visible] < 0x7f) visible++;
  if (!bytes || visible < bytes || bytes > NX_FETCH_TOKEN_MAX)
    return nx_error_set(err, NX_ERR_CONFIG, "expected a token of 1 to %d visible ASCII characters", NX_FETCH_TOKEN_MAX);
  server->token = token;
  return 0;
}

/* ---- What comes back --------------------------------------------------------------------------------------------- */

static int on_body(llhttp_t *parser, const char *at, size_t bytes) {
  struct nx_fetch *fetch = parser->data;
  nx_buf_add(&fetch->body, at, bytes);
  return fetch->body.failed ? HPE_USER : 0;
}

/* What comes after the answer is nobody's. */
static int on_complete(llhttp_t *parser) {
  struct nx_fetch *fetch = parser->data;
  fetch->_complete = true;
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {.on_body = on_body, .on_message_complete = on_complete};

static int parse(struct nx_fetch *fetch, const char *data, size_t bytes, struct nx_error *err) {
  llhttp_errno_t result = bytes ? llhttp_execute(&fetch->_parser, data, bytes) : llhttp_finish(&fetch->_parser);
  if (fetch->_complete) {
    fetch->status = fetch->_parser.status_code;
    return 1;
  }
  fetch->_received += bytes;
  if (fetch->body.failed || fetch->_received > fetch->body.limit + HEAD_BYTES_MAX)
    return nx_error_set(err, NX_ERR_TOO_LARGE, "the answer is larger than any of nexus");
  if (!bytes && !fetch->_received)
    return nx_error_set(err, NX_ERR_INVALID, "the connection was closed without an answer");
  if (!bytes) return nx_error_set(err, NX_ERR_INVALID, "the answer ends early");
  if (result != HPE_OK) return nx_error_set(err, NX_ERR_INVALID, "the answer is not HTTP");
  return 0;
}

/* ---- The connection ---------------------------------------------------------------------------------------------- */

/* Tries the addresses that are left; errno of the last one on failure. */
static int connect_next(struct nx_fetch *fetch, struct nx_error *err) {
  while (fetch->_next_address < fetch->_server->_count) {
    const struct sockaddr_storage *address = &fetch->_server->_addresses[fetch->_next_address++];
    nx_fs_close(&fetch->_fd);
    fetch->_fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fetch->_fd < 0) continue;
    socklen_t bytes = address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    fetch->_connecting = true;
    if (!connect(fetch->_fd, (const struct sockaddr *)address, bytes) || errno == EINPROGRESS) return 0;
  }
  return nx_error_sys(err, "no server answers");
}

int nx_fetch_begin(struct nx_fetch *fetch, const struct nx_fetch_server *server, const char *path,
                   size_t body_bytes_max, struct nx_error *err) {
  *fetch = (struct nx_fetch){._server = server, ._fd = -1, .body = {.limit = body_bytes_max}};
  int bytes = snprintf(fetch->_request, sizeof fetch->_request,
                       "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s%s%s\r\n", path,
                       server->name + strlen("http://"), server->token ? "Authorization: Bearer " : "",
                       server->token ? server->token : "", server->token ? "\r\n" : "");
  fetch->_request_bytes = (size_t)bytes;
  llhttp_init(&fetch->_parser, HTTP_RESPONSE, &settings);
  fetch->_parser.data = fetch;
  errno = EADDRNOTAVAIL; /* in case the server has no address */
  int status = connect_next(fetch, err);
  if (status) nx_fetch_end(fetch);
  return status;
}

int nx_fetch_fd(const struct nx_fetch *fetch) { return fetch->_fd; }

short nx_fetch_events(const struct nx_fetch *fetch) {
  return fetch->_connecting || fetch->_sent < fetch->_request_bytes ? POLLOUT : POLLIN;
}

static bool must_wait(void) { return errno == EAGAIN || errno == EINTR; }

static int finish_connect(struct nx_fetch *fetch, struct nx_error *err) {
  int problem = 0;
  socklen_t bytes = sizeof problem;
  getsockopt(fetch->_fd, SOL_SOCKET, SO_ERROR, &problem, &bytes);
  if (!problem) {
    fetch->_connecting = false;
    return 0;
  }
  errno = problem;
  return connect_next(fetch, err);
}

static int send_some(struct nx_fetch *fetch, struct nx_error *err) {
  ssize_t n = send(fetch->_fd, fetch->_request + fetch->_sent, fetch->_request_bytes - fetch->_sent, MSG_NOSIGNAL);
  if (n >= 0) fetch->_sent += (size_t)n;
  return n >= 0 || must_wait() ? 0 : nx_error_sys(err, "the connection broke");
}

static int receive_some(struct nx_fetch *fetch, struct nx_error *err) {
  char data[16384];
  ssize_t n = recv(fetch->_fd, data, sizeof data, 0);
  if (n < 0) return must_wait() ? 0 : nx_error_sys(err, "the connection broke");
  return parse(fetch, data, (size_t)n, err);
}

int nx_fetch_step(struct nx_fetch *fetch, struct nx_error *err) {
  if (fetch->_connecting) return finish_connect(fetch, err);
  return fetch->_sent < fetch->_request_bytes ? send_some(fetch, err) : receive_some(fetch, err);
}

void nx_fetch_end(struct nx_fetch *fetch) {
  nx_fs_close(&fetch->_fd);
  fetch->_fd = -1;
  nx_buf_deinit(&fetch->body);
}

int nx_fetch_get(struct nx_fetch *fetch, const struct nx_fetch_server *server, const char *path, size_t body_bytes_max,
                 unsigned timeout_ms, struct nx_error *err) {
  uint64_t deadline_ns = nx_clock_ns() + timeout_ms * NX_NS_PER_MS;
  int status = nx_fetch_begin(fetch, server, path, body_bytes_max, err);
  if (status) return status;
  do {
    uint64_t now_ns = nx_clock_ns();
    struct pollfd wait = {.fd = nx_fetch_fd(fetch), .events = nx_fetch_events(fetch)};
    if (now_ns < deadline_ns) {
      if (poll(&wait, 1, (int)((deadline_ns - now_ns) / NX_NS_PER_MS) + 1) > 0) status = nx_fetch_step(fetch, err);
    } else {
      status = nx_error_set(err, NX_ERR_REQUEST_TIMEOUT, "no answer within %u ms", timeout_ms);
    }
  } while (!status);
  if (status < 0) nx_fetch_end(fetch);
  return status < 0 ? status : 0;
}
