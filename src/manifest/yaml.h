/* SPDX-License-Identifier: Apache-2.0
 *
 * YAML as a tree, as far as rendered Kubernetes manifests use it: documents of maps with plain keys, lists and scalars,
 * in UTF-8. What a plain scalar is follows the rules of kubectl's parser (YAML 1.1: yes and on are booleans).
 *
 * Ownership: a zeroed set is empty; its nodes live until nx_yaml_deinit. An alias is the node of its anchor, not a copy.
 * Threads:   one at a time.
 * Errors:    -NX_ERR_INVALID with "NAME:LINE:COLUMN: " in front; -NX_ERR_NO_MEMORY. On failure the set is empty.
 * Limits:    the text is not trusted: NX_YAML_TEXT_MAX bytes, nodes NX_YAML_NODES_MAX, NX_YAML_DEPTH_MAX levels,
 *            NX_YAML_ALIASES_MAX anchors and aliases. Refused, because kubectl writes none of it: tags, merge keys (<<),
 *            keys that are not scalars, NUL in strings; and the same key twice. */
#ifndef NX_MANIFEST_YAML_H
#define NX_MANIFEST_YAML_H

#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"

#define NX_YAML_TEXT_MAX ((size_t)16 << 20)
#define NX_YAML_NODES_MAX ((size_t)1 << 20)
#define NX_YAML_DEPTH_MAX 200u
#define NX_YAML_ALIASES_MAX 1000u

enum nx_yaml_type { NX_YAML_NULL, NX_YAML_BOOL, NX_YAML_NUMBER, NX_YAML_STRING, NX_YAML_LIST, NX_YAML_MAP };

struct nx_yaml_pair;

struct nx_yaml {
  enum nx_yaml_type type;
  unsigned line, column; /* from 1 */
  const char *text;      /* of a scalar, as written; ends with NUL and has no other */
  size_t count;          /* of items, of pairs */
  const struct nx_yaml **items;
  struct nx_yaml_pair *pairs; /* by key */
};

struct nx_yaml_pair {
  const struct nx_yaml *key, *value;
};

struct nx_yaml_set {
  const struct nx_yaml **documents; /* empty ones are left out */
  size_t count;
  struct nx_arena _arena;
};

/* `name` stands in messages. */
int nx_yaml_parse(struct nx_yaml_set *set, const char *name, const char *text, size_t bytes, struct nx_error *err);
void nx_yaml_deinit(struct nx_yaml_set *set);

/* NULL when the map has no such key, or has null there. */
const struct nx_yaml *nx_yaml_find(const struct nx_yaml *map, const char *key);

#endif
