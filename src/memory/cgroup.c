/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/cgroup.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"

enum { FILE_BYTES = 8192, TABLE_BYTES = 4 << 20 }; /* memory.stat has about 2 KB; mountinfo of a full node megabytes */

enum version { NONE, V1, V2 };

/* One controller's tree: where it is mounted and where we are in it. */
struct hierarchy {
  enum version version;
  int mount_fd;
  char path[PATH_MAX]; /* relative to mount_fd; "" is the mount's root */
};

struct nx_cgroup {
  int root_fd;
  struct hierarchy memory, cpu;
};

/* Small files and their numbers */

/* The whole file, NUL-terminated. 0, or an errno. */
static int read_small(int dirfd, const char *path, char text[FILE_BYTES]) {
  NX_FD_AUTO fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  size_t len = 0;
  while (len < FILE_BYTES - 1) {
    ssize_t n = read(fd, text + len, FILE_BYTES - 1 - len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno; /* EOPNOTSUPP: pressure stall information is off; ENODEV: the cgroup is gone */
    if (n == 0) break;
    len += (size_t)n;
  }
  text[len] = 0;
  return 0;
}

/* A decimal number that ends in white space or the end of the text; `end` may be NULL. */
static bool parse_u64(const char *text, uint64_t *value, const char **end) {
  uint64_t sum = 0;
  const char *c = text;
  for (; *c >= '0' && *c <= '9'; c++)
    if (__builtin_mul_overflow(sum, 10u, &sum) || __builtin_add_overflow(sum, (uint64_t)(*c - '0'), &sum)) return false;
  if (c == text || (*c && *c != ' ' && *c != '\n')) return false;
  *value = sum;
  if (end) *end = c + strspn(c, " ");
  return true;
}

static struct nx_reading number(const char *text) {
  uint64_t value;
  return parse_u64(text, &value, NULL) ? nx_reading_of(value) : nx_reading_unknown();
}

/* The number behind `key` ("name ") at the start of a line. */
static struct nx_reading number_of_key(const char *text, const char *key) {
  size_t len = strlen(key);
  for (; text; text = (text = strchr(text, '\n')) ? text + 1 : NULL)
    if (!strncmp(text, key, len)) return number(text + len);
  return nx_reading_unknown();
}

static struct nx_reading smaller(struct nx_reading a, struct nx_reading b) {
  if (!nx_reading_is_value(a)) return b;
  return nx_reading_is_value(b) && b.value < a.value ? b : a;
}

/* Finding our place: /proc/self/cgroup says where we are, /proc/self/mountinfo where the trees are mounted */

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
 * copied; V2 is only a candidate until its mount shows the controller. */
static enum version find_path(const char *text, const char *controller, char path[PATH_MAX]) {
  enum version found = NONE;
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
    found = v1 ? V1 : V2;
    if (v1) return V1;
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
static bool try_mount(int root_fd, struct hierarchy *h, enum version version, const char *controller,
                      const char *mount_point, const char *mount_root, const char *path) {
  const char *relative = mount_point + strspn(mount_point, "/");
  NX_FD_AUTO fd = openat(root_fd, *relative ? relative : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  if (version == V2) {
    char controllers[FILE_BYTES];
    if (read_small(fd, "cgroup.controllers", controllers)) return false;
    if (!has_word(controllers, strlen(controllers), controller, ' ')) return false;
  }
  const char *inside = below(path, mount_root);
  if (*inside && faccessat(fd, inside, F_OK, 0)) inside = "";
  *h = (struct hierarchy){.version = version, .mount_fd = fd};
  snprintf(h->path, sizeof h->path, "%s", inside);
  for (size_t n = strlen(h->path); n && h->path[n - 1] == '/'; n--) h->path[n - 1] = 0;
  fd = -1;
  return true;
}

/* One line: "id parent major:minor ROOT POINT options … - TYPE source SUPEROPTIONS" (proc_pid_mountinfo(5)). */
static bool try_mount_line(int root_fd, struct hierarchy *h, enum version version, const char *controller, char *line,
                           const char *path) {
  char *fields[5], *rest = line;
  for (size_t i = 0; i < 5; i++)
    if (!(fields[i] = strsep(&rest, " "))) return false;
  char *kind = rest ? strstr(rest, " - ") : NULL;
  if (!kind) return false;
  kind += 3;
  const char *type = strsep(&kind, " ");
  if (!kind || strcmp(type, version == V2 ? "cgroup2" : "cgroup")) return false;
  strsep(&kind, " ");
  if (version == V1 && (!kind || !has_word(kind, strlen(kind), controller, ','))) return false;
  unescape(fields[3]);
  unescape(fields[4]);
  return try_mount(root_fd, h, version, controller, fields[4], fields[3], path);
}

/* Without a usable mountinfo: where distributions mount them. */
static bool try_usual_places(int root_fd, struct hierarchy *h, enum version version, const char *controller,
                             const char *path) {
  static const char *const v2[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
  if (version == V1) {
    char place[64];
    snprintf(place, sizeof place, "/sys/fs/cgroup/%s", controller);
    return try_mount(root_fd, h, version, controller, place, "/", path);
  }
  return try_mount(root_fd, h, version, controller, v2[0], "/", path) ||
         try_mount(root_fd, h, version, controller, v2[1], "/", path);
}

/* `cgroups` and `mounts` are the two files' texts; `mounts` is cut into pieces. */
static void find_hierarchy(int root_fd, struct hierarchy *h, const char *controller, const char *cgroups,
                           char *mounts) {
  char path[PATH_MAX] = "/";
  enum version version = find_path(cgroups, controller, path);
  if (version == NONE) return;
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
  free(cgroup);
}

/* Walking up */

/* Reads `file` of the cgroup that the first `path_bytes` of our path name. 0, or an errno. */
static int read_level(const struct hierarchy *h, size_t path_bytes, const char *file, char text[FILE_BYTES]) {
  char path[PATH_MAX + 64];
  snprintf(path, sizeof path, "%.*s%s%s", (int)path_bytes, h->path, path_bytes ? "/" : "", file);
  return read_small(h->mount_fd, path, text);
}

/* The parent of a level; false at the mount's root. */
static bool up(const struct hierarchy *h, size_t *path_bytes) {
  if (!*path_bytes) return false;
  do --*path_bytes;
  while (*path_bytes && h->path[*path_bytes] != '/');
  return true;
}

/* v1 says "no limit" with the largest number of pages it can count: 2^63 rounded down to pages. */
static struct nx_reading v1_limit(struct nx_reading r) {
  return nx_reading_is_value(r) && r.value >= UINT64_C(1) << 62 ? nx_reading_unlimited() : r;
}

static struct nx_reading limit_at(const struct hierarchy *h, size_t path_bytes) {
  char text[FILE_BYTES];
  if (h->version == V1)
    return read_level(h, path_bytes, "memory.limit_in_bytes", text) ? nx_reading_unknown() : v1_limit(number(text));
  int error = read_level(h, path_bytes, "memory.max", text);
  /* The root cgroup has no such file, nor has one whose parent did not switch the controller on: no limit there. */
  if (error == ENOENT) return nx_reading_unlimited();
  if (error) return nx_reading_unknown();
  return !strcmp(text, "max\n") || !strcmp(text, "max") ? nx_reading_unlimited() : number(text);
}

/* The smallest limit, and the level it is at. */
static struct nx_reading find_limit(const struct hierarchy *h, size_t *level) {
  size_t path_bytes = strlen(h->path);
  struct nx_reading least = nx_reading_unlimited();
  bool unknown = false;
  *level = path_bytes;
  do {
    struct nx_reading here = limit_at(h, path_bytes);
    unknown |= here.kind == NX_READING_UNKNOWN;
    if (!nx_reading_is_value(here) || (nx_reading_is_value(least) && least.value <= here.value)) continue;
    least = here;
    *level = path_bytes;
  } while (up(h, &path_bytes));
  return unknown && !nx_reading_is_value(least) ? nx_reading_unknown() : least;
}

static struct nx_reading pressure(const struct nx_cgroup *cgroup, size_t level) {
  const struct hierarchy *h = &cgroup->memory;
  char text[FILE_BYTES];
  uint64_t whole, hundredths;
  if ((h->version != V2 || read_level(h, level, "memory.pressure", text)) &&
      read_small(cgroup->root_fd, "proc/pressure/memory", text))
    return nx_reading_unknown();
  /* "some avg10=12.34 avg60=…": always two digits behind the point (Documentation/accounting/psi.rst). */
  static const char key[] = "some avg10=";
  const char *c = strstr(text, key);
  if (!c) return nx_reading_unknown();
  char digits[24];
  snprintf(digits, sizeof digits, "%.*s", (int)strcspn(c + sizeof key - 1, " \n"), c + sizeof key - 1);
  char *point = strchr(digits, '.');
  if (!point || strlen(point) != 3) return nx_reading_unknown();
  *point = 0;
  if (!parse_u64(digits, &whole, NULL) || !parse_u64(point + 1, &hundredths, NULL) || whole > 100)
    return nx_reading_unknown();
  return nx_reading_of(whole * 100 + hundredths);
}

static void read_use(const struct hierarchy *h, size_t level, struct nx_cgroup_memory *out) {
  char text[FILE_BYTES];
  bool v2 = h->version == V2;
  if (!read_level(h, level, v2 ? "memory.current" : "memory.usage_in_bytes", text)) out->usage_bytes = number(text);
  if (!read_level(h, level, "memory.stat", text))
    out->inactive_file_bytes = number_of_key(text, v2 ? "inactive_file " : "total_inactive_file ");
  if (!read_level(h, level, v2 ? "memory.events" : "memory.oom_control", text))
    out->oom_kills = number_of_key(text, "oom_kill ");
  if (!nx_reading_is_value(out->usage_bytes) || !nx_reading_is_value(out->inactive_file_bytes)) return;
  uint64_t usage = out->usage_bytes.value, inactive = out->inactive_file_bytes.value;
  out->working_set_bytes = nx_reading_of(usage > inactive ? usage - inactive : 0);
}

void nx_cgroup_read_memory(const struct nx_cgroup *cgroup, struct nx_cgroup_memory *out) {
  const struct hierarchy *h = &cgroup->memory;
  *out = (struct nx_cgroup_memory){0};
  size_t level = 0;
  if (h->version != NONE) {
    out->limit_bytes = find_limit(h, &level);
    read_use(h, level, out);
  }
  if (h->version == V1) {
    /* v1 also tells of the ancestors that a namespace hides from us. */
    char text[FILE_BYTES];
    if (!read_level(h, strlen(h->path), "memory.stat", text)) {
      struct nx_reading hidden = v1_limit(number_of_key(text, "hierarchical_memory_limit "));
      if (nx_reading_is_value(hidden) || out->limit_bytes.kind == NX_READING_UNKNOWN)
        out->limit_bytes = smaller(out->limit_bytes, hidden);
    }
  }
  struct nx_reading machine = nx_cgroup_machine_memory_bytes(cgroup);
  if (nx_reading_is_value(out->limit_bytes) && nx_reading_is_value(machine) && out->limit_bytes.value > machine.value)
    out->limit_bytes = nx_reading_unlimited();
  out->pressure_bp = pressure(cgroup, level);
}

struct nx_reading nx_cgroup_machine_memory_bytes(const struct nx_cgroup *cgroup) {
  char text[FILE_BYTES];
  if (read_small(cgroup->root_fd, "proc/meminfo", text)) return nx_reading_unknown();
  const char *line = strstr(text, "MemTotal:");
  if (!line) return nx_reading_unknown();
  struct nx_reading kib = number(line + 9 + strspn(line + 9, " "));
  if (!nx_reading_is_value(kib) || kib.value > UINT64_MAX / 1024) return nx_reading_unknown();
  return nx_reading_of(kib.value * 1024);
}

/* CPU */

static struct nx_reading millicores(uint64_t quota, uint64_t period) {
  if (!period || quota > UINT64_MAX / 1000) return nx_reading_unknown();
  return nx_reading_of(quota * 1000 / period);
}

/* v2: cpu.max holds "max 100000" or "50000 100000". v1: two files, and -1 for no quota. */
static struct nx_reading quota_at(const struct hierarchy *h, size_t path_bytes) {
  char text[FILE_BYTES], period_text[FILE_BYTES];
  uint64_t quota, period;
  const char *rest;
  int error = read_level(h, path_bytes, h->version == V2 ? "cpu.max" : "cpu.cfs_quota_us", text);
  if (error) return error == ENOENT ? nx_reading_unlimited() : nx_reading_unknown(); /* a root cgroup has no quota */
  const char *none = h->version == V2 ? "max" : "-1";
  if (strcspn(text, " \n") == strlen(none) && !strncmp(text, none, strlen(none))) return nx_reading_unlimited();
  if (!parse_u64(text, &quota, &rest)) return nx_reading_unknown();
  if (h->version == V1) {
    if (read_level(h, path_bytes, "cpu.cfs_period_us", period_text)) return nx_reading_unknown();
    rest = period_text;
  }
  return parse_u64(rest, &period, NULL) ? millicores(quota, period) : nx_reading_unknown();
}

struct nx_reading nx_cgroup_cpu_millicores(const struct nx_cgroup *cgroup) {
  const struct hierarchy *h = &cgroup->cpu;
  if (h->version == NONE) return nx_reading_unknown();
  size_t path_bytes = strlen(h->path);
  struct nx_reading least = nx_reading_unlimited();
  bool unknown = false;
  do {
    struct nx_reading here = quota_at(h, path_bytes);
    unknown |= here.kind == NX_READING_UNKNOWN;
    if (nx_reading_is_value(here)) least = smaller(least, here);
  } while (up(h, &path_bytes));
  return unknown && !nx_reading_is_value(least) ? nx_reading_unknown() : least;
}

unsigned nx_cgroup_cores(const struct nx_cgroup *cgroup, unsigned allowed_cpus) {
  struct nx_reading quota = nx_cgroup_cpu_millicores(cgroup);
  uint64_t cores = allowed_cpus;
  if (nx_reading_is_value(quota) && (quota.value + 999) / 1000 < cores) cores = (quota.value + 999) / 1000;
  return cores ? (unsigned)cores : 1;
}

unsigned nx_cpu_allowed(void) {
  /* The kernel wants a set as large as its own (EINVAL until then), which may be larger than cpu_set_t. */
  for (size_t cpus = CPU_SETSIZE; cpus <= 1 << 20; cpus *= 2) {
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set) return 1;
    size_t bytes = CPU_ALLOC_SIZE(cpus);
    int failed = sched_getaffinity(0, bytes, set);
    int count = failed ? 0 : CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (count > 0) return (unsigned)count;
    if (errno != EINVAL) break;
  }
  return 1;
}

const char *nx_cgroup_version(const struct nx_cgroup *cgroup) {
  static const char *const names[] = {[NONE] = "none", [V1] = "v1", [V2] = "v2"};
  return names[cgroup->memory.version];
}

const char *nx_cgroup_path(const struct nx_cgroup *cgroup) { return cgroup->memory.path; }
