/* SPDX-License-Identifier: Apache-2.0
 * The environment and the arguments of the container, as the kubelet makes them: envFrom in its order, then env in its
 * order; $(NAME) in what env and the command say stands for what was set before. */
#include "manifest/manifest_internal.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/buf.h"

/* Linux takes no longer string (MAX_ARG_STRLEN), and by default no more of them together (execve(2)). */
#define VALUE_BYTES_MAX ((size_t)128 << 10)
#define ALL_BYTES_MAX ((size_t)2 << 20)

struct environment {
  struct nx__gather *g;
  size_t bytes;
};

/* ---- Variables ------------------------------------------------------------------------------------------------------- */

const struct nx_manifest_variable *nx_manifest_find_variable(const struct nx_manifest *manifest, const char *name) {
  for (size_t i = 0; i < manifest->variable_count; i++)
    if (!strcmp(manifest->variables[i].name, name)) return &manifest->variables[i];
  return NULL;
}

static void set(struct environment *e, const struct nx_yaml *place, struct nx_manifest_variable variable) {
  struct nx_manifest *facts = e->g->facts;
  size_t bytes = variable.value ? strlen(variable.value) : 0;
  e->bytes += bytes;
  if (bytes > VALUE_BYTES_MAX || e->bytes > ALL_BYTES_MAX) {
    nx__read_fail(&e->g->reader, place, variable.name, "an environment that Linux takes: 128 KiB each, 2 MiB together");
    return;
  }
  struct nx_manifest_variable *old = (struct nx_manifest_variable *)nx_manifest_find_variable(facts, variable.name);
  if (old)
    *old = variable;
  else if (facts->variable_count < NX_MANIFEST_VARIABLES_MAX)
    facts->variables[facts->variable_count++] = variable;
  else
    nx__read_fail(&e->g->reader, place, variable.name, "at most 4096 variables");
}

/* ---- $(NAME) --------------------------------------------------------------------------------------------------------- */

/* One reference at "$…"; returns what it takes of the text. `ends`: there is a ')' further on. */
static size_t expand_one(const struct nx_manifest *facts, const char *text, bool ends, struct nx_buf *out, bool *unknown) {
  const char *end = ends && text[1] == '(' ? strchr(text, ')') : NULL;
  if (text[1] == '$') {
    nx_buf_char(out, '$');
    return 2;
  }
  if (!end) {
    nx_buf_char(out, '$');
    return 1;
  }
  size_t bytes = (size_t)(end + 1 - text);
  for (size_t i = 0; i < facts->variable_count; i++) {
    const struct nx_manifest_variable *v = &facts->variables[i];
    if (strncmp(v->name, text + 2, bytes - 3) || v->name[bytes - 3]) continue;
    if (v->value)
      nx_buf_str(out, v->value);
    else
      *unknown = true;
    return bytes;
  }
  nx_buf_add(out, text, bytes); /* of no variable: stays as it is */
  return bytes;
}

/* In the arena; NULL when it is not known, or too long, which is a failure. */
static const char *expand(struct environment *e, const struct nx_yaml *place, const char *text) {
  if (!strchr(text, '$')) return text;
  NX_BUF_AUTO out = {.limit = VALUE_BYTES_MAX};
  bool unknown = false;
  const char *last_end = strrchr(text, ')');
  while (*text && !out.failed && nx__read_steps(&e->g->reader, place, 1 + e->g->facts->variable_count)) {
    size_t plain = strcspn(text, "$");
    nx_buf_add(&out, text, plain);
    text += plain;
    if (*text) text += expand_one(e->g->facts, text, last_end && text < last_end, &out, &unknown);
  }
  if (out.failed) nx__read_fail(&e->g->reader, place, "value", "at most 128 KiB after $(NAME) was filled in");
  if (e->g->reader.failed || unknown) return NULL;
  char *copy = nx_arena_copy(e->g->arena, out.len ? out.data : "", out.len);
  if (!copy) nx__read_no_memory(&e->g->reader);
  return copy;
}

/* ---- ConfigMaps and Secrets ------------------------------------------------------------------------------------------ */

void nx__add_missing(struct nx__gather *g, const struct nx_yaml *place, const char *config_map, const char *key,
                     const char *use) {
  const struct nx_manifest_missing **end = &g->facts->missing;
  unsigned count = 0;
  for (; *end; end = (const struct nx_manifest_missing **)&(*end)->next)
    if (++count == NX_FINDINGS_MAX) return; /* more would not be shown */
  struct nx_manifest_missing *missing = nx__alloc(g, sizeof *missing);
  if (!missing) return;
  *missing = (struct nx_manifest_missing){.config_map = config_map, .key = key, .use = use, .place = nx__place(place)};
  *end = missing;
}

const struct nx_yaml *nx__reference(struct nx__gather *g, const char *kind, const struct nx_yaml *reference,
                                    const char *name, const char *use) {
  const struct nx__object *object = nx__object_use(g, reference, kind, name, use);
  if (object) return object->root;
  if (!strcmp(kind, "ConfigMap") && !nx__read_bool(&g->reader, reference, "optional"))
    nx__add_missing(g, reference, name, NULL, use);
  return NULL;
}

static const char *decode(struct nx__gather *g, const struct nx_yaml *node, const char *key) {
  const char *text = nx__read_text_of(&g->reader, node, key);
  if (!text) return NULL;
  size_t len = strlen(text), decoded = 0;
  char *value = nx__alloc(g, len + 1);
  if (!value) return NULL;
  if (sodium_base642bin((unsigned char *)value, len, text, len, " \n\r", &decoded, NULL, sodium_base64_VARIANT_ORIGINAL) ||
      memchr(value, 0, decoded)) {
    nx__read_fail(&g->reader, node, key, "text in base64");
    return NULL;
  }
  value[decoded] = 0;
  return value;
}

/* NULL: it has no such key. */
static const char *config_map_value(struct nx__gather *g, const struct nx_yaml *object, const char *key) {
  const struct nx_yaml *data = nx__read_map(&g->reader, object, "data");
  return nx__read_text(&g->reader, data, key);
}

static const char *secret_value(struct nx__gather *g, const struct nx_yaml *object, const char *key) {
  const char *text = nx__read_text(&g->reader, nx__read_map(&g->reader, object, "stringData"), key);
  const struct nx_yaml *data = nx__read_map(&g->reader, object, "data");
  const struct nx_yaml *node = data ? nx_yaml_find(data, key) : NULL;
  return text || !node ? text : decode(g, node, key);
}

/* ---- envFrom --------------------------------------------------------------------------------------------------------- */

static const char variable_letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

static bool is_variable_name(const char *name) {
  return *name && !strchr("0123456789", *name) && !name[strspn(name, variable_letters)];
}

/* Kubernetes leaves out what is no name of a variable. */
static void set_all(struct environment *e, const struct nx_yaml *object, const char *field, const char *prefix,
                    const char *(*value_of)(struct nx__gather *, const struct nx_yaml *, const char *)) {
  const struct nx_yaml *data = nx__read_map(&e->g->reader, object, field);
  for (size_t i = 0; data && i < data->count && nx__read_steps(&e->g->reader, data, 1 + e->g->facts->variable_count); i++) {
    const struct nx_yaml *key = data->pairs[i].key;
    if (!is_variable_name(*prefix ? prefix : key->text) || key->text[strspn(key->text, variable_letters)]) continue;
    const char *name = *prefix ? nx__text(e->g, "%s%s", prefix, key->text) : key->text;
    const char *value = value_of(e->g, object, key->text);
    if (value) set(e, key, (struct nx_manifest_variable){.name = name, .value = value});
  }
}

static void take_env_from(struct environment *e, const struct nx_yaml *item) {
  struct nx__reader *r = &e->g->reader;
  const struct nx_yaml *config_map = nx__read_map(r, item, "configMapRef"), *secret = nx__read_map(r, item, "secretRef");
  const char *prefix = nx__read_text(r, item, "prefix"), *name = nx__read_text(r, config_map ? config_map : secret, "name");
  if (!name) return;
  if (!prefix) prefix = "";
  const struct nx_yaml *object =
    nx__reference(e->g, config_map ? "ConfigMap" : "Secret", config_map ? config_map : secret, name, "envFrom");
  if (object && config_map) {
    set_all(e, object, "data", prefix, config_map_value);
  } else if (object) {
    set_all(e, object, "data", prefix, secret_value);
    set_all(e, object, "stringData", prefix, secret_value);
  }
  if (!object && secret) e->g->facts->has_unknown_variables = true;
}

/* ---- env ------------------------------------------------------------------------------------------------------------- */

static void take_key_ref(struct environment *e, const struct nx_yaml *reference, const char *kind, const char *variable) {
  struct nx__gather *g = e->g;
  bool secret = !strcmp(kind, "Secret");
  const char *name = nx__read_text(&g->reader, reference, "name"), *key = nx__read_text(&g->reader, reference, "key");
  if (!name || !key) return;
  const struct nx_yaml *object = nx__reference(g, kind, reference, name, "env");
  bool optional = nx__read_bool(&g->reader, reference, "optional");
  const char *value = (secret ? secret_value : config_map_value)(g, object, key);
  if (value)
    set(e, reference, (struct nx_manifest_variable){.name = variable, .value = value});
  else if (secret && (!object || !optional))
    set(e, reference, (struct nx_manifest_variable){.name = variable, .from = nx__text(g, "Secret %.63s", name)});
  else if (object && !optional)
    nx__add_missing(g, reference, name, key, "env");
}

static const struct nx_yaml *container_named(struct nx__gather *g, const char *name) {
  const struct nx_yaml *container;
  for (size_t i = 0; (container = nx__read_item(&g->reader, g->containers, i)); i++) {
    const char *text = nx__read_text(&g->reader, container, "name");
    if (text && !strcmp(text, name)) return container;
  }
  return NULL;
}

/* limits.memory and its like, in units of the divisor, rounded up. Without a limit it is what the node has. */
static void take_resource_ref(struct environment *e, const struct nx_yaml *reference, const char *variable) {
  struct nx__gather *g = e->g;
  const char *which = nx__read_text(&g->reader, reference, "resource"),
             *other = nx__read_text(&g->reader, reference, "containerName");
  if (!which) return;
  bool cpu = strstr(which, "cpu"), limits = !strncmp(which, "limits.", 7);
  const struct nx_yaml *container = other ? container_named(g, other) : g->container;
  bool own = container == g->container, known = strstr(which, "memory") || cpu;
  struct nx_manifest_resource resource = cpu && own ? g->facts->cpu : own ? g->facts->memory
    : nx__resource_read(g, container, cpu ? "cpu" : "memory", cpu ? 1000 : 1);
  uint64_t divisor = cpu ? 1000 : 1, amount = limits ? resource.limit : resource.request;
  if (nx__read_quantity(&g->reader, reference, "divisor", cpu ? 1000 : 1, &divisor) && !divisor) divisor = cpu ? 1000 : 1;
  struct nx_manifest_variable v = {.name = variable, .from = "the node"};
  if (known && (limits ? resource.has_limit : resource.has_request))
    v.value = nx__text(g, "%llu", (unsigned long long)(amount / divisor + (amount % divisor != 0)));
  set(e, reference, v);
}

static void take_value_from(struct environment *e, const struct nx_yaml *from, const char *variable) {
  struct nx__reader *r = &e->g->reader;
  const struct nx_yaml *config_map = nx__read_map(r, from, "configMapKeyRef"),
                       *secret = nx__read_map(r, from, "secretKeyRef");
  const struct nx_yaml *resource = nx__read_map(r, from, "resourceFieldRef");
  if (config_map)
    take_key_ref(e, config_map, "ConfigMap", variable);
  else if (secret)
    take_key_ref(e, secret, "Secret", variable);
  else if (resource)
    take_resource_ref(e, resource, variable);
  else
    set(e, from, (struct nx_manifest_variable){.name = variable, .from = "the pod"}); /* fieldRef */
}

static void take_env(struct environment *e, const struct nx_yaml *item) {
  struct nx__reader *r = &e->g->reader;
  const char *name = nx__read_text(r, item, "name"), *value = nx__read_text(r, item, "value");
  const struct nx_yaml *from = nx__read_map(r, item, "valueFrom");
  if (!name) {
    nx__read_fail(r, item, "env", "a name");
  } else if (from && !(value && *value)) {
    take_value_from(e, from, name);
  } else {
    const char *expanded = expand(e, item, value ? value : "");
    if (!r->failed) set(e, item, (struct nx_manifest_variable){.name = name, .value = expanded, .from = "other variables"});
  }
}

/* ---- Arguments ------------------------------------------------------------------------------------------------------- */

static void add_words(struct environment *e, const struct nx_yaml *list, char **words, size_t *count) {
  for (size_t i = 0; list && i < list->count; i++) {
    const char *text = nx__read_text_of(&e->g->reader, list->items[i], "args");
    const char *word = text ? expand(e, list->items[i], text) : NULL;
    if (!word) { /* a value nobody knows cannot be judged */
      e->g->facts->command_is_unknown = true;
      return;
    }
    words[(*count)++] = (char *)word;
  }
}

/* [nexus] [serve] FLAGS, whatever part of it the image says. */
static void take_arguments(struct environment *e) {
  struct nx__reader *r = &e->g->reader;
  const struct nx_yaml *command = nx__read_list(r, e->g->container, "command"),
                       *args = nx__read_list(r, e->g->container, "args");
  struct nx_manifest *facts = e->g->facts;
  size_t count = 0;
  char **words = nx__alloc(e->g, ((command ? command->count : 0) + (args ? args->count : 0) + 1) * sizeof *words);
  if (!words) return;
  add_words(e, command, words, &count);
  add_words(e, args, words, &count);
  if (facts->command_is_unknown) return;
  if (count && nx__is_nexus(*words)) words++, count--;
  if (count && !strcmp(*words, "serve")) words++, count--;
  facts->command_is_unknown = count && strncmp(*words, "--", 2);
  if (facts->command_is_unknown) return;
  facts->arguments = words;
  facts->argument_count = count;
}

/* ---- For nx_config_load ---------------------------------------------------------------------------------------------- */

static const char *const settings[] = {
#define X(name, ...) #name,
  NX_SETTINGS(X)
#undef X
};

/* Something right in the place of what only a Secret says; NULL: nothing stands for it, or it is no setting. */
static const char *stand_in(const char *name) {
  static const char key[] = "0000000000000000000000000000000000000000000000000000000000000000";
  if (!strcmp(name, "SUSPEND_KEY") || !strcmp(name, "SUSPEND_KEY_PREVIOUS")) return key;
  if (!strcmp(name, "SUSPEND_STORE")) return "redis://secret";
  return !strcmp(name, "AUTH_TOKENS_FILE") ? "/secret" : NULL;
}

bool nx_manifest_is_left_out(const struct nx_manifest_variable *variable) {
  if (variable->value || stand_in(variable->name)) return false;
  for (size_t i = 0; i < NX_SETTING_COUNT; i++)
    if (!strcmp(settings[i], variable->name)) return true;
  return false;
}

static void make_environment(struct nx__gather *g) {
  struct nx_manifest *facts = g->facts;
  size_t count = 0;
  facts->environment = nx__alloc(g, (facts->variable_count + 2) * sizeof *facts->environment);
  if (!facts->environment) return;
  for (size_t i = 0; i < facts->variable_count; i++) {
    const struct nx_manifest_variable *v = &facts->variables[i];
    const char *value = v->value ? v->value : stand_in(v->name);
    if (value) facts->environment[count++] = (char *)nx__text(g, "%s=%s", v->name, value);
  }
  if (facts->has_unknown_variables && !nx_manifest_find_variable(facts, "SUSPEND_KEY"))
    facts->environment[count++] = (char *)nx__text(g, "SUSPEND_KEY=%s", stand_in("SUSPEND_KEY"));
}

void nx__environment_gather(struct nx__gather *g) {
  struct environment e = {.g = g};
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *env_from = nx__read_list(r, g->container, "envFrom"), *env = nx__read_list(r, g->container, "env");
  const struct nx_yaml *item;
  g->facts->variables = nx__alloc(g, NX_MANIFEST_VARIABLES_MAX * sizeof *g->facts->variables);
  if (!g->facts->variables) return;
  for (size_t i = 0; (item = nx__read_item(r, env_from, i)); i++) take_env_from(&e, item);
  for (size_t i = 0; (item = nx__read_item(r, env, i)); i++) take_env(&e, item);
  take_arguments(&e);
  make_environment(g);
}
