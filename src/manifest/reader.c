/* SPDX-License-Identifier: Apache-2.0 */
#include "manifest/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "manifest/quantity.h"

enum { SHOWN_BYTES = 40 };

/* What stands there, cut and without what a terminal would obey. */
static void add_found(struct nx_buf *out, const struct nx_yaml *node) {
  static const char *const types[] = {"nothing", "the boolean ", "the number ", "", "a list", "a map"};
  nx_buf_str(out, types[node->type]);
  if (!node->text || node->type == NX_YAML_NULL) return;
  nx_buf_json_string(out, node->text, strnlen(node->text, SHOWN_BYTES));
  if (strlen(node->text) > SHOWN_BYTES) nx_buf_lit(out, "…");
}

void nx__read_fail(struct nx__reader *r, const struct nx_yaml *node, const char *what, const char *expected) {
  if (r->failed) return;
  NX_BUF_AUTO found = {0};
  NX_BUF_AUTO field = {0};
  add_found(&found, node);
  nx_buf_json_string(&field, what, strnlen(what, SHOWN_BYTES));
  r->failed = nx_error_set(r->err, NX_ERR_INVALID, "%.80s:%u:%u: %.*s: expected %s, found %.*s", r->name, node->line,
                           node->column, (int)field.len, field.data, expected, (int)found.len, found.data);
}

void nx__read_no_memory(struct nx__reader *r) {
  if (!r->failed) r->failed = nx_error_set(r->err, NX_ERR_NO_MEMORY, "%.80s: no memory", r->name);
}

static const struct nx_yaml *find(const struct nx__reader *r, const struct nx_yaml *map, const char *key) {
  return map && !r->failed ? nx_yaml_find(map, key) : NULL;
}

static const struct nx_yaml *find_as(struct nx__reader *r, const struct nx_yaml *map, const char *key,
                                     enum nx_yaml_type type, const char *expected) {
  const struct nx_yaml *node = find(r, map, key);
  if (!node || node->type == type) return node;
  nx__read_fail(r, node, key, expected);
  return NULL;
}

const struct nx_yaml *nx__read_map(struct nx__reader *r, const struct nx_yaml *map, const char *key) {
  return find_as(r, map, key, NX_YAML_MAP, "a map");
}

const struct nx_yaml *nx__read_list(struct nx__reader *r, const struct nx_yaml *map, const char *key) {
  const struct nx_yaml *list = find_as(r, map, key, NX_YAML_LIST, "a list");
  if (!list || list->count <= NX__ITEMS_MAX) return list;
  nx__read_fail(r, list, key, "at most 1000 items");
  return NULL;
}

bool nx__read_steps(struct nx__reader *r, const struct nx_yaml *node, size_t count) {
  r->walked += count;
  if (r->walked > NX__WALK_MAX) nx__read_fail(r, node, "aliases and references", "a file that says less, over and over");
  return !r->failed;
}

const struct nx_yaml *nx__read_item(struct nx__reader *r, const struct nx_yaml *list, size_t i) {
  if (!list || i >= list->count || !nx__read_steps(r, list, 1)) return NULL;
  if (list->items[i]->type == NX_YAML_MAP) return list->items[i];
  nx__read_fail(r, list->items[i], "item of a list", "a map");
  return NULL;
}

const char *nx__read_text_of(struct nx__reader *r, const struct nx_yaml *node, const char *what) {
  if (r->failed) return NULL;
  if (node->type == NX_YAML_STRING) return node->text;
  nx__read_fail(r, node, what, "a string (numbers and booleans need quotes)");
  return NULL;
}

const char *nx__read_text(struct nx__reader *r, const struct nx_yaml *map, const char *key) {
  const struct nx_yaml *node = find(r, map, key);
  return node ? nx__read_text_of(r, node, key) : NULL;
}

bool nx__read_bool(struct nx__reader *r, const struct nx_yaml *map, const char *key) {
  const struct nx_yaml *node = find_as(r, map, key, NX_YAML_BOOL, "true or false");
  return node && (strchr("tTyY", node->text[0]) || !strcasecmp(node->text, "on"));
}

/* Plain decimal digits; 010 is 8 in YAML 1.1, and hardly meant. */
static bool parse_whole(const struct nx_yaml *node, uint64_t least, uint64_t most, uint64_t *value) {
  size_t digits = strspn(node->text, "0123456789");
  if (node->type != NX_YAML_NUMBER || !digits || digits > 18 || node->text[digits]) return false;
  if (digits > 1 && node->text[0] == '0') return false;
  *value = strtoull(node->text, NULL, 10);
  return *value >= least && *value <= most;
}

bool nx__read_number(struct nx__reader *r, const struct nx_yaml *map, const char *key, uint64_t least, uint64_t most,
                     uint64_t *value) {
  const struct nx_yaml *node = find(r, map, key);
  uint64_t number;
  if (!node) return false;
  if (node->type < NX_YAML_LIST && parse_whole(node, least, most, &number)) {
    *value = number;
    return true;
  }
  char expected[80];
  snprintf(expected, sizeof expected, "a whole number from %llu to %llu", (unsigned long long)least,
           (unsigned long long)most);
  nx__read_fail(r, node, key, expected);
  return false;
}

bool nx__read_quantity(struct nx__reader *r, const struct nx_yaml *map, const char *key, unsigned scale, uint64_t *value) {
  const struct nx_yaml *node = find(r, map, key);
  if (!node) return false;
  if ((node->type == NX_YAML_STRING || node->type == NX_YAML_NUMBER) && nx_quantity_parse(node->text, scale, value))
    return true;
  nx__read_fail(r, node, key,
                scale == 1 ? "a quantity of bytes, such as 256Mi, 1G or 1e9"
                           : "a quantity of cores, such as 250m or 0.5");
  return false;
}

bool nx__read_number_or_text(struct nx__reader *r, const struct nx_yaml *map, const char *key, uint64_t most,
                             uint64_t *value, const char **text) {
  const struct nx_yaml *node = find(r, map, key);
  *text = NULL;
  if (!node) return false;
  if (node->type == NX_YAML_NUMBER) return nx__read_number(r, map, key, 0, most, value);
  *text = nx__read_text_of(r, node, key);
  return *text != NULL;
}
