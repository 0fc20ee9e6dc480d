/* SPDX-License-Identifier: Apache-2.0
 * Contradictions between volumes, the cache and the memory limit. */
#include "manifest/contradictions_internal.h"

#include <string.h>

static void cannot_write(const struct nx_manifest *m, const struct nx_config *c, const char *why,
                         struct nx_findings *findings) {
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_CACHE_NOT_WRITABLE, m->place);
  nx_finding_say(f, "CACHE_DIR %.120s is on %s: nothing is cached, and each start compiles all handlers again",
                 c->cache_dir, why);
  nx_finding_advise(f, "mount an emptyDir there");
}

static void check_cache(const struct nx_manifest *m, const struct nx_config *c, struct nx_findings *findings) {
  const struct nx_manifest_mount *mount = nx_manifest_find_mount(m, c->cache_dir);
  if (!mount) {
    if (m->read_only_root) cannot_write(m, c, "the container's root, which is read-only", findings);
    return;
  }
  if (mount->read_only || mount->medium == NX_MANIFEST_READ_ONLY)
    cannot_write(m, c, "a volume that is read-only", findings);
  uint64_t cache = c->cache_max_bytes, size = mount->size_limit_bytes.value; /* 0: auto, of a limit nobody knows */
  if (!nx_reading_is_value(mount->size_limit_bytes) || cache <= size) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_CACHE_ABOVE_VOLUME, m->place);
  nx_finding_say(f, "CACHE_MAX_MB is %llu and the sizeLimit of volume %.63s %.1f MiB: %s", nx__ull(cache / NX_MIB),
                 mount->volume, nx_in_mib(size),
                 mount->medium == NX_MANIFEST_MEMORY ? "what comes last is not cached"
                                                     : "the kubelet evicts the pod when the cache is full");
  nx_finding_change(f, NX_PLAN_SET_CACHE_MAX_MB, size / NX_MIB);
  nx_finding_change(f, NX_PLAN_SET_SIZE_LIMIT, cache);
  nx_finding_advise_changes(f);
}

static bool is_first_of_volume(const struct nx_manifest *m, size_t index) {
  for (size_t i = 0; i < index; i++)
    if (!strcmp(m->mounts[i].volume, m->mounts[index].volume)) return false;
  return true;
}

static void check_volume(const struct nx_manifest *m, const struct nx_manifest_mount *mount, uint64_t limit,
                         struct nx_findings *findings) {
  if (!nx_reading_is_value(mount->size_limit_bytes)) {
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_VOLUME_WITHOUT_SIZE, m->place);
    nx_finding_say(
        f, "volume %.63s is memory (medium: Memory) without a sizeLimit: its files can take the whole memory limit",
        mount->volume);
    nx_finding_advise(f, "set its sizeLimit");
  } else if (mount->size_limit_bytes.value > limit) {
    struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_VOLUME_ABOVE_LIMIT, m->place);
    nx_finding_say(
        f, "volume %.63s is memory with a sizeLimit of %.1f MiB, and the memory limit is %.1f: its files count in it",
        mount->volume, nx_in_mib(mount->size_limit_bytes.value), nx_in_mib(limit));
    nx_finding_advise(f, "a sizeLimit that leaves room for the process and an instance");
  }
}

static void check_sum(const struct nx_manifest *m, const struct nx_config *c, uint64_t sum, unsigned count,
                      struct nx_findings *findings) {
  struct nx_config_fit fit = nx_config_get_fit(c);
  uint64_t instance = nx_config_fit_instance_bytes(&fit),
           left = nx_minus_u64(c->budget_bytes, fit.process_bytes + instance);
  if (sum <= left) return;
  struct nx_finding *f = nx_manifest_add_finding(findings, NX_MANIFEST_VOLUMES_TOO_LARGE, m->place);
  nx_finding_say(
      f,
      "volumes of memory can grow to %.1f MiB; with reserve (%.1f), process (%.1f) and one instance (%.1f) that is "
      "more than the limit of %.1f",
      nx_in_mib(sum), nx_in_mib(c->limit_bytes - c->budget_bytes), nx_in_mib(fit.process_bytes),
      nx_in_mib(instance), nx_in_mib(c->limit_bytes));
  if (count == 1) nx_finding_change(f, NX_PLAN_SET_SIZE_LIMIT, left / NX_MIB * NX_MIB);
  nx_finding_advise_changes(f);
}

void nx__check_volumes(const struct nx_manifest *m, const struct nx_config *config, struct nx_findings *findings) {
  uint64_t sum = 0;
  unsigned count = 0;
  bool above = false;
  check_cache(m, config, findings);
  for (size_t i = 0; i < m->mount_count; i++) {
    const struct nx_manifest_mount *mount = &m->mounts[i];
    if (mount->medium != NX_MANIFEST_MEMORY || !is_first_of_volume(m, i)) continue;
    uint64_t limit = m->memory.has_limit ? m->memory.limit : UINT64_MAX;
    check_volume(m, mount, limit, findings);
    above |= mount->size_limit_bytes.value > limit;
    sum = nx_min_u64(sum + mount->size_limit_bytes.value, UINT64_MAX / 2);
    count++;
  }
  if (count && !above && config->limit_bytes) check_sum(m, config, sum, count, findings);
}
