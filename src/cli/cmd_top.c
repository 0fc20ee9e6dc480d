/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus top: a live view of a running nexus, from its /metrics. One thread waits for the answer, keys, signals and the
 * clock together, so that a server that does not answer never holds up a key. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/fetch.h"
#include "cli/top_screen.h"
#include "cli/top_terminal.h"

enum {
  INTERVAL_MS = 1000,
  INTERVAL_ONCE_MS = 500,
  INTERVAL_LEAST_MS = 100,
  INTERVAL_MOST_MS = 60000,
  TIMEOUT_MS = 3000,
};
#define BODY_BYTES_MAX ((size_t)1 << 20) /* nexus has 150 KiB at most */

static const char usage[] =
  "usage: nexus top [--url http://HOST:PORT] [--interval MS] [--once]\n"
  "       NEXUS_TOKEN: an access token with the scope read, for a server that wants one (its ADMIN_PORT does not)\n";

struct options {
  const char *url; /* NULL: the server that the environment describes */
  unsigned interval_ms;
  bool once;
};

struct look {
  struct nx_top_metrics metrics;
  uint64_t at_ns, real_ns;
  bool valid;
};

struct top {
  struct options options;
  struct nx_fetch_server server;
  struct look now, before;
  char trouble[sizeof((struct nx_error *)NULL)->text]; /* empty: the last look was answered */
  /* live only */
  struct nx_top_terminal terminal;
  struct nx_fetch fetch;
  bool fetching;
  uint64_t began_ns;   /* of the last look */
  uint64_t silent_ns;  /* real time of the last answer, or of the start */
  int signals_fd;
  bool keys, changed, ended;
};

/* ---- Options ----------------------------------------------------------------------------------------------------- */

static bool parse_interval(const char *text, unsigned *out_ms) {
  char *end;
  errno = 0;
  long ms = strtol(text, &end, 10);
  if (errno || *end || ms < INTERVAL_LEAST_MS || ms > INTERVAL_MOST_MS) {
    fprintf(stderr, "nexus top: --interval must be %d to %d\n", INTERVAL_LEAST_MS, INTERVAL_MOST_MS);
    return false;
  }
  *out_ms = (unsigned)ms;
  return true;
}

/* The value of `--name value` or `--name=value`; NULL when the argument is another, or has none. */
static const char *take_value(const char *name, int argc, char **argv, int *i) {
  size_t bytes = strlen(name);
  if (strncmp(argv[*i], name, bytes)) return NULL;
  if (argv[*i][bytes] == '=') return argv[*i] + bytes + 1;
  return !argv[*i][bytes] && *i + 1 < argc ? argv[++*i] : NULL;
}

static bool parse_options(struct options *options, int argc, char **argv) {
  const char *value;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--once")) {
      options->once = true;
    } else if ((value = take_value("--url", argc, argv, &i))) {
      options->url = value;
    } else if ((value = take_value("--interval", argc, argv, &i))) {
      if (!parse_interval(value, &options->interval_ms)) return false;
    } else {
      fputs(usage, stderr);
      return false;
    }
  }
  if (!options->interval_ms) options->interval_ms = options->once ? INTERVAL_ONCE_MS : INTERVAL_MS;
  return true;
}

static int find_server(struct top *top) {
  struct nx_config config;
  NX_BUF_AUTO problems = {0};
  struct nx_error err;
  if (top->options.url) {
    int status = nx_fetch_server_parse(&top->server, top->options.url, &err);
    if (!status) return NX_EXIT_OK;
    fprintf(stderr, "nexus top: %s\n", err.text);
    return status == -NX_ERR_CONFIG ? NX_EXIT_USAGE : NX_EXIT_FAILURE;
  }
  if (nx_config_load(&config, environ, 0, NULL, &problems, &err)) {
    fprintf(stderr, "%.*s", (int)problems.len, problems.len ? problems.data : "");
    return NX_EXIT_USAGE;
  }
  if (!config.port && !config.admin_port) {
    fputs("nexus top: PORT is 0: say with --url which port it became\n", stderr);
    return NX_EXIT_USAGE;
  }
  nx_fetch_server_local(&top->server, &config);
  return NX_EXIT_OK;
}

/* An empty variable is one that a template left blank. */
static int take_token(struct top *top) {
  const char *token = getenv("NEXUS_TOKEN");
  struct nx_error err;
  if (!token || !*token || !nx_fetch_server_set_token(&top->server, token, &err)) return NX_EXIT_OK;
  fprintf(stderr, "nexus top: NEXUS_TOKEN: %s\n", err.text);
  return NX_EXIT_USAGE;
}

/* ---- Looks ------------------------------------------------------------------------------------------------------- */

static bool is_nexus(const struct nx_top_metrics *metrics) {
  size_t count;
  return nx_top_metrics_find(metrics, "nexus_build_info", &count) ||
         nx_top_metrics_find(metrics, "nexus_instances_max", &count);
}

static int judge(struct nx_top_metrics *metrics, const struct nx_fetch *fetch, struct nx_error *err) {
  if (fetch->status == 401 || fetch->status == 403)
    return nx_error_set(err, NX_ERR_INVALID, "/metrics answers %d: %s; set NEXUS_TOKEN to one with the scope read, or ask the "
                        "server's ADMIN_PORT (--url)", fetch->status,
                        fetch->status == 403    ? "the token in NEXUS_TOKEN lacks that scope"
                        : fetch->_server->token ? "the server does not know the token in NEXUS_TOKEN"
                                                : "the server wants an access token");
  if (fetch->status != 200) return nx_error_set(err, NX_ERR_INVALID, "/metrics answers %d", fetch->status);
  int status = nx_top_metrics_parse(metrics, fetch->body.data, fetch->body.len, err);
  if (status) return status;
  if (is_nexus(metrics)) return 0;
  nx_top_metrics_deinit(metrics);
  return nx_error_set(err, NX_ERR_INVALID, "that is not nexus: it has metrics, but none of nexus");
}

/* The answer becomes the present look, which becomes the one before. */
static int take_answer(struct top *top, const struct nx_fetch *fetch, struct nx_error *err) {
  struct look look = {.at_ns = nx_clock_ns(), .real_ns = nx_clock_realtime_ns(), .valid = true};
  int status = judge(&look.metrics, fetch, err);
  if (status) return status;
  nx_top_metrics_deinit(&top->before.metrics);
  top->before = top->now;
  top->now = look;
  top->silent_ns = look.real_ns;
  return 0;
}

static void format_time(char text[sizeof "00:00:00"], uint64_t real_ns) {
  time_t seconds = (time_t)(real_ns / NX_NS_PER_S);
  struct tm local;
  if (!localtime_r(&seconds, &local) || !strftime(text, sizeof "00:00:00", "%T", &local)) *text = 0;
}

static void draw(const struct top *top, struct nx_buf *lines) {
  char since[sizeof "00:00:00"];
  format_time(since, top->silent_ns);
  struct nx_top_view view = {
    .server = top->server.name,
    .now = top->now.valid ? &top->now.metrics : NULL,
    .before = top->before.valid ? &top->before.metrics : NULL,
    .interval_s = (double)(top->now.at_ns - top->before.at_ns) / (double)NX_NS_PER_S,
    .now_s = (double)top->now.real_ns / (double)NX_NS_PER_S,
    .trouble = *top->trouble ? top->trouble : NULL,
    .since = since,
    .columns = top->terminal.columns,
    .rows = top->options.once ? 0 : top->terminal.rows,
    .colour = top->terminal.colour,
  };
  nx_top_draw(&view, lines);
}

/* ---- Once -------------------------------------------------------------------------------------------------------- */

static int look_and_wait(struct top *top, struct nx_error *err) {
  int status = nx_fetch_get(&top->fetch, &top->server, "/metrics", BODY_BYTES_MAX, TIMEOUT_MS, err);
  if (status) return status;
  status = take_answer(top, &top->fetch, err);
  nx_fetch_end(&top->fetch);
  return status;
}

static int run_once(struct top *top) {
  struct nx_error err;
  NX_BUF_AUTO lines = {0};
  struct timespec pause = {.tv_sec = top->options.interval_ms / 1000,
                           .tv_nsec = (long)(top->options.interval_ms % 1000) * (long)NX_NS_PER_MS};
  int status = look_and_wait(top, &err);
  if (!status) {
    nanosleep(&pause, NULL);
    status = look_and_wait(top, &err);
  }
  if (status) {
    fprintf(stderr, "nexus top: %s: %s\n", top->server.name, err.text);
    return NX_EXIT_FAILURE;
  }
  draw(top, &lines);
  if (lines.failed || fwrite(lines.data, 1, lines.len, stdout) != lines.len || fflush(stdout)) {
    perror("nexus top: cannot write");
    return NX_EXIT_FAILURE;
  }
  return NX_EXIT_OK;
}

/* ---- Live -------------------------------------------------------------------------------------------------------- */

static void end_look(struct top *top, int status, const struct nx_error *err) {
  snprintf(top->trouble, sizeof top->trouble, "%s", status < 0 ? err->text : "");
  if (top->fetching) nx_fetch_end(&top->fetch);
  top->fetching = false;
  top->changed = true;
}

static void begin_look(struct top *top, uint64_t now_ns) {
  struct nx_error err;
  top->began_ns = now_ns;
  int status = nx_fetch_begin(&top->fetch, &top->server, "/metrics", BODY_BYTES_MAX, &err);
  top->fetching = !status;
  if (status) end_look(top, status, &err);
}

static void step_look(struct top *top) {
  struct nx_error err;
  int status = nx_fetch_step(&top->fetch, &err);
  if (status > 0) status = take_answer(top, &top->fetch, &err) < 0 ? -1 : 1;
  if (status) end_look(top, status, &err);
}

/* The second look comes early, because it is the first that has rates. */
static uint64_t next_ns(const struct top *top) {
  bool first = top->now.valid && !top->before.valid && top->options.interval_ms > INTERVAL_ONCE_MS;
  unsigned wait_ms = top->fetching ? TIMEOUT_MS : first ? INTERVAL_ONCE_MS : top->options.interval_ms;
  return top->began_ns + wait_ms * NX_NS_PER_MS;
}

static void keep_time(struct top *top) {
  uint64_t now_ns = nx_clock_ns();
  struct nx_error err;
  if (now_ns < next_ns(top)) return;
  if (top->fetching)
    end_look(top, nx_error_set(&err, NX_ERR_REQUEST_TIMEOUT, "nothing came within %d ms", TIMEOUT_MS), &err);
  else
    begin_look(top, now_ns);
}

static void read_keys(struct top *top) {
  char keys[64];
  ssize_t n = read(STDIN_FILENO, keys, sizeof keys);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || memchr(keys, 'q', (size_t)n)) top->ended = true; /* a terminal that is gone needs no view */
}

/* Ctrl-Z: what it would have done if it were not ours, on the terminal as it was. */
static void stop(struct top *top) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTSTP);
  nx_top_terminal_leave(&top->terminal);
  raise(SIGTSTP);
  sigprocmask(SIG_UNBLOCK, &set, NULL); /* stops here, until SIGCONT */
  sigprocmask(SIG_BLOCK, &set, NULL);
  nx_top_terminal_enter(&top->terminal);
}

static void take_signal(struct top *top) {
  struct signalfd_siginfo info;
  if (read(top->signals_fd, &info, sizeof info) != sizeof info) return;
  if (info.ssi_signo == SIGTSTP)
    stop(top);
  else if (info.ssi_signo == SIGCONT)
    nx_top_terminal_enter(&top->terminal); /* whoever had the terminal meanwhile may have changed it */
  else if (info.ssi_signo != SIGWINCH)
    top->ended = true;
  nx_top_terminal_measure(&top->terminal);
  top->changed = true;
}

static void wait_for_something(struct top *top) {
  uint64_t now_ns = nx_clock_ns(), until_ns = next_ns(top);
  struct pollfd wait[] = {
    {.fd = top->signals_fd, .events = POLLIN},
    {.fd = top->keys ? STDIN_FILENO : -1, .events = POLLIN},
    {.fd = top->fetching ? nx_fetch_fd(&top->fetch) : -1, .events = nx_fetch_events(&top->fetch)},
  };
  int timeout_ms = until_ns > now_ns ? (int)((until_ns - now_ns) / NX_NS_PER_MS) + 1 : 0;
  if (poll(wait, 3, timeout_ms) > 0) {
    if (wait[0].revents) take_signal(top);
    if (wait[1].revents) read_keys(top);
    if (wait[2].revents) step_look(top);
  }
  keep_time(top);
}

static int take_signals(void) {
  static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT};
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaddset(&set, signals[i]);
  sigprocmask(SIG_BLOCK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run_live(struct top *top) {
  struct nx_error err;
  int status = 0;
  top->signals_fd = take_signals();
  top->silent_ns = nx_clock_realtime_ns();
  top->keys = top->terminal.input_is_terminal;
  nx_top_terminal_enter(&top->terminal);
  begin_look(top, nx_clock_ns());
  for (top->changed = true; !top->ended && !status; wait_for_something(top)) {
    NX_BUF_AUTO lines = {0};
    if (!top->changed) continue;
    top->changed = false;
    draw(top, &lines);
    status = nx_top_terminal_show(&top->terminal, &lines, top->signals_fd, &err);
  }
  if (top->fetching) nx_fetch_end(&top->fetch);
  nx_top_terminal_leave(&top->terminal);
  nx_fs_close(&top->signals_fd);
  return status ? NX_EXIT_FAILURE : NX_EXIT_OK;
}

int nx_cmd_top(int argc, char **argv) {
  struct top top = {.signals_fd = -1};
  if (!parse_options(&top.options, argc, argv)) return NX_EXIT_USAGE;
  nx_top_terminal_init(&top.terminal);
  if (!top.options.once && !top.terminal.output_is_terminal) {
    fputs("nexus top: standard output is not a terminal: use --once\n", stderr);
    return NX_EXIT_USAGE;
  }
  int status = find_server(&top);
  if (!status) status = take_token(&top);
  if (status) return status;
  status = top.options.once ? run_once(&top) : run_live(&top);
  nx_top_metrics_deinit(&top.now.metrics);
  nx_top_metrics_deinit(&top.before.metrics);
  return status;
}
