/* SPDX-License-Identifier: Apache-2.0 */
#include "suspend/record.h"

#include <assert.h>
#include <string.h>

static_assert(sizeof(struct nx_record_fixed) == 8 + 16 + 16 + 3 * NX_HASH_BYTES + 8 * 4 + 4 * 12, "written to stores");

void nx_record_encode(const struct nx_record *record, struct nx_buf *out) {
  uint32_t lengths[NX_RECORD_SECTIONS];
  uint64_t total = sizeof record->fixed + sizeof lengths;
  for (int i = 0; i < NX_RECORD_SECTIONS; i++) {
    lengths[i] = (uint32_t)record->sections[i].size;
    total += lengths[i];
  }
  if (!nx_buf_reserve(out, total)) return;
  nx_buf_add(out, &record->fixed, sizeof record->fixed);
  nx_buf_add(out, lengths, sizeof lengths);
  for (int i = 0; i < NX_RECORD_SECTIONS; i++) nx_buf_add(out, record->sections[i].data, lengths[i]);
}

int nx_record_decode(struct nx_record *out, const void *bytes, size_t size, struct nx_error *err) {
  uint32_t lengths[NX_RECORD_SECTIONS];
  const size_t head = sizeof out->fixed + sizeof lengths;
  if (size < head) return nx_error_set(err, NX_ERR_INVALID, "the suspended execution is cut short");
  memcpy(&out->fixed, bytes, sizeof out->fixed);
  memcpy(lengths, (const char *)bytes + sizeof out->fixed, sizeof lengths);
  if (out->fixed.version != NX_RECORD_VERSION)
    return nx_error_set(err, NX_ERR_INVALID, "the suspended execution has format %u, this nexus reads format %u",
                        out->fixed.version, NX_RECORD_VERSION);
  const char *at = (const char *)bytes + head, *end = (const char *)bytes + size;
  for (int i = 0; i < NX_RECORD_SECTIONS; i++) {
    if (lengths[i] > (size_t)(end - at)) return nx_error_set(err, NX_ERR_INVALID, "the suspended execution is damaged");
    out->sections[i] = (struct nx_bytes){at, lengths[i]};
    at += lengths[i];
  }
  if (at != end) return nx_error_set(err, NX_ERR_INVALID, "the suspended execution is damaged");
  return 0;
}
