/* SPDX-License-Identifier: Apache-2.0
 * libyaml's events, put together without recursion: finished nodes wait on one stack until the list or map that they
 * belong to ends. */
#include "manifest/yaml.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

/* libyaml compares each directive with all before it. */
#define TAG_DIRECTIVES_MAX 16u

struct open_node {
  struct nx_yaml *node;
  size_t first;       /* of its children on the stack */
  const char *anchor; /* NULL: none */
};

struct anchor {
  const char *name;
  const struct nx_yaml *node;
};

struct builder {
  struct nx_yaml_set *set;
  const char *name;
  struct nx_error *err;
  yaml_parser_t parser;
  const struct nx_yaml **done; /* the stack */
  size_t done_count, done_capacity;
  struct open_node open[NX_YAML_DEPTH_MAX];
  unsigned depth;
  struct anchor anchors[NX_YAML_ALIASES_MAX];
  unsigned anchor_count, alias_count;
  size_t node_count;
};

/* ---- Errors ---------------------------------------------------------------------------------------------------------- */

static int refuse(struct builder *b, yaml_mark_t mark, const char *what) {
  return nx_error_set(b->err, NX_ERR_INVALID, "%.80s:%zu:%zu: %s", b->name, mark.line + 1, mark.column + 1, what);
}

static int no_memory(struct builder *b) { return nx_error_set(b->err, NX_ERR_NO_MEMORY, "%.80s: no memory", b->name); }

static int parser_error(struct builder *b) {
  const yaml_parser_t *parser = &b->parser;
  const char *problem = parser->problem ? parser->problem : "not YAML";
  if (parser->error == YAML_MEMORY_ERROR) return no_memory(b);
  if (parser->error == YAML_READER_ERROR)
    return nx_error_set(b->err, NX_ERR_INVALID, "%.80s: byte %zu: not YAML in UTF-8: %s", b->name, parser->problem_offset,
                        problem);
  return refuse(b, parser->problem_mark, problem);
}

/* ---- Scalars --------------------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *text, const char *const *words, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(text, words[i])) return true;
  return false;
}

/* Digits with underscores, which YAML 1.1 allows between them. */
static size_t digits_of(const char *text, const char *digits) {
  size_t count = strspn(text, digits);
  return count && text[strspn(text, "_")] ? count : 0;
}

static bool is_number(const char *text) {
  static const char *const words[] = {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"};
  text += *text == '-' || *text == '+';
  if (is_one_of(text, words, sizeof words / sizeof *words)) return true;
  if (*text == '0' && strchr("xob", text[1]) && text[1]) {
    size_t count = digits_of(text + 2, text[1] == 'x' ? "0123456789abcdefABCDEF_" : text[1] == 'o' ? "01234567_" : "01_");
    return count && !text[2 + count];
  }
  size_t whole = strspn(text, "0123456789_"), fraction = 0;
  if (whole && *text == '_') return false;
  const char *rest = text + whole;
  if (*rest == '.') {
    fraction = strspn(++rest, "0123456789_");
    rest += fraction;
  }
  if (!whole && !fraction) return false;
  if (*rest == 'e' || *rest == 'E') {
    rest += 1 + (rest[1] == '+' || rest[1] == '-');
    size_t digits = strspn(rest, "0123456789_");
    if (!digits) return false;
    rest += digits;
  }
  return !*rest;
}

static enum nx_yaml_type plain_type(const char *text) {
  static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
  static const char *const bools[] = {"y",    "Y",    "yes",   "Yes",   "YES",   "n",  "N",  "no", "No",  "NO",  "true",
                                      "True", "TRUE", "false", "False", "FALSE", "on", "On", "ON", "off", "Off", "OFF"};
  if (is_one_of(text, nulls, sizeof nulls / sizeof *nulls)) return NX_YAML_NULL;
  if (is_one_of(text, bools, sizeof bools / sizeof *bools)) return NX_YAML_BOOL;
  return is_number(text) ? NX_YAML_NUMBER : NX_YAML_STRING;
}

/* ---- The stack ------------------------------------------------------------------------------------------------------- */

static int push_done(struct builder *b, const struct nx_yaml *node) {
  if (b->done_count == b->done_capacity) {
    size_t capacity = b->done_capacity ? 2 * b->done_capacity : 256;
    const struct nx_yaml **done = reallocarray(b->done, capacity, sizeof(const struct nx_yaml *));
    if (!done) return no_memory(b);
    b->done = done;
    b->done_capacity = capacity;
  }
  b->done[b->done_count++] = node;
  return 0;
}

static int make_node(struct builder *b, const yaml_event_t *event, enum nx_yaml_type type, struct nx_yaml **out) {
  if (++b->node_count > NX_YAML_NODES_MAX) return refuse(b, event->start_mark, "more values than a manifest may have here");
  struct nx_yaml *node = nx_arena_alloc(&b->set->_arena, sizeof *node);
  if (!node) return no_memory(b);
  *node = (struct nx_yaml){.type = type,
                           .line = (unsigned)event->start_mark.line + 1,
                           .column = (unsigned)event->start_mark.column + 1};
  *out = node;
  return 0;
}

static int copy_text(struct builder *b, const yaml_char_t *text, size_t bytes, const char **out) {
  *out = nx_arena_copy(&b->set->_arena, (const char *)text, bytes);
  return *out ? 0 : no_memory(b);
}

/* A node that is finished; only such ones can be referred to, so there are no circles. */
static int add_done(struct builder *b, const yaml_event_t *event, const struct nx_yaml *node, const char *anchor) {
  if (anchor) {
    if (b->anchor_count == NX_YAML_ALIASES_MAX) return refuse(b, event->start_mark, "too many anchors");
    b->anchors[b->anchor_count++] = (struct anchor){anchor, node};
  }
  return push_done(b, node);
}

static int copy_anchor(struct builder *b, const yaml_char_t *anchor, const char **out) {
  *out = NULL;
  return anchor ? copy_text(b, anchor, strlen((const char *)anchor), out) : 0;
}

/* ---- Events ---------------------------------------------------------------------------------------------------------- */

static int add_scalar(struct builder *b, const yaml_event_t *event) {
  const char *text = (const char *)event->data.scalar.value, *tag = (const char *)event->data.scalar.tag, *anchor;
  size_t bytes = event->data.scalar.length;
  if (tag && strcmp(tag, YAML_STR_TAG) && strcmp(tag, "!")) return refuse(b, event->start_mark, "tags are not read here");
  if (memchr(text, 0, bytes)) return refuse(b, event->start_mark, "a string with a NUL byte");
  bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !tag;
  struct nx_yaml *node;
  int rc = make_node(b, event, plain ? plain_type(text) : NX_YAML_STRING, &node);
  if (!rc) rc = copy_text(b, event->data.scalar.value, bytes, &node->text);
  if (!rc) rc = copy_anchor(b, event->data.scalar.anchor, &anchor);
  return rc ? rc : add_done(b, event, node, anchor);
}

static int add_alias(struct builder *b, const yaml_event_t *event) {
  const char *name = (const char *)event->data.alias.anchor;
  if (++b->alias_count > NX_YAML_ALIASES_MAX) return refuse(b, event->start_mark, "too many aliases");
  for (unsigned i = b->anchor_count; i-- > 0;)
    if (!strcmp(b->anchors[i].name, name)) return push_done(b, b->anchors[i].node);
  return refuse(b, event->start_mark, "an alias of something that does not stand, complete, before it");
}

static int begin(struct builder *b, const yaml_event_t *event, enum nx_yaml_type type, const yaml_char_t *anchor,
                 const yaml_char_t *tag) {
  if (b->depth == NX_YAML_DEPTH_MAX) return refuse(b, event->start_mark, "nested too deeply");
  if (tag && strcmp((const char *)tag, type == NX_YAML_MAP ? YAML_MAP_TAG : YAML_SEQ_TAG))
    return refuse(b, event->start_mark, "tags are not read here");
  struct open_node *open = &b->open[b->depth];
  int rc = make_node(b, event, type, &open->node);
  if (!rc) rc = copy_anchor(b, anchor, &open->anchor);
  if (rc) return rc;
  open->first = b->done_count;
  b->depth++;
  return 0;
}

static int by_key(const void *a, const void *b) {
  const struct nx_yaml_pair *left = a, *right = b;
  return strcmp(left->key->text, right->key->text);
}

static int refuse_at(struct builder *b, const struct nx_yaml *node, const char *what) {
  return refuse(b, (yaml_mark_t){.line = node->line - 1, .column = node->column - 1}, what);
}

static int check_pairs(struct builder *b, const struct nx_yaml *map) {
  for (size_t i = 0; i < map->count; i++) {
    const struct nx_yaml *key = map->pairs[i].key;
    if (!strcmp(key->text, "<<"))
      return refuse_at(b, key, "merge keys (<<) are not read here; kubectl kustomize writes out what they stand for");
    if (i && !strcmp(map->pairs[i - 1].key->text, key->text)) {
      const struct nx_yaml *first = map->pairs[i - 1].key;
      return refuse_at(b, first->line > key->line ? first : key, "the same key a second time");
    }
  }
  return 0;
}

static int take_pairs(struct builder *b, struct nx_yaml *map, const struct nx_yaml **children, size_t count) {
  map->count = count / 2;
  map->pairs = nx_arena_alloc(&b->set->_arena, (map->count + 1) * sizeof *map->pairs);
  if (!map->pairs) return no_memory(b);
  for (size_t i = 0; i < map->count; i++) {
    map->pairs[i] = (struct nx_yaml_pair){children[2 * i], children[2 * i + 1]};
    if (!children[2 * i]->text) return refuse_at(b, children[2 * i], "expected a key that is a plain word");
  }
  qsort(map->pairs, map->count, sizeof *map->pairs, by_key);
  return check_pairs(b, map);
}

static int take_items(struct builder *b, struct nx_yaml *list, const struct nx_yaml **children, size_t count) {
  list->count = count;
  list->items = nx_arena_alloc(&b->set->_arena, (count + 1) * sizeof *list->items);
  if (!list->items) return no_memory(b);
  memcpy(list->items, children, count * sizeof *children);
  return 0;
}

static int end(struct builder *b, const yaml_event_t *event) {
  const struct open_node *open = &b->open[--b->depth];
  const struct nx_yaml **children = b->done + open->first;
  size_t count = b->done_count - open->first;
  int rc = 0;
  if (count) rc = (open->node->type == NX_YAML_MAP ? take_pairs : take_items)(b, open->node, children, count);
  if (rc) return rc;
  b->done_count = open->first;
  return add_done(b, event, open->node, open->anchor);
}

/* Documents stay at the bottom of the stack. Empty ones do not. */
static int end_document(struct builder *b) {
  b->anchor_count = 0;
  if (b->done_count && b->done[b->done_count - 1]->type == NX_YAML_NULL) b->done_count--;
  return 0;
}

static int take_event(struct builder *b, const yaml_event_t *event) {
  switch (event->type) {
  case YAML_SCALAR_EVENT: return add_scalar(b, event);
  case YAML_ALIAS_EVENT: return add_alias(b, event);
  case YAML_SEQUENCE_START_EVENT:
    return begin(b, event, NX_YAML_LIST, event->data.sequence_start.anchor, event->data.sequence_start.tag);
  case YAML_MAPPING_START_EVENT:
    return begin(b, event, NX_YAML_MAP, event->data.mapping_start.anchor, event->data.mapping_start.tag);
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT: return end(b, event);
  case YAML_DOCUMENT_END_EVENT: return end_document(b);
  default: return 0;
  }
}

/* ---- All of it ------------------------------------------------------------------------------------------------------- */

static int run(struct builder *b) {
  for (;;) {
    yaml_event_t event;
    if (!yaml_parser_parse(&b->parser, &event)) return parser_error(b);
    bool last = event.type == YAML_STREAM_END_EVENT;
    int rc = take_event(b, &event);
    yaml_event_delete(&event);
    if (rc || last) return rc;
  }
}

static int check_text(struct builder *b, const char *text, size_t bytes) {
  unsigned directives = 0;
  if (bytes > NX_YAML_TEXT_MAX)
    return nx_error_set(b->err, NX_ERR_TOO_LARGE, "%.80s: more than %zu MiB", b->name, NX_YAML_TEXT_MAX >> 20);
  for (const char *at = text; (at = memmem(at, bytes - (size_t)(at - text), "%TAG", 4)); at += 4)
    if (++directives > TAG_DIRECTIVES_MAX) return nx_error_set(b->err, NX_ERR_INVALID, "%.80s: too many %%TAG", b->name);
  return 0;
}

static int parse(struct builder *b, const char *text, size_t bytes) {
  int rc = check_text(b, text, bytes);
  if (rc) return rc;
  if (!yaml_parser_initialize(&b->parser)) return no_memory(b);
  yaml_parser_set_encoding(&b->parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&b->parser, (const unsigned char *)text, bytes);
  rc = run(b);
  yaml_parser_delete(&b->parser);
  if (rc || !b->done_count) return rc;
  b->set->count = b->done_count;
  b->set->documents = nx_arena_alloc(&b->set->_arena, b->done_count * sizeof *b->done);
  if (!b->set->documents) return no_memory(b);
  memcpy(b->set->documents, b->done, b->done_count * sizeof *b->done);
  return 0;
}

int nx_yaml_parse(struct nx_yaml_set *set, const char *name, const char *text, size_t bytes, struct nx_error *err) {
  *set = (struct nx_yaml_set){0};
  struct builder *b = calloc(1, sizeof *b);
  if (!b) return nx_error_set(err, NX_ERR_NO_MEMORY, "%.80s: no memory", name);
  b->set = set;
  b->name = name;
  b->err = err;
  int rc = parse(b, bytes ? text : "", bytes);
  free(b->done);
  free(b);
  if (rc) nx_yaml_deinit(set);
  return rc;
}

void nx_yaml_deinit(struct nx_yaml_set *set) {
  nx_arena_deinit(&set->_arena);
  *set = (struct nx_yaml_set){0};
}

const struct nx_yaml *nx_yaml_find(const struct nx_yaml *map, const char *key) {
  const struct nx_yaml wanted = {.text = key};
  const struct nx_yaml_pair pair = {.key = &wanted};
  const struct nx_yaml_pair *found =
    map->count ? bsearch(&pair, map->pairs, map->count, sizeof *map->pairs, by_key) : NULL;
  return found && found->value->type != NX_YAML_NULL ? found->value : NULL;
}
