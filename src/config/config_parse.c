/* SPDX-License-Identifier: Apache-2.0
 * One value from its text. Strict: digits only, no sign, no blank, nothing behind, no overflow. */
#include "config/config_internal.h"

#include <string.h>

#include <arpa/inet.h>

/* The digits at `text`; false when there are none or too many. `end` is the first byte behind. */
static bool parse_digits(const char *text, uint64_t *value, const char **end) {
  uint64_t sum = 0;
  const char *c = text;
  for (; *c >= '0' && *c <= '9'; c++)
    if (__builtin_mul_overflow(sum, 10u, &sum) || __builtin_add_overflow(sum, (uint64_t)(*c - '0'), &sum)) return false;
  *value = sum;
  *end = c;
  return c != text;
}

static bool parse_whole(const char *text, uint64_t least, uint64_t most, uint64_t *value) {
  const char *end;
  return parse_digits(text, value, &end) && !*end && *value >= least && *value <= most;
}

static bool parse_number(const struct nx__setting *s, struct nx_config *config, const char *text) {
  uint64_t value;
  if (!parse_whole(text, s->least, s->most, &value)) return false;
  nx__setting_put_number(s, config, value * s->scale);
  return true;
}

static bool parse_size(const struct nx__setting *s, struct nx_config *config, const char *text) {
  static const struct { const char *suffix; uint64_t bytes; } units[] = {
    {"", 1}, {"Ki", UINT64_C(1) << 10}, {"Mi", UINT64_C(1) << 20}, {"Gi", UINT64_C(1) << 30}, {"Ti", UINT64_C(1) << 40},
    {"k", 1000}, {"M", 1000000}, {"G", 1000000000}};
  uint64_t value;
  const char *end;
  if (!parse_digits(text, &value, &end)) return false;
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(end, units[i].suffix)) continue;
    if (__builtin_mul_overflow(value, units[i].bytes, &value) || value < s->least || value > s->most) return false;
    nx__setting_put_number(s, config, value);
    return true;
  }
  return false;
}

static bool parse_choice(const struct nx__setting *s, struct nx_config *config, const char *text) {
  size_t len = strlen(text);
  uint64_t index = 0;
  for (const char *word = s->unit;; index++) {
    size_t bytes = strcspn(word, "|");
    if (bytes == len && !memcmp(word, text, len)) {
      nx__setting_put_number(s, config, index);
      return true;
    }
    if (!word[bytes]) return false;
    word += bytes + 1;
  }
}

static bool is_printable(const char *text, uint64_t least, uint64_t most) {
  size_t len = strlen(text);
  if (len < least || len > most) return false;
  for (; *text; text++)
    if ((unsigned char)*text < ' ' || *text == 0x7f) return false;
  return true;
}

static bool parse_text(const struct nx__setting *s, struct nx_config *config, const char *text) {
  if (!is_printable(text, s->least, s->most)) return false;
  memcpy((char *)config + s->offset, &text, sizeof text);
  return true;
}

static bool parse_address(const struct nx__setting *s, struct nx_config *config, const char *text) {
  struct in6_addr address;
  if (inet_pton(AF_INET, text, &address) != 1 && inet_pton(AF_INET6, text, &address) != 1) return false;
  return parse_text(s, config, text);
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_key(const struct nx__setting *s, struct nx_config *config, const char *text) {
  uint8_t key[32];
  if (strlen(text) != 2 * sizeof key) return false;
  for (size_t i = 0; i < sizeof key; i++) {
    int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    key[i] = (uint8_t)(high << 4 | low);
  }
  memcpy((char *)config + s->offset, key, sizeof key);
  return true;
}

/* HOST, HOST:PORT, [IPv6] or [IPv6]:PORT; leaves `rest` behind the host. */
static bool parse_redis_host(const char *text, struct nx_suspend_store *store, const char **rest) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
  bool bracket = *text == '[';
  if (bracket) text++;
  size_t len = bracket ? strcspn(text, "]") : strspn(text, letters);
  if (!len || len >= sizeof store->redis_host || (bracket && !text[len])) return false;
  memcpy(store->redis_host, text, len);
  store->redis_host[len] = 0;
  *rest = text + len + bracket;
  struct in6_addr address;
  return !bracket || inet_pton(AF_INET6, store->redis_host, &address) == 1;
}

/* The `len` bytes at `text` with each %XX as the byte it stands for. No byte is NUL, and "@/:" are always escaped. */
static bool decode_url_part(const char *text, size_t len, char *out, size_t out_size) {
  size_t used = 0;
  for (size_t i = 0; i < len; i++) {
    int byte = (unsigned char)text[i];
    if (byte == '%') {
      if (len - i < 3) return false;
      int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0 || !(high | low)) return false;
      byte = high << 4 | low;
      i += 2;
    } else if (strchr("@/:", byte)) {
      return false;
    }
    if (used + 1 >= out_size) return false;
    out[used++] = (char)byte;
  }
  out[used] = 0;
  return true;
}

/* [USER]:PASSWORD@, when there is one; leaves `rest` behind. */
static bool parse_redis_login(const char *text, struct nx_suspend_store *store, const char **rest) {
  const char *at = strchr(text, '@');
  *rest = at ? at + 1 : text;
  if (!at) return true;
  const char *colon = memchr(text, ':', (size_t)(at - text));
  return colon && colon + 1 < at &&
         decode_url_part(text, (size_t)(colon - text), store->redis_user, sizeof store->redis_user) &&
         decode_url_part(colon + 1, (size_t)(at - colon - 1), store->redis_password, sizeof store->redis_password);
}

static bool parse_redis(const char *text, struct nx_suspend_store *store) {
  const char *rest;
  uint64_t number;
  *store = (struct nx_suspend_store){.kind = NX_SUSPEND_REDIS, .redis_port = 6379};
  if (!parse_redis_login(text, store, &text)) return false;
  if (!parse_redis_host(text, store, &rest)) return false;
  if (*rest == ':') {
    if (!parse_digits(rest + 1, &number, &rest) || number < 1 || number > 65535) return false;
    store->redis_port = (uint16_t)number;
  }
  if (*rest == '/' && rest[1]) {
    if (!parse_whole(rest + 1, 0, 1000000, &number)) return false;
    store->redis_db = (unsigned)number;
    return true;
  }
  return !*rest || !strcmp(rest, "/");
}

static bool parse_store(const struct nx__setting *s, struct nx_config *config, const char *text) {
  struct nx_suspend_store store = {0};
  if (!is_printable(text, s->least, s->most)) return false;
  if (!strcmp(text, "sealed")) {
    store.kind = NX_SUSPEND_SEALED;
  } else if (!strncmp(text, "file:", 5) && text[5]) {
    store.kind = NX_SUSPEND_FILE;
    store.dir = text + 5;
  } else if (!strncmp(text, "redis://", 8)) {
    if (!parse_redis(text + 8, &store)) return false;
  } else if (strcmp(text, "memory")) {
    return false;
  }
  config->suspend_store = store;
  return true;
}

bool nx__setting_parse(const struct nx__setting *setting, struct nx_config *config, const char *text) {
  static bool (*const parsers[])(const struct nx__setting *, struct nx_config *, const char *) = {
    [NX__KIND_NUMBER] = parse_number, [NX__KIND_SIZE] = parse_size,       [NX__KIND_CHOICE] = parse_choice,
    [NX__KIND_PATH] = parse_text,     [NX__KIND_TEXT] = parse_text,       [NX__KIND_ADDRESS] = parse_address,
    [NX__KIND_STORE] = parse_store,   [NX__KIND_KEY] = parse_key};
  return parsers[setting->kind](setting, config, text);
}
