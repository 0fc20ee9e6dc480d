/* SPDX-License-Identifier: Apache-2.0
 * Resources, QoS, times and volumes of the pod. */
#include "manifest/manifest_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/number.h"

#define CORES_MAX 65536u
#define SUM_MAX (UINT64_MAX / 2)

/* ---- Resources ------------------------------------------------------------------------------------------------------- */

struct nx_manifest_resource nx__resource_read(struct nx__gather *g, const struct nx_yaml *container, const char *name,
                                              unsigned scale) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *resources = nx__read_map(r, container, "resources");
  struct nx_manifest_resource resource = {0};
  nx__read_quantity(r, nx__read_map(r, resources, "limits"), name, scale, &resource.limit);
  if (!nx__read_quantity(r, nx__read_map(r, resources, "requests"), name, scale, &resource.request))
    resource.request = resource.limit;
  resource.has_limit = resource.limit > 0; /* 0 is none */
  resource.has_request = resource.request > 0;
  return resource;
}

static bool is_sidecar(struct nx__gather *g, const struct nx_yaml *init_container) {
  const char *policy = nx__read_text(&g->reader, init_container, "restartPolicy");
  return policy && !strcmp(policy, "Always");
}

/* What a container beside nexus means to autoscalers: its requests count in those of the pod. */
static void add_sidecar(struct nx__gather *g, const char *name, const struct nx_manifest_resource *memory,
                        const struct nx_manifest_resource *cpu) {
  struct nx_manifest *facts = g->facts;
  facts->sidecar_count++;
  facts->sidecars_memory_bytes = nx_min_u64(facts->sidecars_memory_bytes + memory->request, SUM_MAX);
  facts->sidecars_millicores = nx_min_u64(facts->sidecars_millicores + cpu->request, SUM_MAX);
  if (!memory->has_request && !facts->memory_missing_in) facts->memory_missing_in = name;
  if (!cpu->has_request && !facts->cpu_missing_in) facts->cpu_missing_in = name;
}

struct qos { bool all_equal, any; };

static void add_to_qos(struct qos *qos, const struct nx_manifest_resource *memory, const struct nx_manifest_resource *cpu) {
  bool equal = memory->has_limit && cpu->has_limit && memory->limit == memory->request && cpu->limit == cpu->request;
  qos->all_equal &= equal;
  qos->any |= memory->has_request || cpu->has_request;
}

static void gather_containers(struct nx__gather *g, const struct nx_yaml *containers, bool init, struct qos *qos) {
  const struct nx_yaml *container;
  for (size_t i = 0; (container = nx__read_item(&g->reader, containers, i)); i++) {
    struct nx_manifest_resource memory = nx__resource_read(g, container, "memory", 1);
    struct nx_manifest_resource cpu = nx__resource_read(g, container, "cpu", 1000);
    const char *name = nx__read_text(&g->reader, container, "name");
    if (container == g->container) {
      memory = g->facts->memory;
      cpu = g->facts->cpu;
      if (!memory.has_request) g->facts->memory_missing_in = g->facts->container;
      if (!cpu.has_request) g->facts->cpu_missing_in = g->facts->container;
    } else if (!init || is_sidecar(g, container)) {
      add_sidecar(g, name ? name : "", &memory, &cpu);
    }
    add_to_qos(qos, &memory, &cpu);
  }
}

static void gather_resources(struct nx__gather *g) {
  struct nx_manifest *facts = g->facts;
  facts->memory = nx__resource_read(g, g->container, "memory", 1);
  facts->cpu = nx__resource_read(g, g->container, "cpu", 1000);
  if (g->overrides->memory_limit_bytes) {
    facts->memory.limit = g->overrides->memory_limit_bytes;
    if (!facts->memory.has_request) facts->memory.request = facts->memory.limit;
    facts->memory.has_limit = facts->memory.has_request = true;
  }
  if (g->overrides->memory_request_bytes) {
    facts->memory.request = g->overrides->memory_request_bytes;
    facts->memory.has_request = true;
  }
  uint64_t cores = facts->cpu.has_limit ? facts->cpu.limit / 1000 + (facts->cpu.limit % 1000 != 0) : 0;
  facts->cores = g->overrides->cores ? g->overrides->cores : (unsigned)nx_min_u64(cores, CORES_MAX);
  struct qos qos = {.all_equal = true};
  gather_containers(g, g->containers, false, &qos);
  gather_containers(g, nx__read_list(&g->reader, g->pod, "initContainers"), true, &qos);
  facts->qos = qos.all_equal ? NX_PLAN_GUARANTEED : qos.any ? NX_PLAN_BURSTABLE : NX_PLAN_BEST_EFFORT;
}

/* ---- Times ----------------------------------------------------------------------------------------------------------- */

/* "5", "2.5", "5s", "1m", "2h", "1d"; 0 for what is not that. */
static uint64_t sleep_ms(const char *word) {
  char *end;
  if (!strchr("0123456789.", *word)) return 0;
  double seconds = strtod(word, &end);
  if (*end == 'm') seconds *= 60;
  if (*end == 'h') seconds *= 3600;
  if (*end == 'd') seconds *= 86400;
  return seconds >= 0 && seconds < 1e9 ? (uint64_t)(seconds * 1000) : 0;
}

/* Of all words "sleep" in a command line, a path before it or not. */
static uint64_t sleeps_ms(const char *command) {
  static const char blanks[] = " \t\n;&|()'\"";
  uint64_t sum = 0;
  for (const char *word = command; *word;) {
    word += strspn(word, blanks);
    size_t bytes = strcspn(word, blanks);
    const char *slash = memrchr(word, '/', bytes), *last = slash ? slash + 1 : word, *end = word + bytes;
    if (end - last == 5 && !memcmp(last, "sleep", 5)) {
      const char *number = end + strspn(end, blanks);
      sum += sleep_ms(number);
    }
    word = end;
  }
  return sum;
}

static void gather_pre_stop_command(struct nx__gather *g, const struct nx_yaml *exec) {
  const struct nx_yaml *command = nx__read_list(&g->reader, exec, "command");
  NX_BUF_AUTO line = {.limit = 64 << 10};
  for (size_t i = 0; command && i < command->count; i++) {
    const char *word = nx__read_text_of(&g->reader, command->items[i], "command");
    if (!word) return;
    nx_buf_str(&line, word);
    nx_buf_char(&line, ' ');
  }
  nx_buf_char(&line, 0);
  if (line.failed) return;
  g->facts->pre_stop_ms = sleeps_ms(line.data);
  g->facts->pre_stop_is_unknown = !g->facts->pre_stop_ms;
}

static void gather_times(struct nx__gather *g) {
  struct nx__reader *r = &g->reader;
  g->facts->grace_s = 30;
  nx__read_number(r, g->pod, "terminationGracePeriodSeconds", 0, 1000000000, &g->facts->grace_s);
  const struct nx_yaml *hook = nx__read_map(r, nx__read_map(r, g->container, "lifecycle"), "preStop");
  const struct nx_yaml *exec = nx__read_map(r, hook, "exec");
  uint64_t seconds = 0;
  if (nx__read_number(r, nx__read_map(r, hook, "sleep"), "seconds", 0, 1000000000, &seconds))
    g->facts->pre_stop_ms = seconds * 1000;
  else if (exec)
    gather_pre_stop_command(g, exec);
  else
    g->facts->pre_stop_is_unknown = nx__read_map(r, hook, "httpGet") != NULL;
}

/* ---- Volumes --------------------------------------------------------------------------------------------------------- */

static const struct nx_yaml *find_named(struct nx__gather *g, const struct nx_yaml *list, const char *name) {
  const struct nx_yaml *item;
  for (size_t i = 0; (item = nx__read_item(&g->reader, list, i)); i++) {
    const char *text = nx__read_text(&g->reader, item, "name");
    if (text && !strcmp(text, name)) return item;
  }
  return NULL;
}

static void fill_empty_dir(struct nx__gather *g, const struct nx_yaml *empty_dir, struct nx_manifest_mount *mount) {
  const char *medium = nx__read_text(&g->reader, empty_dir, "medium");
  uint64_t size;
  mount->medium = medium && !strcmp(medium, "Memory") ? NX_MANIFEST_MEMORY : NX_MANIFEST_DISK;
  bool has_size = nx__read_quantity(&g->reader, empty_dir, "sizeLimit", 1, &size) && size;
  mount->size_limit_bytes = has_size ? nx_reading_of(size) : nx_reading_unlimited();
}

static void fill_medium(struct nx__gather *g, const struct nx_yaml *volume, struct nx_manifest_mount *mount) {
  static const char *const read_only[] = {"configMap", "secret", "projected", "downwardAPI", "image"};
  const struct nx_yaml *empty_dir = nx__read_map(&g->reader, volume, "emptyDir");
  mount->medium = NX_MANIFEST_SHARED;
  if (empty_dir) fill_empty_dir(g, empty_dir, mount);
  for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++)
    if (nx__read_map(&g->reader, volume, read_only[i])) mount->medium = NX_MANIFEST_READ_ONLY;
  if (nx__read_map(&g->reader, volume, "hostPath") || nx__read_map(&g->reader, volume, "ephemeral"))
    mount->medium = NX_MANIFEST_NODE;
}

static void gather_mounts(struct nx__gather *g) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *mounts = nx__read_list(r, g->container, "volumeMounts"), *item;
  const struct nx_yaml *volumes = nx__read_list(r, g->pod, "volumes");
  if (!mounts || !(g->facts->mounts = nx__alloc(g, (mounts->count + 1) * sizeof *g->facts->mounts))) return;
  for (size_t i = 0; (item = nx__read_item(r, mounts, i)); i++) {
    struct nx_manifest_mount mount = {.read_only = nx__read_bool(r, item, "readOnly")};
    mount.path = nx__read_text(r, item, "mountPath");
    mount.volume = nx__read_text(r, item, "name");
    if (!mount.path || !mount.volume) continue;
    const struct nx_yaml *volume = find_named(g, volumes, mount.volume);
    if (!volume) {
      nx__read_fail(r, nx_yaml_find(item, "name"), "volumeMounts", "the name of one of the pod's volumes");
      return;
    }
    fill_medium(g, volume, &mount);
    g->facts->mounts[g->facts->mount_count++] = mount;
  }
}

/* ---- References of volumes ------------------------------------------------------------------------------------------- */

static void use_items(struct nx__gather *g, const struct nx_yaml *source, const struct nx_yaml *object, const char *name) {
  const struct nx_yaml *items = nx__read_list(&g->reader, source, "items"), *item;
  const struct nx_yaml *data = nx__read_map(&g->reader, object, "data");
  const struct nx_yaml *binary = nx__read_map(&g->reader, object, "binaryData");
  for (size_t i = 0; (item = nx__read_item(&g->reader, items, i)); i++) {
    const char *key = nx__read_text(&g->reader, item, "key");
    bool found = key && ((data && nx_yaml_find(data, key)) || (binary && nx_yaml_find(binary, key)));
    if (key && object && !found && !nx__read_bool(&g->reader, source, "optional"))
      nx__add_missing(g, item, name, key, "volume");
  }
}

static void use_source(struct nx__gather *g, const struct nx_yaml *volume, const char *kind, const char *field,
                       const char *name_field) {
  const struct nx_yaml *source = nx__read_map(&g->reader, volume, field);
  const char *name = nx__read_text(&g->reader, source, name_field);
  if (!name) return;
  const struct nx_yaml *object = nx__reference(g, kind, source, name, "volume");
  if (!strcmp(kind, "ConfigMap")) use_items(g, source, object, name);
}

static void use_volumes(struct nx__gather *g) {
  struct nx__reader *r = &g->reader;
  const struct nx_yaml *volumes = nx__read_list(r, g->pod, "volumes"), *volume, *part;
  for (size_t i = 0; (volume = nx__read_item(r, volumes, i)); i++) {
    use_source(g, volume, "ConfigMap", "configMap", "name");
    use_source(g, volume, "Secret", "secret", "secretName");
    const struct nx_yaml *parts = nx__read_list(r, nx__read_map(r, volume, "projected"), "sources");
    for (size_t j = 0; (part = nx__read_item(r, parts, j)); j++) {
      use_source(g, part, "ConfigMap", "configMap", "name");
      use_source(g, part, "Secret", "secret", "name");
    }
  }
}

void nx__pod_gather(struct nx__gather *g) {
  struct nx_manifest *facts = g->facts;
  gather_resources(g);
  gather_times(g);
  gather_mounts(g);
  use_volumes(g);
  facts->read_only_root =
    nx__read_bool(&g->reader, nx__read_map(&g->reader, g->container, "securityContext"), "readOnlyRootFilesystem");
  facts->replicas = 1;
  facts->has_replicas = nx__read_number(&g->reader, g->spec, "replicas", 0, 1000000, &facts->replicas);
}

/* How much of the path the mount is; 0: it does not hold it. */
static size_t covers(const char *mount, const char *path) {
  size_t bytes = strlen(mount);
  if (!bytes) return 0;
  while (bytes > 1 && mount[bytes - 1] == '/') bytes--;
  if (strncmp(mount, path, bytes)) return 0;
  return mount[bytes - 1] == '/' || !path[bytes] || path[bytes] == '/' ? bytes : 0;
}

const struct nx_manifest_mount *nx_manifest_find_mount(const struct nx_manifest *manifest, const char *path) {
  const struct nx_manifest_mount *best = NULL;
  size_t best_bytes = 0;
  for (size_t i = 0; i < manifest->mount_count; i++) {
    size_t bytes = covers(manifest->mounts[i].path, path);
    if (bytes <= best_bytes) continue;
    best = &manifest->mounts[i];
    best_bytes = bytes;
  }
  return best;
}
