/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus health: one GET /health on the loopback, for HEALTHCHECK. Uses the port that the server's environment names. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "cli/cli.h"

#define TIMEOUT_S 3

static int connect_to(const struct nx_config *config) {
  uint16_t port = config->admin_port ? config->admin_port : config->port;
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  const struct sockaddr *address = (struct sockaddr *)&v4;
  socklen_t bytes = sizeof v4;
  if (inet_pton(AF_INET6, config->host, &v6.sin6_addr) == 1) {
    if (IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr)) v6.sin6_addr = in6addr_loopback;
    address = (struct sockaddr *)&v6;
    bytes = sizeof v6;
  } else if (inet_pton(AF_INET, config->host, &v4.sin_addr) != 1 || v4.sin_addr.s_addr == INADDR_ANY) {
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  struct timeval timeout = {.tv_sec = TIMEOUT_S};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect(fd, address, bytes)) {
    close(fd);
    return -1;
  }
  return fd;
}

/* Reads to the end of the reply, as far as it fits. */
static size_t exchange(int fd, char *reply, size_t size) {
  static const char request[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  if (write(fd, request, sizeof request - 1) != (ssize_t)(sizeof request - 1)) return 0;
  size_t have = 0;
  for (ssize_t n; have < size - 1 && (n = read(fd, reply + have, size - 1 - have)) > 0;) have += (size_t)n;
  reply[have] = 0;
  return have;
}

int nx_cmd_health(int argc, char **argv) {
  struct nx_config config;
  NX_BUF_AUTO problems = {0};
  struct nx_error err;
  if (nx_config_load(&config, environ, argc - 1, argv + 1, &problems, &err)) {
    fprintf(stderr, "%.*s", (int)problems.len, problems.len ? problems.data : "");
    return NX_EXIT_USAGE;
  }
  int fd = connect_to(&config);
  if (fd < 0) {
    perror("nexus health: no server answers");
    return NX_EXIT_FAILURE;
  }
  char reply[16384];
  size_t bytes = exchange(fd, reply, sizeof reply);
  close(fd);
  const char *body = bytes ? strstr(reply, "\r\n\r\n") : NULL;
  if (!body || strncmp(reply, "HTTP/1.1 ", 9)) {
    fprintf(stderr, "nexus health: no answer within %d s\n", TIMEOUT_S);
    return NX_EXIT_FAILURE;
  }
  printf("%s\n", body + 4);
  return atoi(reply + 9) == 200 ? NX_EXIT_OK : NX_EXIT_FAILURE;
}
