/* SPDX-License-Identifier: Apache-2.0
 * Settings: parsing, bounds, sources, what is reported, resolution against machines, output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config_internal.h"

#define KEY "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100"
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* Loads one environment of up to four entries; `problems` are kept as a string. */
static char problems[8192];

static int load_all(struct nx_config *config, char *const *environment, int argc, char *const *argv,
                    struct nx_error *err) {
  NX_BUF_AUTO buf = {0};
  int rc = nx_config_load(config, environment, argc, argv, &buf, err);
  assert_true(buf.len < sizeof problems);
  if (buf.len) memcpy(problems, buf.data, buf.len);
  problems[buf.len] = 0;
  return rc;
}

static int load(struct nx_config *config, const char *a, const char *b, const char *c) {
  char *environment[] = {(char *)(uintptr_t)a, (char *)(uintptr_t)b, (char *)(uintptr_t)c, NULL};
  return load_all(config, environment, 0, NULL, NULL);
}

static int load_flags(struct nx_config *config, const char *a, const char *b, const char *c) {
  char *argv[] = {(char *)(uintptr_t)a, (char *)(uintptr_t)b, (char *)(uintptr_t)c, NULL};
  int argc = 0;
  while (argv[argc]) argc++;
  return load_all(config, NULL, argc, argv, NULL);
}

static void defaults(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, NULL, NULL, NULL), 0);
  assert_string_equal(problems, "");
  assert_int_equal(c.port, 3000);
  assert_string_equal(c.host, "0.0.0.0");
  assert_int_equal(c.admin_port, 0);
  assert_int_equal(c.memory_limit_bytes, 32 * MIB);
  assert_int_equal(c.stack_size_bytes, MIB);
  assert_int_equal(c.timeout_ms, 5000);
  assert_int_equal(c.memory_reserve_percent, 10);
  assert_string_equal(c.cache_dir, "/tmp/nexus-cache");
  assert_null(c.handlers_dir);
  assert_int_equal(c.queue_max, 1024);
  assert_int_equal(c.queue_timeout_ms, 1000);
  assert_int_equal(c.idle_trim_ms, 15000);
  assert_int_equal(c.suspend_store.kind, NX_SUSPEND_MEMORY);
  assert_int_equal(c.suspend_ttl_ms, 900000);
  assert_null(c.net_allow);
  assert_int_equal(c.max_host_calls, 10000);
  assert_int_equal(c.max_state_mutations, 1000);
  assert_int_equal(c.max_events, 100);
  assert_int_equal(c.max_body_bytes, MIB);
  assert_int_equal(c.max_result_bytes, 4 * MIB);
  assert_int_equal(c.shutdown_grace_ms, 25000);
  assert_int_equal(c.log_level, NX_LOG_INFO);
  assert_false(c.log_json);
  assert_null(c.auth_tokens_file);
  static const enum nx_setting automatic[] = {NX_SETTING_MAX_INSTANCES, NX_SETTING_CACHE_MAX_MB,
                                              NX_SETTING_CONTAINER_MEMORY_LIMIT, NX_SETTING_SUSPEND_MAX_MB,
                                              NX_SETTING_MAX_CONNECTIONS};
  for (size_t i = 0; i < sizeof automatic / sizeof *automatic; i++)
    assert_int_equal(c.state[automatic[i]], NX_CONFIG_AUTO);
  assert_int_equal(c.state[NX_SETTING_ADMIN_PORT], NX_CONFIG_ABSENT);
  assert_int_equal(c.state[NX_SETTING_SUSPEND_KEY], NX_CONFIG_ABSENT);
  assert_int_equal(c.state[NX_SETTING_PORT], NX_CONFIG_VALUE);
  assert_int_equal(c.source[NX_SETTING_PORT], NX_CONFIG_FROM_DEFAULT);
}

static void accepted_values(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, "MEMORY_LIMIT_MB=4", "PORT=0", "MAX_INSTANCES=4096"), 0);
  assert_int_equal(c.memory_limit_bytes, 4 * MIB);
  assert_int_equal(c.port, 0);
  assert_int_equal(c.max_instances, 4096);
  assert_int_equal(c.state[NX_SETTING_MAX_INSTANCES], NX_CONFIG_VALUE);
  assert_int_equal(c.source[NX_SETTING_MAX_INSTANCES], NX_CONFIG_FROM_ENVIRONMENT);
  assert_int_equal(load(&c, "HOST=::1", "LOG_LEVEL=debug", "LOG_FORMAT=json"), 0);
  assert_string_equal(c.host, "::1");
  assert_int_equal(c.log_level, NX_LOG_DEBUG);
  assert_true(c.log_json);
  assert_int_equal(load(&c, "ADMIN_PORT=3001", "MAX_INSTANCES=auto", "HANDLERS_DIR=handlers dir"), 0);
  assert_int_equal(c.admin_port, 3001);
  assert_int_equal(c.state[NX_SETTING_MAX_INSTANCES], NX_CONFIG_AUTO);
  assert_string_equal(c.handlers_dir, "handlers dir");
  assert_int_equal(load(&c, "ADMIN_PORT=off", "HANDLERS_DIR=none", "AUTH_TOKENS_FILE=none"), 0);
  assert_int_equal(c.admin_port, 0);
  assert_null(c.handlers_dir);
  assert_int_equal(load(&c, "NET_ALLOW=api.example.com *.example.org:443", "SUSPEND_KEY=" KEY, NULL), 0);
  assert_string_equal(c.net_allow, "api.example.com *.example.org:443");
  assert_int_equal(c.suspend_key[0], 0x00);
  assert_int_equal(c.suspend_key[10], 0xaa);
  assert_int_equal(c.suspend_key[31], 0x00);
  assert_int_equal(c.suspend_key[16], 0xff);
  assert_int_equal(load(&c, "PORT=3000", "PORT=4000", "PORTX=1"), 0); /* as getenv: the first */
  assert_int_equal(c.port, 3000);
}

static void container_sizes(void **state) {
  (void)state;
  static const struct { const char *text; uint64_t bytes; } cases[] = {
    {"1073741824", GIB}, {"1Gi", GIB}, {"1536Mi", 1536 * MIB}, {"2048Ki", 2 * MIB}, {"1Ti", GIB * 1024},
    {"500M", 500000000}, {"2000k", 2000000}, {"2G", 2000000000}, {"1048576", MIB}, {"1024Ti", GIB << 20},
    {"1048575", 0}, {"1025Ti", 0}, {"1Pi", 0}, {"1gi", 0}, {"1K", 0}, {"1MB", 0}, {"1.5Gi", 0}, {"Gi", 0}, {"-1Gi", 0},
    {"1 Gi", 0}, {"1Gi ", 0}, {" 1Gi", 0}, {"0", 0}, {"", 0}, {"max", 0}, {"18446744073709551615Ki", 0},
    {"16777216Ti", 0}, {"99999999999999999999", 0}, {"+1Gi", 0}, {"0x100000", 0}, {"1e9", 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char entry[80];
    struct nx_config c;
    snprintf(entry, sizeof entry, "CONTAINER_MEMORY_LIMIT=%s", cases[i].text);
    int rc = load(&c, entry, NULL, NULL);
    if (rc != (cases[i].bytes ? 0 : -NX_ERR_CONFIG)) fail_msg("%s: %d", entry, rc);
    if (!rc) assert_int_equal(c.container_memory_limit_bytes, cases[i].bytes);
  }
}

static void refused_values_say_name_value_and_what_is_allowed(void **state) {
  (void)state;
  static const struct { const char *entry, *problem; } cases[] = {
    {"MEMORY_LIMIT_MB=abc", "MEMORY_LIMIT_MB=\"abc\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=3", "MEMORY_LIMIT_MB=\"3\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=1025", "MEMORY_LIMIT_MB=\"1025\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=", "MEMORY_LIMIT_MB=\"\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=32 ", "MEMORY_LIMIT_MB=\"32 \": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=32MB", "MEMORY_LIMIT_MB=\"32MB\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=+32", "MEMORY_LIMIT_MB=\"+32\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=-32", "MEMORY_LIMIT_MB=\"-32\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=32.0", "MEMORY_LIMIT_MB=\"32.0\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=18446744073709551648", /* 2^64 + 32 */
     "MEMORY_LIMIT_MB=\"18446744073709551648\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=4\n", "MEMORY_LIMIT_MB=\"4\\n\": expected a whole number from 4 to 1024\n"},
    {"MEMORY_LIMIT_MB=auto", "MEMORY_LIMIT_MB=\"auto\": expected a whole number from 4 to 1024\n"},
    {"MAX_INSTANCES=0", "MAX_INSTANCES=\"0\": expected auto or a whole number from 1 to 4096\n"},
    {"MAX_INSTANCES=AUTO", "MAX_INSTANCES=\"AUTO\": expected auto or a whole number from 1 to 4096\n"},
    {"MAX_INSTANCES=", "MAX_INSTANCES=\"\": expected auto or a whole number from 1 to 4096\n"},
    {"PORT=65536", "PORT=\"65536\": expected a whole number from 0 to 65535\n"},
    {"PORT=tcp://10.0.0.1:3000", "PORT=\"tcp://10.0.0.1:3000\": expected a whole number from 0 to 65535\n"},
    {"ADMIN_PORT=0", "ADMIN_PORT=\"0\": expected off or a whole number from 1 to 65535\n"},
    {"ADMIN_PORT=3000", "ADMIN_PORT=\"3000\": expected a port other than PORT\n"},
    {"HOST=localhost", "HOST=\"localhost\": expected a numeric IPv4 or IPv6 address\n"},
    {"HOST=1.2.3", "HOST=\"1.2.3\": expected a numeric IPv4 or IPv6 address\n"},
    {"HOST=[::1]", "HOST=\"[::1]\": expected a numeric IPv4 or IPv6 address\n"},
    {"LOG_LEVEL=warning", "LOG_LEVEL=\"warning\": expected error, warn, info or debug\n"},
    {"LOG_LEVEL=", "LOG_LEVEL=\"\": expected error, warn, info or debug\n"},
    {"LOG_LEVEL=warn|info", "LOG_LEVEL=\"warn|info\": expected error, warn, info or debug\n"},
    {"LOG_FORMAT=JSON", "LOG_FORMAT=\"JSON\": expected text or json\n"},
    {"CACHE_DIR=", "CACHE_DIR=\"\": expected a path of 1 to 4095 bytes without control characters\n"},
    {"CACHE_DIR=/a\nb", "CACHE_DIR=\"/a\\nb\": expected a path of 1 to 4095 bytes without control characters\n"},
    {"AUTH_TOKENS_FILE=",
     "AUTH_TOKENS_FILE=\"\": expected none or a path of 1 to 4095 bytes without control characters\n"},
    {"SUSPEND_KEY=", "SUSPEND_KEY (0 characters, not shown): expected none or 64 hexadecimal digits\n"},
    {"SUSPEND_KEY=sEcReT", "SUSPEND_KEY (6 characters, not shown): expected none or 64 hexadecimal digits\n"},
    {"SUSPEND_KEY=" KEY "0", "SUSPEND_KEY (65 characters, not shown): expected none or 64 hexadecimal digits\n"},
    {"CONTAINER_MEMORY_LIMIT=1K",
     "CONTAINER_MEMORY_LIMIT=\"1K\": expected auto or bytes, or a whole number with Ki, Mi, Gi, Ti, k, M or G, "
     "from 1Mi to 1024Ti\n"},
    {"SUSPEND_STORE=disk", "SUSPEND_STORE=\"disk\": expected memory, file:DIR, redis://[[USER]:PASSWORD@]HOST:PORT/DB or sealed\n"},
    {"SUSPEND_STORE=redis://:hunter2@h:1/x",
     "SUSPEND_STORE (22 characters, not shown): expected memory, file:DIR, redis://[[USER]:PASSWORD@]HOST:PORT/DB or sealed\n"},
    {"SUSPEND_STORE=sealed", "SUSPEND_KEY: expected 64 hexadecimal digits, because SUSPEND_STORE is not memory\n"},
    {"SUSPEND_KEY_PREVIOUS=" KEY,
     "SUSPEND_KEY: expected 64 hexadecimal digits, because SUSPEND_KEY_PREVIOUS is set\n"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_config c;
    assert_int_equal(load(&c, cases[i].entry, NULL, NULL), -NX_ERR_CONFIG);
    assert_string_equal(problems, cases[i].problem);
  }
}

static void long_values_are_cut_in_the_report(void **state) {
  (void)state;
  char entry[6000] = "CACHE_DIR=";
  memset(entry + 10, 'x', 5000);
  struct nx_config c;
  assert_int_equal(load(&c, entry, NULL, NULL), -NX_ERR_CONFIG);
  assert_true(strlen(problems) < 200);
  entry[10 + 4095] = 0;
  assert_int_equal(load(&c, entry, NULL, NULL), 0);
}

static void everything_wrong_is_reported_at_once(void **state) {
  (void)state;
  char *environment[] = {"MEMORY_LIMIT_MB=x", "PORT=3001", "ADMIN_PORT=3001", "SUSPEND_STORE=sealed", "LOG_LEVEL=", NULL};
  char *argv[] = {"--timeout-ms=0", "extra", "--nonsense=1"};
  struct nx_config c;
  struct nx_error err = {0};
  assert_int_equal(load_all(&c, environment, 3, argv, &err), -NX_ERR_CONFIG);
  assert_string_equal(err.text, "7 parts of the configuration are wrong");
  assert_string_equal(problems,
                      "MEMORY_LIMIT_MB=\"x\": expected a whole number from 4 to 1024\n"
                      "LOG_LEVEL=\"\": expected error, warn, info or debug\n"
                      "--timeout-ms=\"0\": expected a whole number from 1 to 600000\n"
                      "\"extra\": unexpected argument; settings are given as --name=value\n"
                      "\"--nonsense\": unknown flag; `nexus config` lists the settings\n"
                      "ADMIN_PORT=\"3001\": expected a port other than PORT\n"
                      "SUSPEND_KEY: expected 64 hexadecimal digits, because SUSPEND_STORE is not memory\n");
}

static void one_mistake_is_not_reported_twice(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, "SUSPEND_STORE=sealed", "SUSPEND_KEY=short", NULL), -NX_ERR_CONFIG);
  assert_string_equal(problems, "SUSPEND_KEY (5 characters, not shown): expected none or 64 hexadecimal digits\n");
  assert_int_equal(load(&c, "PORT=x", "ADMIN_PORT=3000", NULL), -NX_ERR_CONFIG);
  assert_string_equal(problems, "PORT=\"x\": expected a whole number from 0 to 65535\n");
}

static void empty_means_none_where_less_is_safe(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, "HANDLERS_DIR=", "NET_ALLOW=", "SUSPEND_KEY_PREVIOUS="), 0);
  assert_null(c.handlers_dir);
  assert_null(c.net_allow);
  assert_int_equal(c.state[NX_SETTING_SUSPEND_KEY_PREVIOUS], NX_CONFIG_ABSENT);
}

static void stores(void **state) {
  (void)state;
  static const struct { const char *text; enum nx_suspend_store_kind kind; const char *where; unsigned port, db; } cases[] = {
    {"memory", NX_SUSPEND_MEMORY, NULL, 0, 0},
    {"sealed", NX_SUSPEND_SEALED, NULL, 0, 0},
    {"file:/var/lib/nexus", NX_SUSPEND_FILE, "/var/lib/nexus", 0, 0},
    {"file:rel", NX_SUSPEND_FILE, "rel", 0, 0},
    {"redis://cache:6380/2", NX_SUSPEND_REDIS, "cache", 6380, 2},
    {"redis://cache.example.com", NX_SUSPEND_REDIS, "cache.example.com", 6379, 0},
    {"redis://10.0.0.1:1/", NX_SUSPEND_REDIS, "10.0.0.1", 1, 0},
    {"redis://[::1]:7000/15", NX_SUSPEND_REDIS, "::1", 7000, 15},
    {"redis://[::1]", NX_SUSPEND_REDIS, "::1", 6379, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char entry[80];
    struct nx_config c;
    snprintf(entry, sizeof entry, "SUSPEND_STORE=%s", cases[i].text);
    if (load(&c, entry, "SUSPEND_KEY=" KEY, NULL)) fail_msg("%s: %s", entry, problems);
    assert_int_equal(c.suspend_store.kind, cases[i].kind);
    if (cases[i].kind == NX_SUSPEND_FILE) assert_string_equal(c.suspend_store.dir, cases[i].where);
    if (cases[i].kind == NX_SUSPEND_REDIS) assert_string_equal(c.suspend_store.redis_host, cases[i].where);
    assert_int_equal(c.suspend_store.redis_port, cases[i].port);
    assert_int_equal(c.suspend_store.redis_db, cases[i].db);
  }
  static const char *const bad[] = {
    "", "Memory", "memory ", "file:", "file", "redis:", "redis://", "redis://:6379", "redis://h:", "redis://h:0",
    "redis://h:65536", "redis://h:1x", "redis://h/x", "redis://h/1x", "redis://h/-1", "redis://h/1/2", "redis://a b",
    "redis://[::1", "redis://[nope]:1", "redis://[]", "redis://u@h", "redis://u:@h", "redis://u:a:b@h", "redis://u:a/b@h", "redis://u:a@b@h", "redis://u:%4@h",
    "redis://u:%00@h", "redis://u:%zz@h", "redis://u:a%@h", "rediss://h", "redis://h?db=1", "file:/a\tb"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char entry[80];
    struct nx_config c;
    snprintf(entry, sizeof entry, "SUSPEND_STORE=%s", bad[i]);
    if (!load(&c, entry, "SUSPEND_KEY=" KEY, NULL)) fail_msg("%s was accepted", entry);
  }
  char entry[400] = "SUSPEND_STORE=redis://";
  memset(entry + strlen(entry), 'h', 300);
  struct nx_config c;
  assert_int_equal(load(&c, entry, "SUSPEND_KEY=" KEY, NULL), -NX_ERR_CONFIG);
}

static void the_login_of_redis(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, "SUSPEND_STORE=redis://:hunter2@h:1/3", "SUSPEND_KEY=" KEY, NULL), 0);
  assert_string_equal(c.suspend_store.redis_user, "");
  assert_string_equal(c.suspend_store.redis_password, "hunter2");
  assert_string_equal(c.suspend_store.redis_host, "h");
  assert_int_equal(c.suspend_store.redis_db, 3);
  assert_int_equal(load(&c, "SUSPEND_STORE=redis://n%3ax:a%40b%2F%3a%25@[::1]:7/", "SUSPEND_KEY=" KEY, NULL), 0);
  assert_string_equal(c.suspend_store.redis_user, "n:x");
  assert_string_equal(c.suspend_store.redis_password, "a@b/:%");
  assert_string_equal(c.suspend_store.redis_host, "::1");
  char entry[400] = "SUSPEND_STORE=redis://:";
  memset(entry + strlen(entry), 'p', 256);
  strcat(entry, "@h");
  assert_int_equal(load(&c, entry, "SUSPEND_KEY=" KEY, NULL), -NX_ERR_CONFIG);
  assert_null(strstr(problems, "ppp"));
}

static void flags_mirror_the_table(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load_flags(&c, "--memory-limit-mb=16", "--port", "4000"), 0);
  assert_int_equal(c.memory_limit_bytes, 16 * MIB);
  assert_int_equal(c.port, 4000);
  assert_int_equal(c.source[NX_SETTING_PORT], NX_CONFIG_FROM_FLAG);
  assert_int_equal(load_flags(&c, "--port=1", "--port=2", NULL), 0);
  assert_int_equal(c.port, 2);
  assert_int_equal(load_flags(&c, "--suspend-store=file:/a=b", "--suspend-key", KEY), 0);
  assert_string_equal(c.suspend_store.dir, "/a=b");
  assert_int_equal(load_flags(&c, "--port", NULL, NULL), -NX_ERR_CONFIG);
  assert_string_equal(problems, "\"--port\": the value is missing\n");
  static const char *const unknown[] = {"--", "-p", "port=1", "--PORT=1", "--memory_limit_mb=16", "--por=1", "--portx=1",
                                        "--=1", "", "--help"};
  for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
    if (!load_flags(&c, unknown[i], NULL, NULL)) fail_msg("%s was accepted", unknown[i]);
}

static void flags_win_but_the_environment_must_be_right_too(void **state) {
  (void)state;
  char *environment[] = {"PORT=4000", "NET_ALLOW=a", NULL};
  char *argv[] = {"--port=5000", "--net-allow="};
  struct nx_config c;
  assert_int_equal(load_all(&c, environment, 2, argv, NULL), 0);
  assert_int_equal(c.port, 5000);
  assert_null(c.net_allow);
  assert_int_equal(c.source[NX_SETTING_NET_ALLOW], NX_CONFIG_FROM_FLAG);
  environment[0] = "PORT=none";
  assert_int_equal(load_all(&c, environment, 2, argv, NULL), -NX_ERR_CONFIG);
}

static void every_setting_takes_its_default_and_its_bounds(void **state) {
  (void)state;
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    const struct nx__setting *s = &nx__settings[i];
    struct nx_config c;
    char entry[200];
    snprintf(entry, sizeof entry, "%s=%s", s->name, s->initial);
    if (load(&c, entry, NULL, NULL)) fail_msg("%s: %s", entry, problems);
    assert_int_equal(c.source[i], NX_CONFIG_FROM_ENVIRONMENT);
    assert_true(strlen(s->meaning) > 10);
    if (s->kind != NX__KIND_NUMBER && s->kind != NX__KIND_SIZE) continue;
    assert_true(s->most <= UINT64_MAX / s->scale);
    assert_true(s->size == 8 || s->most * s->scale < UINT64_C(1) << (8 * s->size));
    const uint64_t tries[] = {s->least, s->most, s->most + 1, s->least - 1};
    for (size_t t = 0; t < (s->least ? 4 : 3); t++) {
      snprintf(entry, sizeof entry, "%s=%llu", s->name, (unsigned long long)tries[t]);
      int rc = load(&c, entry, s->name[0] == 'A' ? "PORT=9" : NULL, NULL);
      if ((rc == 0) != (t < 2)) fail_msg("%s: %d", entry, rc);
      if (!rc) assert_int_equal(nx__setting_get_number(s, &c), tries[t] * s->scale);
    }
  }
}

/* resolution */

static const struct nx_machine one_gib = {
  .memory_limit_bytes = {NX_READING_VALUE, GIB}, .memory_bytes = {NX_READING_VALUE, 16 * GIB}, .cores = 2, .max_files = 20000};

static int resolve(struct nx_config *c, const struct nx_machine *machine, struct nx_error *err, const char *a,
                   const char *b, const char *d) {
  assert_int_equal(load(c, a, b, d), 0);
  return nx_config_resolve(c, machine, err);
}

static void resolves_the_reference_container(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(resolve(&c, &one_gib, NULL, NULL, NULL, NULL), 0);
  assert_int_equal(c.limit_bytes, GIB);
  assert_int_equal(c.limit_origin, NX_LIMIT_FROM_CGROUP);
  assert_int_equal(c.budget_bytes, GIB - GIB / 10);
  assert_int_equal(c.cache_max_bytes, 64 * MIB);
  assert_int_equal(c.max_instances, 8); /* 4 per core */
  assert_int_equal(c.suspend_max_bytes, c.budget_bytes - 8 * MIB - nx_config_instance_bytes(&c));
  assert_int_equal(c.max_connections, c.budget_bytes / 4 / (72 << 10));
  assert_int_equal(nx_config_instances_that_fit(&c), 24);
  assert_int_equal(nx_config_instance_bytes(&c), 32 * MIB + 2 * MIB + (64 << 10) + (16 << 10) + (64 << 10));
  assert_int_equal(c.state[NX_SETTING_MAX_INSTANCES], NX_CONFIG_DERIVED);
  /* Again with less memory: everything follows. */
  struct nx_machine smaller = one_gib;
  smaller.memory_limit_bytes = nx_reading_of(256 * MIB);
  assert_int_equal(nx_config_resolve(&c, &smaller, NULL), 0);
  assert_int_equal(c.limit_bytes, 256 * MIB);
  assert_int_equal(c.cache_max_bytes, 57 * MIB); /* a quarter of the budget */
  assert_int_equal(c.max_instances, 4);          /* what fits */
  /* What cannot fit leaves the configuration alone. */
  smaller.memory_limit_bytes = nx_reading_of(32 * MIB);
  struct nx_config before = c;
  assert_int_equal(nx_config_resolve(&c, &smaller, NULL), -NX_ERR_CONFIG);
  assert_int_equal(c.limit_bytes, before.limit_bytes);
  assert_int_equal(c.max_instances, before.max_instances);
}

static void set_values_are_kept(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(resolve(&c, &one_gib, NULL, "MAX_INSTANCES=500", "CACHE_MAX_MB=1", "SUSPEND_MAX_MB=2000"), 0);
  assert_int_equal(c.max_instances, 500); /* over-commit is allowed */
  assert_int_equal(c.cache_max_bytes, MIB);
  assert_int_equal(c.suspend_max_bytes, 2000 * MIB);
  assert_int_equal(resolve(&c, &one_gib, NULL, "MEMORY_RESERVE_PERCENT=0", "MAX_CONNECTIONS=7", NULL), 0);
  assert_int_equal(c.budget_bytes, GIB);
  assert_int_equal(c.max_connections, 7);
}

static void limit_origins(void **state) {
  (void)state;
  static const struct {
    struct nx_reading cgroup, machine;
    uint64_t limit; /* 0: refused */
    enum nx_limit_origin origin;
  } cases[] = {
    {{NX_READING_VALUE, GIB}, {NX_READING_VALUE, 2 * GIB}, GIB, NX_LIMIT_FROM_CGROUP},
    {{NX_READING_VALUE, GIB}, {NX_READING_UNKNOWN, 0}, GIB, NX_LIMIT_FROM_CGROUP},
    {{NX_READING_VALUE, 4 * GIB}, {NX_READING_VALUE, 2 * GIB}, 2 * GIB, NX_LIMIT_FROM_MACHINE},
    {{NX_READING_UNLIMITED, 0}, {NX_READING_VALUE, 2 * GIB}, 2 * GIB, NX_LIMIT_FROM_MACHINE},
    {{NX_READING_UNKNOWN, 0}, {NX_READING_VALUE, 2 * GIB}, 2 * GIB, NX_LIMIT_GUESSED},
    {{NX_READING_UNKNOWN, 0}, {NX_READING_UNKNOWN, 0}, 0, NX_LIMIT_GUESSED},
    {{NX_READING_UNLIMITED, 0}, {NX_READING_UNKNOWN, 0}, 0, NX_LIMIT_GUESSED},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct nx_machine machine = {cases[i].cgroup, cases[i].machine, 1, 1024};
    struct nx_config c;
    struct nx_error err = {0};
    int rc = resolve(&c, &machine, &err, NULL, NULL, NULL);
    assert_int_equal(rc, cases[i].limit ? 0 : -NX_ERR_CONFIG);
    if (rc) {
      assert_memory_equal(err.text, "CONTAINER_MEMORY_LIMIT=\"auto\": ", 31);
      continue;
    }
    assert_int_equal(c.limit_bytes, cases[i].limit);
    assert_int_equal(c.limit_origin, cases[i].origin);
  }
}

static void a_set_limit_may_not_pass_what_the_kernel_gives(void **state) {
  (void)state;
  struct nx_config c;
  struct nx_error err = {0};
  assert_int_equal(resolve(&c, &one_gib, &err, "CONTAINER_MEMORY_LIMIT=512Mi", NULL, NULL), 0);
  assert_int_equal(c.limit_bytes, 512 * MIB);
  assert_int_equal(c.limit_origin, NX_LIMIT_FROM_SETTING);
  assert_int_equal(resolve(&c, &one_gib, &err, "CONTAINER_MEMORY_LIMIT=2Gi", NULL, NULL), -NX_ERR_CONFIG);
  assert_string_equal(err.text,
                      "CONTAINER_MEMORY_LIMIT=\"2Gi\": the cgroup allows only 1073741824 bytes; lower it, or say auto");
  /* The kernel rounds down to pages. */
  assert_int_equal(resolve(&c, &one_gib, &err, "CONTAINER_MEMORY_LIMIT=1073742000", NULL, NULL), 0);
  assert_int_equal(c.limit_bytes, GIB);
  struct nx_machine unlimited = one_gib;
  unlimited.memory_limit_bytes = nx_reading_unlimited();
  assert_int_equal(resolve(&c, &unlimited, &err, "CONTAINER_MEMORY_LIMIT=2Gi", NULL, NULL), 0);
  assert_int_equal(resolve(&c, &unlimited, &err, "CONTAINER_MEMORY_LIMIT=17Gi", NULL, NULL), -NX_ERR_CONFIG);
  struct nx_machine nothing = {.cores = 1, .max_files = 1024};
  assert_int_equal(resolve(&c, &nothing, &err, "CONTAINER_MEMORY_LIMIT=2Gi", NULL, NULL), 0);
}

static void what_cannot_fit_names_the_variables(void **state) {
  (void)state;
  struct nx_machine small = one_gib;
  struct nx_config c;
  struct nx_error err = {0};
  small.memory_limit_bytes = nx_reading_of(48 * MIB);
  assert_int_equal(resolve(&c, &small, &err, NULL, NULL, NULL), -NX_ERR_CONFIG);
  assert_string_equal(err.text,
                      "does not fit into 48.0 MiB: process 8.0 + cache 10.0 + reserve 4.8 + instance of "
                      "MEMORY_LIMIT_MB=32 34.1 = 56.9; lower MEMORY_LIMIT_MB to 23, set CACHE_MAX_MB to 1, "
                      "or raise the container's memory limit to 63Mi");
  assert_int_equal(resolve(&c, &small, &err, "MEMORY_LIMIT_MB=23", NULL, NULL), 0); /* the advice holds */
  assert_int_equal(resolve(&c, &small, &err, "CACHE_MAX_MB=1", NULL, NULL), 0);
  assert_int_equal(c.max_instances, 1);
  assert_int_equal(resolve(&c, &one_gib, &err, "CACHE_MAX_MB=2000", NULL, NULL), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "; set CACHE_MAX_MB to 879, or raise the container's memory limit to 2270Mi"));
  assert_int_equal(resolve(&c, &one_gib, &err, "CONTAINER_MEMORY_LIMIT=8Mi", NULL, NULL), -NX_ERR_CONFIG);
  assert_non_null(strstr(err.text, "; raise CONTAINER_MEMORY_LIMIT to 63Mi"));
  assert_int_equal(resolve(&c, &one_gib, &err, "CONTAINER_MEMORY_LIMIT=63Mi", NULL, NULL), 0);
  /* nexus plan wants to know all the same. */
  assert_int_equal(load(&c, NULL, NULL, NULL), 0);
  assert_int_equal(nx_config_derive(&c, &small, NULL), 0);
  assert_int_equal(c.cache_max_bytes, 10 * MIB);
  assert_int_equal(c.max_instances, 1);
  assert_int_equal(nx_config_instances_that_fit(&c), 0);
}

/* 8 process + 14 cache + 6.4 reserve + 34.1 for an instance. */
static void defaults_fit_into_64_mib(void **state) {
  (void)state;
  struct nx_machine small = one_gib;
  struct nx_config c;
  small.memory_limit_bytes = nx_reading_of(64 * MIB);
  assert_int_equal(resolve(&c, &small, NULL, NULL, NULL, NULL), 0);
  assert_int_equal(c.cache_max_bytes, 14 * MIB);
  assert_int_equal(c.max_instances, 1);
  assert_int_equal(nx_config_instances_that_fit(&c), 1);
}

/* Whatever is advised is right, and (but for rounding to MiB) no more is asked for than is needed. */
static void advice_holds(void **state) {
  (void)state;
  unsigned seed = 5;
  for (int i = 0; i < 3000; i++) {
    struct nx_config_fit fit = {
      .limit_bytes = (uint64_t)(8 + rand_r(&seed) % 4000) * MIB,
      .reserve_percent = (unsigned)(rand_r(&seed) % 51),
      .process_bytes = NX_CONFIG_PROCESS_BYTES,
      .cache_bytes = (uint64_t)(rand_r(&seed) % 300) * MIB,
      .memory_bytes = (uint64_t)(4 + rand_r(&seed) % 300) * MIB,
      .native_stack_bytes = 2 * MIB,
      .page_tables_bytes = 80 << 10,
    };
    uint64_t count = 1 + (uint64_t)(rand_r(&seed) % 40), memory_mb = nx_config_fit_memory_mb(&fit, count);
    uint64_t cache_mb = nx_config_fit_cache_mb(&fit, count), limit = nx_config_fit_limit_bytes(&fit, count);
    struct nx_config_fit other = fit;
    other.memory_bytes = memory_mb * MIB;
    if (memory_mb) assert_true(nx_config_fit_instances(&other) >= count);
    other = fit;
    other.cache_bytes = cache_mb * MIB;
    if (cache_mb) assert_true(nx_config_fit_instances(&other) >= count);
    if (cache_mb) other.cache_bytes += MIB;
    if (cache_mb) assert_true(nx_config_fit_instances(&other) < count);
    other = fit;
    other.limit_bytes = limit;
    assert_true(nx_config_fit_instances(&other) >= count);
    other.limit_bytes = limit - 2 * MIB;
    assert_true(nx_config_fit_instances(&other) < count);
  }
  /* An automatic cache grows with the limit, in steps; the advised limit is one above which everything fits. */
  for (unsigned mib = 24; mib < 1024; mib += 20) {
    char memory[40];
    struct nx_machine machine = one_gib;
    struct nx_config c;
    snprintf(memory, sizeof memory, "MEMORY_LIMIT_MB=%u", mib);
    assert_int_equal(load(&c, memory, NULL, NULL), 0);
    machine.memory_limit_bytes = nx_reading_of(16 * MIB);
    assert_int_equal(nx_config_derive(&c, &machine, NULL), 0);
    struct nx_config_fit fit = nx_config_get_fit(&c);
    for (unsigned more = 0; more < 70; more++) {
      machine.memory_limit_bytes = nx_reading_of(nx_config_fit_limit_bytes(&fit, 1) + more * MIB);
      assert_int_equal(resolve(&c, &machine, NULL, memory, NULL, NULL), 0);
    }
  }
}

static void connections_follow_files_and_memory(void **state) {
  (void)state;
  struct nx_machine machine = one_gib;
  struct nx_config c;
  struct nx_error err = {0};
  machine.max_files = 1024;
  assert_int_equal(resolve(&c, &machine, &err, NULL, NULL, NULL), 0);
  assert_int_equal(c.max_connections, 896);
  machine.max_files = UINT64_MAX; /* RLIM_INFINITY */
  machine.memory_limit_bytes = nx_reading_unlimited();
  assert_int_equal(resolve(&c, &machine, &err, NULL, NULL, NULL), 0);
  assert_int_equal(c.max_connections, 10000);
  machine.memory_limit_bytes = nx_reading_of(14 * MIB);
  assert_int_equal(resolve(&c, &machine, &err, "MEMORY_LIMIT_MB=4", "CACHE_MAX_MB=1", "STACK_SIZE_KB=64"), -NX_ERR_CONFIG);
  machine.memory_limit_bytes = nx_reading_of(17 * MIB);
  assert_int_equal(resolve(&c, &machine, &err, "MEMORY_LIMIT_MB=4", "CACHE_MAX_MB=1", "STACK_SIZE_KB=64"), 0);
  assert_int_equal(c.max_connections, 64); /* never fewer */
  machine = one_gib;
  machine.max_files = 150;
  assert_int_equal(resolve(&c, &machine, &err, NULL, NULL, NULL), -NX_ERR_CONFIG);
  assert_string_equal(err.text,
                      "MAX_CONNECTIONS=\"auto\": 64 connections need 192 open files, 150 are allowed; raise the limit "
                      "of open files (ulimit -n, RLIMIT_NOFILE)");
  assert_int_equal(resolve(&c, &machine, &err, "MAX_CONNECTIONS=22", NULL, NULL), 0);
  assert_int_equal(resolve(&c, &machine, &err, "MAX_CONNECTIONS=23", NULL, NULL), -NX_ERR_CONFIG);
}

static void cores_bound_instances(void **state) {
  (void)state;
  struct nx_machine machine = one_gib;
  struct nx_config c;
  machine.memory_limit_bytes = nx_reading_of(UINT64_C(1) << 50);
  machine.memory_bytes = nx_reading_unknown();
  static const struct { unsigned cores, instances; } cases[] = {{0, 4}, {1, 4}, {3, 12}, {4000000000u, 4096}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    machine.cores = cases[i].cores;
    assert_int_equal(resolve(&c, &machine, NULL, NULL, NULL, NULL), 0);
    assert_int_equal(c.max_instances, cases[i].instances);
  }
}

/* For every limit the promise holds: what was derived fits, or the configuration is refused. */
static void whatever_is_accepted_fits(void **state) {
  (void)state;
  struct nx_machine machine = one_gib;
  unsigned seed = 3, accepted = 0;
  for (int i = 0; i < 3000; i++) {
    char memory[40], stack[40], reserve[40];
    snprintf(memory, sizeof memory, "MEMORY_LIMIT_MB=%d", 4 + rand_r(&seed) % 200);
    snprintf(stack, sizeof stack, "STACK_SIZE_KB=%d", 64 + rand_r(&seed) % 961);
    snprintf(reserve, sizeof reserve, "MEMORY_RESERVE_PERCENT=%d", rand_r(&seed) % 51);
    machine.memory_limit_bytes = nx_reading_of((uint64_t)(1 + rand_r(&seed) % 2000) * MIB + (uint64_t)rand_r(&seed) % MIB);
    struct nx_config c;
    struct nx_error err = {0};
    if (resolve(&c, &machine, &err, memory, stack, reserve)) {
      assert_true(strlen(err.text) < sizeof err.text - 1); /* nothing of the advice was cut */
      continue;
    }
    accepted++;
    assert_true(c.max_instances >= 1 && c.max_instances <= 8);
    assert_true(NX_CONFIG_PROCESS_BYTES + c.cache_max_bytes + c.max_instances * nx_config_instance_bytes(&c) <= c.budget_bytes);
    assert_true(c.cache_max_bytes <= c.budget_bytes / 4 && c.budget_bytes <= c.limit_bytes);
    assert_true(c.suspend_max_bytes < c.budget_bytes);
  }
  assert_in_range(accepted, 500, 2990);
}

/* The longest texts are whole. */
static void advice_is_not_cut(void **state) {
  (void)state;
  struct nx_machine machine = {nx_reading_of(UINT64_C(1049000) * MIB * 2), nx_reading_unknown(), 1, 1024};
  struct nx_config c;
  struct nx_error err = {0};
  assert_int_equal(resolve(&c, &machine, &err, "MEMORY_LIMIT_MB=1024", "CACHE_MAX_MB=1048576", "MEMORY_RESERVE_PERCENT=50"),
                   -NX_ERR_CONFIG);
  assert_true(strlen(err.text) < sizeof err.text - 1);
  assert_non_null(strstr(err.text, "; lower MEMORY_LIMIT_MB to 411, set CACHE_MAX_MB to 10479"));
  assert_string_equal(strstr(err.text, "limit to"), "limit to 2099225Mi");
}

/* output */

static const char *as_text(const struct nx_buf *buf) {
  static char text[32768];
  assert_false(buf->failed);
  assert_true(buf->len < sizeof text);
  memcpy(text, buf->data, buf->len);
  text[buf->len] = 0;
  return text;
}

static void assert_row(const char *table, const char *name, const char *value, const char *source) {
  char row[200];
  snprintf(row, sizeof row, "\n%-24s %-24s %s\n", name, value, source);
  if (!strstr(table, row)) fail_msg("no row%sin:\n%s", row, table);
}

static void text_output(void **state) {
  (void)state;
  struct nx_config c;
  char *environment[] = {"SUSPEND_KEY=" KEY, "CONTAINER_MEMORY_LIMIT=1536Mi", "LOG_LEVEL=warn", NULL};
  char *argv[] = {"--port=0080", "--suspend-store=redis://r:1/2"};
  assert_int_equal(load_all(&c, environment, 2, argv, NULL), 0);
  NX_BUF_AUTO before = {0};
  nx_config_print_text(&c, &before);
  assert_row(as_text(&before), "MAX_INSTANCES", "auto", "default");
  struct nx_machine machine = one_gib;
  machine.memory_limit_bytes = nx_reading_of(2 * GIB);
  assert_int_equal(nx_config_resolve(&c, &machine, NULL), 0);
  NX_BUF_AUTO out = {0};
  nx_config_print_text(&c, &out);
  const char *text = as_text(&out);
  assert_row(text, "PORT", "80", "flag");
  assert_row(text, "MAX_INSTANCES", "auto (8)", "default");
  assert_row(text, "SUSPEND_KEY", "(set)", "environment");
  assert_row(text, "SUSPEND_KEY_PREVIOUS", "none", "default");
  assert_row(text, "CONTAINER_MEMORY_LIMIT", "1536Mi", "environment");
  assert_row(text, "SUSPEND_STORE", "redis://r:1/2", "flag");
  assert_row(text, "LOG_LEVEL", "warn", "environment");
  assert_row(text, "ADMIN_PORT", "off", "default");
  assert_row(text, "CACHE_MAX_MB", "auto (64)", "default");
  assert_null(strstr(text, KEY));
  unsigned lines = 0;
  for (const char *line = text; (line = strchr(line, '\n')); line++) lines++;
  assert_int_equal(lines, NX_SETTING_COUNT + 1);
}

static void the_login_of_redis_is_not_shown(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, "SUSPEND_STORE=redis://joe:hunter2@h:1/3", "SUSPEND_KEY=" KEY, NULL), 0);
  NX_BUF_AUTO text = {0};
  nx_config_print_text(&c, &text);
  assert_row(as_text(&text), "SUSPEND_STORE", "redis://(set)@h:1/3", "environment");
  NX_BUF_AUTO json = {0};
  nx_config_print_json(&c, &json);
  assert_non_null(strstr(as_text(&json), "\"SUSPEND_STORE\",\"value\":\"redis://(set)@h:1/3\""));
  assert_int_equal(load(&c, "SUSPEND_STORE=file:/a@b", "SUSPEND_KEY=" KEY, NULL), 0);
  nx_buf_reset(&text, 0);
  nx_config_print_text(&c, &text);
  assert_row(as_text(&text), "SUSPEND_STORE", "file:/a@b", "environment");
}

static void json_output(void **state) {
  (void)state;
  struct nx_config c;
  assert_int_equal(load(&c, "SUSPEND_KEY=" KEY, "CACHE_DIR=/a\"\\\xff", NULL), 0);
  NX_BUF_AUTO before = {0};
  nx_config_print_json(&c, &before);
  assert_non_null(strstr(as_text(&before), "{\"name\":\"MAX_INSTANCES\",\"value\":null,\"unit\":\"instances\","
                                           "\"source\":\"default\",\"auto\":true}"));
  assert_int_equal(nx_config_resolve(&c, &one_gib, NULL), 0);
  NX_BUF_AUTO out = {0};
  nx_config_print_json(&c, &out);
  const char *text = as_text(&out);
  assert_non_null(strstr(text, "{\"settings\":[{\"name\":\"PORT\",\"value\":3000,"));
  assert_non_null(strstr(text, "\"SUSPEND_KEY\",\"value\":\"(set)\""));
  assert_non_null(strstr(text, "\"HANDLERS_DIR\",\"value\":null"));
  assert_non_null(strstr(text, "\"CACHE_DIR\",\"value\":\"/a\\\"\\\\\xef\xbf\xbd\""));
  assert_non_null(strstr(text, "{\"name\":\"MAX_INSTANCES\",\"value\":8,\"unit\":\"instances\",\"source\":\"default\","
                               "\"auto\":true}"));
  assert_non_null(strstr(text, "\"CONTAINER_MEMORY_LIMIT\",\"value\":1073741824,\"unit\":\"bytes\""));
  assert_null(strstr(text, "8899aabb"));
  /* Python's parser is the judge, where there is one. */
  if (system("command -v python3 >/dev/null 2>&1")) {
    print_message("[  NOTE    ] python3 is not installed: the JSON was not parsed\n");
    return;
  }
  FILE *python = popen("python3 -c 'import json,sys; d=json.load(sys.stdin); assert len(d[\"settings\"]) > 20'", "w");
  assert_non_null(python);
  fwrite(out.data, 1, out.len, python);
  assert_int_equal(pclose(python), 0);
}

static void docs_have_a_row_for_every_setting(void **state) {
  (void)state;
  char *page = NULL;
  size_t size = 0;
  FILE *file = open_memstream(&page, &size);
  assert_non_null(file);
  assert_int_equal(nx_config_write_docs(file, NULL), 0);
  fclose(file);
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    char start[100];
    snprintf(start, sizeof start, "\n| `%s`<br>`--", nx__settings[i].name);
    const char *row = strstr(page, start);
    assert_non_null(row);
    unsigned bars = 0;
    for (row++; *row != '\n'; row++) bars += *row == '|';
    assert_int_equal(bars, 6);
  }
  assert_non_null(strstr(page, "| `MEMORY_LIMIT_MB`<br>`--memory-limit-mb` | `32` | MiB | a whole number from 4 to 1024 |"));
  assert_non_null(strstr(page, "except for\n`HANDLERS_DIR`, `SUSPEND_KEY_PREVIOUS` and `NET_ALLOW`, where it means `none`.\n"));
  free(page);
  struct nx_error err = {0};
  FILE *full = fopen("/dev/full", "w");
  assert_non_null(full);
  assert_int_equal(nx_config_write_docs(full, &err), -NX_ERR_SYSTEM);
  fclose(full);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(defaults),
    cmocka_unit_test(accepted_values),
    cmocka_unit_test(container_sizes),
    cmocka_unit_test(refused_values_say_name_value_and_what_is_allowed),
    cmocka_unit_test(long_values_are_cut_in_the_report),
    cmocka_unit_test(everything_wrong_is_reported_at_once),
    cmocka_unit_test(one_mistake_is_not_reported_twice),
    cmocka_unit_test(empty_means_none_where_less_is_safe),
    cmocka_unit_test(stores),
    cmocka_unit_test(the_login_of_redis),
    cmocka_unit_test(flags_mirror_the_table),
    cmocka_unit_test(flags_win_but_the_environment_must_be_right_too),
    cmocka_unit_test(every_setting_takes_its_default_and_its_bounds),
    cmocka_unit_test(resolves_the_reference_container),
    cmocka_unit_test(set_values_are_kept),
    cmocka_unit_test(limit_origins),
    cmocka_unit_test(a_set_limit_may_not_pass_what_the_kernel_gives),
    cmocka_unit_test(what_cannot_fit_names_the_variables),
    cmocka_unit_test(defaults_fit_into_64_mib),
    cmocka_unit_test(advice_holds),
    cmocka_unit_test(connections_follow_files_and_memory),
    cmocka_unit_test(cores_bound_instances),
    cmocka_unit_test(whatever_is_accepted_fits),
    cmocka_unit_test(advice_is_not_cut),
    cmocka_unit_test(text_output),
    cmocka_unit_test(the_login_of_redis_is_not_shown),
    cmocka_unit_test(json_output),
    cmocka_unit_test(docs_have_a_row_for_every_setting),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
