/* SPDX-License-Identifier: Apache-2.0
 *
 * QuickJS-NG, and JSON that needs its insides (json.h). Both stop where anything unusual begins and leave the whole text or value
 * to the engine; until then no code of the handler has run, so that nobody can tell. */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include "quickjs.c"
#pragma clang diagnostic pop

#include "json.h"

/* Deeper values are the engine's, which knows how much stack there is. */
#define DEPTH_MAX 64

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

struct reader {
  JSContext *ctx;
  const uint8_t *at, *end; /* a NUL is at `end` */
  unsigned depth;
  bool gave_up; /* an exception that stands for "not here" */
};

static JSValue read_value(struct reader *r, JSObject *model);

static JSValue give_up(struct reader *r) {
  r->gave_up = true;
  return JS_EXCEPTION;
}

static uint8_t skip_space(struct reader *r) {
  while (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t') r->at++;
  return *r->at;
}

static bool read_char(struct reader *r, uint8_t c) {
  if (skip_space(r) != c) return false;
  r->at++;
  return true;
}

static const uint8_t *skip_digits(const uint8_t *p) {
  while (is_digit(*p)) p++;
  return p;
}

/* Up to 15 digits are exact as a double, and so is 10^15: one division rounds as the standard wants it. */
static JSValue read_number(struct reader *r) {
  static const double power[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const uint8_t *p = r->at;
  bool negative = *p == '-';
  p += negative;
  if (!is_digit(*p) || (*p == '0' && is_digit(p[1]))) return give_up(r);
  uint64_t mantissa = 0;
  unsigned digits = 0, scale = 0;
  for (; is_digit(*p); p++, digits++) mantissa = mantissa * 10 + (*p - '0');
  if (*p == '.') {
    if (!is_digit(*++p)) return give_up(r);
    for (; is_digit(*p); p++, scale++) mantissa = mantissa * 10 + (*p - '0');
  }
  bool has_exponent = (*p | 0x20) == 'e';
  if (has_exponent) {
    p += p[1] == '+' || p[1] == '-' ? 2 : 1;
    if (!is_digit(*p)) return give_up(r);
    p = skip_digits(p);
  }
  double value;
  if (has_exponent || digits + scale > 15) {
    value = strtod((const char *)r->at, NULL);
  } else {
    value = (double)mantissa / power[scale];
    if (negative) value = -value;
  }
  r->at = p;
  return js_number(value);
}

/* From behind the opening quote to the closing one; NULL when there are escapes or worse. */
static const uint8_t *plain_end(const uint8_t *p, bool *ascii) {
  uint8_t seen = 0;
  for (; *p != '"'; p++) {
    if (*p < 0x20 || *p == '\\') return NULL;
    seen |= *p;
  }
  *ascii = seen < 0x80;
  return p;
}

static JSValue read_escaped_string(struct reader *r) {
  JSParseState s;
  js_parse_init(r->ctx, &s, (const char *)r->at, (size_t)(r->end - r->at), "input", 1);
  const uint8_t *p = r->at + 1;
  if (json_parse_string(&s, &p)) { /* again, for an error that knows where it is */
    JS_FreeValue(r->ctx, JS_GetException(r->ctx));
    return give_up(r);
  }
  r->at = p;
  return s.token.u.str.str;
}

static JSValue read_string(struct reader *r) {
  bool ascii;
  const uint8_t *from = r->at + 1, *end = plain_end(from, &ascii);
  if (!end) return read_escaped_string(r);
  r->at = end + 1;
  size_t bytes = (size_t)(end - from);
  return ascii ? js_new_string8_len(r->ctx, (const char *)from, (int)bytes)
               : JS_NewStringLen(r->ctx, (const char *)from, bytes);
}

/* The member name at `at` and the colon behind it; JS_ATOM_NULL for an exception. */
static JSAtom read_key(struct reader *r) {
  JSAtom key;
  bool ascii;
  if (skip_space(r) != '"') return give_up(r), JS_ATOM_NULL;
  const uint8_t *from = r->at + 1, *end = plain_end(from, &ascii);
  if (end && ascii) {
    r->at = end + 1;
    key = JS_NewAtomLen(r->ctx, (const char *)from, (size_t)(end - from));
  } else {
    JSValue text = read_string(r);
    if (JS_IsException(text)) return JS_ATOM_NULL;
    key = JS_ValueToAtom(r->ctx, text);
    JS_FreeValue(r->ctx, text);
  }
  if (key == JS_ATOM_NULL || read_char(r, ':')) return key;
  JS_FreeAtom(r->ctx, key);
  return give_up(r), JS_ATOM_NULL;
}

/* Goes past the member name and the colon when the name is `key`, which is compared only where bytes are characters. */
static bool read_this_key(struct reader *r, JSAtom key) {
  if (__JS_AtomIsTaggedInt(key) || skip_space(r) != '"') return false;
  JSAtomStruct *name = r->ctx->rt->atom_array[key];
  if (name->is_wide_char || name->len >= (size_t)(r->end - r->at)) return false;
  const uint8_t *want = str8(name), *p = r->at + 1;
  for (uint32_t i = 0; i < name->len; i++, p++)
    if (*p != want[i] || *p >= 0x80 || *p == '"' || *p == '\\') return false;
  if (p[0] != '"' || p[1] != ':') return false;
  r->at = p + 2;
  return true;
}

/* As JSON.parse defines members: always of the object itself, and the last of a name counts. Takes `value`. */
static bool set_member(JSContext *ctx, JSObject *object, JSAtom key, JSValue value) {
  JSProperty *property;
  if (find_own_property(&property, object, key)) {
    set_value(ctx, &property->u.value, value);
    return true;
  }
  property = add_property(ctx, object, key, JS_PROP_C_W_E);
  if (property)
    property->u.value = value;
  else
    JS_FreeValue(ctx, value);
  return property;
}

/* The members from `at` on, up to and with the closing brace. */
static bool read_members(struct reader *r, JSObject *object) {
  do {
    JSAtom key = read_key(r);
    if (key == JS_ATOM_NULL) return false;
    JSValue value = read_value(r, NULL);
    bool ok = !JS_IsException(value) && set_member(r->ctx, object, key, value);
    JS_FreeAtom(r->ctx, key);
    if (!ok) return false;
  } while (read_char(r, ','));
  if (read_char(r, '}')) return true;
  r->gave_up = true;
  return false;
}

/* `object` has the shape of another and only its first `count` members: gives it just those. Frees it. */
static JSValue take_first_members(JSContext *ctx, JSValue like, uint32_t count) {
  JSObject *from = JS_VALUE_GET_OBJ(like);
  JSValue object = JS_NewObject(ctx);
  for (uint32_t i = 0; i < count && !JS_IsException(object); i++) {
    JSValue value = from->prop[i].u.value;
    from->prop[i].u.value = JS_UNDEFINED;
    if (set_member(ctx, JS_VALUE_GET_OBJ(object), get_shape_prop(from->shape)[i].atom, value)) continue;
    JS_FreeValue(ctx, object);
    object = JS_EXCEPTION;
  }
  JS_FreeValue(ctx, like);
  return object;
}

/* Objects of a list mostly have the same members in the same order: starts with the shape of the one before, `model`. */
static JSValue read_like(struct reader *r, JSObject *model) {
  JSContext *ctx = r->ctx;
  JSShape *shape = model->shape;
  uint32_t count = (uint32_t)shape->prop_count, i = 0;
  JSValue object = JS_NewObjectFromShape(ctx, js_dup_shape(shape), JS_CLASS_OBJECT, NULL);
  if (JS_IsException(object)) return object;
  JSProperty *property = JS_VALUE_GET_OBJ(object)->prop;
  for (uint32_t j = 0; j < count; j++) property[j].u.value = JS_UNDEFINED;
  bool more = true;
  for (; more && i < count && read_this_key(r, get_shape_prop(shape)[i].atom); i++, more = read_char(r, ',')) {
    JSValue value = read_value(r, NULL);
    if (JS_IsException(value)) goto fail;
    property[i].u.value = value;
  }
  if (i < count || more) object = take_first_members(ctx, object, i);
  if (JS_IsException(object)) return object;
  if (more) {
    if (read_members(r, JS_VALUE_GET_OBJ(object))) return object;
  } else if (read_char(r, '}')) {
    return object;
  } else {
    r->gave_up = true;
  }
fail:
  JS_FreeValue(ctx, object);
  return JS_EXCEPTION;
}

static JSValue read_object(struct reader *r, JSObject *model) {
  r->at++;
  bool empty = read_char(r, '}');
  if (!empty && model && model->class_id == JS_CLASS_OBJECT && model->shape->is_hashed) return read_like(r, model);
  JSValue object = JS_NewObject(r->ctx);
  if (empty || JS_IsException(object) || read_members(r, JS_VALUE_GET_OBJ(object))) return object;
  JS_FreeValue(r->ctx, object);
  return JS_EXCEPTION;
}

static bool read_elements(struct reader *r, JSObject *array) {
  JSObject *last = NULL;
  uint32_t count = 0;
  do {
    JSValue value = read_value(r, last);
    if (JS_IsException(value)) return false;
    if (count == array->u.array.u1.size && expand_fast_array(r->ctx, array, count + 4)) {
      JS_FreeValue(r->ctx, value);
      return false;
    }
    array->u.array.u.values[count++] = value;
    array->u.array.count = count;
    array->prop[0].u.value = js_int32((int32_t)count); /* its length */
    last = JS_IsObject(value) ? JS_VALUE_GET_OBJ(value) : NULL;
  } while (read_char(r, ','));
  if (read_char(r, ']')) return true;
  r->gave_up = true;
  return false;
}

static JSValue read_array(struct reader *r) {
  r->at++;
  JSValue array = JS_NewArray(r->ctx);
  if (JS_IsException(array) || read_char(r, ']') || read_elements(r, JS_VALUE_GET_OBJ(array))) return array;
  JS_FreeValue(r->ctx, array);
  return JS_EXCEPTION;
}

static JSValue read_word(struct reader *r, const char *word, JSValue value) {
  size_t bytes = strlen(word);
  if (strncmp((const char *)r->at, word, bytes)) return give_up(r);
  r->at += bytes;
  return value;
}

static JSValue read_value(struct reader *r, JSObject *model) {
  JSValue value;
  switch (skip_space(r)) {
  case '"': return read_string(r);
  case 't': return read_word(r, "true", JS_TRUE);
  case 'f': return read_word(r, "false", JS_FALSE);
  case 'n': return read_word(r, "null", JS_NULL);
  case '{':
  case '[':
    if (r->depth == DEPTH_MAX) return give_up(r);
    r->depth++;
    value = *r->at == '{' ? read_object(r, model) : read_array(r);
    r->depth--;
    return value;
  default: return read_number(r);
  }
}

JSValue nx_json_parse(JSContext *ctx, const char *text, size_t bytes, const char *name) {
  struct reader r = {.ctx = ctx, .at = (const uint8_t *)text, .end = (const uint8_t *)text + bytes};
  JSValue value = read_value(&r, NULL);
  if (!r.gave_up && (JS_IsException(value) || (skip_space(&r), r.at == r.end))) return value;
  JS_FreeValue(ctx, value);
  return JS_ParseJSON(ctx, text, bytes, name);
}

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

struct writer {
  JSContext *ctx;
  struct nx_json_text *out;
  unsigned depth;
};

static bool write_value(struct writer *w, JSValueConst value);

/* Room for `bytes` more. */
static char *room(struct writer *w, size_t bytes) {
  struct nx_json_text *out = w->out;
  if (bytes > out->capacity - out->bytes) {
    if (bytes > INT32_MAX / 2 - out->bytes) return NULL;
    uint32_t capacity = (out->bytes + (uint32_t)bytes) * 2;
    bool moved = out->data != out->small;
    char *data = js_realloc_rt(w->ctx->rt, moved ? out->data : NULL, capacity);
    if (!data) return NULL;
    if (!moved) memcpy(data, out->small, out->bytes);
    out->data = data;
    out->capacity = capacity;
  }
  return out->data + out->bytes;
}

static bool put(struct writer *w, const char *text, size_t bytes) {
  char *to = room(w, bytes);
  if (!to) return false;
  memcpy(to, text, bytes);
  w->out->bytes += (uint32_t)bytes;
  return true;
}

static bool put_char(struct writer *w, char c) { return put(w, &c, 1); }

static bool put_escape(struct writer *w, uint32_t c) {
  static const char short_forms[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
  static const char digits[] = "0123456789abcdef";
  char text[6] = {'\\', 'u', digits[c >> 12], digits[c >> 8 & 15], digits[c >> 4 & 15], digits[c & 15]};
  if (c == '"' || c == '\\')
    text[1] = (char)c;
  else if (c < sizeof short_forms && short_forms[c])
    text[1] = short_forms[c];
  else
    return put(w, text, 6);
  return put(w, text, 2);
}

/* How many of the characters from `i` on are written as they are, byte for byte. */
static int plain_run(JSString *string, int i) {
  if (string->is_wide_char) return 0;
  const uint8_t *from = str8(string) + i, *p = from, *end = str8(string) + string->len;
  while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') p++;
  return (int)(p - from);
}

static bool write_string(struct writer *w, JSString *string) {
  if (!put_char(w, '"')) return false;
  for (int i = 0; i < (int)string->len;) {
    int run = plain_run(string, i);
    if (run) {
      if (!put(w, (const char *)str8(string) + i, (size_t)run)) return false;
      i += run;
      continue;
    }
    uint32_t c = (uint32_t)string_getc(string, &i); /* a whole character, or a surrogate that stands alone */
    char *to = room(w, UTF8_CHAR_LEN_MAX);
    if (!to) return false;
    if (c < 0x20 || c == '"' || c == '\\' || is_surrogate(c)) {
      if (!put_escape(w, c)) return false;
    } else if (c < 0x80) {
      *to = (char)c;
      w->out->bytes++;
    } else {
      w->out->bytes += (uint32_t)utf8_encode((uint8_t *)to, c);
    }
  }
  return put_char(w, '"');
}

static bool write_double(struct writer *w, double value) {
  if (!isfinite(value)) return put(w, "null", 4);
  char text[128];
  JSDTOATempMem scratch;
  return put(w, text, (size_t)js_dtoa(text, value, 10, 0, JS_DTOA_FORMAT_FREE, &scratch));
}

static bool write_int(struct writer *w, int32_t value) {
  char text[16], *at = text + sizeof text;
  uint32_t left = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
  do *--at = (char)('0' + left % 10);
  while (left /= 10);
  if (value < 0) *--at = '-';
  return put(w, at, (size_t)(text + sizeof text - at));
}

/* Whether the object is written by its own members alone: nothing that it inherits is asked. */
static bool is_plain(JSObject *object) {
  if (object->class_id != JS_CLASS_OBJECT && (object->class_id != JS_CLASS_ARRAY || !object->fast_array)) return false;
  for (JSObject *p = object; p; p = p->shape->proto)
    if ((p->is_exotic && p->class_id != JS_CLASS_ARRAY) || find_own_property1(p, JS_ATOM_toJSON)) return false;
  return true;
}

/* What JSON.stringify leaves out of objects, and writes as null in arrays. (Functions too, but they may have a toJSON.) */
static bool has_no_json(JSValueConst value) { return JS_IsUndefined(value) || JS_IsSymbol(value); }

static bool write_array(struct writer *w, JSObject *array) {
  JSValueConst length = array->prop[0].u.value;
  if (JS_VALUE_GET_TAG(length) != JS_TAG_INT || (uint32_t)JS_VALUE_GET_INT(length) != array->u.array.count) return false;
  if (!put_char(w, '[')) return false;
  for (uint32_t i = 0; i < array->u.array.count; i++) {
    JSValueConst value = array->u.array.u.values[i];
    if (i && !put_char(w, ',')) return false;
    if (!(has_no_json(value) ? put(w, "null", 4) : write_value(w, value))) return false;
  }
  return put_char(w, ']');
}

static bool write_object(struct writer *w, JSObject *object) {
  const JSShapeProperty *member = get_shape_prop(object->shape);
  bool first = true;
  uint32_t index;
  if (!put_char(w, '{')) return false;
  for (int i = 0; i < object->shape->prop_count; i++, member++) {
    if (member->atom == JS_ATOM_NULL || !(member->flags & JS_PROP_ENUMERABLE) ||
        JS_AtomGetKind(w->ctx, member->atom) != JS_ATOM_KIND_STRING)
      continue;
    if (member->flags & JS_PROP_TMASK || JS_AtomIsArrayIndex(w->ctx, &index, member->atom)) return false; /* they come first */
    JSValueConst value = object->prop[i].u.value;
    if (has_no_json(value)) continue;
    if ((!first && !put_char(w, ',')) || !write_string(w, w->ctx->rt->atom_array[member->atom]) || !put_char(w, ':') ||
        !write_value(w, value))
      return false;
    first = false;
  }
  return put_char(w, '}');
}

static bool write_value(struct writer *w, JSValueConst value) {
  switch (JS_VALUE_GET_NORM_TAG(value)) {
  case JS_TAG_INT: return write_int(w, JS_VALUE_GET_INT(value));
  case JS_TAG_FLOAT64: return write_double(w, JS_VALUE_GET_FLOAT64(value));
  case JS_TAG_BOOL: return JS_VALUE_GET_BOOL(value) ? put(w, "true", 4) : put(w, "false", 5);
  case JS_TAG_NULL: return put(w, "null", 4);
  case JS_TAG_STRING: return write_string(w, JS_VALUE_GET_STRING(value));
  case JS_TAG_OBJECT: break;
  default: return false;
  }
  JSObject *object = JS_VALUE_GET_OBJ(value);
  if (w->depth == DEPTH_MAX || !is_plain(object)) return false;
  w->depth++;
  bool ok = object->class_id == JS_CLASS_ARRAY ? write_array(w, object) : write_object(w, object);
  w->depth--;
  return ok;
}

bool nx_json_write(JSContext *ctx, JSValueConst value, struct nx_json_text *out) {
  out->data = out->small;
  out->bytes = 0;
  out->capacity = sizeof out->small;
  struct writer w = {.ctx = ctx, .out = out};
  return write_value(&w, value);
}

void nx_json_free(JSContext *ctx, struct nx_json_text *text) {
  if (text->data != text->small) js_free(ctx, text->data);
}
