/* SPDX-License-Identifier: Apache-2.0
 * The configuration for people and programs, and its reference page. */
#include "config/config_internal.h"

#include <string.h>

#include "base/fs.h"

static const char *const source_names[] = {"default", "environment", "flag"};

static bool is_number(const struct nx__setting *s) { return s->kind == NX__KIND_NUMBER || s->kind == NX__KIND_SIZE; }

static void add_choice(const struct nx__setting *s, uint64_t index, struct nx_buf *out) {
  const char *word = s->unit;
  for (; index; index--) word += strcspn(word, "|") + 1;
  nx_buf_add(out, word, strcspn(word, "|"));
}

/* As written, but without user and password. */
static void add_store(const struct nx_config *config, struct nx_buf *out) {
  const char *text = config->text[NX_SETTING_SUSPEND_STORE];
  if (!*config->suspend_store.redis_password) {
    nx_buf_str(out, text);
    return;
  }
  nx_buf_lit(out, "redis://(set)");
  nx_buf_str(out, strchr(text, '@'));
}

/* The value of a setting that has one. */
static void add_value(const struct nx_config *config, const struct nx__setting *s, struct nx_buf *out) {
  uint64_t number = s->size <= sizeof number ? nx__setting_get_number(s, config) : 0;
  switch (s->kind) {
  case NX__KIND_NUMBER: nx_buf_u64(out, number / s->scale); break;
  case NX__KIND_SIZE: nx__add_size(out, number); break;
  case NX__KIND_CHOICE: add_choice(s, number, out); break;
  case NX__KIND_KEY: nx_buf_lit(out, "(set)"); break;
  case NX__KIND_STORE: add_store(config, out); break;
  default: nx_buf_str(out, config->text[s - nx__settings]); break;
  }
}

static void add_text_value(const struct nx_config *config, size_t i, struct nx_buf *out) {
  const struct nx__setting *s = &nx__settings[i];
  if (config->state[i] == NX_CONFIG_VALUE) {
    add_value(config, s, out);
    return;
  }
  nx_buf_str(out, nx__setting_word_text(s));
  if (config->state[i] != NX_CONFIG_DERIVED) return;
  nx_buf_lit(out, " (");
  add_value(config, s, out);
  nx_buf_char(out, ')');
}

void nx_config_print_text(const struct nx_config *config, struct nx_buf *out) {
  enum { NAME_WIDTH = 24, VALUE_WIDTH = 24 };
  nx_buf_printf(out, "%-*s %-*s %s\n", NAME_WIDTH, "NAME", VALUE_WIDTH, "VALUE", "SOURCE");
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    NX_BUF_AUTO value = {0};
    add_text_value(config, i, &value);
    if (value.failed) out->failed = true;
    nx_buf_printf(out, "%-*s %-*.*s %s\n", NAME_WIDTH, nx__settings[i].name, VALUE_WIDTH, (int)value.len,
                  value.data ? value.data : "", source_names[config->source[i]]);
  }
}

static void add_json_value(const struct nx_config *config, size_t i, struct nx_buf *out) {
  const struct nx__setting *s = &nx__settings[i];
  if (config->state[i] == NX_CONFIG_ABSENT || config->state[i] == NX_CONFIG_AUTO) {
    nx_buf_lit(out, "null");
  } else if (is_number(s)) {
    nx_buf_u64(out, nx__setting_get_number(s, config) / s->scale);
  } else {
    NX_BUF_AUTO value = {0};
    add_value(config, s, &value);
    if (value.failed) out->failed = true;
    nx_buf_json_string(out, value.data ? value.data : "", value.len);
  }
}

void nx_config_print_json(const struct nx_config *config, struct nx_buf *out) {
  nx_buf_lit(out, "{\"settings\":[");
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    bool derived = config->state[i] == NX_CONFIG_AUTO || config->state[i] == NX_CONFIG_DERIVED;
    nx_buf_printf(out, "%s{\"name\":\"%s\",\"value\":", i ? "," : "", nx__settings[i].name);
    add_json_value(config, i, out);
    nx_buf_printf(out, ",\"unit\":\"%s\",\"source\":\"%s\",\"auto\":%s}", nx__settings[i].unit,
                  source_names[config->source[i]], derived ? "true" : "false");
  }
  nx_buf_lit(out, "]}\n");
}

static const char docs_head[] =
  "# Configuration\n"
  "\n"
  "<!-- Generated from src/config/config_list.h; do not edit. -->\n"
  "\n"
  "Every setting is an environment variable and a flag of `nexus serve`; a flag wins over the variable. All settings\n"
  "are checked at the start: one that does not parse or is out of bounds stops it, and everything that is wrong is\n"
  "reported at once. Numbers are plain digits in the unit given. `nexus config` prints the settings in force and\n"
  "where each comes from.\n"
  "\n"
  "`auto` is worked out from the container's limits at the start; `nexus config` shows the result in parentheses. The\n"
  "*budget* is the container's memory less `MEMORY_RESERVE_PERCENT`. An empty value is an error, except for\n";

static const char docs_tail[] =
  "\n"
  "Prefer the environment for `SUSPEND_KEY`, `SUSPEND_KEY_PREVIOUS` and a `SUSPEND_STORE` with a password: flags can be\n"
  "read by every process of the same container (`/proc/PID/cmdline`). `nexus config` shows the keys, and user and\n"
  "password, as `(set)`. In them, characters that mean something in a URL are written `%XX` (`%40` for `@`).\n";

/* "`A`, `B` and `C`, where it means `none`." */
static void add_empty_rule(struct nx_buf *out) {
  size_t left = 0;
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) left += nx__settings[i].word == NX__WORD_NONE;
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    if (nx__settings[i].word != NX__WORD_NONE) continue;
    left--;
    nx_buf_printf(out, "`%s`%s", nx__settings[i].name, left > 1 ? ", " : left == 1 ? " and " : "");
  }
  nx_buf_lit(out, ", where it means `none`.\n");
}

static void add_docs_row(const struct nx__setting *s, struct nx_buf *out) {
  nx_buf_printf(out, "| `%s`<br>`--", s->name);
  nx__setting_add_flag(s, out);
  nx_buf_printf(out, "` | `%s` | %s | ", s->initial, is_number(s) ? s->unit : "");
  nx__setting_add_allowed(s, out);
  nx_buf_printf(out, " | %s |\n", s->meaning);
}

int nx_config_write_docs(FILE *file, struct nx_error *err) {
  NX_BUF_AUTO out = {0};
  nx_buf_str(&out, docs_head);
  add_empty_rule(&out);
  nx_buf_lit(&out, "\n| setting | default | unit | allowed | meaning |\n|---|---|---|---|---|\n");
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) add_docs_row(&nx__settings[i], &out);
  nx_buf_str(&out, docs_tail);
  return nx_fs_print(file, &out, "the configuration page", err);
}
