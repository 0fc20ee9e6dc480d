/* SPDX-License-Identifier: Apache-2.0
 * Who wants to reach a port of nexus: declared ports, probes, Services. */
#include "manifest/manifest_internal.h"

#include <string.h>

static void add_port(struct nx__gather *g, struct nx_manifest_port port) {
  struct nx_manifest *facts = g->facts;
  size_t count = facts->port_count;
  if ((count & (count - 1)) == 0) { /* a power of two: full */
    struct nx_manifest_port *ports = nx__alloc(g, (count ? 2 * count : 1) * sizeof *ports);
    if (!ports) return;
    if (count) memcpy(ports, facts->ports, count * sizeof *ports);
    facts->ports = ports;
  }
  facts->ports[facts->port_count++] = port;
}

/* The number that a container gives to a name, in `in` or, when that is NULL, in any container; 0: none. */
static uint64_t named_port(struct nx__gather *g, const struct nx_yaml *in, const char *name) {
  const struct nx_yaml *container, *port;
  for (size_t i = 0; (container = nx__read_item(&g->reader, g->containers, i)); i++) {
    if (in && container != in) continue;
    const struct nx_yaml *ports = nx__read_list(&g->reader, container, "ports");
    for (size_t j = 0; (port = nx__read_item(&g->reader, ports, j)); j++) {
      const char *text = nx__read_text(&g->reader, port, "name");
      uint64_t number = 0;
      if (text && !strcmp(text, name) && nx__read_number(&g->reader, port, "containerPort", 1, 65535, &number))
        return number;
    }
  }
  return 0;
}

static bool is_of_sidecar(struct nx__gather *g, uint64_t number) {
  const struct nx_yaml *container, *port;
  for (size_t i = 0; (container = nx__read_item(&g->reader, g->containers, i)); i++) {
    const struct nx_yaml *ports = container == g->container ? NULL : nx__read_list(&g->reader, container, "ports");
    for (size_t j = 0; (port = nx__read_item(&g->reader, ports, j)); j++) {
      uint64_t own = 0;
      if (nx__read_number(&g->reader, port, "containerPort", 1, 65535, &own) && own == number) return true;
    }
  }
  return false;
}

/* ---- Declared ports -------------------------------------------------------------------------------------------------- */

static void gather_declared(struct nx__gather *g) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *ports = nx__read_list(r, g->container, "ports"), *item;
  for (size_t i = 0; (item = nx__read_item(r, ports, i)); i++) {
    struct nx_manifest_port port = {.place = nx__place(item)};
    const char *name = nx__read_text(r, item, "name"), *protocol = nx__read_text(r, item, "protocol");
    if (protocol && strcmp(protocol, "TCP")) continue;
    if (!nx__read_number(r, item, "containerPort", 1, 65535, &port.port)) continue;
    port.what = name ? nx__text(g, "containerPort %.40s", name) : "containerPort";
    add_port(g, port);
  }
}

/* ---- Probes ---------------------------------------------------------------------------------------------------------- */

static void add_probe_port(struct nx__gather *g, const struct nx_yaml *how, const char *what) {
  struct nx_manifest_port port = {.what = what, .place = nx__place(how)};
  if (!nx__read_number_or_text(&g->reader, how, "port", 65535, &port.port, &port.port_name)) return;
  if (port.port_name) port.port = named_port(g, g->container, port.port_name);
  add_port(g, port);
}

static bool asks_health(struct nx__gather *g, const struct nx_yaml *exec) {
  const struct nx_yaml *command = nx__read_list(&g->reader, exec, "command");
  for (size_t i = 0; command && i + 1 < command->count; i++) {
    const char *word = nx__read_text_of(&g->reader, command->items[i], "command");
    const char *next = nx__read_text_of(&g->reader, command->items[i + 1], "command");
    if (!word || !next) return false;
    if (nx__is_nexus(word) && !strcmp(next, "health")) return true;
  }
  return false;
}

static void gather_liveness(struct nx__gather *g, const struct nx_yaml *probe, const struct nx_yaml *http) {
  struct nx_manifest *facts = g->facts;
  const struct nx_yaml *exec = nx__read_map(&g->reader, probe, "exec");
  const char *path = nx__read_text(&g->reader, http, "path");
  facts->liveness_place = nx__place(probe);
  facts->liveness = http ? NX_MANIFEST_HTTP : exec ? NX_MANIFEST_COMMAND : NX_MANIFEST_TCP;
  facts->liveness_path = http ? (path ? path : "/") : NULL;
  facts->liveness_asks_health = exec && asks_health(g, exec);
}

static void gather_probes(struct nx__gather *g) {
  static const char *const names[] = {"livenessProbe", "readinessProbe", "startupProbe"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const struct nx_yaml *probe = nx__read_map(&g->reader, g->container, names[i]);
    const struct nx_yaml *http = nx__read_map(&g->reader, probe, "httpGet"),
                         *tcp = nx__read_map(&g->reader, probe, "tcpSocket");
    if (http) add_probe_port(g, http, names[i]);
    if (tcp) add_probe_port(g, tcp, names[i]);
    if (probe && i == 0) gather_liveness(g, probe, http);
  }
}

/* ---- Services -------------------------------------------------------------------------------------------------------- */

static void add_service_port(struct nx__gather *g, const struct nx_yaml *item, const char *service) {
  struct nx_manifest_port port = {.place = nx__place(item), .what = nx__text(g, "Service %.63s", service)};
  uint64_t number = 0;
  nx__read_number(&g->reader, item, "port", 1, 65535, &number);
  port.port = number;
  nx__read_number_or_text(&g->reader, item, "targetPort", 65535, &port.port, &port.port_name);
  if (port.port_name) port.port = named_port(g, NULL, port.port_name);
  if (!port.port_name && !port.port) port.port = number;
  if (!is_of_sidecar(g, port.port)) add_port(g, port);
}

static void gather_services(struct nx__gather *g) {
  struct nx__reader *r = &g->reader;
  for (size_t i = 0; i < g->object_count; i++) {
    const struct nx__object *object = &g->objects[i];
    if (strcmp(object->kind, "Service") || strcmp(object->ns, g->deployment->ns)) continue;
    const struct nx_yaml *spec = nx__read_map(r, object->root, "spec"), *port;
    if (!nx__selects(g, nx__read_map(r, spec, "selector"), true, g->labels)) continue;
    nx__object_is_used(g, object, "ports");
    const struct nx_yaml *ports = nx__read_list(r, spec, "ports");
    for (size_t j = 0; (port = nx__read_item(r, ports, j)); j++) add_service_port(g, port, object->name);
  }
}

void nx__ports_gather(struct nx__gather *g) {
  gather_declared(g);
  gather_probes(g);
  gather_services(g);
}
