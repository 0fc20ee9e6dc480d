/* SPDX-License-Identifier: Apache-2.0
 *
 * nx_http_response → bytes: our own few header lines in a fixed buffer, then the application's, then the body, as one
 * gathered write. */
#include "http/conn.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define CONTENT_TYPE_MAX 96 /* keeps the head within NX__HTTP_HEAD_BYTES */

const char *nx_http_reason(int status) {
  switch (status) {
  case 200: return "OK";
  case 201: return "Created";
  case 202: return "Accepted";
  case 204: return "No Content";
  case 304: return "Not Modified";
  case 400: return "Bad Request";
  case 401: return "Unauthorized";
  case 403: return "Forbidden";
  case 404: return "Not Found";
  case 405: return "Method Not Allowed";
  case 408: return "Request Timeout";
  case 409: return "Conflict";
  case 410: return "Gone";
  case 412: return "Precondition Failed";
  case 413: return "Content Too Large";
  case 414: return "URI Too Long";
  case 415: return "Unsupported Media Type";
  case 417: return "Expectation Failed";
  case 422: return "Unprocessable Content";
  case 429: return "Too Many Requests";
  case 431: return "Request Header Fields Too Large";
  case 500: return "Internal Server Error";
  case 501: return "Not Implemented";
  case 503: return "Service Unavailable";
  case 504: return "Gateway Timeout";
  case 505: return "HTTP Version Not Supported";
  case 507: return "Insufficient Storage";
  default: return ""; /* the phrase may be empty (RFC 9112, 4) */
  }
}

static char *put(char *at, const char *text, size_t len) {
  memcpy(at, text, len);
  return at + len;
}
#define put_lit(at, literal) put((at), "" literal, sizeof(literal) - 1)

static char *put_number(char *at, size_t value) {
  char digits[20];
  size_t n = sizeof digits;
  do digits[--n] = (char)('0' + value % 10);
  while (value /= 10);
  return put(at, digits + n, sizeof digits - n);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7), made once a second by each thread. strftime would ask the locale. */
#define DATE_BYTES 29u
static const char *date_now(void) {
  static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  static _Thread_local time_t made_at;
  static _Thread_local char text[64];
  struct timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (now.tv_sec == made_at) return text;
  struct tm t;
  gmtime_r(&now.tv_sec, &t);
  snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * t.tm_wday, t.tm_mday,
           months + 3 * t.tm_mon, t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
  made_at = now.tv_sec;
  return text;
}

void nx__http_respond_begin(struct nx_http_io *io) {
  struct nx_http_response *response = &io->exchange.response;
  bool never_body = response->status == 204 || response->status == 304;
  char *at = put_lit(io->head, "HTTP/1.1 ");
  at = put_number(at, (size_t)response->status);
  *at++ = ' ';
  const char *reason = nx_http_reason(response->status);
  at = put(at, reason, strlen(reason));
  at = put_lit(at, "\r\nDate: ");
  at = put(at, date_now(), DATE_BYTES);
  at = put_lit(at, "\r\n");
  if (response->content_type && !never_body) {
    at = put_lit(at, "Content-Type: ");
    at = put(at, response->content_type, strnlen(response->content_type, CONTENT_TYPE_MAX));
    at = put_lit(at, "\r\n");
  }
  if (!never_body) {
    at = put_lit(at, "Content-Length: ");
    at = put_number(at, response->body.len);
    at = put_lit(at, "\r\n");
  }
  if (io->closing)
    at = put_lit(at, "Connection: close\r\n");
  else if (io->parser.http_minor == 0)
    at = put_lit(at, "Connection: keep-alive\r\n");
  io->head_len = (size_t)(at - io->head);
  io->bodiless = never_body || nx__http_parse_is_head(io);
  io->sent = 0;
  io->total = io->head_len + response->headers.len + 2 + (io->bodiless ? 0 : response->body.len);
}

int nx__http_respond_rest(struct nx_http_io *io, struct iovec pieces[4]) {
  static char blank_line[] = "\r\n";
  struct nx_http_response *response = &io->exchange.response;
  const struct iovec all[] = {
    {io->head, io->head_len},
    {response->headers.data, response->headers.len},
    {blank_line, 2},
    {response->body.data, io->bodiless ? 0 : response->body.len},
  };
  int count = 0;
  size_t skip = io->sent;
  for (unsigned i = 0; i < 4; i++) {
    if (skip >= all[i].iov_len) {
      skip -= all[i].iov_len;
      continue;
    }
    pieces[count].iov_base = (char *)all[i].iov_base + skip;
    pieces[count++].iov_len = all[i].iov_len - skip;
    skip = 0;
  }
  return count;
}
