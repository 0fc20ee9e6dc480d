/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus doctor: what this kernel and container offer, what nexus makes of it, and what to change. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "memory/process_memory.h"
#include "net/net.h"
#include "sandbox/sandbox.h"
#include "suspend/suspensions.h"
#include "version.h"

#define SWEEPS_MAX 256

static unsigned warnings;

static void good(const char *what, const char *value) { printf("  ok    %-22s %s\n", what, value); }

static void bad(const char *what, const char *value, const char *advice) {
  printf("  WARN  %-22s %s\n        %-22s → %s\n", what, value, "", advice);
  warnings++;
}

static void print_kernel(void) {
  struct utsname name;
  uname(&name);
  good("kernel", name.release);
  enum nx_reset_method method = nx_sandbox_reset_method();
  if (method == NX_RESET_SCAN_FAULTS)
    good("reset method", "scan+faults: PAGEMAP_SCAN, skipped when no page fault happened");
  else
    bad("reset method", nx_reset_method_name(method),
        method == NX_RESET_SCAN ? "transparent huge pages cannot be disabled for the process: executions cost more"
                                : "PAGEMAP_SCAN needs Linux 6.7 and /proc: executions cost several times more");
}

static void format_bytes(char *text, size_t size, uint64_t bytes) {
  snprintf(text, size, "%" PRIu64 " bytes (%.1f MiB)", bytes, (double)bytes / 1048576);
}

static void print_reading(const char *what, struct nx_reading reading) {
  char text[64];
  format_bytes(text, sizeof text, reading.value);
  if (reading.kind == NX_READING_VALUE)
    good(what, text);
  else
    printf("  --    %-22s %s\n", what, reading.kind == NX_READING_UNLIMITED ? "no limit" : "unknown");
}

/* What the kernel had to do about the limit since the cgroup was made. */
static void print_memory_events(const struct nx_cgroup_memory *memory) {
  const struct {
    const char *name;
    struct nx_reading count;
  } events[] = {
    {"limit hit", memory->max_events},
    {"above high", memory->high_events},
    {"out of memory", memory->oom_events},
    {"killed", memory->oom_kills},
  };
  char text[192] = "";
  size_t len = 0;
  for (size_t i = 0; i < sizeof events / sizeof *events; i++)
    if (nx_reading_is_value(events[i].count))
      len += (size_t)snprintf(text + len, sizeof text - len, "%s%s %" PRIu64, len ? ", " : "", events[i].name,
                              events[i].count.value);
  if (nx_reading_is_value(memory->oom_kills) && memory->oom_kills.value)
    bad("memory events", text, "the kernel killed processes: raise the container's limit, or lower MAX_INSTANCES");
  else if (len)
    good("memory events", text);
  else
    printf("  --    %-22s unknown\n", "memory events");
}

static void print_pressure(const struct nx_cgroup_memory *memory) {
  char text[96];
  if (!nx_reading_is_value(memory->pressure_bp)) {
    printf("  --    %-22s not available\n", "memory pressure (PSI)");
    return;
  }
  int n = snprintf(text, sizeof text, "%.2f %%", (double)memory->pressure_bp.value / 100);
  if (nx_reading_is_value(memory->full_pressure_bp))
    n += snprintf(text + n, sizeof text - (size_t)n, ", full %.2f %%", (double)memory->full_pressure_bp.value / 100);
  snprintf(text + n, sizeof text - (size_t)n, " of the last 10 s");
  good("memory pressure (PSI)", text);
}

static void print_container(const struct nx_cgroup *cgroup) {
  char text[320];
  snprintf(text, sizeof text, "%s %.256s", nx_cgroup_version(cgroup), nx_cgroup_path(cgroup));
  good("cgroup", text);
  struct nx_cgroup_memory memory;
  nx_cgroup_read_memory(cgroup, &memory);
  if (memory.limit_bytes.kind == NX_READING_UNKNOWN)
    bad("memory limit", "unknown", "set CONTAINER_MEMORY_LIMIT to the container's limit");
  else
    print_reading("memory limit", memory.limit_bytes);
  print_reading("working set", memory.working_set_bytes);
  print_reading("kernel memory", memory.kernel_bytes);
  if (nx_reading_is_value(memory.socket_bytes))
    print_reading("socket memory", memory.socket_bytes);
  else
    print_reading("TCP memory, machine's", nx_socket_memory_bytes());
  print_memory_events(&memory);
  print_pressure(&memory);
  print_reading("machine memory", nx_cgroup_machine_memory_bytes(cgroup));
  snprintf(text, sizeof text, "%u", nx_cgroup_cores(cgroup, nx_cpu_allowed()));
  good("cores (by quota)", text);
}

static void print_cache(const char *dir) {
  char text[96];
  if (access(dir, W_OK) == 0)
    good("cache directory", dir);
  else
    printf("  --    %-22s %s (made at the start, if its parent is writable)\n", "cache directory", dir);
  if (!nx_fs_is_tmpfs(dir)) return;
  struct nx_reading used = nx_tmpfs_used_bytes(dir);
  if (!nx_reading_is_value(used)) {
    bad("cache's file system", "in memory, without a limit", "mount a tmpfs with a size: it is the container's memory");
    return;
  }
  format_bytes(text, sizeof text, used.value);
  snprintf(text + strlen(text), sizeof text - strlen(text), " in memory (tmpfs)");
  good("cache's file system", text);
}

static void print_limits(const struct nx_config *config) {
  char text[96];
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  snprintf(text, sizeof text, "%" PRIu64 ", MAX_CONNECTIONS %u", (uint64_t)files.rlim_cur, config->max_connections);
  if (files.rlim_cur < config->max_connections + NX_CONFIG_FILES_KEPT)
    bad("open files", text, "raise the limit of open files, or lower MAX_CONNECTIONS");
  else
    good("open files", text);
  snprintf(text, sizeof text, "%u of %" PRIu64 " MiB, %" PRIu64 " fit fully grown", config->max_instances,
           config->memory_limit_bytes >> 20, nx_config_instances_that_fit(config));
  if (config->max_instances > nx_config_instances_that_fit(config))
    bad("instances", text, "more than fit: running handlers can be refused memory; lower MAX_INSTANCES or MEMORY_LIMIT_MB");
  else
    good("instances", text);
  print_cache(config->cache_dir);
}

/* ---- Suspended executions and requests of handlers -------------------------------------------------------------- */

/* As a server sweeps it, which once has looked at everything then. A directory of more than a million is not counted. */
static void print_waiting(struct nx_store *store) {
  struct nx_store_stats stats = {0};
  char text[128];
  store->own = nx_suspension_prefix_of(nx_sandbox_guest_id());
  for (unsigned i = 0; i < SWEEPS_MAX && !stats.is_counted; i++) {
    store->ops->sweep(store, nx_clock_realtime_ms());
    store->ops->read_stats(store, &stats);
  }
  if (!stats.is_counted) {
    printf("  --    %-22s not counted\n", "suspended executions");
    return;
  }
  snprintf(text, sizeof text, "%" PRIu64 " wait, %" PRIu64 " of them for another guest", stats.waiting, stats.foreign);
  if (stats.foreign)
    bad("suspended executions", text, "keep a server of the release that suspended them (docs/suspend.md, Upgrades)");
  else
    good("suspended executions", text);
}

/* The store makes its directory and tries it out when it is opened. Here only if it has been made: it would belong to who
 * called the doctor. */
static void print_file_store(const char *dir) {
  char text[320], version[4096 + 4];
  struct nx_store *store;
  struct nx_error err;
  snprintf(text, sizeof text, "file %.256s", dir);
  snprintf(version, sizeof version, "%s/v1", dir);
  if (access(version, F_OK)) {
    printf("  --    %-22s %s (made at the start, if its parent is writable)\n", "suspension store", text);
    return;
  }
  if (nx_store_open_file(&store, dir, &err)) {
    bad("suspension store", err.text, "serve will not start: make the directory our uid's and writable");
    return;
  }
  good("suspension store", text);
  print_waiting(store);
  store->ops->close(store);
}

/* Any question will do. */
static int ask_store(struct nx_store *store, struct nx_error *err) {
  const struct nx_suspension_id nobody = {0};
  struct nx_stored stored = {0};
  int status = store->ops->read(store, &nobody, &stored, err);
  nx_buf_deinit(&stored.bytes);
  return status == -NX_ERR_NOT_FOUND ? 0 : status;
}

static void print_redis_store(const struct nx_suspend_store *address) {
  char text[320];
  struct nx_store *store;
  struct nx_error err;
  snprintf(text, sizeof text, "redis %s:%u/%u", address->redis_host, address->redis_port, address->redis_db);
  int status = nx_store_open_redis(&store, address, &err);
  if (status) {
    bad("suspension store", err.text, "serve will not start");
    return;
  }
  if (ask_store(store, &err)) {
    bad("suspension store", err.text, "executions run, but cannot be suspended or resumed until it answers");
  } else {
    good("suspension store", text);
    print_waiting(store);
  }
  store->ops->close(store);
}

static void print_suspensions(const struct nx_config *config) {
  char text[96];
  switch (config->suspend_store.kind) {
  case NX_SUSPEND_MEMORY:
    snprintf(text, sizeof text, "memory, %" PRIu64 " MiB at most, gone when nexus ends", config->suspend_max_bytes >> 20);
    good("suspension store", text);
    return;
  case NX_SUSPEND_FILE: print_file_store(config->suspend_store.dir); return;
  case NX_SUSPEND_REDIS: print_redis_store(&config->suspend_store); return;
  case NX_SUSPEND_SEALED: good("suspension store", "sealed: the caller carries them, nothing is kept"); return;
  }
}

static void print_net(const struct nx_config *config) {
  const struct nx_net_options options = {.allow = config->net_allow, .max_concurrent = 1};
  struct nx_net *net;
  struct nx_error err;
  if (!config->net_allow) {
    printf("  --    %-22s NET_ALLOW is not set: handlers make no requests\n", "network of handlers");
    return;
  }
  if (nx_net_create(&net, &options, &err)) {
    bad("network of handlers", err.text, "serve will not start");
    return;
  }
  good("network of handlers", config->net_allow);
  nx_net_destroy(net);
}

int nx_cmd_doctor(int argc, char **argv) {
  struct nx_config config;
  struct nx_cgroup *cgroup;
  struct nx_error err;
  int status = nx_cli_load(&config, &cgroup, argc, argv);
  if (status) return status;
  struct nx_boot_image boot = nx_boot_image_linked();
  if (nx_sandbox_init(NX_RESET_AUTO, &boot, &err)) {
    fprintf(stderr, "nexus doctor: %s\n", err.text);
    return NX_EXIT_FAILURE;
  }
  char text[64];
  printf("nexus %s, guest %s\n", NX_VERSION, nx_sandbox_guest_id());
  print_kernel();
  format_bytes(text, sizeof text, nx_sandbox_base_image()->memory_bytes);
  good("base image", text);
  print_container(cgroup);
  print_limits(&config);
  print_suspensions(&config);
  print_net(&config);
  printf("%u warning%s\n", warnings, warnings == 1 ? "" : "s");
  nx_sandbox_deinit();
  nx_cgroup_close(cgroup);
  return NX_EXIT_OK;
}
