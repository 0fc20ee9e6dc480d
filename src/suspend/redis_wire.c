/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: words out, a reply in, and how it begins. hiredis connects and reads; it would make two copies of
 * what is sent, and does not prevent SIGPIPE. */
#include "suspend/redis_wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include <hiredis/sds.h>

#include "base/number.h"

#define STEP_TIMEOUT_MS 1000u
#define REPLY_MAX_BYTES (NX__REDIS_VALUE_MAX_BYTES + (1u << 20))
#define ROOM_KEPT_BYTES (64u << 10)
#define EXACT_MAX ((UINT64_C(1) << 53) - 1)

/* ---- Commands --------------------------------------------------------------------------------------------------- */

void nx__redis_add(struct nx__redis_command *command, const void *bytes, size_t size) {
  command->words[command->count] = bytes;
  command->sizes[command->count++] = size;
}

void nx__redis_add_text(struct nx__redis_command *command, const char *text) {
  nx__redis_add(command, text, strlen(text));
}

void nx__redis_add_number(struct nx__redis_command *command, uint64_t number) {
  char *digits = command->digits[command->numbers++];
  snprintf(digits, sizeof command->digits[0], "%llu", (unsigned long long)nx_min_u64(number, EXACT_MAX));
  nx__redis_add_text(command, digits);
}

void nx__redis_begin(struct nx__redis_command *command, const char *operation) {
  *command = (struct nx__redis_command){.count = 2, .is_operation = true};
  nx__redis_add_text(command, "1");
  nx__redis_add_text(command, NX__REDIS_ROOT);
  nx__redis_add_text(command, operation);
}

/* ---- Words out, a reply in -------------------------------------------------------------------------------------- */

/* Why the last call on the context failed; errno is still that call's. */
static void explain(const redisContext *context, struct nx_error *why) {
  bool by_kernel = !context->err || context->err == REDIS_ERR_IO;
  if (by_kernel && (errno == EAGAIN || errno == ETIMEDOUT))
    nx_error_set(why, NX_ERR_UNAVAILABLE, "no answer within %u ms", STEP_TIMEOUT_MS);
  else
    nx_error_set(why, NX_ERR_UNAVAILABLE, "%s", context->err ? context->errstr : strerrordesc_np(errno));
}

static bool send_all(int fd, struct iovec *parts, size_t count) {
  while (count) {
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return false;
    size_t left = (size_t)sent;
    for (; count && left >= parts->iov_len; parts++, count--) left -= parts->iov_len;
    if (!count) break;
    parts->iov_base = (char *)parts->iov_base + left;
    parts->iov_len -= left;
  }
  return true;
}

bool nx__redis_send(redisContext *context, const struct nx__redis_command *command) {
  struct iovec parts[2 * NX__REDIS_WORDS_MAX + 1];
  char heads[NX__REDIS_WORDS_MAX][48];
  size_t count = 0;
  for (int i = 0; i < command->count; i++) {
    int head = i ? snprintf(heads[i], sizeof heads[i], "\r\n$%zu\r\n", command->sizes[i])
                 : snprintf(heads[i], sizeof heads[i], "*%d\r\n$%zu\r\n", command->count, command->sizes[i]);
    parts[count++] = (struct iovec){heads[i], (size_t)head};
    parts[count++] = (struct iovec){(void *)(uintptr_t)command->words[i], command->sizes[i]};
  }
  parts[count++] = (struct iovec){(void *)(uintptr_t)"\r\n", 2};
  return send_all(context->fd, parts, count);
}

/* hiredis would keep the room that a large reply took until the next one comes. */
static void give_room_back(redisContext *context) {
  if (sdsalloc(context->reader->buf) <= ROOM_KEPT_BYTES) return;
  redisReader *fresh = redisReaderCreate();
  if (!fresh) return;
  redisReaderFree(context->reader);
  context->reader = fresh;
}

redisReply *nx__redis_exchange(redisContext *context, const struct nx__redis_command *command, struct nx_error *why) {
  void *reply = NULL;
  if (context->reader->pos != context->reader->len) { /* from now on each reply would be taken for another's */
    nx_error_set(why, NX_ERR_UNAVAILABLE, "it says more than it was asked");
    return NULL;
  }
  bool fine = nx__redis_send(context, command);
  while (fine && !reply && context->reader->len <= REPLY_MAX_BYTES)
    fine = !redisBufferRead(context) && !redisGetReplyFromReader(context, &reply);
  if (reply) {
    if (context->reader->pos == context->reader->len) give_room_back(context);
    return reply;
  }
  if (fine)
    nx_error_set(why, NX_ERR_UNAVAILABLE, "it answers with more than %u MiB", REPLY_MAX_BYTES >> 20);
  else
    explain(context, why);
  return NULL;
}

/* ---- How a connection begins ------------------------------------------------------------------------------------- */

int nx__redis_introduce(redisContext *context, const struct nx__redis_command *command, redisReply **out,
                        struct nx_error *why) {
  redisReply *reply = nx__redis_exchange(context, command, why);
  if (!reply) return -NX_ERR_UNAVAILABLE;
  int status = 0;
  if (reply->type == REDIS_REPLY_ERROR)
    status = nx_error_set(why, NX_ERR_UNAVAILABLE, "it refuses %s (%.*s)", command->words[0],
                          (int)strcspn(reply->str, " "), reply->str);
  if (!status && out)
    *out = reply;
  else
    freeReplyObject(reply);
  return status;
}

static int log_in(redisContext *context, const struct nx_suspend_store *address, struct nx_error *why) {
  struct nx__redis_command command = {0};
  if (!*address->redis_password) return 0;
  nx__redis_add_text(&command, "AUTH");
  if (*address->redis_user) nx__redis_add_text(&command, address->redis_user);
  nx__redis_add_text(&command, address->redis_password);
  return nx__redis_introduce(context, &command, NULL, why);
}

static int select_database(redisContext *context, unsigned number, struct nx_error *why) {
  struct nx__redis_command command = {0};
  if (!number) return 0;
  nx__redis_add_text(&command, "SELECT");
  nx__redis_add_number(&command, number);
  return nx__redis_introduce(context, &command, NULL, why);
}

redisContext *nx__redis_connect(const struct nx_suspend_store *address, struct nx_error *err) {
  const struct timeval timeout = {.tv_sec = STEP_TIMEOUT_MS / 1000};
  redisContext *context = redisConnectWithTimeout(address->redis_host, address->redis_port, timeout);
  if (!context) {
    nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for a connection");
    return NULL;
  }
  if (context->err || redisSetTimeout(context, timeout))
    explain(context, err);
  else if (!log_in(context, address, err) && !select_database(context, address->redis_db, err))
    return context;
  redisFree(context);
  return NULL;
}
