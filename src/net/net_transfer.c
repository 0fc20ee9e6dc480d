/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net_transfer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "version.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
/* libcurl's own time limits would have it wait for the thread that looks up a name, and with it all other fetches. */
#define NEVER_MS (24L * 60 * 60 * 1000)
/* An address that does not answer after 1 + 2 s makes way for the host's next one. */
#define SYN_RETRIES 1

/* ---- What libcurl calls ----------------------------------------------------------------------------------------- */

/* The one place where connections begin: with an address that DNS has answered, whatever the URL looked like. */
static curl_socket_t open_socket(void *opaque, curlsocktype purpose, struct curl_sockaddr *to) {
  struct nx_net_transfer *transfer = opaque;
  struct nx_net_address address;
  (void)purpose;
  if (transfer->_is_given_up) return CURL_SOCKET_BAD;
  if (!nx__net_address_from_socket(&address, &to->addr, to->addrlen) ||
      !nx__net_allow_has_address(&transfer->_context->allow, &address, transfer->_url.port)) {
    nx_error_set(&transfer->_refusal, NX_ERR_INVALID,
                 "the address of %.100s is not public, and NET_ALLOW does not list it", transfer->_url.host);
    return CURL_SOCKET_BAD;
  }
  transfer->_refusal.code = NX_OK; /* of the host's addresses this one is allowed */
  int fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
  static const int retries = SYN_RETRIES;
  if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &retries, sizeof retries);
  return fd;
}

static size_t take_line(char *line, size_t one, size_t bytes, void *opaque) {
  struct nx_net_transfer *transfer = opaque;
  (void)one;
  return nx__net_response_add_line(&transfer->_response, line, bytes, &transfer->_refusal) ? 0 : bytes;
}

static size_t take_body(char *data, size_t one, size_t bytes, void *opaque) {
  struct nx_net_transfer *transfer = opaque;
  (void)one;
  return nx__net_response_add_body(&transfer->_response, data, bytes, &transfer->_refusal) ? 0 : bytes;
}

/* ---- One hop ---------------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *header, const char *const names[], size_t count) {
  for (size_t i = 0; i < count; i++)
    if (nx__net_header_is(header, names[i])) return true;
  return false;
}

static bool is_sent(const struct nx_net_transfer *transfer, const char *header) {
  static const char *const of_origin[] = {"Authorization", "Cookie"};
  static const char *const of_body[] = {"Content-Encoding", "Content-Language", "Content-Location", "Content-Type"};
  if (transfer->_has_left_origin && is_one_of(header, of_origin, COUNT(of_origin))) return false;
  bool has_lost_body = transfer->_redirects && !transfer->_request->has_body;
  return !has_lost_body || !is_one_of(header, of_body, COUNT(of_body));
}

static bool append_header(struct nx_net_transfer *transfer, const char *header) {
  struct curl_slist *longer = transfer->_context->curl.slist_append(transfer->_headers, header);
  if (longer) transfer->_headers = longer;
  return longer;
}

static bool build_headers(struct nx_net_transfer *transfer) {
  /* An empty one keeps libcurl from adding its own. */
  bool ok = append_header(transfer, "Expect:");
  if (!nx__net_request_has_header(transfer->_request, "Content-Type")) ok = ok && append_header(transfer, "Content-Type:");
  const char *header = NULL;
  while (ok && (header = nx__net_request_next_header(transfer->_request, header)))
    if (is_sent(transfer, header)) ok = append_header(transfer, header);
  return ok;
}

#define SET(option, value) (transfer->_context->curl.easy_setopt(transfer->_easy, CURLOPT_##option, value) == CURLE_OK)

static bool set_message(struct nx_net_transfer *transfer) {
  const struct nx_net_request *request = transfer->_request;
  bool is_head = !strcmp(request->method, "HEAD");
  /* Without a body these two say that its length is 0; other methods say nothing. */
  bool has_length = request->has_body || !strcmp(request->method, "POST") || !strcmp(request->method, "PUT");
  bool ok = build_headers(transfer) && SET(CURLU, transfer->_url.parsed) && SET(HTTPHEADER, transfer->_headers) &&
            SET(USERAGENT, "nexus/" NX_VERSION) && SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  if (has_length)
    ok = ok && SET(POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len) &&
         SET(POSTFIELDS, request->body.len ? request->body.data : "");
  return ok && SET(NOBODY, is_head ? 1L : 0L) && SET(CUSTOMREQUEST, request->method);
}

static bool set_bounds(struct nx_net_transfer *transfer, void *owner) {
  return SET(PRIVATE, owner) && SET(PROTOCOLS_STR, "http,https") && SET(FOLLOWLOCATION, 0L) && SET(PROXY, "") &&
         SET(DISALLOW_USERNAME_IN_URL, 1L) && SET(NETRC, (long)CURL_NETRC_IGNORED) && SET(SSL_VERIFYPEER, 1L) &&
         SET(SSL_VERIFYHOST, 2L) && SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) && SET(NOSIGNAL, 1L) &&
         SET(QUICK_EXIT, 1L) && SET(CONNECTTIMEOUT_MS, NEVER_MS) && SET(OPENSOCKETFUNCTION, open_socket) &&
         SET(OPENSOCKETDATA, transfer) && SET(HEADERFUNCTION, take_line) && SET(HEADERDATA, transfer) &&
         SET(WRITEFUNCTION, take_body) && SET(WRITEDATA, transfer);
}

static void end_hop(struct nx_net_transfer *transfer) {
  const struct nx_curl_api *curl = &transfer->_context->curl;
  if (transfer->_easy) {
    curl->multi_remove_handle(transfer->_context->multi, transfer->_easy);
    curl->easy_cleanup(transfer->_easy);
  }
  curl->slist_free_all(transfer->_headers);
  nx__net_url_deinit(&transfer->_url, curl);
  transfer->_easy = NULL;
  transfer->_headers = NULL;
}

/* Takes the URL over, also on failure. */
static int begin_hop(struct nx_net_transfer *transfer, struct nx_net_url url, void *owner, struct nx_error *err) {
  const struct nx_net_context *context = transfer->_context;
  transfer->_url = url;
  transfer->_easy = context->curl.easy_init();
  if (transfer->_easy && set_bounds(transfer, owner) && set_message(transfer) &&
      !context->curl.multi_add_handle(context->multi, transfer->_easy))
    return 0;
  end_hop(transfer);
  return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a request");
}

/* ---- Redirects -------------------------------------------------------------------------------------------------- */

static bool is_redirect(long status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* As in the fetch standard. */
static void change_method(struct nx_net_request *request, long status) {
  bool was_post = !strcmp(request->method, "POST");
  bool stays = !strcmp(request->method, "GET") || !strcmp(request->method, "HEAD");
  if (((status == 301 || status == 302) && !was_post) || (status == 303 && stays) || status > 303) return;
  strcpy(request->method, "GET");
  request->has_body = false;
  nx_buf_reset(&request->body, 0);
}

static int follow(struct nx_net_transfer *transfer, const char *location, long status, struct nx_error *err) {
  const struct nx_net_context *context = transfer->_context;
  if (transfer->_redirects == NX_NET_REDIRECTS_MAX)
    return nx_error_set(err, NX_ERR_INVALID, "more than %u redirects", NX_NET_REDIRECTS_MAX);
  struct nx_net_url url;
  if (nx__net_url_init(&url, &context->curl, &context->allow, location, err)) return nx_error_wrap(err, "redirected");
  transfer->_redirects++;
  transfer->_has_left_origin |= !nx__net_url_has_origin_of(&url, &transfer->_url);
  change_method(transfer->_request, status);
  nx__net_response_reset(&transfer->_response);
  void *owner = nx__net_transfer_owner(context, transfer->_easy);
  end_hop(transfer);
  return begin_hop(transfer, url, owner, err);
}

/* ---- The whole -------------------------------------------------------------------------------------------------- */

int nx__net_transfer_begin(struct nx_net_transfer *transfer, const struct nx_net_context *context,
                           struct nx_net_request *request, void *owner, struct nx_error *err) {
  *transfer = (struct nx_net_transfer){._context = context, ._request = request};
  nx__net_response_init(&transfer->_response, context->max_body_bytes, context->account);
  struct nx_net_url url;
  int status = nx__net_url_init(&url, &context->curl, &context->allow, request->url.data, err);
  return status ? status : begin_hop(transfer, url, owner, err);
}

void *nx__net_transfer_owner(const struct nx_net_context *context, CURL *easy) {
  char *owner = NULL;
  context->curl.easy_getinfo(easy, CURLINFO_PRIVATE, &owner);
  return owner;
}

static int describe(const struct nx_net_transfer *transfer, CURLcode result, struct nx_error *err) {
  const char *host = transfer->_url.host;
  switch (result) {
  case CURLE_COULDNT_RESOLVE_HOST: return nx_error_set(err, NX_ERR_UNAVAILABLE, "%.100s: the name is not known", host);
  case CURLE_COULDNT_CONNECT: return nx_error_set(err, NX_ERR_UNAVAILABLE, "%.100s: cannot connect", host);
  case CURLE_PEER_FAILED_VERIFICATION:
    return nx_error_set(err, NX_ERR_UNAVAILABLE, "%.100s: the server's certificate is not valid", host);
  case CURLE_SSL_CACERT_BADFILE:
    return nx_error_set(err, NX_ERR_UNAVAILABLE, "there are no certificate authorities (install ca-certificates)");
  case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9, which is how libcurl reads what has no status line */
  case CURLE_WEIRD_SERVER_REPLY: return nx_error_set(err, NX_ERR_UNAVAILABLE, "%.100s: the answer is not HTTP", host);
  case CURLE_GOT_NOTHING:
  case CURLE_RECV_ERROR:
  case CURLE_SEND_ERROR:
  case CURLE_PARTIAL_FILE: return nx_error_set(err, NX_ERR_UNAVAILABLE, "%.100s: the connection was cut", host);
  case CURLE_OUT_OF_MEMORY: return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a request");
  default:
    return nx_error_set(err, NX_ERR_UNAVAILABLE, "%.100s: %.100s", host, transfer->_context->curl.easy_strerror(result));
  }
}

enum nx_net_step nx__net_transfer_step(struct nx_net_transfer *transfer, CURLcode result, struct nx_error *err) {
  const struct nx_curl_api *curl = &transfer->_context->curl;
  if (result) {
    if (transfer->_refusal.code)
      *err = transfer->_refusal;
    else
      describe(transfer, result, err);
    return NX_NET_FAILED;
  }
  long status = 0;
  char *location = NULL;
  curl->easy_getinfo(transfer->_easy, CURLINFO_RESPONSE_CODE, &status);
  curl->easy_getinfo(transfer->_easy, CURLINFO_REDIRECT_URL, &location);
  if (!is_redirect(status) || !location) return NX_NET_COMPLETE;
  return follow(transfer, location, status, err) ? NX_NET_FAILED : NX_NET_GOES_ON;
}

int nx__net_transfer_write(struct nx_net_transfer *transfer, struct nx_buf *out, struct nx_error *err) {
  const struct nx_curl_api *curl = &transfer->_context->curl;
  long status = 0;
  char *url;
  curl->easy_getinfo(transfer->_easy, CURLINFO_RESPONSE_CODE, &status);
  if (curl->url_get(transfer->_url.parsed, CURLUPART_URL, &url, 0))
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the response");
  int written =
    nx__net_response_write(&transfer->_response, (unsigned)status, url, transfer->_redirects > 0, out, err);
  curl->free(url);
  return written;
}

void nx__net_transfer_end(struct nx_net_transfer *transfer) {
  end_hop(transfer);
  nx__net_response_deinit(&transfer->_response);
}

static bool has_reached(const struct nx_net_transfer *transfer, CURLINFO moment) {
  curl_off_t since_us = 0;
  transfer->_context->curl.easy_getinfo(transfer->_easy, moment, &since_us);
  return since_us > 0;
}

bool nx__net_transfer_is_connecting(const struct nx_net_transfer *transfer) {
  return !has_reached(transfer, CURLINFO_PRETRANSFER_TIME_T);
}

bool nx__net_transfer_is_looking_up(const struct nx_net_transfer *transfer) {
  return !has_reached(transfer, CURLINFO_NAMELOOKUP_TIME_T);
}

void nx__net_transfer_give_up(struct nx_net_transfer *transfer) { transfer->_is_given_up = true; }
