/* SPDX-License-Identifier: Apache-2.0
 *
 * Fields of objects, by type. Used within manifest/ only.
 * Ownership: borrows names, nodes and the error; strings belong to the tree.
 * Threads:   one at a time.
 * Errors:    sticky: the first field that is not of its type fills `err` with place, name, what was expected and what
 *            stands there; from then on everything is missing. A missing field is no error.
 * Limits:    lists that are walked have at most NX__ITEMS_MAX items. Aliases multiply what a small file says, and references
 *            are looked up one by one, so what is looked at is counted in all: NX__WALK_MAX. */
#ifndef NX_MANIFEST_READER_H
#define NX_MANIFEST_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "manifest/yaml.h"

#define NX__ITEMS_MAX 1000u
#define NX__WALK_MAX 10000000u

struct nx__reader {
  const char *name; /* of the file */
  struct nx_error *err;
  int failed; /* 0, or the negative code */
  size_t walked;
};

/* To be called before each step of a loop over what a file says, with what the step looks at. False when it has failed, or
 * is too much. */
bool nx__read_steps(struct nx__reader *r, const struct nx_yaml *node, size_t count);

void nx__read_fail(struct nx__reader *r, const struct nx_yaml *node, const char *what, const char *expected);
void nx__read_no_memory(struct nx__reader *r);

/* `map` may be NULL everywhere: then nothing is there. */
const struct nx_yaml *nx__read_map(struct nx__reader *r, const struct nx_yaml *map, const char *key);
const struct nx_yaml *nx__read_list(struct nx__reader *r, const struct nx_yaml *map, const char *key);
/* Item i of a list, which must be a map; NULL past the end. */
const struct nx_yaml *nx__read_item(struct nx__reader *r, const struct nx_yaml *list, size_t i);
const char *nx__read_text(struct nx__reader *r, const struct nx_yaml *map, const char *key);
const char *nx__read_text_of(struct nx__reader *r, const struct nx_yaml *node, const char *what);
bool nx__read_bool(struct nx__reader *r, const struct nx_yaml *map, const char *key); /* false when missing */
/* False when missing; `value` is then as it was. */
bool nx__read_number(struct nx__reader *r, const struct nx_yaml *map, const char *key, uint64_t least, uint64_t most,
                     uint64_t *value);
bool nx__read_quantity(struct nx__reader *r, const struct nx_yaml *map, const char *key, unsigned scale, uint64_t *value);
/* IntOrString: a number, or *text. False when missing. */
bool nx__read_number_or_text(struct nx__reader *r, const struct nx_yaml *map, const char *key, uint64_t most,
                             uint64_t *value, const char **text);

#endif
