/* SPDX-License-Identifier: Apache-2.0
 * The table of settings as the files of this module see it. */
#ifndef NX_CONFIG_INTERNAL_H
#define NX_CONFIG_INTERNAL_H

#include <stddef.h>

#include "config/config.h"

enum nx__setting_kind {
  NX__KIND_NUMBER,
  NX__KIND_SIZE,
  NX__KIND_CHOICE,
  NX__KIND_PATH,
  NX__KIND_TEXT,
  NX__KIND_ADDRESS,
  NX__KIND_STORE,
  NX__KIND_KEY,
};

enum nx__setting_word { NX__WORD_VALUE, NX__WORD_AUTO, NX__WORD_OFF, NX__WORD_NONE, NX__WORD_NONE_SAID };

struct nx__setting {
  const char *name;
  const char *unit; /* for CHOICE the words, separated by '|' */
  const char *initial;
  const char *meaning;
  enum nx__setting_kind kind;
  enum nx__setting_word word;
  uint64_t scale, least, most;
  size_t offset, size; /* of the field in struct nx_config */
};

extern const struct nx__setting nx__settings[NX_SETTING_COUNT];

/* "auto", "off", "none" or NULL. */
const char *nx__setting_word_text(const struct nx__setting *setting);
/* What is allowed, as it stands behind "expected". */
void nx__setting_add_allowed(const struct nx__setting *setting, struct nx_buf *out);
/* A number field of 1, 2, 4 or 8 bytes. */
uint64_t nx__setting_get_number(const struct nx__setting *setting, const struct nx_config *config);
void nx__setting_put_number(const struct nx__setting *setting, struct nx_config *config, uint64_t value);
/* The flag: lower case, dashes for underscores, without the leading "--". */
void nx__setting_add_flag(const struct nx__setting *setting, struct nx_buf *out);
/* Bytes in the largest binary unit that divides them: 1Gi, 1536Mi, 1000. */
void nx__add_size(struct nx_buf *out, uint64_t bytes);

/* A value into its field; false when it does not parse or is out of bounds. Words and the empty string are not its
 * business. `text` is borrowed for as long as `config`. */
bool nx__setting_parse(const struct nx__setting *setting, struct nx_config *config, const char *text);

#endif
