/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus serve: builds everything from the bottom up, serves until SIGTERM or SIGINT, takes it down in reverse. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "cli/cli.h"
#include "handler/directory.h"
#include "http/app.h"
#include "net/net.h"

#define HEADER_MAX_BYTES 16384u
#define HEADER_TIMEOUT_MS 10000u
#define BODY_TIMEOUT_MS 30000u
#define IDLE_TIMEOUT_MS 75000u
#define WRITE_TIMEOUT_MS 30000u
#define HURRIED_TIMEOUT_MS 2000u
#define PARKED_THREAD_TIMEOUT_MS 30000u
#define SOCKET_BUFFER_BYTES (32u << 10) /* of which the kernel takes twice as much: NX_CONFIG_CONNECTION_BYTES */
/* What a quiet server keeps of the compile cache in memory. */
#define CACHE_QUIET_BYTES (2u << 20)
#define TRIM_WORTH_BYTES (1u << 20) /* malloc_trim holds up whoever allocates meanwhile */
#define MALLOC_ARENAS 2
#define MALLOC_MMAP_BYTES (128 << 10)
#define MALLOC_TRIM_BYTES (256 << 10)
/* Between two looks of the governor. */
#define LOOK_MS 250u
/* Threads that only parse, compile files or answer probes. */
#define SMALL_STACK_BYTES (512u * 1024u)
/* Compiled handlers that no name refers to: inline code, replaced versions. */
#define UNNAMED_HANDLERS_MAX 1000u

struct serve {
  struct nx_config config;
  struct nx_cgroup *cgroup;
  struct nx_ledger ledger;
  struct nx_app app;
  struct nx_http_server *admin;
  struct nx_net *net; /* NULL: requests of handlers are off */
  struct nx_directory *directory;
  sigset_t signals;
};

/* ---- Handlers from files: each is a job like any other, but waits for its permit -------------------------------------- */

static void log_if_hidden(const struct serve *serve, const char *name) {
  struct nx_entry *before = nx_registry_get(serve->app.registry, name, strlen(name));
  if (before && before->origin == NX_ORIGIN_STORE)
    nx_log(NX_LOG_WARN, "a file of HANDLERS_DIR hides a handler of the store", "handler", name, NULL);
  nx_entry_release(before);
}

static int check_compiled(const struct nx_job *job, struct nx_error *err) {
  const struct nx_buf *why = &job->execution.error.message;
  if (job->refusal.code) {
    *err = job->refusal;
    return -(int)err->code;
  }
  if (job->execution.outcome == NX_OUTCOME_SUCCESS) return 0;
  return nx_error_set(err, NX_ERR_UNPROCESSABLE, "%s at line %u, column %u: %.*s", nx_outcome_code(job->execution.outcome),
                      job->execution.error.line, job->execution.error.column, (int)(why->len > 160 ? 160 : why->len),
                      why->len ? why->data : "");
}

static int apply_file(void *opaque, const char *name, const char *source, size_t bytes, struct nx_grants *grants,
                      struct nx_error *err) {
  struct serve *serve = opaque;
  struct nx_job job = {
    .kind = NX_JOB_COMPILE,
    .source = {source, (uint32_t)bytes},
    .execution = {.limits = nx_exec_limits(&serve->config)},
  };
  int status = nx_exec_compile(serve->app.exec, &job, err);
  if (!status) status = check_compiled(&job, err);
  if (!status) {
    struct nx_registration registration = {
      .name = name,
      .handler = job.execution.handler,
      .origin = NX_ORIGIN_FILE,
      .set_grants = true,
      .grants = grants,
    };
    log_if_hidden(serve, name);
    status = nx_registry_put(serve->app.registry, &registration, NULL, err);
  }
  nx_job_deinit(&job);
  return status;
}

static void remove_file(void *opaque, const char *name) {
  struct serve *serve = opaque;
  struct nx_condition from_file = {.origin = NX_ORIGIN_FILE};
  if (serve->app.shared)
    nx_shared_remove_file(serve->app.shared, name);
  else
    nx_registry_remove(serve->app.registry, name, &from_file, NULL);
}

static int open_directory(struct serve *serve, struct nx_error *err) {
  if (!serve->config.handlers_dir) return 0;
  struct nx_directory_opts opts = {
    .path = serve->config.handlers_dir,
    .max_source_bytes = serve->config.max_body_bytes,
    .opaque = serve,
    .apply = apply_file,
    .remove = remove_file,
  };
  return nx_directory_create(&serve->directory, &opts, err);
}

/* ---- Handlers of the store ------------------------------------------------------------------------------------------------ */

static int create_shared(struct serve *serve, struct nx_error *err) {
  struct nx_suspensions *suspensions = serve->app.suspensions;
  if (!nx_suspensions_share_handlers(suspensions)) return 0;
  return nx_shared_create(&serve->app.shared, nx_suspensions_handlers(suspensions), serve->app.registry, err);
}

/* After those from files, which count more. A failure is logged; requests try again. */
static void load_shared(struct serve *serve) {
  if (serve->app.shared) nx_shared_sync(serve->app.shared, NULL);
}

/* ---- Building ------------------------------------------------------------------------------------------------------------ */

static int open_store(struct serve *serve, struct nx_error *err) {
  const struct nx_config *config = &serve->config;
  struct nx_cache_opts cache = {
    .dir = config->cache_dir,
    .max_bytes = config->cache_max_bytes,
    .base = nx_sandbox_base_image(),
    .guest_id = nx_sandbox_guest_id(),
    .account = nx_governor_account(serve->app.governor, NX_LAYER_HANDLERS, NX_DEMAND_GROWTH),
  };
  serve->app.cache = nx_cache_open(&cache);
  struct nx_registry_opts registry = {
    .cache_max_bytes = config->budget_bytes / 16,
    .cache_max_count = UNNAMED_HANDLERS_MAX,
  };
  return nx_registry_create(&serve->app.registry, &registry, err);
}

static int create_governor(struct serve *serve, struct nx_error *err) {
  const struct nx_config *config = &serve->config;
  const struct nx_governor_options options = {
    .ledger = &serve->ledger,
    .cgroup = serve->cgroup,
    .limit_bytes = config->limit_bytes,
    .limit_is_set = config->limit_origin == NX_LIMIT_FROM_SETTING,
    .reserve_percent = (unsigned)config->memory_reserve_percent,
    .cache_dir = config->cache_dir,
    .base_image_bytes = nx_sandbox_base_image()->memory_bytes,
  };
  int status = nx_governor_create(&serve->app.governor, &options, err);
  if (!status) serve->app.account = nx_governor_buffers(serve->app.governor);
  return status;
}

static enum nx_reclaim reclaim_handlers(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes) {
  (void)deadline_ns; /* freeing a few megabytes takes microseconds */
  size_t freed = nx_registry_drop_cold(self, want_bytes);
  *freed_bytes += freed;
  return freed >= want_bytes ? NX_RECLAIM_DONE : NX_RECLAIM_NOTHING;
}

/* Files are memory only on a tmpfs. */
static bool cache_is_memory(const struct serve *serve) {
  return nx_reading_is_value(nx_tmpfs_used_bytes(serve->config.cache_dir));
}

static enum nx_reclaim reclaim_cache(void *self, uint64_t want_bytes, uint64_t deadline_ns, uint64_t *freed_bytes) {
  (void)deadline_ns;
  struct serve *serve = self;
  struct nx_cache_stats stats;
  if (!cache_is_memory(serve)) return NX_RECLAIM_NOTHING;
  nx_cache_read_stats(serve->app.cache, &stats);
  uint64_t freed = nx_cache_trim(serve->app.cache, stats.bytes > want_bytes ? stats.bytes - want_bytes : 0);
  *freed_bytes += freed;
  return freed >= want_bytes ? NX_RECLAIM_DONE : NX_RECLAIM_NOTHING;
}

/* The cheapest to have again goes first. */
static void add_reclaimers(struct serve *serve) {
  const struct nx_reclaimer reclaimers[] = {
    {NX_METRICS_RECLAIM_IDLE_INSTANCES, serve->app.exec, nx_exec_reclaim_instances},
    {NX_METRICS_RECLAIM_HANDLER_IMAGES, serve->app.registry, reclaim_handlers},
    {NX_METRICS_RECLAIM_CACHE_FILES, serve, reclaim_cache},
  };
  for (size_t i = 0; i < sizeof reclaimers / sizeof *reclaimers; i++)
    nx_governor_add_reclaimer(serve->app.governor, &reclaimers[i]);
}

static int open_suspensions(struct serve *serve, struct nx_error *err) {
  const struct nx_suspensions_options options = {
    .config = &serve->config,
    .guest_id = nx_sandbox_guest_id(),
    .account = nx_governor_account(serve->app.governor, NX_LAYER_SUSPENDED, NX_DEMAND_GROWTH),
    .governor = serve->app.governor,
  };
  return nx_suspensions_create(&serve->app.suspensions, &options, err);
}

static int create_exec(struct serve *serve, struct nx_error *err) {
  struct nx_exec_options options = {
    .config = &serve->config,
    .ledger = &serve->ledger,
    .governor = serve->app.governor,
    .registry = serve->app.registry,
    .cache = serve->app.cache,
    .suspensions = serve->app.suspensions,
    .net = serve->net,
  };
  return nx_exec_create(&serve->app.exec, &options, err);
}

static int open_access(struct serve *serve, struct nx_error *err) {
  const struct nx_access_opts opts = {.path = serve->config.auth_tokens_file};
  return opts.path ? nx_access_create(&serve->app.access, &opts, err) : 0;
}

static struct nx_http_options http_options(const struct serve *serve) {
  const struct nx_config *config = &serve->config;
  return (struct nx_http_options){
    .host = config->host,
    .port = config->port,
    .max_connections = config->max_connections,
    .max_header_bytes = HEADER_MAX_BYTES,
    .max_body_bytes = config->max_body_bytes,
    .header_timeout_ms = HEADER_TIMEOUT_MS,
    .body_timeout_ms = BODY_TIMEOUT_MS,
    .idle_timeout_ms = IDLE_TIMEOUT_MS,
    .write_timeout_ms = WRITE_TIMEOUT_MS,
    .hurried_timeout_ms = HURRIED_TIMEOUT_MS,
    .live_threads = nx_cgroup_cores(serve->cgroup, nx_cpu_allowed()) + 2,
    .max_threads = config->max_instances + NX_EXEC_LOANS_MAX + 1,
    .thread_stack_bytes = nx_sandbox_native_stack_bytes(config->stack_size_bytes),
    .thread_idle_timeout_ms = PARKED_THREAD_TIMEOUT_MS,
    .socket_buffer_bytes = SOCKET_BUFFER_BYTES,
    .buffers = serve->app.account,
    .sockets = nx_governor_account(serve->app.governor, NX_LAYER_HTTP, NX_DEMAND_SERVE),
  };
}

static int create_servers(struct serve *serve, struct nx_error *err) {
  struct nx_http_options options = http_options(serve);
  struct nx_http_app app = nx_app_public(&serve->app);
  int status = nx_http_server_create(&serve->app.server, &options, &app, err);
  if (status || !serve->config.admin_port) return status;
  options.port = serve->config.admin_port;
  options.max_connections = 64;
  options.live_threads = options.max_threads = 1;
  options.thread_stack_bytes = SMALL_STACK_BYTES;
  app = nx_app_admin(&serve->app);
  return nx_http_server_create(&serve->admin, &options, &app, err);
}

static void thread_blocked(void *serve) { nx_http_server_thread_blocked(((struct serve *)serve)->app.server); }
static void thread_unblocked(void *serve) { nx_http_server_thread_unblocked(((struct serve *)serve)->app.server); }
static void wake(void *serve) { nx_http_server_wake(((struct serve *)serve)->app.server); }

/* Back to the idle floor, so that the autoscaler can scale in: what a burst left behind and nobody has asked for since.
 * Handlers without a name come back from the disk, or are compiled again. */
static void quiet(void *self) {
  struct serve *serve = self;
  uint64_t freed_bytes = 0;
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_HANDLER_IMAGES, nx_registry_drop_cold(serve->app.registry, SIZE_MAX));
  if (cache_is_memory(serve)) freed_bytes = nx_cache_trim(serve->app.cache, CACHE_QUIET_BYTES);
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_CACHE_FILES, freed_bytes);
  malloc_trim(0);
}

/* The same for code without a name while other executions go on, which may be always. */
static void aged(void *self) {
  struct serve *serve = self;
  size_t freed_bytes = nx_registry_drop_unused(serve->app.registry);
  nx_metrics_reclaimed(NX_METRICS_RECLAIM_HANDLER_IMAGES, freed_bytes);
  if (freed_bytes >= TRIM_WORTH_BYTES) malloc_trim(0);
}

static int start(struct serve *serve, struct nx_error *err) {
  struct nx_boot_image boot = nx_boot_image_linked();
  int status = nx_sandbox_init(NX_RESET_AUTO, &boot, err);
  if (!status) status = create_governor(serve, err);
  if (!status) status = open_store(serve, err);
  if (!status) status = open_suspensions(serve, err);
  if (!status) status = create_shared(serve, err);
  if (!status) status = nx_cli_open_net(&serve->net, &serve->config, serve->app.account, err);
  if (!status) status = create_exec(serve, err);
  if (!status) status = open_access(serve, err);
  if (!status) status = create_servers(serve, err);
  if (status) return status;
  add_reclaimers(serve);
  nx_governor_look(serve->app.governor, nx_clock_ns());
  struct nx_exec_hooks hooks = {serve, thread_blocked, thread_unblocked, wake, quiet, aged};
  status = nx_exec_start(serve->app.exec, &hooks, err);
  if (!status) status = open_directory(serve, err);
  if (status) return status;
  load_shared(serve);
  serve->app.config = &serve->config;
  serve->app.ledger = &serve->ledger;
  serve->app.started_ns = nx_clock_ns();
  status = nx_http_server_start(serve->app.server, err);
  if (!status && serve->admin) status = nx_http_server_start(serve->admin, err);
  return status;
}

static void log_start(const struct serve *serve) {
  char port[8], instances[12], limit[24];
  snprintf(port, sizeof port, "%u", nx_http_server_port(serve->app.server));
  snprintf(instances, sizeof instances, "%u", serve->config.max_instances);
  snprintf(limit, sizeof limit, "%llu", (unsigned long long)serve->config.limit_bytes);
  nx_log(NX_LOG_INFO, "listening", "host", serve->config.host, "port", port, "maxInstances", instances,
         "memoryLimitBytes", limit, "reset", nx_reset_method_name(nx_sandbox_reset_method()), NULL);
  if (serve->config.limit_origin == NX_LIMIT_GUESSED)
    nx_log(NX_LOG_WARN, "the container's memory limit cannot be read: the machine's memory is taken for it",
           "change", "CONTAINER_MEMORY_LIMIT", NULL);
  if (!serve->app.access)
    nx_log(NX_LOG_WARN, "there are no access tokens: everyone who reaches PORT may run code, install handlers and resume "
           "executions", "change", "AUTH_TOKENS_FILE", NULL);
}

/* ---- Serving and shutting down ----------------------------------------------------------------------------------------- */

static void wait_for_signal(struct serve *serve) {
  const struct timespec pause = {.tv_nsec = LOOK_MS * (long)NX_NS_PER_MS};
  while (sigtimedwait(&serve->signals, NULL, &pause) <= 0) nx_governor_look(serve->app.governor, nx_clock_ns());
}

static struct nx_exec_stats exec_stats(struct serve *serve) {
  struct nx_exec_stats stats;
  nx_exec_read_stats(serve->app.exec, &stats);
  return stats;
}

static bool idle(struct serve *serve) {
  struct nx_exec_stats stats = exec_stats(serve);
  return !stats.active && !stats.queue_depth && !stats.waiting;
}

static void sleep_ms(unsigned ms) {
  struct timespec t = {.tv_nsec = (long)ms * 1000000};
  nanosleep(&t, NULL);
}

/* Another signal ends the wait as the deadline does. */
static bool is_over(struct serve *serve, uint64_t *deadline_ns) {
  const struct timespec now = {0};
  if (sigtimedwait(&serve->signals, NULL, &now) > 0) *deadline_ns = 0;
  return nx_clock_ns() >= *deadline_ns;
}

/* First new work is refused while old work ends (sockets stay open: readiness must be seen to be false), then the
 * listener closes and replies are flushed. Executions that wait go to the store: at once those that would wait for longer than
 * the grace, the others when a quarter of it is left. What was compiled goes to the disk cache, whose disk may be slow. A
 * second signal, or the end of the grace, cuts it short. */
static void drain(struct serve *serve) {
  nx_log(NX_LOG_INFO, "shutting down", NULL);
  serve->app.draining = true;
  uint64_t grace_ns = serve->config.shutdown_grace_ms * NX_NS_PER_MS;
  uint64_t deadline_ns = nx_clock_ns() + grace_ns, flush_ns = deadline_ns - grace_ns / 4;
  nx_exec_flush(serve->app.exec, grace_ns - grace_ns / 4);
  while (!idle(serve) && !is_over(serve, &flush_ns)) sleep_ms(5);
  if (!flush_ns) deadline_ns = 0;
  while (!idle(serve) && !is_over(serve, &deadline_ns)) {
    nx_exec_flush(serve->app.exec, 0); /* every time: what computed may wait now */
    sleep_ms(5);
  }
  nx_http_server_drain(serve->app.server);
  while (!nx_http_server_drained(serve->app.server) && !is_over(serve, &deadline_ns)) sleep_ms(5);
  while (exec_stats(serve).storing && !is_over(serve, &deadline_ns)) sleep_ms(5);
  nx_log(NX_LOG_INFO, idle(serve) ? "stopped" : "stopped with executions cut", NULL);
}

/* Executions that outlive the grace are inside a guest, or wait for those that are; images, for a disk that may take as long
 * as it likes. There is nothing left to wait for, and the end of the process takes them. */
static void stop(struct serve *serve) {
  nx_exec_retire(serve->app.exec); /* timers and responses of suspended executions may still come */
  if (!idle(serve) || exec_stats(serve).storing) _exit(NX_EXIT_OK);
  nx_directory_destroy(serve->directory);
  nx_net_destroy(serve->net);
  nx_exec_stop(serve->app.exec); /* its thread, like that of net, may still be about to tell the server of a job that is over */
  if (serve->admin) nx_http_server_destroy(serve->admin);
  nx_http_server_destroy(serve->app.server);
  nx_access_destroy(serve->app.access);
  nx_exec_destroy(serve->app.exec);
  nx_shared_destroy(serve->app.shared);
  nx_suspensions_destroy(serve->app.suspensions);
  nx_registry_destroy(serve->app.registry);
  nx_cache_close(serve->app.cache);
  nx_governor_destroy(serve->app.governor);
  nx_sandbox_deinit();
  nx_cgroup_close(serve->cgroup);
}

/* So that what was freed goes back to the kernel: few arenas, none of which keeps what the others could use; bodies and
 * results in mappings of their own (setting the threshold stops malloc from raising it, mallopt(3)). */
static void configure_malloc(void) {
  mallopt(M_ARENA_MAX, MALLOC_ARENAS);
  mallopt(M_MMAP_THRESHOLD, MALLOC_MMAP_BYTES);
  mallopt(M_TRIM_THRESHOLD, MALLOC_TRIM_BYTES);
}

int nx_cmd_serve(int argc, char **argv) {
  static struct serve serve;
  struct nx_error err;
  int status = nx_cli_load(&serve.config, &serve.cgroup, argc, argv);
  if (status) return status;
  configure_malloc();
  nx_log_init(STDOUT_FILENO, serve.config.log_level, serve.config.log_json);
  sigemptyset(&serve.signals);
  sigaddset(&serve.signals, SIGTERM);
  sigaddset(&serve.signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &serve.signals, NULL); /* before any thread: all inherit it */
  signal(SIGPIPE, SIG_IGN);
  if (start(&serve, &err)) {
    fprintf(stderr, "nexus: %s\n", err.text);
    return err.code == NX_ERR_CONFIG ? NX_EXIT_USAGE : NX_EXIT_FAILURE;
  }
  log_start(&serve);
  wait_for_signal(&serve);
  drain(&serve);
  stop(&serve);
  return NX_EXIT_OK;
}
