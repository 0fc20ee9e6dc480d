/* SPDX-License-Identifier: Apache-2.0
 *
 * Probes, health and metrics. Liveness says that threads serve sockets, and nothing about memory; readiness says whether
 * new work is wanted; health explains. */
#include <inttypes.h>

#include "base/clock.h"
#include "http/app.h"
#include "http/problem.h"
#include "version.h"

/* Degraded from this share of the container's limit on (requirement). */
#define DEGRADED_PERCENT 70

struct health {
  enum nx_metrics_health status;
  const char *reasons[8];
  unsigned reason_count;
  struct nx_governor_status memory;
  struct nx_exec_stats exec;
  struct nx_store_stats stored;
};

static void look(struct nx_app *app, struct health *health) {
  *health = (struct health){.status = NX_METRICS_HEALTH_HEALTHY};
  nx_governor_read_status(app->governor, &health->memory);
  nx_exec_read_stats(app->exec, &health->exec);
  nx_suspensions_read_stats(app->suspensions, &health->stored);
}

static void complain(struct health *health, enum nx_metrics_health status, const char *reason) {
  if (status > health->status) health->status = status;
  if (health->reason_count < sizeof health->reasons / sizeof *health->reasons)
    health->reasons[health->reason_count++] = reason;
}

/* Pressure (PSI): some task waited for memory more than a tenth of the last ten seconds. */
#define PRESSURE_DEGRADED_BP 1000u

static void judge(const struct nx_app *app, struct health *health) {
  const struct nx_governor_status *memory = &health->memory;
  const struct nx_reading *set = &memory->kernel.working_set_bytes, *pressure = &memory->kernel.pressure_bp;
  bool own_cgroup = nx_reading_is_value(memory->kernel.limit_bytes); /* else its figures are of others too */
  uint64_t used = own_cgroup && nx_reading_is_value(*set) ? set->value : memory->accounted_bytes;
  if (used > memory->limit_bytes / 100 * DEGRADED_PERCENT)
    complain(health, NX_METRICS_HEALTH_DEGRADED, "memory use is over 70 % of the container's limit");
  if (memory->state == NX_GOVERNOR_SHEDDING)
    complain(health, NX_METRICS_HEALTH_DEGRADED, "memory is short: new executions wait");
  if (own_cgroup && nx_reading_is_value(*pressure) && pressure->value > PRESSURE_DEGRADED_BP)
    complain(health, NX_METRICS_HEALTH_DEGRADED, "tasks wait for memory (PSI)");
  if (memory->unaccounted_is_high)
    complain(health, NX_METRICS_HEALTH_DEGRADED, "the container uses memory that no layer accounts for");
  if (health->exec.queue_depth >= health->exec.queue_max && health->exec.queue_max)
    complain(health, NX_METRICS_HEALTH_DEGRADED, "the queue is full");
  if (app->access && nx_access_is_stale(app->access))
    complain(health, NX_METRICS_HEALTH_DEGRADED, "AUTH_TOKENS_FILE cannot be used (see the log): tokens of before are in force");
  if (app->draining) complain(health, NX_METRICS_HEALTH_UNHEALTHY, "shutting down");
}

static const char *const health_names[] = {
#define X(symbol, label) [NX_METRICS_HEALTH_##symbol] = label,
  NX_METRICS_HEALTHS(X)
#undef X
};

/* ---- /health -------------------------------------------------------------------------------------------------------- */

static void add_reading(struct nx_buf *out, const char *before, const struct nx_reading *reading) {
  nx_buf_str(out, before);
  if (reading->kind == NX_READING_VALUE)
    nx_buf_u64(out, reading->value);
  else
    nx_buf_lit(out, "null");
}

static void write_layers(const struct nx_ledger_snapshot *ledger, struct nx_buf *out) {
  nx_buf_lit(out, ",\"layers\":{");
  for (unsigned i = 0; i < NX_LAYER_COUNT; i++)
    nx_buf_printf(out, "%s\"%s\":%" PRIu64, i ? "," : "", nx_layer_name(i), ledger->layers[i].current);
  nx_buf_lit(out, "},\"layerPeaks\":{");
  for (unsigned i = 0; i < NX_LAYER_COUNT; i++)
    nx_buf_printf(out, "%s\"%s\":%" PRIu64, i ? "," : "", nx_layer_name(i), ledger->layers[i].peak);
  nx_buf_char(out, '}');
}

static void write_memory(struct nx_app *app, const struct health *health, struct nx_buf *out) {
  const struct nx_governor_status *memory = &health->memory;
  struct nx_ledger_snapshot ledger;
  nx_ledger_snapshot(app->ledger, &ledger);
  nx_buf_printf(out, ",\"memory\":{\"totalMemoryBytes\":%" PRIu64 ",\"limitBytes\":%" PRIu64 ",\"budgetBytes\":%" PRIu64
                ",\"peakBytes\":%" PRIu64,
                ledger.layers[NX_LAYER_INSTANCES].current, memory->limit_bytes, memory->budget_bytes,
                ledger.layers[NX_LAYER_INSTANCES].peak);
  nx_buf_printf(out, ",\"accountedBytes\":%" PRIu64 ",\"unaccountedBytes\":%" PRIu64 ",\"governor\":\"%s\"", ledger.total,
                memory->unaccounted_bytes, nx_governor_state_name(memory->state));
  add_reading(out, ",\"workingSetBytes\":", &memory->kernel.working_set_bytes);
  nx_buf_lit(out, ",\"pressure\":");
  if (nx_reading_is_value(memory->kernel.pressure_bp))
    nx_buf_printf(out, "%.4f", (double)memory->kernel.pressure_bp.value / 10000);
  else
    nx_buf_lit(out, "null");
  write_layers(&ledger, out);
  nx_buf_char(out, '}');
}

static void write_totals(struct nx_buf *out) {
  struct nx_metrics_totals totals;
  nx_metrics_totals(&totals);
  uint64_t lookups = totals.cache_hits + totals.cache_misses;
  nx_buf_printf(out, ",\"executions\":{\"total\":%" PRIu64 ",\"errors\":%" PRIu64 "}", totals.executions, totals.errors);
  nx_buf_printf(out, ",\"cache\":{\"hits\":%" PRIu64 ",\"misses\":%" PRIu64 ",\"hitRate\":%.4f}", totals.cache_hits,
                totals.cache_misses, lookups ? (double)totals.cache_hits / (double)lookups : 0.0);
}

/* In the store, and waiting here for something that nexus does itself. */
static uint64_t count_suspended(const struct health *health) { return health->stored.waiting + health->exec.waiting; }

int nx_app_write_health(struct nx_app *app, struct nx_buf *out) {
  struct health health;
  look(app, &health);
  judge(app, &health);
  nx_buf_printf(out, "{\"status\":\"%s\",\"version\":\"%s\",\"uptimeSeconds\":%.1f,\"reasons\":[",
                health_names[health.status], NX_VERSION, (double)(nx_clock_ns() - app->started_ns) / (double)NX_NS_PER_S);
  for (unsigned i = 0; i < health.reason_count; i++)
    nx_buf_printf(out, "%s\"%s\"", i ? "," : "", health.reasons[i]);
  unsigned max = health.exec.max, active = health.exec.active;
  nx_buf_printf(out, "],\"instances\":{\"max\":%u,\"active\":%u,\"available\":%u,\"suspended\":%" PRIu64 "}", max, active,
                max - active, count_suspended(&health));
  write_memory(app, &health, out);
  write_totals(out);
  nx_buf_char(out, '}');
  return health.status == NX_METRICS_HEALTH_UNHEALTHY ? 503 : 200;
}

static void no_store(struct nx_http_response *response) { nx_buf_lit(&response->headers, "Cache-Control: no-store\r\n"); }

enum nx_http_next nx__route_health(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  no_store(response);
  response->content_type = "application/json";
  response->status = nx_app_write_health(request->app, &response->body);
  return NX_HTTP_DONE;
}

/* ---- Probes ------------------------------------------------------------------------------------------------------------- */

static enum nx_http_next answer_ok(struct nx_request *request) {
  struct nx_http_response *response = &request->exchange->response;
  no_store(response);
  response->status = 200;
  response->content_type = "text/plain; charset=utf-8";
  nx_buf_lit(&response->body, "ok\n");
  return NX_HTTP_DONE;
}

enum nx_http_next nx__route_livez(struct nx_request *request) { return answer_ok(request); }

enum nx_http_next nx__route_readyz(struct nx_request *request) {
  if (!request->app->draining) return answer_ok(request);
  struct nx_http_response *response = &request->exchange->response;
  no_store(response);
  nx_problem_write(response, 503, "SHUTTING_DOWN", "this instance is shutting down");
  nx_buf_lit(&response->headers, "Retry-After: 1\r\n");
  return NX_HTTP_DONE;
}

/* ---- /metrics ------------------------------------------------------------------------------------------------------------ */

static uint64_t cache_bytes(struct nx_cache *cache) {
  struct nx_cache_stats stats;
  nx_cache_read_stats(cache, &stats);
  return stats.bytes;
}

enum nx_http_next nx__route_metrics(struct nx_request *request) {
  struct nx_app *app = request->app;
  struct nx_http_response *response = &request->exchange->response;
  struct health health;
  look(app, &health);
  judge(app, &health);
  struct nx_metrics_gauges gauges = {
    .instances_active = health.exec.active,
    .instances_max = health.exec.max,
    .memory_limit_bytes = nx_reading_of(health.memory.limit_bytes),
    .memory_unaccounted_bytes = health.memory.unaccounted_bytes,
    .governor_state = health.memory.state,
    .memory_working_set_bytes = health.memory.kernel.working_set_bytes,
    .memory_pressure_bp = health.memory.kernel.pressure_bp,
    .cache_size_bytes = cache_bytes(app->cache),
    .queue_depth = health.exec.queue_depth,
    .queue_timeout_ms = app->config->queue_timeout_ms,
    .suspended_executions = count_suspended(&health),
    .suspended_foreign = health.stored.foreign,
    .health = health.status,
    .version = NX_VERSION,
    .revision = NX_REVISION,
    .guest = nx_sandbox_guest_id(),
  };
  nx_ledger_snapshot(app->ledger, &gauges.ledger);
  gauges.suspended_bytes = nx_ledger_current(app->ledger, NX_LAYER_SUSPENDED);
  no_store(response);
  response->status = 200;
  response->content_type = NX_METRICS_CONTENT_TYPE;
  nx_metrics_write(&response->body, &gauges);
  return NX_HTTP_DONE;
}
