/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings of nexus: loaded from the environment and flags, checked, fitted to the machine, printed.
 * Ownership: the caller owns struct nx_config. Strings in it point into the environment, the arguments or constants:
 *            they are borrowed, and must not be changed (setenv) while the configuration lives.
 * Threads:   plain data; whoever loads it hands it out read-only.
 * Limits:    what a setting may be stands in config_list.h, once, with its default and meaning. */
#ifndef NX_CONFIG_CONFIG_H
#define NX_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/log.h"
#include "base/reading.h"
#include "config/config_list.h"

enum nx_setting {
#define X(name, ...) NX_SETTING_##name,
  NX_SETTINGS(X)
#undef X
  NX_SETTING_COUNT
};

enum nx_config_state {
  NX_CONFIG_VALUE,   /* said by someone, or a plain default */
  NX_CONFIG_ABSENT,  /* off or none: the field is 0 or NULL */
  NX_CONFIG_AUTO,    /* auto, and not resolved: the field is 0 */
  NX_CONFIG_DERIVED, /* auto, and the field holds what nx_config_resolve found */
};

enum nx_config_source { NX_CONFIG_FROM_DEFAULT, NX_CONFIG_FROM_ENVIRONMENT, NX_CONFIG_FROM_FLAG };

enum nx_suspend_store_kind { NX_SUSPEND_MEMORY, NX_SUSPEND_FILE, NX_SUSPEND_REDIS, NX_SUSPEND_SEALED };

/* memory | file:DIR | redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] | sealed. IPv6 addresses of redis stand in brackets; what
 * has a meaning in a URL is written %XX in user and password. */
struct nx_suspend_store {
  enum nx_suspend_store_kind kind;
  const char *dir;      /* file only */
  char redis_host[254]; /* redis only, without brackets */
  uint16_t redis_port;
  unsigned redis_db;
  char redis_user[128];     /* empty: the default user */
  char redis_password[256]; /* empty: none is needed. Never shown */
};

/* Where limit_bytes comes from. */
enum nx_limit_origin {
  NX_LIMIT_FROM_SETTING,
  NX_LIMIT_FROM_CGROUP,
  NX_LIMIT_FROM_MACHINE, /* the cgroup said that there is no limit */
  NX_LIMIT_GUESSED,      /* the cgroup could not be read, so the machine's memory it is: worth a warning */
};

struct nx_config {
  uint16_t port;
  const char *host;
  uint16_t admin_port;
  uint64_t memory_limit_bytes;
  uint64_t stack_size_bytes;
  unsigned max_instances;
  uint64_t timeout_ms;
  uint64_t container_memory_limit_bytes; /* as set; the limit in force is limit_bytes */
  unsigned memory_reserve_percent;
  const char *cache_dir;
  uint64_t cache_max_bytes;
  const char *handlers_dir;
  unsigned queue_max;
  uint64_t queue_timeout_ms;
  uint64_t idle_trim_ms;
  struct nx_suspend_store suspend_store;
  uint64_t suspend_ttl_ms;
  uint64_t suspend_max_bytes;
  uint8_t suspend_key[32];
  uint8_t suspend_key_previous[32];
  const char *net_allow;
  unsigned max_connections;
  unsigned max_host_calls;
  unsigned max_state_mutations;
  unsigned max_events;
  uint64_t max_body_bytes;
  uint64_t max_result_bytes;
  uint64_t shutdown_grace_ms;
  enum nx_log_level log_level;
  bool log_json;
  const char *auth_tokens_file;

  enum nx_config_state state[NX_SETTING_COUNT];
  enum nx_config_source source[NX_SETTING_COUNT];
  const char *text[NX_SETTING_COUNT]; /* as written */

  /* By nx_config_resolve. */
  uint64_t limit_bytes;
  uint64_t budget_bytes; /* limit less the reserve */
  enum nx_limit_origin limit_origin;
};

/* Defaults, then `environment` (as environ(7); NULL: none), then the arguments: --name=value or --name value, the last
 * one of a name counts. All that is wrong is reported together: one line each, ended by '\n', appended to `problems`,
 * and -NX_ERR_CONFIG. A value that a flag overrides must be right too. Secrets are never repeated. */
int nx_config_load(struct nx_config *config, char *const *environment, int argc, char *const *argv,
                   struct nx_buf *problems, struct nx_error *err);

/* What the process can have here. */
struct nx_machine {
  struct nx_reading memory_limit_bytes; /* the cgroup's */
  struct nx_reading memory_bytes;       /* the machine's (MemTotal) */
  unsigned cores;                       /* CPU quota and affinity, rounded up; 0 counts as 1 */
  uint64_t max_files;                   /* RLIMIT_NOFILE */
};

/* Derives everything that is auto, and limit and budget; may be repeated on the same config when the machine changes
 * (in-place resize). On -NX_ERR_CONFIG, with the variable to change named, the configuration cannot fit; `config` is
 * then as it was. */
int nx_config_resolve(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err);
/* The same for a configuration that need not fit: `nexus plan` says what is wrong with it. */
int nx_config_derive(struct nx_config *config, const struct nx_machine *machine, struct nx_error *err);

/* Estimate: text, heap and threads of a busy process. Instances, sockets and cache are counted by themselves. */
#define NX_CONFIG_PROCESS_BYTES (UINT64_C(8) << 20)
#define NX_CONFIG_CONNECTION_BYTES (UINT64_C(72) << 10) /* the socket, and a buffer of 64 KiB while it is used */
#define NX_CONFIG_FILES_KEPT 128u                        /* descriptors kept for probes, files, memfds */

/* What has to find room in a container: plain numbers, so that they can come from anywhere. It fits when reserve,
 * process, cache and one fully grown instance (memory, native stack, page tables) are within the limit. */
struct nx_config_fit {
  uint64_t limit_bytes;
  unsigned reserve_percent;
  uint64_t process_bytes;
  uint64_t cache_bytes;
  bool cache_is_auto; /* it changes with the limit */
  uint64_t memory_bytes, native_stack_bytes, page_tables_bytes; /* of one instance */
};

/* After nx_config_resolve or nx_config_derive. */
struct nx_config_fit nx_config_get_fit(const struct nx_config *config);
uint64_t nx_config_fit_budget_bytes(const struct nx_config_fit *fit);
uint64_t nx_config_fit_instance_bytes(const struct nx_config_fit *fit);
/* The budget less process and cache; 0 when they are more. */
uint64_t nx_config_fit_left_bytes(const struct nx_config_fit *fit);
/* How many instances fit fully grown; 0: the configuration cannot fit. */
uint64_t nx_config_fit_instances(const struct nx_config_fit *fit);
/* The largest MEMORY_LIMIT_MB, the largest CACHE_MAX_MB, with which `instances` (at least 1) fit, all else as it is;
 * 0: no allowed value is small enough. */
uint64_t nx_config_fit_memory_mb(const struct nx_config_fit *fit, uint64_t instances);
uint64_t nx_config_fit_cache_mb(const struct nx_config_fit *fit, uint64_t instances);
/* A limit in whole MiB with which they fit, and with any above it. */
uint64_t nx_config_fit_limit_bytes(const struct nx_config_fit *fit, uint64_t instances);

/* The same of a configuration. */
uint64_t nx_config_instance_bytes(const struct nx_config *config);
uint64_t nx_config_instances_that_fit(const struct nx_config *config);

/* NAME VALUE SOURCE, a line each; what was derived shows as "auto (24)", a secret as "(set)". */
void nx_config_print_text(const struct nx_config *config, struct nx_buf *out);
/* {"settings":[{"name","value","unit","source","auto"}…]}: numbers in the setting's unit, null when absent. */
void nx_config_print_json(const struct nx_config *config, struct nx_buf *out);
/* docs/configuration.md. 0, or -NX_ERR_SYSTEM when it could not be written. */
int nx_config_write_docs(FILE *out, struct nx_error *err);

const char *nx_setting_name(enum nx_setting setting);

#endif
