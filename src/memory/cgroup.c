/* SPDX-License-Identifier: Apache-2.0
 * Finding our place. What is read there: cgroup_memory.c, cgroup_cpu.c. */
#include "memory/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"
#include "memory/cgroup_internal.h"

enum { TABLE_BYTES = 4 << 20 }; /* mountinfo of a full node has megabytes */

/* /proc/self/cgroup says where we are, /proc/self/mountinfo where the trees are mounted */

static bool has_word(const char *list, size_t len, const char *word, char separator) {
  size_t bytes = strlen(word);
  for (const char *end = list + len; list < end; list++) {
    size_t item = strcspn(list, (char[]){separator, ' ', '\n', 0});
    if (list + item > end) item = (size_t)(end - list);
    if (item == bytes && !memcmp(list, word, bytes)) return true;
    list += item;
  }
  return false;
}

/* Lines "4:memory:/path" for v1, "0::/path" for v2. Where a controller is in a v1 tree it is not in v2's. The path is
 * copied; v2 is only a candidate until its mount shows the controller. */
static enum nx__cgroup_version find_path(const char *text, const char *controller, char path[PATH_MAX]) {
  enum nx__cgroup_version found = NX__CGROUP_NONE;
  for (const char *line = text; line && *line; line = (line = strchr(line, '\n')) ? line + 1 : NULL) {
    const char *list = strchr(line, ':');
    const char *name = list ? strchr(list + 1, ':') : NULL;
    size_t line_bytes = strcspn(line, "\n");
    if (!name || name > line + line_bytes) continue;
    name++;
    bool v1 = has_word(list + 1, (size_t)(name - 1 - (list + 1)), controller, ',');
    bool v2 = line[0] == '0' && name == list + 2;
    size_t bytes = line_bytes - (size_t)(name - line);
    if ((!v1 && !v2) || bytes >= PATH_MAX) continue;
    memcpy(path, name, bytes);
    path[bytes] = 0;
    found = v1 ? NX__CGROUP_V1 : NX__CGROUP_V2;
    if (v1) return NX__CGROUP_V1;
  }
  return found;
}

/* Undoes mountinfo's octal escapes (\040) in place. */
static void unescape(char *text) {
  char *to = text;
  for (const char *c = text; *c; c++) {
    if (c[0] == '\\' && c[1] >= '0' && c[1] <= '3' && c[2] >= '0' && c[2] <= '7' && c[3] >= '0' && c[3] <= '7') {
      *to++ = (char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0'));
      c += 3;
    } else {
      *to++ = *c;
    }
  }
  *to = 0;
}

/* "/../x": a cgroup outside of our namespace (cgroup_namespaces(7)), which cannot be reached from here. */
static bool leads_out(const char *path) {
  for (const char *c = path; (c = strstr(c, "..")); c += 2)
    if ((c == path || c[-1] == '/') && (!c[2] || c[2] == '/')) return true;
  return false;
}

/* The mount's part of the path: what lies below `mount_root`, or "" when we are not below it. */
static const char *below(const char *path, const char *mount_root) {
  size_t len = strcmp(mount_root, "/") ? strlen(mount_root) : 0;
  if (strncmp(path, mount_root, len) || (path[len] && path[len] != '/')) return "";
  path += len + strspn(path + len, "/");
  return leads_out(path) ? "" : path;
}

/* Takes the mount at `mount_point` for this hierarchy if it can be opened and has the controller. */
static bool try_mount(int root_fd, struct nx__hierarchy *h, enum nx__cgroup_version version, const char *controller,
                      const char *mount_point, const char *mount_root, const char *path) {
  const char *relative = mount_point + strspn(mount_point, "/");
  NX_FD_AUTO fd = openat(root_fd, *relative ? relative : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  if (version == NX__CGROUP_V2) {
    char controllers[NX__KERNEL_TEXT_BYTES];
    if (nx__kernel_text_read(fd, "cgroup.controllers", controllers)) return false;
    if (!has_word(controllers, strlen(controllers), controller, ' ')) return false;
  }
  const char *inside = below(path, mount_root);
  if (*inside && faccessat(fd, inside, F_OK, 0)) inside = "";
  *h = (struct nx__hierarchy){.version = version, .mount_fd = fd};
  snprintf(h->path, sizeof h->path, "%s", inside);
  for (size_t n = strlen(h->path); n && h->path[n - 1] == '/'; n--) h->path[n - 1] = 0;
  fd = -1;
  return true;
}

/* One line: "id parent major:minor ROOT POINT options … - TYPE source SUPEROPTIONS" (proc_pid_mountinfo(5)). */
static bool try_mount_line(int root_fd, struct nx__hierarchy *h, enum nx__cgroup_version version,
                           const char *controller, char *line, const char *path) {
  char *fields[5], *rest = line;
  for (size_t i = 0; i < 5; i++)
    if (!(fields[i] = strsep(&rest, " "))) return false;
  char *kind = rest ? strstr(rest, " - ") : NULL;
  if (!kind) return false;
  kind += 3;
  const char *type = strsep(&kind, " ");
  if (!kind || strcmp(type, version == NX__CGROUP_V2 ? "cgroup2" : "cgroup")) return false;
  strsep(&kind, " ");
  if (version == NX__CGROUP_V1 && (!kind || !has_word(kind, strlen(kind), controller, ','))) return false;
  unescape(fields[3]);
  unescape(fields[4]);
  return try_mount(root_fd, h, version, controller, fields[4], fields[3], path);
}

/* Without a usable mountinfo: where distributions mount them. */
static bool try_usual_places(int root_fd, struct nx__hierarchy *h, enum nx__cgroup_version version,
                             const char *controller, const char *path) {
  static const char *const v2[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
  if (version == NX__CGROUP_V1) {
    char place[64];
    snprintf(place, sizeof place, "/sys/fs/cgroup/%s", controller);
    return try_mount(root_fd, h, version, controller, place, "/", path);
  }
  return try_mount(root_fd, h, version, controller, v2[0], "/", path) ||
         try_mount(root_fd, h, version, controller, v2[1], "/", path);
}

/* `cgroups` and `mounts` are the two files' texts; `mounts` is cut into pieces. */
static void find_hierarchy(int root_fd, struct nx__hierarchy *h, const char *controller, const char *cgroups,
                           char *mounts) {
  char path[PATH_MAX] = "/";
  enum nx__cgroup_version version = find_path(cgroups, controller, path);
  if (version == NX__CGROUP_NONE) return;
  for (char *line; (line = strsep(&mounts, "\n"));)
    if (try_mount_line(root_fd, h, version, controller, line, path)) return;
  try_usual_places(root_fd, h, version, controller, path);
}

/* A file of /proc as a string of the caller's; "" when it cannot be read. NULL without memory. */
static char *read_table(int root_fd, const char *path) {
  NX_BUF_AUTO buf = {0};
  nx_fs_read_file_at(root_fd, path, 0, TABLE_BYTES, &buf, NULL);
  char *text = malloc(buf.len + 1);
  if (!text) return NULL;
  if (buf.len) memcpy(text, buf.data, buf.len);
  text[buf.len] = 0;
  return text;
}

int nx_cgroup_open(struct nx_cgroup **out, const char *root, struct nx_error *err) {
  struct nx_cgroup *cgroup = calloc(1, sizeof *cgroup);
  if (!cgroup) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to look for cgroups");
  cgroup->memory.mount_fd = cgroup->cpu.mount_fd = -1;
  for (size_t i = 0; i < NX__CGROUP_LEVELS_KEPT; i++) cgroup->kept[i].limit_fd = cgroup->kept[i].usage_fd = -1;
  cgroup->root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (cgroup->root_fd < 0) {
    int rc = nx_error_sys(err, "open %s", root);
    nx_cgroup_close(cgroup);
    return rc;
  }
  char *cgroups = read_table(cgroup->root_fd, "proc/self/cgroup");
  char *mounts = read_table(cgroup->root_fd, "proc/self/mountinfo");
  char *again = mounts ? strdup(mounts) : NULL;
  int rc = 0;
  if (cgroups && again) {
    find_hierarchy(cgroup->root_fd, &cgroup->memory, "memory", cgroups, mounts);
    find_hierarchy(cgroup->root_fd, &cgroup->cpu, "cpu", cgroups, again);
    nx__cgroup_keep_files(cgroup);
    *out = cgroup;
  } else {
    rc = nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to look for cgroups");
    nx_cgroup_close(cgroup);
  }
  free(cgroups);
  free(mounts);
  free(again);
  return rc;
}

void nx_cgroup_close(struct nx_cgroup *cgroup) {
  if (!cgroup) return;
  nx_fs_close(&cgroup->root_fd);
  nx_fs_close(&cgroup->memory.mount_fd);
  nx_fs_close(&cgroup->cpu.mount_fd);
  for (size_t i = 0; i < NX__CGROUP_LEVELS_KEPT; i++) {
    nx_fs_close(&cgroup->kept[i].limit_fd);
    nx_fs_close(&cgroup->kept[i].usage_fd);
  }
  free(cgroup);
}

struct nx_reading nx__cgroup_smaller(struct nx_reading a, struct nx_reading b) {
  if (!nx_reading_is_value(a)) return b;
  return nx_reading_is_value(b) && b.value < a.value ? b : a;
}

/* Walking up */

struct nx__cgroup_level nx__cgroup_own_level(const struct nx__hierarchy *h) {
  return (struct nx__cgroup_level){.path_bytes = strlen(h->path)};
}

bool nx__cgroup_up(const struct nx__hierarchy *h, struct nx__cgroup_level *level) {
  if (!level->path_bytes) return false;
  do --level->path_bytes;
  while (level->path_bytes && h->path[level->path_bytes] != '/');
  level->above++;
  return true;
}

enum { LEVEL_PATH_BYTES = PATH_MAX + 64 };

static void path_of(const struct nx__hierarchy *h, struct nx__cgroup_level level, const char *file,
                    char path[LEVEL_PATH_BYTES]) {
  snprintf(path, LEVEL_PATH_BYTES, "%.*s%s%s", (int)level.path_bytes, h->path, level.path_bytes ? "/" : "", file);
}

int nx__cgroup_read_level(const struct nx__hierarchy *h, struct nx__cgroup_level level, const char *file,
                          char text[NX__KERNEL_TEXT_BYTES]) {
  char path[LEVEL_PATH_BYTES];
  path_of(h, level, file, path);
  return nx__kernel_text_read(h->mount_fd, path, text);
}

int nx__cgroup_open_level(const struct nx__hierarchy *h, struct nx__cgroup_level level, const char *file) {
  char path[LEVEL_PATH_BYTES];
  path_of(h, level, file, path);
  return openat(h->mount_fd, path, O_RDONLY | O_CLOEXEC);
}

const char *nx_cgroup_version(const struct nx_cgroup *cgroup) {
  static const char *const names[] = {[NX__CGROUP_NONE] = "none", [NX__CGROUP_V1] = "v1", [NX__CGROUP_V2] = "v2"};
  return names[cgroup->memory.version];
}

const char *nx_cgroup_path(const struct nx_cgroup *cgroup) { return cgroup->memory.path; }
