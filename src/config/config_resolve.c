/* SPDX-License-Identifier: Apache-2.0
 * Fits the configuration to the machine, in the order in which the figures depend on each other:
 * limit → budget → cache → instances, suspended executions, connections; last: does one instance fit? */
#include "config/config_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/number.h"

#define CACHE_AUTO_BYTES (64 * NX_MIB) /* at most, and at most a quarter of the budget */

static bool is_auto(const struct nx_config *config, enum nx_setting setting) {
  return config->state[setting] == NX_CONFIG_AUTO || config->state[setting] == NX_CONFIG_DERIVED;
}

static void derive(struct nx_config *config, enum nx_setting setting, uint64_t value) {
  nx__setting_put_number(&nx__settings[setting], config, value);
  config->state[setting] = NX_CONFIG_DERIVED;
}

/* ---- The arithmetic ----------------------------------------------------------------------------------------------------- */

struct nx_config_fit nx_config_get_fit(const struct nx_config *config) {
  return (struct nx_config_fit){
    .limit_bytes = config->limit_bytes,
    .reserve_percent = config->memory_reserve_percent,
    .process_bytes = NX_CONFIG_PROCESS_BYTES,
    .cache_bytes = config->cache_max_bytes,
    .cache_is_auto = is_auto(config, NX_SETTING_CACHE_MAX_MB),
    .memory_bytes = config->memory_limit_bytes,
    .native_stack_bytes = 2 * config->stack_size_bytes + (64 << 10),
    /* 8 bytes for each page of 4 KiB, and the few upper levels that 4 GiB of reservation touch. */
    .page_tables_bytes = (16 << 10) + config->memory_limit_bytes / 512,
  };
}

uint64_t nx_config_fit_budget_bytes(const struct nx_config_fit *fit) {
  return fit->limit_bytes - nx_part_u64(fit->limit_bytes, fit->reserve_percent, 100);
}

uint64_t nx_config_fit_instance_bytes(const struct nx_config_fit *fit) {
  return fit->memory_bytes + fit->native_stack_bytes + fit->page_tables_bytes;
}

uint64_t nx_config_fit_left_bytes(const struct nx_config_fit *fit) {
  return nx_minus_u64(nx_config_fit_budget_bytes(fit), fit->process_bytes + fit->cache_bytes);
}

uint64_t nx_config_fit_instances(const struct nx_config_fit *fit) {
  return nx_config_fit_left_bytes(fit) / nx_config_fit_instance_bytes(fit);
}

static uint64_t allowed_or_0(enum nx_setting setting, uint64_t value) {
  return value < nx__settings[setting].least ? 0 : nx_min_u64(value, nx__settings[setting].most);
}

uint64_t nx_config_fit_memory_mb(const struct nx_config_fit *fit, uint64_t instances) {
  /* The page tables of a smaller memory are smaller as well: a little is given away. */
  uint64_t each = nx_config_fit_left_bytes(fit) / instances;
  return allowed_or_0(NX_SETTING_MEMORY_LIMIT_MB, nx_minus_u64(each, fit->native_stack_bytes + fit->page_tables_bytes) / NX_MIB);
}

uint64_t nx_config_fit_cache_mb(const struct nx_config_fit *fit, uint64_t instances) {
  uint64_t others = fit->process_bytes + instances * nx_config_fit_instance_bytes(fit);
  return allowed_or_0(NX_SETTING_CACHE_MAX_MB, nx_minus_u64(nx_config_fit_budget_bytes(fit), others) / NX_MIB);
}

uint64_t nx_config_fit_limit_bytes(const struct nx_config_fit *fit, uint64_t instances) {
  uint64_t budget = fit->process_bytes + instances * nx_config_fit_instance_bytes(fit);
  /* An automatic cache takes a quarter of whatever the budget is, until that is all it wants. */
  budget += fit->cache_is_auto ? nx_min_u64(budget / 3 + 1, CACHE_AUTO_BYTES) : fit->cache_bytes;
  return (nx_part_u64(budget, 100, 100 - fit->reserve_percent) / NX_MIB + 1) * NX_MIB;
}

uint64_t nx_config_instance_bytes(const struct nx_config *config) {
  struct nx_config_fit fit = nx_config_get_fit(config);
  return nx_config_fit_instance_bytes(&fit);
}

uint64_t nx_config_instances_that_fit(const struct nx_config *config) {
  struct nx_config_fit fit = nx_config_get_fit(config);
  return nx_config_fit_instances(&fit);
}

/* ---- The limit ------------------------------------------------------------------------------------------------------------ */

/* More than the kernel will give is a contradiction that ends in an OOM kill. Less than 64 KiB more is only the
 * kernel's rounding to whole pages. */
static int check_set_limit(const struct nx_config *config, uint64_t most, const char *whose, struct nx_error *err) {
  uint64_t set = config->container_memory_limit_bytes;
  if (nx_minus_u64(set, most) < (64 << 10)) return 0;
  return nx_error_set(err, NX_ERR_CONFIG, "CONTAINER_MEMORY_LIMIT=\"%s\": %s only %llu bytes; lower it, or say auto",
                      config->text[NX_SETTING_CONTAINER_MEMORY_LIMIT], whose, (unsigned long long)most);
}

static int resolve_limit(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  struct nx_reading cgroup = machine->memory_limit_bytes, memory = machine->memory_bytes;
  uint64_t most = nx_reading_is_value(memory) ? memory.value : UINT64_MAX;
  if (nx_reading_is_value(cgroup)) most = nx_min_u64(most, cgroup.value);
  if (!is_auto(config, NX_SETTING_CONTAINER_MEMORY_LIMIT)) {
    bool by_cgroup = nx_reading_is_value(cgroup) && most == cgroup.value;
    int rc = check_set_limit(config, most, by_cgroup ? "the cgroup allows" : "the machine has", err);
    if (rc) return rc;
    config->limit_bytes = nx_min_u64(config->container_memory_limit_bytes, most);
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

/* ---- What follows from it ------------------------------------------------------------------------------------------------- */

static void derive_budget_and_cache(struct nx_config *config) {
  struct nx_config_fit fit = nx_config_get_fit(config);
  config->budget_bytes = nx_config_fit_budget_bytes(&fit);
  if (is_auto(config, NX_SETTING_CACHE_MAX_MB))
    derive(config, NX_SETTING_CACHE_MAX_MB, nx_min_u64(CACHE_AUTO_BYTES, config->budget_bytes / 4 / NX_MIB * NX_MIB));
}

/* Which setting could be changed, and to what: each by itself is enough. */
static void add_advice(const struct nx_config *config, char *text, size_t size) {
  struct nx_config_fit fit = nx_config_get_fit(config);
  unsigned long long memory_mb = nx_config_fit_memory_mb(&fit, 1), cache_mb = nx_config_fit_cache_mb(&fit, 1);
  bool set = !is_auto(config, NX_SETTING_CONTAINER_MEMORY_LIMIT);
  size_t used = 0;
  text[0] = 0;
  if (memory_mb) used = (size_t)snprintf(text, size, "lower MEMORY_LIMIT_MB to %llu, ", memory_mb);
  if (cache_mb) used += (size_t)snprintf(text + used, size - used, "set CACHE_MAX_MB to %llu, ", cache_mb);
  snprintf(text + used, size - used, "%sraise %s to %lluMi", used ? "or " : "",
           set ? "CONTAINER_MEMORY_LIMIT" : "the container's memory limit",
           (unsigned long long)(nx_config_fit_limit_bytes(&fit, 1) / NX_MIB));
}

static int check_fit(const struct nx_config *config, struct nx_error *err) {
  struct nx_config_fit fit = nx_config_get_fit(config);
  if (nx_config_fit_instances(&fit)) return 0;
  char advice[130];
  add_advice(config, advice, sizeof advice);
  uint64_t reserve = config->limit_bytes - config->budget_bytes, instance = nx_config_fit_instance_bytes(&fit);
  uint64_t need = fit.process_bytes + fit.cache_bytes + reserve + instance;
  return nx_error_set(err, NX_ERR_CONFIG,
                      "does not fit into %.1f MiB: process %.1f + cache %.1f + reserve %.1f + instance of "
                      "MEMORY_LIMIT_MB=%llu %.1f = %.1f; %s",
                      nx_in_mib(fit.limit_bytes), nx_in_mib(fit.process_bytes), nx_in_mib(fit.cache_bytes), nx_in_mib(reserve),
                      (unsigned long long)(fit.memory_bytes / NX_MIB), nx_in_mib(instance), nx_in_mib(need), advice);
}

static void derive_instances(struct nx_config *config, const struct nx_machine *machine) {
  if (!is_auto(config, NX_SETTING_MAX_INSTANCES)) return;
  uint64_t by_cores = 4 * (uint64_t)(machine->cores ? machine->cores : 1);
  uint64_t count = nx_min_u64(by_cores, nx_config_instances_that_fit(config));
  count = nx_min_u64(count, nx__settings[NX_SETTING_MAX_INSTANCES].most);
  derive(config, NX_SETTING_MAX_INSTANCES, count ? count : 1);
}

static int derive_connections(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  enum { LEAST = 64, MOST = 10000 };
  uint64_t by_files = nx_minus_u64(machine->max_files, NX_CONFIG_FILES_KEPT);
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
  uint64_t count = nx_min_u64(by_files, config->budget_bytes / 4 / NX_CONFIG_CONNECTION_BYTES);
  if (count < LEAST) count = LEAST;
  derive(config, NX_SETTING_MAX_CONNECTIONS, nx_min_u64(count, MOST));
  return 0;
}

int nx_config_derive(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  struct nx_config derived = *config;
  int rc = resolve_limit(&derived, machine, err);
  if (rc) return rc;
  derive_budget_and_cache(&derived);
  derive_instances(&derived, machine);
  if (is_auto(&derived, NX_SETTING_SUSPEND_MAX_MB))
    derive(&derived, NX_SETTING_SUSPEND_MAX_MB,
           nx_minus_u64(derived.budget_bytes, NX_CONFIG_PROCESS_BYTES + nx_config_instance_bytes(&derived)));
  rc = derive_connections(&derived, machine, err);
  if (rc) return rc;
  *config = derived;
  return 0;
}

int nx_config_resolve(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err) {
  struct nx_config resolved = *config;
  int rc = nx_config_derive(&resolved, machine, err);
  if (!rc) rc = check_fit(&resolved, err);
  if (rc) return rc;
  *config = resolved;
  return 0;
}
