/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/grants.h"

#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

enum field { CAPABILITIES, EXTENSIONS, TIMEOUT_MS, MEMORY_LIMIT_MB, FIELDS };

static const char *const field_names[FIELDS] = {
  [CAPABILITIES] = "capabilities",
  [EXTENSIONS] = "extensions",
  [TIMEOUT_MS] = "timeoutMs",
  [MEMORY_LIMIT_MB] = "memoryLimitMb",
};

static int read_fields(yyjson_val *root, yyjson_val *fields[FIELDS], struct nx_error *err) {
  if (!yyjson_is_obj(root)) return nx_error_set(err, NX_ERR_INVALID, "grants must be a JSON object");
  yyjson_obj_iter iter = yyjson_obj_iter_with(root);
  for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
    size_t field = 0;
    while (field < FIELDS && !yyjson_equals_str(key, field_names[field])) field++;
    if (field == FIELDS)
      return nx_error_set(err, NX_ERR_INVALID,
                          "unknown field '%.64s': grants hold capabilities, extensions, timeoutMs and memoryLimitMb",
                          yyjson_get_str(key));
    if (fields[field]) return nx_error_set(err, NX_ERR_INVALID, "%s: is given twice", field_names[field]);
    fields[field] = yyjson_obj_iter_get_val(key);
  }
  return 0;
}

static int read_number(uint32_t *out, yyjson_val *value, enum field field, uint32_t most, struct nx_error *err) {
  if (!value) return 0;
  double number = yyjson_is_num(value) ? yyjson_get_num(value) : 0; /* 5.0 is a whole number too */
  if (!(number >= 1 && number <= most) || (double)(uint32_t)number != number)
    return nx_error_set(err, NX_ERR_INVALID, "%s: must be a whole number from 1 to %u", field_names[field], most);
  *out = (uint32_t)number;
  return 0;
}

static int fill(struct nx_grants *grants, yyjson_val *root, struct nx_error *err) {
  yyjson_val *fields[FIELDS] = {0};
  int status = read_fields(root, fields, err);
  if (!status)
    status = read_number(&grants->timeout_ms, fields[TIMEOUT_MS], TIMEOUT_MS, NX_GRANTS_MAX_TIMEOUT_MS, err);
  if (!status)
    status = read_number(&grants->memory_limit_mb, fields[MEMORY_LIMIT_MB], MEMORY_LIMIT_MB, NX_GRANTS_MAX_MEMORY_MB,
                         err);
  if (!status) status = nx_capabilities_parse(&grants->capabilities, fields[CAPABILITIES], fields[EXTENSIONS], err);
  return status;
}

int nx_grants_parse(struct nx_grants **out, const char *json, size_t bytes, struct nx_error *err) {
  if (bytes > NX_GRANTS_MAX_BYTES)
    return nx_error_set(err, NX_ERR_TOO_LARGE, "grants of %zu bytes are larger than the %zu allowed", bytes,
                        NX_GRANTS_MAX_BYTES);
  yyjson_read_err fault;
  /* The text is not written to without YYJSON_READ_INSITU. */
  yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)json, bytes, 0, NULL, &fault);
  if (!doc && fault.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
    return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to read grants");
  if (!doc) return nx_error_set(err, NX_ERR_INVALID, "grants are not JSON: %s at byte %zu", fault.msg, fault.pos);
  struct nx_grants *grants = calloc(1, sizeof *grants);
  int status = grants ? 0 : nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for grants");
  if (grants) {
    grants->_refs = 1;
    status = fill(grants, yyjson_doc_get_root(doc), err);
  }
  yyjson_doc_free(doc);
  if (status)
    nx_grants_release(grants);
  else
    *out = grants;
  return status;
}

static void write_number(struct nx_buf *out, bool *comma, enum field field, uint32_t value) {
  if (!value) return;
  nx_buf_printf(out, "%s\"%s\":%u", *comma ? "," : "", field_names[field], value);
  *comma = true;
}

void nx_grants_write(const struct nx_grants *grants, struct nx_buf *out) {
  nx_buf_char(out, '{');
  bool comma = nx_capabilities_write(&grants->capabilities, out);
  write_number(out, &comma, TIMEOUT_MS, grants->timeout_ms);
  write_number(out, &comma, MEMORY_LIMIT_MB, grants->memory_limit_mb);
  nx_buf_char(out, '}');
}

struct nx_grants *nx_grants_hold(struct nx_grants *grants) {
  if (grants) atomic_fetch_add_explicit(&grants->_refs, 1, memory_order_relaxed);
  return grants;
}

void nx_grants_release(struct nx_grants *grants) {
  if (!grants || atomic_fetch_sub_explicit(&grants->_refs, 1, memory_order_acq_rel) != 1) return;
  nx_capabilities_deinit(&grants->capabilities);
  free(grants);
}
