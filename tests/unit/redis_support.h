/* SPDX-License-Identifier: Apache-2.0
 * A redis-server of the test's own: on a free port, with a directory that goes with it. */
#ifndef NX_TESTS_REDIS_SUPPORT_H
#define NX_TESTS_REDIS_SUPPORT_H

#include "store_suite_internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <hiredis/hiredis.h>

/* The suite forks, and what it forks has a thread of its own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0"; }

static struct nx_suspend_store address = {.kind = NX_SUSPEND_REDIS, .redis_host = "127.0.0.1", .redis_db = 3};
static char directory[] = "/tmp/nexus-test-redis-XXXXXX";
static pid_t server;

static inline int bind_any(uint16_t *port) {
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof any;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&any, size) || getsockname(fd, (struct sockaddr *)&any, &size)) abort();
  *port = ntohs(any.sin_port);
  return fd;
}

static inline void run_server(void) {
  char port[8];
  snprintf(port, sizeof port, "%u", address.redis_port);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int null = open("/dev/null", O_RDWR);
  dup2(null, STDOUT_FILENO);
  /* What was answered has been written to its file: the tests kill it. The disk may take long, and it is not waited for. */
  execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", "",
         "--appendonly", "yes", "--appendfsync", "no", (char *)NULL);
  _exit(127);
}

static inline redisContext *try_connect(void) {
  redisContext *context = redisConnect(address.redis_host, address.redis_port);
  redisReply *reply = context && !context->err ? redisCommand(context, "SELECT %u", address.redis_db) : NULL;
  bool ready = reply && reply->type == REDIS_REPLY_STATUS;
  freeReplyObject(reply);
  if (ready) return context;
  if (context) redisFree(context);
  return NULL;
}

/* Not while it still loads its data. */
static inline bool answers(void) {
  redisContext *context = try_connect();
  if (!context) return false;
  redisReply *reply = redisCommand(context, "DBSIZE");
  bool ready = reply && reply->type == REDIS_REPLY_INTEGER;
  freeReplyObject(reply);
  redisFree(context);
  return ready;
}

static inline void start_server(void) {
  server = fork();
  assert_true(server >= 0);
  if (!server) run_server();
  eventually(answers());
}

static inline void kill_server(void) {
  assert_int_equal(kill(server, SIGKILL), 0);
  assert_int_equal(waitpid(server, NULL, 0), server);
}

/* A command of the test's own. Returns the reply's integer, or the length of its string, or 0. */
static inline long long tell(const char *format, ...) {
  va_list arguments;
  redisContext *context = try_connect();
  assert_non_null(context);
  va_start(arguments, format);
  redisReply *reply = redisvCommand(context, format, arguments);
  va_end(arguments);
  assert_non_null(reply);
  if (reply->type == REDIS_REPLY_ERROR) fail_msg("%s: %s", format, reply->str);
  long long result = reply->type == REDIS_REPLY_INTEGER ? reply->integer : (long long)reply->len;
  freeReplyObject(reply);
  redisFree(context);
  return result;
}

/* Returns when its subscriber listens. */
static inline struct nx_store *open_again(void) {
  struct nx_store *opened;
  struct nx_error err = {0};
  assert_int_equal(nx_store_open_redis(&opened, &address, &err), 0);
  eventually(opened->ops->handlers_version(opened) > 0);
  return opened;
}

static inline struct nx_store *open_empty(void) {
  tell("FLUSHALL");
  return open_again();
}

/* Runs all tests with a server, or says that there is none. The result is main's. */
static inline int with_redis(int (*run)(void)) {
  enum { SKIPPED = 77 }; /* as meson has it */
  if (system("command -v redis-server >/dev/null 2>&1")) {
    print_message("redis-server is not installed: the Redis store was not tested\n");
    return SKIPPED;
  }
  if (!mkdtemp(directory)) return 1;
  close(bind_any(&address.redis_port));
  start_server();
  int failed = run();
  kill_server();
  char command[sizeof directory + 8];
  snprintf(command, sizeof command, "rm -r %s", directory);
  return failed || system(command);
}

static const struct store_factory redis_factory = {open_empty, open_again};

#endif
