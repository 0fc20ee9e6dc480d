/* SPDX-License-Identifier: Apache-2.0
 *
 * Every metric and every value of its labels, once (design: "Health and metrics"). Names follow Prometheus: base units,
 * `_total` for counters. What is added here appears in /metrics and docs/metrics.md. */
#ifndef NX_METRICS_LIST_H
#define NX_METRICS_LIST_H

/* X(symbol, name, type, labels, help) in the order of /metrics */
#define NX_METRIC_FAMILIES(X)                                                                                         \
  X(EXECUTIONS, "nexus_handler_executions_total", "counter", "handler,status",                                        \
    "Executions that ended or were suspended.")                                                                       \
  X(EXECUTION_DURATION, "nexus_handler_execution_duration_seconds", "histogram", "",                                  \
    "Running time of one execution, from its instance taken to its result built.")                                    \
  X(INSTANCES, "nexus_instances", "gauge", "state", "Instances that execute (active) or could (available).")          \
  X(INSTANCES_MAX, "nexus_instances_max", "gauge", "", "Executions that may run at once.")                            \
  X(SUSPENDED, "nexus_suspended_executions", "gauge", "", "Executions that wait to be resumed.")                      \
  X(SUSPENDED_FOREIGN, "nexus_suspended_foreign_executions", "gauge", "",                                             \
    "Those of them that another guest suspended: another release of nexus must resume them.")                         \
  X(SUSPENDED_BYTES, "nexus_suspended_bytes", "gauge", "", "Memory that suspended executions take.")                  \
  X(SUSPENSIONS, "nexus_suspensions_total", "counter", "", "Executions suspended, each time.")                        \
  X(RESUMES, "nexus_resumes_total", "counter", "outcome", "Requests to resume a suspended execution.")                \
  X(RESUME_DURATION, "nexus_resume_duration_seconds", "histogram", "",                                                \
    "Time to bring a suspended execution back into an instance.")                                                     \
  X(STORE_FAILURES, "nexus_suspension_store_failures_total", "counter", "reason",                                     \
    "What the suspension store failed to do: it does not answer or refuses to work (unavailable), or has no room (full).") \
  X(MEMORY_USED, "nexus_memory_used_bytes", "gauge", "layer", "Memory charged to the ledger.")                        \
  X(MEMORY_PEAK, "nexus_memory_peak_bytes", "gauge", "", "Most memory the ledger ever had charged.")                  \
  X(MEMORY_LAYER_PEAK, "nexus_memory_layer_peak_bytes", "gauge", "layer", "Most memory the layer ever had charged.")   \
  X(MEMORY_ACCOUNTED, "nexus_memory_accounted_bytes", "gauge", "", "Sum of all layers of the ledger.")                \
  X(MEMORY_UNACCOUNTED, "nexus_memory_unaccounted_bytes", "gauge", "",                                                \
    "Working set of the container that no layer accounts for.")                                                       \
  X(MEMORY_LIMIT, "nexus_memory_limit_bytes", "gauge", "", "Memory limit of the container.")                          \
  X(MEMORY_BUDGET, "nexus_memory_budget_bytes", "gauge", "", "Limit less the reserve and what is used unaccounted.") \
  X(MEMORY_WORKING_SET, "nexus_memory_working_set_bytes", "gauge", "",                                                \
    "Working set of the container as the kubelet has it: usage less inactive file cache.")                            \
  X(MEMORY_PRESSURE, "nexus_memory_pressure_ratio", "gauge", "",                                                      \
    "Share of the last 10 s in which some task waited for memory (PSI).")                                             \
  X(GOVERNOR_STATE, "nexus_governor_state", "gauge", "state",                                                         \
    "1 for what the memory governor does now, 0 for the others: normal, reclaiming, shedding.")                       \
  X(MEMORY_REFUSALS, "nexus_memory_refusals_total", "counter", "layer", "Charges that the budget refused.")           \
  X(MEMORY_RECLAIMED, "nexus_memory_reclaimed_bytes_total", "counter", "action", "Memory given back by the governor.") \
  X(CACHE_HITS, "nexus_handler_cache_hits_total", "counter", "", "Handlers found compiled.")                          \
  X(CACHE_MISSES, "nexus_handler_cache_misses_total", "counter", "", "Handlers that had to be compiled.")             \
  X(CACHE_SIZE, "nexus_cache_size_bytes", "gauge", "", "Size of the files in the cache directory.")                   \
  X(HTTP_REQUESTS, "nexus_http_requests_total", "counter", "route,code", "Answered HTTP requests.")                   \
  X(QUEUE_DEPTH, "nexus_queue_depth", "gauge", "", "Executions that wait for an instance.")                           \
  X(QUEUE_WAIT, "nexus_queue_wait_duration_seconds", "histogram", "", "Wait of executions that had to queue.")        \
  X(QUEUE_TIMEOUT, "nexus_queue_timeout_seconds", "gauge", "", "Longest wait before an execution is refused (QUEUE_TIMEOUT_MS).") \
  X(HEALTH, "nexus_health_status", "gauge", "status", "1 for the present health, 0 for the others.")                  \
  X(BUILD_INFO, "nexus_build_info", "gauge", "version,revision,guest", "1, with what is running.")                    \
  X(PROCESS_CPU, "process_cpu_seconds_total", "counter", "", "Total user and system CPU time spent in seconds.")      \
  X(PROCESS_RESIDENT, "process_resident_memory_bytes", "gauge", "",                                                   \
    "Resident memory size in bytes; counts pages shared between instances once for each.")                            \
  X(PROCESS_VIRTUAL, "process_virtual_memory_bytes", "gauge", "",                                                     \
    "Virtual memory size in bytes; each instance reserves 4 GiB of addresses.")                                       \
  X(PROCESS_OPEN_FDS, "process_open_fds", "gauge", "", "Number of open file descriptors.")                            \
  X(PROCESS_MAX_FDS, "process_max_fds", "gauge", "", "Maximum number of open file descriptors.")                      \
  X(PROCESS_START_TIME, "process_start_time_seconds", "gauge", "",                                                    \
    "Start time of the process since unix epoch in seconds.")

/* X(symbol, label): how an execution ended */
#define NX_METRICS_STATUSES(X)                  \
  X(SUCCESS, "success")                         \
  X(ERROR, "error")                             \
  X(SUSPENDED, "suspended")                     \
  X(TIMEOUT, "timeout")                         \
  X(MEMORY_LIMIT, "memory_limit")               \
  X(RESOURCE_LIMIT, "resource_limit")           \
  X(PERMISSION_DENIED, "permission_denied")     \
  X(COMPILATION_ERROR, "compilation_error")     \
  X(INVALID_HANDLER, "invalid_handler")         \
  X(INTERNAL_ERROR, "internal_error")

#define NX_METRICS_ROUTES(X)                             \
  X(EXECUTE, "/v1/execute")                              \
  X(RUN, "/run/{name}")                                  \
  X(HANDLERS, "/v1/handlers")                            \
  X(HANDLER, "/v1/handlers/{name}")                      \
  X(GRANTS, "/v1/handlers/{name}/grants")                \
  X(RESUME, "/v1/resume")                                \
  X(RESUME_ID, "/v1/resume/{id}")                        \
  X(HEALTH, "/health")                                   \
  X(LIVEZ, "/livez")                                     \
  X(READYZ, "/readyz")                                   \
  X(METRICS, "/metrics")                                 \
  X(OTHER, "other")

/* X(code): the answers nexus gives; any other is counted as "other" */
#define NX_METRICS_CODES(X)                                                                                     \
  X(200) X(201) X(202) X(204) X(304) X(400) X(401) X(403) X(404) X(405) X(408) X(409) X(410) X(412) X(413) X(415) \
  X(417) X(422) X(431) X(500) X(501) X(503) X(504) X(505) X(507)

#define NX_METRICS_RESUME_OUTCOMES(X) \
  X(RESUMED, "resumed")               \
  X(NOT_FOUND, "not_found")           \
  X(CONFLICT, "conflict")             \
  X(EXPIRED, "expired")               \
  X(REFUSED, "refused")               \
  X(FAILED, "failed")

#define NX_METRICS_STORE_FAILURES(X) \
  X(UNAVAILABLE, "unavailable")      \
  X(FULL, "full")

#define NX_METRICS_RECLAIM_ACTIONS(X)       \
  X(IDLE_INSTANCES, "idle_instances")       \
  X(HANDLER_IMAGES, "handler_images")       \
  X(CACHE_FILES, "cache_files")

#define NX_METRICS_HEALTHS(X) \
  X(HEALTHY, "healthy")       \
  X(DEGRADED, "degraded")     \
  X(UNHEALTHY, "unhealthy")

/* X(upper bound in ns, the same in seconds as text): the buckets of all histograms but the last, +Inf */
#define NX_METRICS_BUCKETS(X)                                                               \
  X(10000, "1e-05") X(25000, "2.5e-05") X(50000, "5e-05")                                   \
  X(100000, "0.0001") X(250000, "0.00025") X(500000, "0.0005")                              \
  X(1000000, "0.001") X(2500000, "0.0025") X(5000000, "0.005")                              \
  X(10000000, "0.01") X(25000000, "0.025") X(50000000, "0.05")                              \
  X(100000000, "0.1") X(250000000, "0.25") X(500000000, "0.5")                              \
  X(1000000000, "1") X(2500000000, "2.5") X(5000000000, "5") X(10000000000, "10")

#endif
