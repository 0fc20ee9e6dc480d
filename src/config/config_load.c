/* SPDX-License-Identifier: Apache-2.0
 * Defaults, environment, flags, and what must hold between settings. */
#include "config/config_internal.h"

#include <string.h>

struct loader {
  struct nx_config *config;
  struct nx_buf *problems;
  unsigned wrong;
  bool bad[NX_SETTING_COUNT]; /* reported already; says nothing about the others */
};

/* Starts a line of `problems` with how the value was given: NAME or --name. */
static void begin_problem(struct loader *l, const struct nx__setting *s, enum nx_config_source source) {
  l->wrong++;
  l->bad[s - nx__settings] = true;
  if (source != NX_CONFIG_FROM_FLAG) {
    nx_buf_str(l->problems, s->name);
    return;
  }
  nx_buf_lit(l->problems, "--");
  nx__setting_add_flag(s, l->problems);
}

/* ="value", escaped and cut; secrets and what may hold a password are only measured. */
static void add_given(struct loader *l, const struct nx__setting *s, const char *text) {
  enum { SHOWN = 64 };
  size_t len = strlen(text);
  if (s->kind == NX__KIND_KEY || (s->kind == NX__KIND_STORE && strchr(text, '@'))) {
    nx_buf_printf(l->problems, " (%zu characters, not shown)", len);
    return;
  }
  nx_buf_char(l->problems, '=');
  nx_buf_json_string(l->problems, text, len < SHOWN ? len : SHOWN);
  if (len > SHOWN) nx_buf_lit(l->problems, "…");
}

static void set_state(struct loader *l, const struct nx__setting *s, enum nx_config_state state) {
  memset((char *)l->config + s->offset, 0, s->size);
  l->config->state[s - nx__settings] = state;
}

static void set(struct loader *l, const struct nx__setting *s, enum nx_config_source source, const char *text) {
  size_t index = (size_t)(s - nx__settings);
  const char *word = nx__setting_word_text(s);
  l->config->source[index] = source;
  l->config->text[index] = text;
  if ((word && !strcmp(text, word)) || (!*text && s->word == NX__WORD_NONE)) {
    set_state(l, s, s->word == NX__WORD_AUTO ? NX_CONFIG_AUTO : NX_CONFIG_ABSENT);
  } else if (nx__setting_parse(s, l->config, text)) {
    l->config->state[index] = NX_CONFIG_VALUE;
  } else {
    begin_problem(l, s, source);
    add_given(l, s, text);
    nx_buf_lit(l->problems, ": expected ");
    nx__setting_add_allowed(s, l->problems);
    nx_buf_char(l->problems, '\n');
  }
}

static const char *find_variable(char *const *environment, const char *name) {
  size_t len = strlen(name);
  for (; environment && *environment; environment++)
    if (!strncmp(*environment, name, len) && (*environment)[len] == '=') return *environment + len + 1;
  return NULL;
}

/* The setting whose flag is the `len` bytes at `flag`, without dashes in front. */
static const struct nx__setting *find_flag(const char *flag, size_t len) {
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    NX_BUF_AUTO name = {0};
    nx__setting_add_flag(&nx__settings[i], &name);
    if (!name.failed && name.len == len && !memcmp(name.data, flag, len)) return &nx__settings[i];
  }
  return NULL;
}

static void add_argument_problem(struct loader *l, const char *argument, size_t len, const char *what) {
  enum { SHOWN = 64 };
  l->wrong++;
  nx_buf_json_string(l->problems, argument, len < SHOWN ? len : SHOWN);
  nx_buf_printf(l->problems, ": %s\n", what);
}

static void load_flags(struct loader *l, int argc, char *const *argv) {
  for (int i = 0; i < argc; i++) {
    const char *argument = argv[i];
    if (strncmp(argument, "--", 2) || !argument[2]) {
      add_argument_problem(l, argument, strlen(argument), "unexpected argument; settings are given as --name=value");
      continue;
    }
    size_t len = strcspn(argument, "=");
    const struct nx__setting *s = find_flag(argument + 2, len - 2);
    if (!s)
      add_argument_problem(l, argument, len, "unknown flag; `nexus config` lists the settings");
    else if (argument[len])
      set(l, s, NX_CONFIG_FROM_FLAG, argument + len + 1);
    else if (i + 1 < argc)
      set(l, s, NX_CONFIG_FROM_FLAG, argv[++i]);
    else
      add_argument_problem(l, argument, len, "the value is missing");
  }
}

static void require_key(struct loader *l, const char *because) {
  begin_problem(l, &nx__settings[NX_SETTING_SUSPEND_KEY], NX_CONFIG_FROM_ENVIRONMENT);
  nx_buf_printf(l->problems, ": expected 64 hexadecimal digits, because %s\n", because);
}

/* What must hold between settings that are right one by one. */
static void check_together(struct loader *l) {
  const struct nx_config *c = l->config;
  if (!l->bad[NX_SETTING_PORT] && !l->bad[NX_SETTING_ADMIN_PORT] && c->admin_port && c->admin_port == c->port) {
    begin_problem(l, &nx__settings[NX_SETTING_ADMIN_PORT], c->source[NX_SETTING_ADMIN_PORT]);
    nx_buf_printf(l->problems, "=\"%u\": expected a port other than PORT\n", c->admin_port);
  }
  if (l->bad[NX_SETTING_SUSPEND_KEY] || c->state[NX_SETTING_SUSPEND_KEY] == NX_CONFIG_VALUE) return;
  if (!l->bad[NX_SETTING_SUSPEND_STORE] && c->suspend_store.kind != NX_SUSPEND_MEMORY)
    require_key(l, "SUSPEND_STORE is not memory");
  else if (c->state[NX_SETTING_SUSPEND_KEY_PREVIOUS] == NX_CONFIG_VALUE)
    require_key(l, "SUSPEND_KEY_PREVIOUS is set");
}

int nx_config_load(struct nx_config *config, char *const *environment, int argc, char *const *argv,
                   struct nx_buf *problems, struct nx_error *err) {
  *config = (struct nx_config){0};
  struct loader l = {.config = config, .problems = problems};
  for (size_t i = 0; i < NX_SETTING_COUNT; i++) {
    set(&l, &nx__settings[i], NX_CONFIG_FROM_DEFAULT, nx__settings[i].initial);
    const char *text = find_variable(environment, nx__settings[i].name);
    if (text) set(&l, &nx__settings[i], NX_CONFIG_FROM_ENVIRONMENT, text);
  }
  load_flags(&l, argc, argv);
  check_together(&l);
  if (!l.wrong) return 0;
  return nx_error_set(err, NX_ERR_CONFIG, "%u %s of the configuration %s wrong", l.wrong,
                      l.wrong == 1 ? "part" : "parts", l.wrong == 1 ? "is" : "are");
}
