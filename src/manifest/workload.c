/* SPDX-License-Identifier: Apache-2.0
 * Which Deployment of the file runs nexus, and in which container. */
#include "manifest/manifest_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"

/* Weaker signs count only when no Deployment of the file has a stronger one. */
enum sign { BY_CONTAINER_NAME, BY_IMAGE, BY_BEING_ALONE, SIGN_COUNT };

bool nx__is_nexus(const char *word) {
  const char *slash = strrchr(word, '/');
  return !strcmp(slash ? slash + 1 : word, "nexus");
}

/* "registry:5000/team/nexus:1.2@sha256:…" is nexus. */
static bool image_is_nexus(const char *image) {
  size_t bytes = strcspn(image, "@");
  const char *slash = memrchr(image, '/', bytes);
  const char *last = slash ? slash + 1 : image;
  size_t last_bytes = strcspn(last, ":@");
  return last_bytes == 5 && !memcmp(last, "nexus", 5);
}

static bool shows(struct nx__gather *g, const struct nx_yaml *container, enum sign sign, size_t container_count) {
  const char *name = nx__read_text(&g->reader, container, "name"), *image = nx__read_text(&g->reader, container, "image");
  switch (sign) {
  case BY_CONTAINER_NAME: return name && !strcmp(name, "nexus");
  case BY_IMAGE: return image && image_is_nexus(image);
  default: return container_count == 1;
  }
}

static const struct nx_yaml *pod_spec(struct nx__gather *g, const struct nx__object *deployment) {
  const struct nx_yaml *spec = nx__read_map(&g->reader, deployment->root, "spec");
  return nx__read_map(&g->reader, nx__read_map(&g->reader, spec, "template"), "spec");
}

/* How many containers of the file show the sign; the first is taken, and all are listed. */
static size_t look(struct nx__gather *g, enum sign sign, struct nx_buf *list) {
  size_t count = 0;
  for (size_t i = 0; i < g->object_count; i++) {
    const struct nx__object *object = &g->objects[i];
    if (strcmp(object->kind, "Deployment")) continue;
    const struct nx_yaml *containers = nx__read_list(&g->reader, pod_spec(g, object), "containers"), *container;
    for (size_t j = 0; (container = nx__read_item(&g->reader, containers, j)); j++) {
      if (!shows(g, container, sign, containers->count)) continue;
      if (!count++) {
        g->deployment = object;
        g->container = container;
      }
      nx_buf_printf(list, "%s%.60s/%.60s (line %u)", count > 1 ? ", " : "", object->ns, object->name, container->line);
    }
  }
  return count;
}

static void fail(struct nx__gather *g, const char *what, const struct nx_buf *list) {
  if (!g->reader.failed)
    g->reader.failed = nx_error_set(g->reader.err, NX_ERR_INVALID, "%.80s: %s%.*s", g->reader.name, what,
                                    (int)(list->len < 300 ? list->len : 300), list->len ? list->data : "");
}

static void take_deployment(struct nx__gather *g) {
  struct nx__reader *r = &g->reader;
  g->spec = nx__read_map(r, g->deployment->root, "spec");
  const struct nx_yaml *template = nx__read_map(r, g->spec, "template");
  g->labels = nx__read_map(r, nx__read_map(r, template, "metadata"), "labels");
  g->pod = nx__read_map(r, template, "spec");
  g->containers = nx__read_list(r, g->pod, "containers");
  const char *name = nx__read_text(r, g->container, "name");
  g->facts->container = name ? name : "";
  g->facts->ns = g->deployment->ns;
  g->facts->deployment = g->deployment->name;
  g->facts->place = nx__place(g->deployment->root);
  nx__object_is_used(g, g->deployment, nx__text(g, "container %s", g->facts->container));
}

void nx__workload_find(struct nx__gather *g) {
  NX_BUF_AUTO list = {0};
  for (enum sign sign = 0; sign < SIGN_COUNT && !g->reader.failed; sign++) {
    size_t count = look(g, sign, &list);
    if (count > 1) fail(g, "more than one container could be nexus; leave one of them in the file: ", &list);
    if (count) break;
  }
  if (g->reader.failed) return;
  if (g->deployment)
    take_deployment(g);
  else
    fail(g, "no Deployment that runs nexus: expected one with a container named nexus, or of an image called nexus", &list);
}
