/* SPDX-License-Identifier: Apache-2.0
 * The objects of a file, which of them were used, and what selectors select. */
#include "manifest/manifest_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void *nx__alloc(struct nx__gather *g, size_t bytes) {
  void *memory = nx_arena_alloc(g->arena, bytes);
  if (!memory) nx__read_no_memory(&g->reader);
  return memory;
}

const char *nx__text(struct nx__gather *g, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int bytes = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *made = bytes < 0 ? NULL : nx__alloc(g, (size_t)bytes + 1);
  if (!made) return "";
  va_start(arguments, format);
  vsnprintf(made, (size_t)bytes + 1, format, arguments);
  va_end(arguments);
  return made;
}

/* ---- The list -------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end) {
  size_t bytes = strlen(text), end_bytes = strlen(end);
  return bytes >= end_bytes && !strcmp(text + bytes - end_bytes, end);
}

/* Names are told to terminals. */
static bool is_visible(const char *text) {
  for (; *text; text++)
    if (*text < ' ' || *text > '~') return false;
  return true;
}

static void add_object(struct nx__gather *g, const struct nx_yaml *root, const char *kind) {
  const struct nx_yaml *metadata = nx__read_map(&g->reader, root, "metadata");
  const char *name = nx__read_text(&g->reader, metadata, "name");
  const char *ns = nx__read_text(&g->reader, metadata, "namespace");
  if ((name && !is_visible(name)) || (ns && !is_visible(ns)))
    nx__read_fail(&g->reader, metadata, "metadata", "names in ASCII");
  g->objects[g->object_count++] = (struct nx__object){root, kind, ns ? ns : "default", name ? name : ""};
}

static const char *read_kind(struct nx__gather *g, const struct nx_yaml *root) {
  static const char expected[] = "an object of Kubernetes, with apiVersion and kind";
  if (root->type != NX_YAML_MAP) {
    nx__read_fail(&g->reader, root, "document", expected);
    return NULL;
  }
  const char *kind = nx__read_text(&g->reader, root, "kind"), *api = nx__read_text(&g->reader, root, "apiVersion");
  if (!kind || !api) nx__read_fail(&g->reader, root, "document", expected);
  return kind;
}

static bool is_list(const struct nx_yaml *root, const char *kind) {
  return kind && ends_with(kind, "List") && nx_yaml_find(root, "items");
}

/* Its items, or itself. Calls `take` for each; a List in a List is refused, because aliases could multiply it. */
static void each(struct nx__gather *g, const struct nx_yaml *root,
                 void (*take)(struct nx__gather *, const struct nx_yaml *, const char *)) {
  const char *kind = read_kind(g, root);
  if (!kind || g->reader.failed) return;
  if (!is_list(root, kind)) {
    take(g, root, kind);
    return;
  }
  const struct nx_yaml *items = nx_yaml_find(root, "items");
  if (items->type != NX_YAML_LIST) nx__read_fail(&g->reader, items, "items", "a list");
  for (size_t i = 0; !g->reader.failed && i < items->count; i++) {
    const char *item_kind = read_kind(g, items->items[i]);
    if (is_list(items->items[i], item_kind))
      nx__read_fail(&g->reader, items->items[i], "items", "objects, and no further List");
    if (!g->reader.failed) take(g, items->items[i], item_kind);
  }
}

static void count_object(struct nx__gather *g, const struct nx_yaml *root, const char *kind) {
  (void)kind;
  if (++g->object_count > NX_MANIFEST_OBJECTS_MAX) nx__read_fail(&g->reader, root, "document", "at most 10000 objects");
}

void nx__objects_collect(struct nx__gather *g, const struct nx_yaml_set *set) {
  for (size_t i = 0; i < set->count; i++) each(g, set->documents[i], count_object);
  g->objects = g->reader.failed ? NULL : nx__alloc(g, (g->object_count + 1) * sizeof *g->objects);
  g->object_count = 0;
  for (size_t i = 0; g->objects && i < set->count; i++) each(g, set->documents[i], add_object);
}

/* The last one: applied in their order, it is the one that stays. */
const struct nx__object *nx__object_find(const struct nx__gather *g, const char *kind, const char *ns, const char *name) {
  for (size_t i = g->object_count; i-- > 0;) {
    const struct nx__object *o = &g->objects[i];
    if (!strcmp(o->kind, kind) && !strcmp(o->ns, ns) && !strcmp(o->name, name)) return o;
  }
  return NULL;
}

/* ---- What was used --------------------------------------------------------------------------------------------------- */

static bool is_source(const struct nx_manifest_source *source, const char *kind, const char *name) {
  return !strcmp(source->kind, kind) && !strcmp(source->name, name);
}

static void add_source(struct nx__gather *g, struct nx_manifest_source source) {
  const struct nx_manifest_source **end = &g->facts->sources;
  for (; *end; end = (const struct nx_manifest_source **)&(*end)->next)
    if (is_source(*end, source.kind, source.name)) return;
  struct nx_manifest_source *added = nx__alloc(g, sizeof *added);
  if (!added) return;
  *added = source;
  *end = added;
  g->source_count++;
}

void nx__object_is_used(struct nx__gather *g, const struct nx__object *object, const char *use) {
  add_source(g, (struct nx_manifest_source){.kind = object->kind, .ns = object->ns, .name = object->name, .use = use,
                                            .is_there = true, .place = nx__place(object->root)});
}

const struct nx__object *nx__object_use(struct nx__gather *g, const struct nx_yaml *reference, const char *kind,
                                        const char *name, const char *use) {
  if (!nx__read_steps(&g->reader, reference, g->object_count + g->source_count)) return NULL;
  const struct nx__object *object = nx__object_find(g, kind, g->deployment->ns, name);
  if (object)
    nx__object_is_used(g, object, use);
  else
    add_source(g, (struct nx_manifest_source){.kind = kind, .ns = g->deployment->ns, .name = name, .use = use});
  return object;
}

/* ---- Selectors ------------------------------------------------------------------------------------------------------- */

static const char *label(const struct nx_yaml *labels, const char *key) {
  const struct nx_yaml *value = labels ? nx_yaml_find(labels, key) : NULL;
  return value && value->type == NX_YAML_STRING ? value->text : NULL;
}

static bool has_labels(struct nx__gather *g, const struct nx_yaml *wanted, const struct nx_yaml *labels) {
  for (size_t i = 0; wanted && i < wanted->count && nx__read_steps(&g->reader, wanted, 1); i++) {
    const char *value = label(labels, wanted->pairs[i].key->text);
    const char *text = nx__read_text_of(&g->reader, wanted->pairs[i].value, wanted->pairs[i].key->text);
    if (!text || !value || strcmp(value, text)) return false;
  }
  return true;
}

static bool is_among(struct nx__gather *g, const struct nx_yaml *values, const char *value) {
  for (size_t i = 0; value && values && i < values->count && nx__read_steps(&g->reader, values, 1); i++) {
    const char *text = nx__read_text_of(&g->reader, values->items[i], "values");
    if (text && !strcmp(text, value)) return true;
  }
  return false;
}

static bool meets(struct nx__gather *g, const struct nx_yaml *expression, const struct nx_yaml *labels) {
  const char *key = nx__read_text(&g->reader, expression, "key"), *how = nx__read_text(&g->reader, expression, "operator");
  const struct nx_yaml *values = nx__read_list(&g->reader, expression, "values");
  if (!key || !how) return false;
  const char *value = label(labels, key);
  if (!strcmp(how, "In")) return is_among(g, values, value);
  if (!strcmp(how, "NotIn")) return !is_among(g, values, value);
  if (!strcmp(how, "Exists")) return value != NULL;
  if (!strcmp(how, "DoesNotExist")) return !value;
  nx__read_fail(&g->reader, nx_yaml_find(expression, "operator"), "operator", "In, NotIn, Exists or DoesNotExist");
  return false;
}

bool nx__selects(struct nx__gather *g, const struct nx_yaml *selector, bool plain, const struct nx_yaml *labels) {
  if (!selector) return false;
  if (plain) return selector->count && has_labels(g, selector, labels);
  if (!has_labels(g, nx__read_map(&g->reader, selector, "matchLabels"), labels)) return false;
  const struct nx_yaml *expressions = nx__read_list(&g->reader, selector, "matchExpressions"), *expression;
  for (size_t i = 0; (expression = nx__read_item(&g->reader, expressions, i)); i++)
    if (!meets(g, expression, labels)) return false;
  return !g->reader.failed;
}
