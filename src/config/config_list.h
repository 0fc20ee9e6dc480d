/* SPDX-License-Identifier: Apache-2.0
 *
 * Every setting, once. The list drives the environment, the flags of `nexus serve`, validation, `nexus config` and
 * docs/configuration.md.
 *
 * X(NAME, field of struct nx_config, kind, scale, unit, word, default, least, most, meaning)
 *   kind   NUMBER  whole number of `unit`; the field holds it times `scale`
 *          SIZE    bytes, or a number with Ki Mi Gi Ti k M G; bounds in bytes
 *          CHOICE  one of the words in `unit`, separated by '|'; the field holds the index
 *          PATH    TEXT  ADDRESS  STORE  KEY  what they say; bounds are lengths
 *   word   what may stand instead of a value:
 *          AUTO  "auto": nx_config_resolve finds the value
 *          OFF   "off"
 *          NONE  "none", and the empty string too: a blank line in a ConfigMap means "not wanted", and without the
 *                setting nexus does less, never more
 *          NONE_SAID  "none", but empty is an error: an empty value that turned off authentication or sealing would be
 *                an accident (an unset variable in a template), not a wish */
#ifndef NX_CONFIG_LIST_H
#define NX_CONFIG_LIST_H

#define NX_SETTINGS(X)                                                                                                \
  X(PORT, port, NUMBER, 1, "port", VALUE, "3000", 0, 65535,                                                           \
    "TCP port of the API; 0 takes any free one")                                                                      \
  X(HOST, host, ADDRESS, 1, "address", VALUE, "0.0.0.0", 1, 45,                                                       \
    "Address to listen on, numeric")                                                                                  \
  X(ADMIN_PORT, admin_port, NUMBER, 1, "port", OFF, "off", 1, 65535,                                                  \
    "Second port that serves only probes and metrics; must differ from PORT")                                         \
  X(MEMORY_LIMIT_MB, memory_limit_bytes, NUMBER, 1048576, "MiB", VALUE, "32", 4, 1024,                                \
    "Memory one execution may grow to")                                                                               \
  X(STACK_SIZE_KB, stack_size_bytes, NUMBER, 1024, "KiB", VALUE, "1024", 64, 1024,                                    \
    "Stack of one execution, inside its memory; its thread has twice that and 64 KiB")                                \
  X(MAX_INSTANCES, max_instances, NUMBER, 1, "instances", AUTO, "auto", 1, 4096,                                      \
    "Executions that run at once; auto: the smaller of 4 per core of the CPU quota and what fits fully grown")        \
  X(TIMEOUT_MS, timeout_ms, NUMBER, 1, "ms", VALUE, "5000", 1, 600000,                                                \
    "Running time of one execution")                                                                                  \
  X(CONTAINER_MEMORY_LIMIT, container_memory_limit_bytes, SIZE, 1, "bytes", AUTO, "auto", 1048576, 1125899906842624,  \
    "Memory of the container; auto: the smallest cgroup limit, else the machine's memory")                            \
  X(MEMORY_RESERVE_PERCENT, memory_reserve_percent, NUMBER, 1, "%", VALUE, "10", 0, 50,                               \
    "Part of the container's memory that is never given out")                                                         \
  X(CACHE_DIR, cache_dir, PATH, 1, "path", VALUE, "/tmp/nexus-cache", 1, 4095,                                        \
    "Directory of the compile cache; made when missing")                                                              \
  X(CACHE_MAX_MB, cache_max_bytes, NUMBER, 1048576, "MiB", AUTO, "auto", 1, 1048576,                                  \
    "Size the cache directory is trimmed to; auto: 64, at most a quarter of the budget")                              \
  X(HANDLERS_DIR, handlers_dir, PATH, 1, "path", NONE, "none", 1, 4095,                                               \
    "Directory of handlers (NAME.js, NAME.grants.json) loaded at the start")                                          \
  X(QUEUE_MAX, queue_max, NUMBER, 1, "executions", VALUE, "1024", 0, 100000,                                          \
    "Executions that may wait for an instance; 0 refuses at once")                                                    \
  X(QUEUE_TIMEOUT_MS, queue_timeout_ms, NUMBER, 1, "ms", VALUE, "1000", 1, 600000,                                    \
    "Longest wait in the queue")                                                                                      \
  X(IDLE_TRIM_MS, idle_trim_ms, NUMBER, 1, "ms", VALUE, "15000", 100, 3600000,                                        \
    "Quiet time after which idle instances give their memory back")                                                   \
  X(SUSPEND_STORE, suspend_store, STORE, 1, "store", VALUE, "memory", 1, 4095,                                        \
    "Where suspended executions (file, redis: also handlers set by PUT) are kept; all but memory need SUSPEND_KEY")   \
  X(SUSPEND_TTL_MS, suspend_ttl_ms, NUMBER, 1, "ms", VALUE, "900000", 100, 2592000000,                                \
    "Time a suspended execution may wait to be resumed")                                                              \
  X(SUSPEND_MAX_MB, suspend_max_bytes, NUMBER, 1048576, "MiB", AUTO, "auto", 1, 1048576,                              \
    "Memory for suspended executions; auto: the budget less the process and one instance")                            \
  X(SUSPEND_KEY, suspend_key, KEY, 1, "key", NONE_SAID, "none", 64, 64,                                               \
    "Key that seals suspended executions outside of this process")                                                    \
  X(SUSPEND_KEY_PREVIOUS, suspend_key_previous, KEY, 1, "key", NONE, "none", 64, 64,                                  \
    "The key before SUSPEND_KEY, still accepted while keys are changed")                                              \
  X(NET_ALLOW, net_allow, TEXT, 1, "text", NONE, "none", 1, 4095,                                                     \
    "Hosts that the built-in net extension may reach")                                                                \
  X(MAX_CONNECTIONS, max_connections, NUMBER, 1, "connections", AUTO, "auto", 1, 100000,                              \
    "Open client connections; auto: what files and a quarter of the budget allow, 64 to 10000")                       \
  X(MAX_HOST_CALLS, max_host_calls, NUMBER, 1, "calls", VALUE, "10000", 0, 1000000000,                                \
    "Host calls of one execution")                                                                                    \
  X(MAX_STATE_MUTATIONS, max_state_mutations, NUMBER, 1, "mutations", VALUE, "1000", 0, 1000000,                      \
    "State mutations of one execution")                                                                               \
  X(MAX_EVENTS, max_events, NUMBER, 1, "events", VALUE, "100", 0, 1000000,                                            \
    "Events of one execution")                                                                                        \
  X(MAX_BODY_KB, max_body_bytes, NUMBER, 1024, "KiB", VALUE, "1024", 1, 65536,                                        \
    "Request body")                                                                                                   \
  X(MAX_RESULT_KB, max_result_bytes, NUMBER, 1024, "KiB", VALUE, "4096", 1, 65536,                                    \
    "Result of one execution")                                                                                        \
  X(SHUTDOWN_GRACE_MS, shutdown_grace_ms, NUMBER, 1, "ms", VALUE, "25000", 0, 3600000,                                \
    "Time for running work to end after SIGTERM")                                                                     \
  X(LOG_LEVEL, log_level, CHOICE, 1, "error|warn|info|debug", VALUE, "info", 0, 0,                                    \
    "Least important lines that are written")                                                                         \
  X(LOG_FORMAT, log_json, CHOICE, 1, "text|json", VALUE, "text", 0, 0,                                                \
    "Form of the log lines")                                                                                          \
  X(AUTH_TOKENS_FILE, auth_tokens_file, PATH, 1, "path", NONE_SAID, "none", 1, 4095,                                  \
    "File of the tokens that clients must show; none: everyone may call")

#endif
