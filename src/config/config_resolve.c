/* SPDX-License-Identifier: Apache-2.0
 * Fits the configuration to the machine, in the order in which the figures depend on each other:
 * limit → budget → cache → does one instance fit? → instances, suspended executions, connections. */
#include "config/config_internal.h"

#include <stdio.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }
static unsigned long long mib_up(uint64_t bytes) { return (bytes + MIB - 1) / MIB; }

static bool is_auto(const struct nx_config *config, enum nx_setting setting) {
  return config->state[setting] == NX_CONFIG_AUTO || config->state[setting] == NX_CONFIG_DERIVED;
}

static void derive(struct nx_config *config, enum nx_setting setting, uint64_t value) {
  nx__setting_put_number(&nx__settings[setting], config, value);
  config->state[setting] = NX_CONFIG_DERIVED;
}

uint64_t nx_config_instance_bytes(const struct nx_config *config) {
  uint64_t native_stack = 2 * config->stack_size_bytes + (64 << 10);
  /* Page tables: 8 bytes for each page of 4 KiB, and the few upper levels that 4 GiB of reservation touch. */
  uint64_t kernel = (16 << 10) + config->memory_limit_bytes / 512;
  return config->memory_limit_bytes + native_stack + kernel;
}

uint64_t nx_config_instances_that_fit(const struct nx_config *config) {
  return minus(config->budget_bytes, NX_CONFIG_PROCESS_BYTES + config->cache_max_bytes) /
         nx_config_instance_bytes(config);
}

/* More than the kernel will give is a contradiction that ends in an OOM kill. Less than 64 KiB more is only the
 * kernel's rounding to whole pages. */
static int check_set_limit(const struct nx_config *config, uint64_t most, const char *whose, struct nx_error *err) {
  uint64_t set = config->container_memory_limit_bytes;
  if (minus(set, most) < (64 << 10)) return 0;
  return nx_error_set(err, NX_ERR_CONFIG, "CONTAINER_MEMORY_LIMIT=\"%s\": %s only %llu bytes; lower it, or say auto",
                      config->text[NX_SETTING_CONTAINER_MEMORY_LIMIT], whose, (unsigned long long)most);
}

static int resolve_limit(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  struct nx_reading cgroup = machine->memory_limit_bytes, memory = machine->memory_bytes;
  uint64_t most = nx_reading_is_value(memory) ? memory.value : UINT64_MAX;
  if (nx_reading_is_value(cgroup)) most = min_u64(most, cgroup.value);
  if (!is_auto(config, NX_SETTING_CONTAINER_MEMORY_LIMIT)) {
    bool by_cgroup = nx_reading_is_value(cgroup) && most == cgroup.value;
    int rc = check_set_limit(config, most, by_cgroup ? "the cgroup allows" : "the machine has", err);
    if (rc) return rc;
    config->limit_bytes = min_u64(config->container_memory_limit_bytes, most);
    config->limit_origin = NX_LIMIT_FROM_SETTING;
    return 0;
  }
  if (most == UINT64_MAX)
    return nx_error_set(err, NX_ERR_CONFIG,
                        "CONTAINER_MEMORY_LIMIT=\"auto\": neither the cgroup's limit nor the machine's memory can be "
                        "read; set it to the memory this process may use");
  config->limit_bytes = most;
  if (nx_reading_is_value(cgroup))
    config->limit_origin = most == cgroup.value ? NX_LIMIT_FROM_CGROUP : NX_LIMIT_FROM_MACHINE;
  else
    config->limit_origin = cgroup.kind == NX_READING_UNLIMITED ? NX_LIMIT_FROM_MACHINE : NX_LIMIT_GUESSED;
  derive(config, NX_SETTING_CONTAINER_MEMORY_LIMIT, most);
  return 0;
}

static void resolve_budget_and_cache(struct nx_config *config) {
  uint64_t limit = config->limit_bytes, percent = config->memory_reserve_percent;
  config->budget_bytes = limit - (limit / 100 * percent + limit % 100 * percent / 100); /* no overflow */
  if (is_auto(config, NX_SETTING_CACHE_MAX_MB))
    derive(config, NX_SETTING_CACHE_MAX_MB, min_u64(64 * MIB, config->budget_bytes / 4 / MIB * MIB));
}

/* The advice: which of the two settings could be lowered, and to what. */
static void add_advice(const struct nx_config *config, char *text, size_t size) {
  uint64_t others = nx_config_instance_bytes(config) - config->memory_limit_bytes;
  /* An instance costs its memory, a 512th of that and a constant. */
  uint64_t room = minus(config->budget_bytes, NX_CONFIG_PROCESS_BYTES + config->cache_max_bytes + others);
  uint64_t memory_mib = room / MIB;
  uint64_t cache_mib = minus(config->budget_bytes, NX_CONFIG_PROCESS_BYTES + nx_config_instance_bytes(config)) / MIB;
  size_t used = 0;
  text[0] = 0;
  if (memory_mib >= nx__settings[NX_SETTING_MEMORY_LIMIT_MB].least)
    used = (size_t)snprintf(text, size, "lower MEMORY_LIMIT_MB to %llu, or ", (unsigned long long)memory_mib);
  if (cache_mib >= nx__settings[NX_SETTING_CACHE_MAX_MB].least)
    used += (size_t)snprintf(text + used, size - used, "set CACHE_MAX_MB to %llu, or ", (unsigned long long)cache_mib);
  bool set = !is_auto(config, NX_SETTING_CONTAINER_MEMORY_LIMIT);
  snprintf(text + used, size - used, "raise %s", set ? "CONTAINER_MEMORY_LIMIT" : "the container's memory limit");
}

static int check_fit(const struct nx_config *config, struct nx_error *err) {
  uint64_t instance = nx_config_instance_bytes(config);
  uint64_t need = NX_CONFIG_PROCESS_BYTES + config->cache_max_bytes + instance;
  if (need <= config->budget_bytes) return 0;
  char advice[120];
  add_advice(config, advice, sizeof advice);
  uint64_t reserve = config->limit_bytes - config->budget_bytes;
  return nx_error_set(err, NX_ERR_CONFIG,
                      "does not fit into %llu MiB: process %llu + cache %llu + reserve %llu + one instance of "
                      "MEMORY_LIMIT_MB=%llu %llu = %llu MiB; %s",
                      (unsigned long long)(config->limit_bytes / MIB), mib_up(NX_CONFIG_PROCESS_BYTES),
                      mib_up(config->cache_max_bytes), mib_up(reserve),
                      (unsigned long long)(config->memory_limit_bytes / MIB), mib_up(instance), mib_up(need + reserve),
                      advice);
}

static void resolve_instances(struct nx_config *config, const struct nx_machine *machine) {
  if (!is_auto(config, NX_SETTING_MAX_INSTANCES)) return;
  uint64_t by_cores = 4 * (uint64_t)(machine->cores ? machine->cores : 1);
  uint64_t count = min_u64(by_cores, nx_config_instances_that_fit(config));
  count = min_u64(count, nx__settings[NX_SETTING_MAX_INSTANCES].most);
  derive(config, NX_SETTING_MAX_INSTANCES, count ? count : 1);
}

static int resolve_connections(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  enum { LEAST = 64, MOST = 10000 };
  uint64_t by_files = minus(machine->max_files, NX_CONFIG_FILES_KEPT);
  bool automatic = is_auto(config, NX_SETTING_MAX_CONNECTIONS);
  uint64_t wanted = automatic ? LEAST : config->max_connections;
  if (wanted > by_files)
    return nx_error_set(err, NX_ERR_CONFIG,
                        "MAX_CONNECTIONS=\"%s\": %llu connections need %llu open files, %llu are allowed; raise the "
                        "limit of open files (ulimit -n, RLIMIT_NOFILE)%s",
                        config->text[NX_SETTING_MAX_CONNECTIONS], (unsigned long long)wanted,
                        (unsigned long long)wanted + NX_CONFIG_FILES_KEPT, (unsigned long long)machine->max_files,
                        automatic ? "" : " or lower it");
  if (!automatic) return 0;
  uint64_t count = min_u64(by_files, config->budget_bytes / 4 / NX_CONFIG_CONNECTION_BYTES);
  if (count < LEAST) count = LEAST;
  derive(config, NX_SETTING_MAX_CONNECTIONS, min_u64(count, MOST));
  return 0;
}

int nx_config_resolve(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  struct nx_config resolved = *config;
  int rc = resolve_limit(&resolved, machine, err);
  if (rc) return rc;
  resolve_budget_and_cache(&resolved);
  rc = check_fit(&resolved, err);
  if (rc) return rc;
  resolve_instances(&resolved, machine);
  if (is_auto(&resolved, NX_SETTING_SUSPEND_MAX_MB))
    derive(&resolved, NX_SETTING_SUSPEND_MAX_MB,
           minus(resolved.budget_bytes, NX_CONFIG_PROCESS_BYTES + nx_config_instance_bytes(&resolved)));
  rc = resolve_connections(&resolved, machine, err);
  if (rc) return rc;
  *config = resolved;
  return 0;
}
