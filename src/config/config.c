/* SPDX-License-Identifier: Apache-2.0
 * The table, and what is common to all settings of a kind. */
#include "config/config_internal.h"

#include <ctype.h>
#include <string.h>

const struct nx__setting nx__settings[NX_SETTING_COUNT] = {
#define X(NAME, field, kind_, scale_, unit_, word_, initial_, least_, most_, meaning_) \
  [NX_SETTING_##NAME] = {                                                              \
    .name = #NAME,                                                                     \
    .unit = unit_,                                                                     \
    .initial = initial_,                                                               \
    .meaning = meaning_,                                                               \
    .kind = NX__KIND_##kind_,                                                          \
    .word = NX__WORD_##word_,                                                          \
    .scale = scale_,                                                                   \
    .least = least_,                                                                   \
    .most = most_,                                                                     \
    .offset = offsetof(struct nx_config, field),                                       \
    .size = sizeof(((struct nx_config *)0)->field),                                    \
  },
  NX_SETTINGS(X)
#undef X
};

const char *nx_setting_name(enum nx_setting setting) { return nx__settings[setting].name; }

const char *nx__setting_word_text(const struct nx__setting *setting) {
  static const char *const texts[] = {[NX__WORD_AUTO] = "auto", [NX__WORD_OFF] = "off", [NX__WORD_NONE] = "none",
                                      [NX__WORD_NONE_SAID] = "none"};
  return texts[setting->word];
}

uint64_t nx__setting_get_number(const struct nx__setting *setting, const struct nx_config *config) {
  const char *field = (const char *)config + setting->offset;
  uint8_t one;
  uint16_t two;
  uint32_t four;
  uint64_t eight;
  switch (setting->size) {
  case 1: return memcpy(&one, field, 1), one;
  case 2: return memcpy(&two, field, 2), two;
  case 4: return memcpy(&four, field, 4), four;
  default: return memcpy(&eight, field, 8), eight;
  }
}

void nx__setting_put_number(const struct nx__setting *setting, struct nx_config *config, uint64_t value) {
  char *field = (char *)config + setting->offset;
  uint8_t one = (uint8_t)value;
  uint16_t two = (uint16_t)value;
  uint32_t four = (uint32_t)value;
  switch (setting->size) {
  case 1: memcpy(field, &one, 1); break;
  case 2: memcpy(field, &two, 2); break;
  case 4: memcpy(field, &four, 4); break;
  default: memcpy(field, &value, 8); break;
  }
}

void nx__setting_add_flag(const struct nx__setting *setting, struct nx_buf *out) {
  for (const char *c = setting->name; *c; c++) nx_buf_char(out, *c == '_' ? '-' : (char)tolower((unsigned char)*c));
}

void nx__add_size(struct nx_buf *out, uint64_t bytes) {
  static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti"};
  size_t unit = 0;
  while (bytes && bytes % 1024 == 0 && unit < 4) {
    bytes /= 1024;
    unit++;
  }
  nx_buf_u64(out, bytes);
  nx_buf_str(out, units[unit]);
}

/* "a|b|c" → "a, b or c" */
static void add_choices(struct nx_buf *out, const char *words) {
  for (const char *end; (end = strchr(words, '|')); words = end + 1) {
    nx_buf_add(out, words, (size_t)(end - words));
    nx_buf_str(out, strchr(end + 1, '|') ? ", " : " or ");
  }
  nx_buf_str(out, words);
}

void nx__setting_add_allowed(const struct nx__setting *s, struct nx_buf *out) {
  const char *word = nx__setting_word_text(s);
  if (word) nx_buf_printf(out, "%s or ", word);
  switch (s->kind) {
  case NX__KIND_NUMBER:
    nx_buf_printf(out, "a whole number from %llu to %llu", (unsigned long long)s->least, (unsigned long long)s->most);
    break;
  case NX__KIND_SIZE:
    nx_buf_lit(out, "bytes, or a whole number with Ki, Mi, Gi, Ti, k, M or G, from ");
    nx__add_size(out, s->least);
    nx_buf_lit(out, " to ");
    nx__add_size(out, s->most);
    break;
  case NX__KIND_CHOICE: add_choices(out, s->unit); break;
  case NX__KIND_PATH:
  case NX__KIND_TEXT:
    nx_buf_printf(out, "a %s of %llu to %llu bytes without control characters", s->unit,
                  (unsigned long long)s->least, (unsigned long long)s->most);
    break;
  case NX__KIND_ADDRESS: nx_buf_lit(out, "a numeric IPv4 or IPv6 address"); break;
  case NX__KIND_STORE: nx_buf_lit(out, "memory, file:DIR, redis://[[USER]:PASSWORD@]HOST:PORT/DB or sealed"); break;
  case NX__KIND_KEY: nx_buf_lit(out, "64 hexadecimal digits"); break;
  }
}
