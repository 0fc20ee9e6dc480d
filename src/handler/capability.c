/* SPDX-License-Identifier: Apache-2.0
 *
 * A set is sorted, and freed of items that lie inside another's pattern. Then one binary search answers: every text
 * between a pattern P and a name that P matches begins with P itself, and was dropped; so the greatest item that is
 * not above the name is the only one that can match it. */
#include "handler/capability.h"

#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

/* Kinds of items beyond those of tokens. */
enum {
  KIND_METHOD = NX_CAP_KINDS, /* text = extension NUL method */
  KIND_EXTENSION,             /* text = a key of the extensions map; never asked for, kept for writing it back */
};
#define MAX_ITEMS (3 * NX_CAPABILITY_MAX_TOKENS)

struct nx__capability {
  const char *text; /* what follows the kind, without the '*'; not NUL-terminated, may hold any byte */
  uint16_t bytes;
  uint8_t kind;
  bool pattern; /* a '*' followed */
};

static const struct {
  const char *prefix;
  size_t bytes;
  const char *what; /* what must follow */
} kinds[NX_CAP_KINDS] = {
#define KIND(text, follows) {text, sizeof text - 1, follows}
  [NX_CAP_STATE_READ] = KIND("state:read:", "key"),
  [NX_CAP_STATE_WRITE] = KIND("state:write:", "key"),
  [NX_CAP_EVENTS_EMIT] = KIND("events:emit:", "event name"),
  [NX_CAP_VIEW_UPDATE] = KIND("view:update:", "component"),
  [NX_CAP_EXT] = KIND("ext:", "extension name"),
#undef KIND
};

/* ---- Collecting ------------------------------------------------------------------------------------------------- */

/* Texts still point into the caller's; a method's extension is kept apart until both are copied. */
struct draft {
  const char *extension;
  uint16_t extension_bytes;
  struct nx__capability item;
};

struct collection {
  size_t count, text_bytes;
  size_t methods;
  struct draft drafts[MAX_ITEMS];
};

/* Where in the request an item stands, for messages. */
struct place {
  const char *list;
  const char *key; /* NULL in a plain list */
  size_t key_bytes;
  size_t index;
};

/* Enough of a hostile text to recognise it: no control characters, cut between characters. */
struct excerpt {
  char text[64];
};

static struct excerpt excerpt_of(const char *text, size_t bytes) {
  struct excerpt out;
  size_t n = bytes < sizeof out.text - 4 ? bytes : sizeof out.text - 4;
  while (n < bytes && n && ((unsigned char)text[n] & 0xc0) == 0x80) n--;
  for (size_t i = 0; i < n; i++) out.text[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
  memcpy(out.text + n, n < bytes ? "..." : "", n < bytes ? 4 : 1);
  return out;
}

static int fault(struct nx_error *err, const struct place *at, const char *text, size_t bytes, const char *why) {
  struct excerpt key = excerpt_of(at->key, at->key ? at->key_bytes : 0), shown = excerpt_of(text, text ? bytes : 0);
  const char *quote = text ? "'" : "", *space = text ? " " : "";
  return nx_error_set(err, NX_ERR_INVALID, "%s%s%s[%zu]: %s%s%s%s%s", at->list, at->key ? "." : "", key.text,
                      at->index, quote, shown.text, quote, space, why);
}

/* `item` has its kind and whole text: takes the '*' off and checks what every pattern must keep to. */
static const char *pattern_fault(struct nx__capability *item) {
  const char *star = item->bytes ? memchr(item->text, '*', item->bytes) : NULL;
  item->pattern = star != NULL;
  if (!star) return item->bytes ? NULL : "names nothing";
  if (star != item->text + item->bytes - 1) return "has a '*' that is not at its end";
  item->bytes--;
  return NULL;
}

static void append(struct collection *all, const struct nx__capability *item, const char *extension,
                   uint16_t extension_bytes) {
  all->drafts[all->count++] = (struct draft){extension, extension_bytes, *item};
  all->text_bytes += (size_t)item->bytes + extension_bytes + 1;
}

static int add_token(struct collection *all, const struct place *at, const char *text, size_t bytes,
                     struct nx_error *err) {
  if (bytes > NX_CAPABILITY_MAX_BYTES) return fault(err, at, text, bytes, "is longer than 256 bytes");
  for (uint8_t kind = 0; kind < NX_CAP_KINDS; kind++) {
    size_t prefix = kinds[kind].bytes;
    if (bytes < prefix || memcmp(text, kinds[kind].prefix, prefix)) continue;
    struct nx__capability item = {.text = text + prefix, .bytes = (uint16_t)(bytes - prefix), .kind = kind};
    const char *why = pattern_fault(&item);
    if (why) return fault(err, at, text, bytes, why);
    append(all, &item, NULL, 0);
    return 0;
  }
  return fault(err, at, text, bytes,
               "is not a capability: it must be state:read:KEY, state:write:KEY, events:emit:NAME, "
               "view:update:COMPONENT or ext:NAME");
}

static int collect_tokens(struct collection *all, yyjson_val *tokens, struct nx_error *err) {
  if (!yyjson_is_arr(tokens)) return nx_error_set(err, NX_ERR_INVALID, "capabilities: must be a list of strings");
  if (yyjson_arr_size(tokens) > NX_CAPABILITY_MAX_TOKENS)
    return nx_error_set(err, NX_ERR_INVALID, "capabilities: %zu tokens are more than the %d allowed",
                        yyjson_arr_size(tokens), NX_CAPABILITY_MAX_TOKENS);
  size_t index, count;
  yyjson_val *token;
  yyjson_arr_foreach(tokens, index, count, token) {
    struct place at = {.list = "capabilities", .index = index};
    if (!yyjson_is_str(token)) return fault(err, &at, NULL, 0, "must be a string");
    int status = add_token(all, &at, yyjson_get_str(token), yyjson_get_len(token), err);
    if (status) return status;
  }
  return 0;
}

static int add_method(struct collection *all, const struct place *at, const char *method, size_t bytes,
                      struct nx_error *err) {
  if (bytes > NX_CAPABILITY_MAX_BYTES) return fault(err, at, method, bytes, "is longer than 256 bytes");
  if (++all->methods > NX_CAPABILITY_MAX_TOKENS) return fault(err, at, NULL, 0, "more than 256 methods in all");
  struct nx__capability item = {.text = method, .bytes = (uint16_t)bytes, .kind = KIND_METHOD};
  const char *why = pattern_fault(&item);
  if (why) return fault(err, at, method, bytes, why);
  append(all, &item, at->key, (uint16_t)at->key_bytes);
  return 0;
}

static bool extension_seen(const struct collection *all, const char *name, size_t bytes) {
  for (size_t i = 0; i < all->count; i++) {
    const struct nx__capability *item = &all->drafts[i].item;
    if (item->kind == KIND_EXTENSION && item->bytes == bytes && !memcmp(item->text, name, bytes)) return true;
  }
  return false;
}

static const char *extension_fault(const struct collection *all, const char *name, size_t bytes, yyjson_val *methods) {
  if (!bytes || bytes > NX_CAPABILITY_MAX_BYTES) return "the name must have 1 to 256 bytes";
  /* NUL separates name and method in our texts, as it does in NX_OP_EXT_CALL. */
  if (memchr(name, '\0', bytes)) return "the name holds a NUL";
  if (memchr(name, '*', bytes)) return "only methods may have a '*'";
  if (!yyjson_is_arr(methods)) return "must be a list of method names";
  if (extension_seen(all, name, bytes)) return "is given twice";
  return NULL;
}

static int add_extension(struct collection *all, yyjson_val *key, struct nx_error *err) {
  const char *name = yyjson_get_str(key);
  size_t bytes = yyjson_get_len(key);
  yyjson_val *methods = yyjson_obj_iter_get_val(key);
  const char *why = extension_fault(all, name, bytes, methods);
  if (why) return nx_error_set(err, NX_ERR_INVALID, "extensions.%s: %s", excerpt_of(name, bytes).text, why);
  append(all, &(struct nx__capability){.text = name, .bytes = (uint16_t)bytes, .kind = KIND_EXTENSION}, NULL, 0);
  size_t index, count;
  yyjson_val *method;
  yyjson_arr_foreach(methods, index, count, method) {
    struct place at = {.list = "extensions", .key = name, .key_bytes = bytes, .index = index};
    if (!yyjson_is_str(method)) return fault(err, &at, NULL, 0, "must be a string");
    int status = add_method(all, &at, yyjson_get_str(method), yyjson_get_len(method), err);
    if (status) return status;
  }
  return 0;
}

static int collect_extensions(struct collection *all, yyjson_val *extensions, struct nx_error *err) {
  if (!yyjson_is_obj(extensions))
    return nx_error_set(err, NX_ERR_INVALID,
                        "extensions: must be an object of method lists, like {\"http\": [\"get\"]}");
  if (yyjson_obj_size(extensions) > NX_CAPABILITY_MAX_TOKENS)
    return nx_error_set(err, NX_ERR_INVALID, "extensions: %zu names are more than the %d allowed",
                        yyjson_obj_size(extensions), NX_CAPABILITY_MAX_TOKENS);
  yyjson_obj_iter iter = yyjson_obj_iter_with(extensions);
  for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter));) {
    int status = add_extension(all, key, err);
    if (status) return status;
  }
  return 0;
}

/* ---- Building --------------------------------------------------------------------------------------------------- */

static int compare_texts(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
  size_t shorter = a_bytes < b_bytes ? a_bytes : b_bytes;
  int order = shorter ? memcmp(a, b, shorter) : 0;
  return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* By kind, then text; a pattern before the same text without '*', which it covers. */
static int compare_items(const void *left, const void *right) {
  const struct nx__capability *a = left, *b = right;
  if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
  int order = compare_texts(a->text, a->bytes, b->text, b->bytes);
  return order ? order : (int)b->pattern - (int)a->pattern;
}

static bool covers(const struct nx__capability *item, const char *text, size_t bytes) {
  if (item->bytes > bytes || (!item->pattern && item->bytes != bytes)) return false;
  return !item->bytes || !memcmp(item->text, text, item->bytes);
}

static bool is_time(const char *extension, size_t bytes) { return bytes == 4 && !memcmp(extension, "time", 4); }

static void sort(struct nx_capabilities *set) {
  size_t n = 0, kept = 0;
  for (size_t i = 0; i < set->_count; i++)
    if (set->_items[i].kind != KIND_EXTENSION) set->_sorted[n++] = set->_items[i];
  if (n > 1) qsort(set->_sorted, n, sizeof *set->_sorted, compare_items);
  uint8_t kind = 0;
  for (size_t i = 0; i < n; i++) {
    struct nx__capability item = set->_sorted[i];
    while (kind < item.kind) set->_first[++kind] = (uint16_t)kept;
    const struct nx__capability *last = kept > set->_first[kind] ? &set->_sorted[kept - 1] : NULL;
    if (!last || !covers(last, item.text, item.bytes)) set->_sorted[kept++] = item;
  }
  while (kind <= KIND_METHOD) set->_first[++kind] = (uint16_t)kept;
}

static struct nx__capability settle(const struct draft *draft, char **free_text) {
  struct nx__capability item = draft->item;
  char *text = *free_text;
  item.text = text;
  if (item.kind == KIND_METHOD) {
    memcpy(text, draft->extension, draft->extension_bytes);
    text += draft->extension_bytes;
    *text++ = '\0';
    item.bytes = (uint16_t)(item.bytes + draft->extension_bytes + 1);
  }
  memcpy(text, draft->item.text, draft->item.bytes);
  *free_text = text + draft->item.bytes;
  return item;
}

static int build(struct nx_capabilities *out, const struct collection *all, bool has_tokens, bool has_extensions,
                 struct nx_error *err) {
  struct nx_capabilities set = {.has_tokens = has_tokens, .has_extensions = has_extensions};
  if (all->count) {
    set._items = malloc(2 * all->count * sizeof *set._items + all->text_bytes);
    if (!set._items) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for capabilities");
    set._sorted = set._items + all->count;
    char *text = (char *)(set._sorted + all->count);
    set._count = (uint16_t)all->count;
    for (size_t i = 0; i < all->count; i++) set._items[i] = settle(&all->drafts[i], &text);
    sort(&set);
  }
  *out = set;
  return 0;
}

int nx_capabilities_parse(struct nx_capabilities *out, struct yyjson_val *tokens, struct yyjson_val *extensions,
                          struct nx_error *err) {
  struct collection all; /* 18 KiB, left uninitialised but for what is used */
  all.count = all.text_bytes = all.methods = 0;
  int status = tokens ? collect_tokens(&all, tokens, err) : 0;
  if (!status && extensions) status = collect_extensions(&all, extensions, err);
  return status ? status : build(out, &all, tokens != NULL, extensions != NULL, err);
}

void nx_capabilities_deinit(struct nx_capabilities *set) {
  free(set->_items);
  *set = (struct nx_capabilities){0};
}

/* ---- Asking ----------------------------------------------------------------------------------------------------- */

static bool ask(const struct nx_capabilities *set, unsigned kind, const char *text, size_t bytes) {
  unsigned first = set->_first[kind], low = first, high = set->_first[kind + 1];
  while (low < high) {
    unsigned middle = (low + high) / 2;
    const struct nx__capability *item = &set->_sorted[middle];
    if (compare_texts(item->text, item->bytes, text, bytes) <= 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low > first && covers(&set->_sorted[low - 1], text, bytes);
}

bool nx_capability_allows(const struct nx_capabilities *set, enum nx_capability_kind kind, const char *name,
                          size_t name_bytes) {
  return ask(set, kind, name, name_bytes);
}

bool nx_capability_names_method(const struct nx_capabilities *set, const char *extension, size_t extension_bytes,
                                const char *method, size_t method_bytes) {
  char text[2 * NX_CAPABILITY_MAX_BYTES + 1];
  if (extension_bytes > NX_CAPABILITY_MAX_BYTES || method_bytes > NX_CAPABILITY_MAX_BYTES) return false;
  if (!extension_bytes || !method_bytes || memchr(extension, '\0', extension_bytes)) return false;
  memcpy(text, extension, extension_bytes);
  text[extension_bytes] = '\0';
  memcpy(text + extension_bytes + 1, method, method_bytes);
  return ask(set, KIND_METHOD, text, extension_bytes + 1 + method_bytes);
}

/* Of the grants and the request, does each that counts say yes? `named`: the request names this part at all. */
static bool both(const struct nx_rights *rights, bool named, bool granted, bool requested) {
  if (rights->grants && !granted) return false;
  return named ? requested : rights->grants != NULL;
}

bool nx_rights_allow(const struct nx_rights *rights, enum nx_capability_kind kind, const char *name,
                     size_t name_bytes) {
  const struct nx_capabilities *grants = rights->grants, *request = rights->request;
  if (kind == NX_CAP_EXT && is_time(name, name_bytes)) return true;
  bool named = request && request->has_tokens;
  return both(rights, named, grants && ask(grants, kind, name, name_bytes),
              named && ask(request, kind, name, name_bytes));
}

/* Only the pattern with nothing before its '*' covers the empty text, as no token names it. */
bool nx_rights_allow_all(const struct nx_rights *rights, enum nx_capability_kind kind) {
  return nx_rights_allow(rights, kind, "", 0);
}

bool nx_rights_allow_method(const struct nx_rights *rights, const char *extension, size_t extension_bytes,
                            const char *method, size_t method_bytes) {
  const struct nx_capabilities *grants = rights->grants, *request = rights->request;
  if (is_time(extension, extension_bytes)) return true;
  if (!nx_rights_allow(rights, NX_CAP_EXT, extension, extension_bytes)) return false;
  bool named = request && request->has_extensions;
  return both(rights, named,
              grants && nx_capability_names_method(grants, extension, extension_bytes, method, method_bytes),
              named && nx_capability_names_method(request, extension, extension_bytes, method, method_bytes));
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

static void write_string(struct nx_buf *out, const char *prefix, const char *text, size_t bytes, bool pattern) {
  char whole[NX_CAPABILITY_MAX_BYTES + 1];
  size_t n = strlen(prefix);
  memcpy(whole, prefix, n);
  if (bytes) memcpy(whole + n, text, bytes);
  n += bytes;
  if (pattern) whole[n++] = '*';
  nx_buf_json_string(out, whole, n);
}

static void write_tokens(const struct nx_capabilities *set, struct nx_buf *out) {
  nx_buf_lit(out, "\"capabilities\":[");
  bool comma = false;
  for (size_t i = 0; i < set->_count; i++) {
    const struct nx__capability *item = &set->_items[i];
    if (item->kind >= NX_CAP_KINDS) continue;
    if (comma) nx_buf_char(out, ',');
    comma = true;
    write_string(out, kinds[item->kind].prefix, item->text, item->bytes, item->pattern);
  }
  nx_buf_char(out, ']');
}

/* The methods of an extension stand behind it, as they were given. */
static void write_extensions(const struct nx_capabilities *set, struct nx_buf *out) {
  nx_buf_lit(out, "\"extensions\":{");
  bool open = false, comma = false;
  for (size_t i = 0; i < set->_count; i++) {
    const struct nx__capability *item = &set->_items[i];
    if (item->kind == KIND_EXTENSION) {
      if (open) nx_buf_lit(out, "],");
      nx_buf_json_string(out, item->text, item->bytes);
      nx_buf_lit(out, ":[");
      open = true;
      comma = false;
    } else if (item->kind == KIND_METHOD) {
      size_t name = strnlen(item->text, item->bytes) + 1;
      if (comma) nx_buf_char(out, ',');
      write_string(out, "", item->text + name, item->bytes - name, item->pattern);
      comma = true;
    }
  }
  if (open) nx_buf_char(out, ']');
  nx_buf_char(out, '}');
}

bool nx_capabilities_write(const struct nx_capabilities *set, struct nx_buf *out) {
  if (set->has_tokens) write_tokens(set, out);
  if (set->has_tokens && set->has_extensions) nx_buf_char(out, ',');
  if (set->has_extensions) write_extensions(set, out);
  return set->has_tokens || set->has_extensions;
}
