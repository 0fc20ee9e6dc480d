/* SPDX-License-Identifier: Apache-2.0
 *
 * The guest: QuickJS-NG and the few functions through which the host drives it.
 *
 * Compiled to WebAssembly, translated to C by wasm2c and linked into nexus. Everything here runs inside the sandbox
 * and shares linear memory with the handler, so nothing in it is a security boundary: it gives good errors early,
 * the host decides. Life of an image: nx_boot() once, nx_compile() once per handler, nx_invoke() once per execution,
 * nx_resume() whenever an execution that waits gets answers; always from a copy of the memory that the call before left
 * behind.
 *
 * Imports are three functions of module "nexus"; the WASI functions that the C library refers to are defined here,
 * so that the host has no WASI surface at all. */
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

#include "abi.h"
#include "json.h"
#include "quickjs.h"
#include "scripts.h" /* generated from bootstrap.js and web/ */
#include "sha.h"

#define IMPORT(name) __attribute__((import_module("nexus"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

IMPORT("call") int32_t nx_host_call(uint32_t op, const void *a, uint32_t a_bytes, const void *b, uint32_t b_bytes);
IMPORT("clock") int64_t nx_host_clock(uint32_t which);
IMPORT("random") void nx_host_random(void *out, uint32_t bytes);

/* The name a handler's frames carry in stack traces. A constant: it is part of the image, and images of the same
 * source must be equal whatever the handler is called. */
#define HANDLER_FILE "handler.js"
/* Frames of our own scripts; kept out of what users see by describeError in bootstrap.js. */
#define INTERNAL_FILE "nexus:internal"
/* A body is compiled inside one of these functions. They begin two lines above the handler's first line, because the
 * parser takes line 0 for "not given": the lines count from -1, so that the handler's own first line is 1. */
#define BODY_OPEN "(async function handler() {\n\n"
#define PLAIN_BODY_OPEN "(function handler() {\n\n" /* see may_be_plain */
#define BODY_OPEN_LINE (-1)
#define BODY_CLOSE "\n})"

/* Small inputs need no allocation, and land beside the call area: fewer pages differ after an execution. */
static struct {
  struct nx_abi_call call;
  char input[4096 - sizeof(struct nx_abi_call)];
} area __attribute__((aligned(4096)));

static JSRuntime *rt;
static JSContext *ctx;
static JSValue handler = JS_UNDEFINED;  /* the function an execution calls */
static enum { ASYNC_BODY, PLAIN_BODY, MODULE } form; /* what it is */
static JSValue module_ctx;              /* the second argument of a module's function */
static JSValue describe_error;          /* bootstrap: error → JSON text */
static JSValue settle_call;             /* bootstrap: the host's answer to an extension call → its promise is settled */
static JSValue has_open_calls;          /* bootstrap: whether an extension call waits for an answer */
static JSValue main_promise = JS_UNDEFINED; /* of an execution that waits: what it will settle with */
static JSAtom atom_args, atom_scope, atom_then;
static uint32_t image_heap_bytes;       /* engine heap in use when the image was made */
static bool executing;                  /* false while images are made */

/* $state as the host sent it, until host.state() parses it. */
static struct {
  const char *text; /* NULL: there is none, or it was parsed */
  uint32_t bytes;
  void *block;      /* the allocation that it lies in; NULL while it is in the inline input */
} unread_state;

/* Room a text takes in the input buffer: its bytes and a NUL, nothing when it is absent. */
static uint32_t text_span(uint32_t bytes) { return bytes == NX_ABI_ABSENT ? 0 : bytes + 1; }

/* ---- C library: no WASI host surface ------------------------------------------------------------------------- */

int32_t __imported_wasi_snapshot_preview1_clock_time_get(int32_t id, int64_t precision, int32_t out) {
  (void)precision;
  uint64_t now = (uint64_t)nx_host_clock(id == 0 ? NX_CLOCK_REALTIME : NX_CLOCK_EXECUTION);
  memcpy((void *)(uintptr_t)(uint32_t)out, &now, sizeof now);
  return 0;
}
int32_t __imported_wasi_snapshot_preview1_fd_write(int32_t fd, int32_t iov, int32_t count, int32_t written) {
  (void)fd, (void)iov, (void)count, (void)written;
  return __WASI_ERRNO_BADF;
}
int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t fd) { (void)fd; return __WASI_ERRNO_BADF; }
int32_t __imported_wasi_snapshot_preview1_fd_fdstat_get(int32_t fd, int32_t out) {
  (void)fd, (void)out;
  return __WASI_ERRNO_BADF;
}
int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t fd, int64_t offset, int32_t whence, int32_t out) {
  (void)fd, (void)offset, (void)whence, (void)out;
  return __WASI_ERRNO_BADF;
}

/* ---- Reporting to the host ------------------------------------------------------------------------------------ */

static void throw_text(const char *name, const char *message) {
  /* For failures that leave no room to build a description: both texts are constants without quotes. */
  char text[192];
  size_t n = 0;
  const char *parts[] = {"{\"name\":\"", name, "\",\"message\":\"", message, "\"}"};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    size_t len = strlen(parts[i]);
    if (n + len > sizeof text) break;
    memcpy(text + n, parts[i], len);
    n += len;
  }
  nx_host_call(NX_OP_THROW, text, (uint32_t)n, NULL, 0);
}

/* Tells the host about the exception `thrown`, which is consumed. */
static void report_throw(JSValue thrown) {
  JSValue text = JS_Call(ctx, describe_error, JS_UNDEFINED, 1, (JSValueConst[]){thrown});
  JS_FreeValue(ctx, thrown);
  size_t bytes;
  const char *json = JS_IsException(text) ? NULL : JS_ToCStringLen(ctx, &bytes, text);
  if (json)
    nx_host_call(NX_OP_THROW, json, (uint32_t)bytes, NULL, 0);
  else
    throw_text("InternalError", "out of memory");
  JS_FreeCString(ctx, json);
  JS_FreeValue(ctx, text);
}

/* Reports a value whose JSON can be had without code of the handler's. */
static bool report_plain(JSValueConst value) {
  struct nx_json_text text;
  bool written = nx_json_write(ctx, value, &text);
  if (written) nx_host_call(NX_OP_RETURN, text.data, text.bytes, NULL, 0);
  nx_json_free(ctx, &text);
  return written;
}

static void report_return(JSValue value) {
  if (JS_IsUndefined(value)) {
    nx_host_call(NX_OP_RETURN, NULL, 0, NULL, 0);
    return;
  }
  if (report_plain(value)) {
    JS_FreeValue(ctx, value);
    return;
  }
  JSValue text = JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED);
  JS_FreeValue(ctx, value);
  if (JS_IsException(text)) {
    report_throw(JS_GetException(ctx));
    return;
  }
  if (JS_IsUndefined(text)) { /* a function or a symbol has no JSON */
    nx_host_call(NX_OP_RETURN, NULL, 0, NULL, 0);
    return;
  }
  size_t bytes;
  const char *json = JS_ToCStringLen(ctx, &bytes, text);
  if (json)
    nx_host_call(NX_OP_RETURN, json, (uint32_t)bytes, NULL, 0);
  else
    report_throw(JS_GetException(ctx));
  JS_FreeCString(ctx, json);
  JS_FreeValue(ctx, text);
}

/* ---- Functions for bootstrap.js -------------------------------------------------------------------------------- */

/* host.call(op, a, b): strings in, number out. */
static JSValue js_host_call(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  int32_t op;
  if (argc < 2 || JS_ToInt32(c, &op, argv[0])) return JS_EXCEPTION;
  if (op == NX_OP_EXT_CALL && !executing)
    return JS_ThrowPlainError(c, "extension calls, timers and fetch exist during executions only, "
                                 "not while the top level runs");
  size_t a_bytes = 0, b_bytes = 0;
  const char *a = JS_ToCStringLen(c, &a_bytes, argv[1]);
  if (!a) return JS_EXCEPTION;
  const char *b = NULL;
  if (argc > 2 && !JS_IsUndefined(argv[2])) {
    b = JS_ToCStringLen(c, &b_bytes, argv[2]);
    if (!b) {
      JS_FreeCString(c, a);
      return JS_EXCEPTION;
    }
  }
  int32_t reply = nx_host_call((uint32_t)op, a, (uint32_t)a_bytes, b, (uint32_t)b_bytes);
  JS_FreeCString(c, a);
  JS_FreeCString(c, b);
  return JS_NewInt32(c, reply);
}

/* host.state(): the snapshot the host sent, parsed on first use. */
static JSValue js_host_state(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self, (void)argc, (void)argv;
  if (!executing) return JS_ThrowPlainError(c, "$state exists during executions only, not while the top level runs");
  if (!unread_state.text) return JS_NewObject(c);
  JSValue state = nx_json_parse(c, unread_state.text, unread_state.bytes, "$state");
  if (JS_IsException(state)) return state;
  free(unread_state.block);
  unread_state.text = unread_state.block = NULL;
  return state;
}

/* host.random(uint8array): fills it from the host's generator. */
static JSValue js_host_random(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  size_t bytes;
  uint8_t *out = argc ? JS_GetUint8Array(c, &bytes, argv[0]) : NULL;
  if (!out) return JS_ThrowTypeError(c, "expected a Uint8Array");
  nx_host_random(out, (uint32_t)bytes);
  return JS_UNDEFINED;
}

static JSValue run_microtask(JSContext *c, int argc, JSValueConst *argv) {
  (void)argc;
  return JS_Call(c, argv[0], JS_UNDEFINED, 0, NULL);
}

static JSValue js_queue_microtask(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  if (!argc || !JS_IsFunction(c, argv[0])) return JS_ThrowTypeError(c, "queueMicrotask takes a function");
  return JS_EnqueueJob(c, run_microtask, 1, argv) ? JS_EXCEPTION : JS_UNDEFINED;
}

/* host.encode(string): UTF-8 bytes. The string must be well-formed: lone surrogates would become CESU-8. */
static JSValue js_host_encode(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  size_t bytes;
  const char *text = JS_ToCStringLen(c, &bytes, argc ? argv[0] : JS_UNDEFINED);
  if (!text) return JS_EXCEPTION;
  JSValue out = JS_NewUint8ArrayCopy(c, (const uint8_t *)text, bytes);
  JS_FreeCString(c, text);
  return out;
}

/* host.decode(uint8array, begin, end): bytes that are known to be valid UTF-8 → string. */
static JSValue js_host_decode(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  size_t bytes;
  int32_t begin, end;
  uint8_t *in = argc == 3 ? JS_GetUint8Array(c, &bytes, argv[0]) : NULL;
  if (!in || JS_ToInt32(c, &begin, argv[1]) || JS_ToInt32(c, &end, argv[2])) return JS_EXCEPTION;
  if (begin < 0 || begin > end || (size_t)end > bytes) return JS_ThrowRangeError(c, "outside the array");
  return JS_NewStringLen(c, (const char *)in + begin, (size_t)(end - begin));
}

/* Length of the well-formed UTF-8 sequence at `p`, of which `left` bytes may be read; 0 when there is none. */
static size_t utf8_sequence(const uint8_t *p, size_t left) {
  uint8_t lead = p[0], low = 0x80, high = 0xBF;
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (length > left) return 0;
  if (lead == 0xE0) low = 0xA0;  /* shorter forms exist */
  if (lead == 0xED) high = 0x9F; /* surrogates */
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F; /* beyond U+10FFFF */
  if (p[1] < low || p[1] > high) return 0;
  for (size_t i = 2; i < length; i++)
    if ((p[i] & 0xC0) != 0x80) return 0;
  return length;
}

/* host.utf8Prefix(uint8array, begin): where the longest well-formed UTF-8 text that starts at `begin` ends. */
static JSValue js_host_utf8_prefix(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  size_t bytes, length;
  int32_t begin;
  uint8_t *in = argc == 2 ? JS_GetUint8Array(c, &bytes, argv[0]) : NULL;
  if (!in || JS_ToInt32(c, &begin, argv[1])) return JS_EXCEPTION;
  if (begin < 0 || (size_t)begin > bytes) return JS_ThrowRangeError(c, "outside the array");
  size_t at = (size_t)begin;
  while (at < bytes && (length = utf8_sequence(in + at, bytes - at)) != 0) at += length;
  return JS_NewInt64(c, (int64_t)at);
}

/* host.classId(value): the engine's number for the kind of object, whatever its prototype says; -1 for a primitive. */
static JSValue js_host_class_id(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  return JS_NewInt32(c, argc && JS_IsObject(argv[0]) ? (int32_t)JS_GetClassID(argv[0]) : -1);
}

/* host.sha(1 | 256 | 384 | 512, uint8array): the digest as a Uint8Array. In C because JavaScript hashes 1.5 MB/s. */
static JSValue js_host_sha(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self;
  int32_t bits;
  size_t bytes;
  uint8_t digest[NX_SHA_MAX_BYTES];
  uint8_t *in = argc == 2 ? JS_GetUint8Array(c, &bytes, argv[1]) : NULL;
  if (!in || JS_ToInt32(c, &bits, argv[0])) return JS_EXCEPTION;
  size_t length = nx_sha(bits, in, bytes, digest);
  return length ? JS_NewUint8ArrayCopy(c, digest, length) : JS_ThrowRangeError(c, "no such hash");
}

/* Math.random: xorshift128+ (Vigna 2014), seeded by the host for every execution. */
static JSValue js_math_random(JSContext *c, JSValueConst self, int argc, JSValueConst *argv) {
  (void)self, (void)argc, (void)argv;
  uint64_t *s = area.call.random_seed;
  uint64_t x = s[0], y = s[1];
  s[0] = y;
  x ^= x << 23;
  s[1] = x ^ y ^ (x >> 17) ^ (y >> 26);
  return JS_NewFloat64(c, (double)((s[1] + y) >> 11) * 0x1p-53);
}

static const JSCFunctionListEntry host_functions[] = {
  JS_CFUNC_DEF("call", 3, js_host_call),
  JS_CFUNC_DEF("state", 0, js_host_state),
  JS_CFUNC_DEF("random", 1, js_host_random),
  JS_CFUNC_DEF("encode", 1, js_host_encode),
  JS_CFUNC_DEF("decode", 3, js_host_decode),
  JS_CFUNC_DEF("utf8Prefix", 2, js_host_utf8_prefix),
  JS_CFUNC_DEF("classId", 1, js_host_class_id),
  JS_CFUNC_DEF("sha", 2, js_host_sha),
};

/* ---- Boot ------------------------------------------------------------------------------------------------------- */

/* Runs one of our scripts: the text is a function expression that is called with (host, globalThis). */
static JSValue run_script(const char *text, size_t bytes, JSValueConst host) {
  JSValue fn = JS_Eval(ctx, text, bytes, INTERNAL_FILE, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_STRICT);
  if (JS_IsException(fn)) return fn;
  JSValue global = JS_GetGlobalObject(ctx);
  JSValue result = JS_Call(ctx, fn, JS_UNDEFINED, 2, (JSValueConst[]){host, global});
  JS_FreeValue(ctx, global);
  JS_FreeValue(ctx, fn);
  return result;
}

static JSModuleDef *refuse_import(JSContext *c, const char *name, void *opaque) {
  (void)opaque;
  JS_ThrowReferenceError(c, "cannot import '%s': a handler is one file, and there are no modules to import", name);
  return NULL;
}

/* ---- Heap layout ------------------------------------------------------------------------------------------------
 *
 * What an execution costs is mostly how many pages it changes, so an execution should allocate from few, adjacent
 * pages and not from holes all over the heap that booting left behind. Before the base image is taken every hole is
 * filled with a block that is never freed: both the C library's free chunks and the free slots of the engine's arenas
 * (1 KiB each, one size class each). From then on everything new comes from fresh memory at the end. */

static uint32_t backing_allocations; /* blocks that the engine's arenas took from the C library */

static size_t backing_usable_size(const void *block) { return block ? malloc_usable_size((void *)block) : 0; }

static void *count(void *block) {
  area.call.heap_bytes += (uint32_t)backing_usable_size(block);
  return block;
}
static void *backing_malloc(void *opaque, size_t size) {
  (void)opaque;
  backing_allocations++;
  return count(malloc(size));
}
static void *backing_calloc(void *opaque, size_t number, size_t size) {
  (void)opaque;
  return count(calloc(number, size));
}
static void backing_free(void *opaque, void *block) {
  (void)opaque;
  area.call.heap_bytes -= (uint32_t)backing_usable_size(block);
  free(block);
}
static void *backing_realloc(void *opaque, void *block, size_t size) {
  (void)opaque;
  size_t before = backing_usable_size(block);
  void *moved = realloc(block, size);
  if (!moved) return NULL;
  area.call.heap_bytes -= (uint32_t)before;
  return count(moved);
}

static const JSMallocFunctions backing = {
  backing_calloc, backing_malloc, backing_free, backing_realloc, backing_usable_size,
};

/* Room for the image's own future at the top of the heap: memory.grow is a host call, and undoing growth costs system
 * calls. Untouched pages of an image take no memory. */
#define HEAP_HEADROOM_BYTES (512u * 1024u)
#define GC_WORTH_BYTES (256u * 1024u)
#define ARENA_LARGEST_BLOCK 512u

static void fill_holes(void) {
  char *volatile top = malloc(HEAP_HEADROOM_BYTES); /* volatile: or the compiler leaves malloc and free out */
  for (size_t size = HEAP_HEADROOM_BYTES / 2; size >= 8; size -= size > 64 ? size / 8 : 8) {
    char *volatile block;
    while ((block = malloc(size)) && block < top) {
    }
    free(block); /* this one came from behind `top`: there are no more holes of its size */
  }
  free(top);
  for (size_t size = 8; size <= ARENA_LARGEST_BLOCK; size += 8) {
    uint32_t before = backing_allocations;
    while (backing_allocations == before && js_malloc_rt(rt, size)) {
    }
  }
}

/* Collecting touches every object, and so most pages of an instance. A top level that has made little leaves little. */
static void settle_heap(void) {
  if (area.call.heap_bytes > image_heap_bytes + GC_WORTH_BYTES) JS_RunGC(rt);
  image_heap_bytes = area.call.heap_bytes;
}

EXPORT("nx_boot") struct nx_abi_call *nx_boot(void) {
  area.call.random_seed[0] = 1;
  area.call.args_bytes = area.call.state_bytes = area.call.scope_bytes = NX_ABI_ABSENT;
  area.call.inline_input = (uint32_t)(uintptr_t)area.input;
  area.call.inline_input_bytes = sizeof area.input;
  rt = JS_NewRuntime2(&backing, NULL);
  if (!rt) return NULL;
  JS_SetGCThreshold(rt, SIZE_MAX); /* nothing is collected while booting; nx_invoke sets the real one */
  JS_SetCanBlock(rt, false);       /* Atomics.wait throws */
  JS_SetModuleLoaderFunc(rt, NULL, refuse_import, NULL);
  ctx = JS_NewContext(rt);
  if (!ctx) return NULL;
  atom_args = JS_NewAtom(ctx, "$args");
  atom_scope = JS_NewAtom(ctx, "$scope");
  atom_then = JS_NewAtom(ctx, "then");

  JSValue global = JS_GetGlobalObject(ctx);
  JSValue host = JS_NewObject(ctx);
  JS_SetPropertyFunctionList(ctx, host, host_functions, sizeof host_functions / sizeof *host_functions);
  JS_SetPropertyStr(ctx, global, "queueMicrotask",
                    JS_NewCFunction(ctx, js_queue_microtask, "queueMicrotask", 1));
  JSValue math = JS_GetPropertyStr(ctx, global, "Math");
  JS_SetPropertyStr(ctx, math, "random", JS_NewCFunction(ctx, js_math_random, "random", 0));
  JS_FreeValue(ctx, math);
  JS_FreeValue(ctx, global);

  for (size_t i = 0; i < sizeof nx_scripts / sizeof *nx_scripts; i++) {
    JSValue result = run_script(nx_scripts[i].text, nx_scripts[i].bytes, host);
    if (JS_IsException(result)) return NULL;
    JS_FreeValue(ctx, result);
  }
  describe_error = JS_GetPropertyStr(ctx, host, "describeError");
  settle_call = JS_GetPropertyStr(ctx, host, "settleCall");
  has_open_calls = JS_GetPropertyStr(ctx, host, "hasOpenCalls");
  module_ctx = JS_GetPropertyStr(ctx, host, "moduleContext");
  JS_FreeValue(ctx, host);
  JS_RunGC(rt);
  fill_holes();
  settle_heap();
  return &area.call;
}

/* Memory for an input that does not fit the inline buffer; 0 when there is none. */
EXPORT("nx_reserve") void *nx_reserve(uint32_t bytes) { return malloc(bytes); }

static char *input_buffer(void) { return (char *)(uintptr_t)area.call.input; }

/* What nx_reserve gave goes as soon as it is read. */
static void free_input(void) {
  if (input_buffer() != area.input) free(input_buffer());
}

static void enter_engine(void) {
  JS_UpdateStackTop(rt);
  JS_SetMaxStackSize(rt, area.call.stack_limit_bytes);
}

/* ---- Compile ----------------------------------------------------------------------------------------------------- */

/* Runs everything that is queued. What a microtask throws is logged: it has no promise to reject. */
static void run_jobs(void) {
  JSContext *c;
  int status;
  while ((status = JS_ExecutePendingJob(rt, &c)) != 0) {
    if (status > 0) continue;
    static const char level[] = "error", prefix[] = "uncaught in a microtask: ";
    JSValue thrown = JS_GetException(ctx);
    const char *text = JS_ToCString(ctx, thrown);
    char line[512];
    strcpy(line, prefix);
    strncat(line, text ? text : "out of memory", sizeof line - sizeof prefix);
    nx_host_call(NX_OP_LOG, level, sizeof level - 1, line, (uint32_t)strlen(line));
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, thrown);
  }
}

static JSValue compile_module(const char *source, size_t bytes) {
  return JS_Eval(ctx, source, bytes, HANDLER_FILE, JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
}

/* Whether the body can tell an async function from a plain one, which costs less to call: it can when it awaits, when it gets
 * hold of the function it is in (by its name, by arguments.callee), or when it may do either in ways that are not to be seen. */
static bool may_be_plain(const char *source, size_t bytes) {
  static const char *const words[] = {"await", "handler", "arguments", "eval", "\\u"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (memmem(source, bytes, words[i], strlen(words[i]))) return false;
  return true;
}

/* `source` is followed by a NUL and preceded by nothing usable, so the wrapper needs a copy. */
static JSValue compile_body(const char *open, const char *source, size_t bytes) {
  size_t open_bytes = strlen(open), total = open_bytes + bytes + sizeof BODY_CLOSE - 1;
  char *text = malloc(total + 1);
  if (!text) return JS_ThrowOutOfMemory(ctx);
  memcpy(text, open, open_bytes);
  memcpy(text + open_bytes, source, bytes);
  memcpy(text + open_bytes + bytes, BODY_CLOSE, sizeof BODY_CLOSE);
  JSEvalOptions options = {
    .version = JS_EVAL_OPTIONS_VERSION,
    .eval_flags = JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY,
    .filename = HANDLER_FILE,
    .line_num = BODY_OPEN_LINE,
  };
  JSValue code = JS_Eval2(ctx, text, total, &options);
  free(text);
  return code;
}

/* True when the function is the whole wrapper: a body that closes it early, such as "}); (() => {", is not one. */
static bool is_whole_body(JSValueConst fn, const char *open, size_t source_bytes) {
  if (!JS_IsFunction(ctx, fn)) return false;
  JSValue text = JS_ToString(ctx, fn);
  size_t bytes = 0;
  const char *utf8 = JS_ToCStringLen(ctx, &bytes, text);
  JS_FreeCString(ctx, utf8);
  JS_FreeValue(ctx, text);
  return bytes == strlen(open) - 1 + source_bytes + sizeof BODY_CLOSE - 2;
}

/* Line of a SyntaxError, from the first frame of its stack ("    at handler.js:LINE:COLUMN"); 0 when it has none. */
static int syntax_error_line(JSValueConst error) {
  JSValue stack = JS_GetPropertyStr(ctx, error, "stack");
  const char *text = JS_ToCString(ctx, stack);
  const char *at = text ? strstr(text, HANDLER_FILE ":") : NULL;
  int line = at ? atoi(at + sizeof HANDLER_FILE) : 0;
  JS_FreeCString(ctx, text);
  JS_FreeValue(ctx, stack);
  return line;
}

/* Any other error of a compile comes after parsing: an import that cannot be had. */
static bool is_syntax_error(JSValueConst error) {
  JSValue name = JS_GetPropertyStr(ctx, error, "name");
  const char *text = JS_ToCString(ctx, name);
  bool is = text && !strcmp(text, "SyntaxError");
  JS_FreeCString(ctx, text);
  JS_FreeValue(ctx, name);
  return is;
}

static int32_t compile_failed(JSValue error) {
  report_throw(error);
  return NX_STATUS_SYNTAX;
}

/* Evaluates a compiled module; on success `handler` is its default export. */
static int32_t load_module(JSValue module) {
  JSModuleDef *def = JS_VALUE_GET_PTR(module);
  JSValue done = JS_EvalFunction(ctx, module);
  if (JS_IsException(done)) {
    report_throw(JS_GetException(ctx));
    return NX_STATUS_TOP_LEVEL;
  }
  run_jobs();
  JSPromiseStateEnum state = JS_PromiseState(ctx, done);
  if (state == JS_PROMISE_REJECTED) report_throw(JS_PromiseResult(ctx, done));
  JS_FreeValue(ctx, done);
  if (state == JS_PROMISE_REJECTED) return NX_STATUS_TOP_LEVEL;
  if (state == JS_PROMISE_PENDING) return NX_STATUS_NEVER_SETTLES;
  JSValue names = JS_GetModuleNamespace(ctx, def);
  handler = JS_GetPropertyStr(ctx, names, "default");
  JS_FreeValue(ctx, names);
  form = MODULE;
  return JS_IsFunction(ctx, handler) ? NX_STATUS_DONE : NX_STATUS_NO_DEFAULT;
}

/* Module or body? The engine's parser decides: import and export cannot stand in a function, so what parses as a body
 * is one. When it is neither, the reading in which the parser came further tells what is wrong. */
static int32_t compile(const char *source, uint32_t bytes) {
  form = may_be_plain(source, bytes) ? PLAIN_BODY : ASYNC_BODY;
  const char *open = form == PLAIN_BODY ? PLAIN_BODY_OPEN : BODY_OPEN;
  JSValue body = compile_body(open, source, bytes);
  if (JS_IsException(body)) {
    JSValue body_error = JS_GetException(ctx);
    JSValue module = compile_module(source, bytes);
    if (!JS_IsException(module)) return load_module(module);
    JSValue module_error = JS_GetException(ctx);
    bool module_came_further = !is_syntax_error(module_error) ||
                               syntax_error_line(module_error) > syntax_error_line(body_error);
    return compile_failed(module_came_further ? module_error : body_error);
  }
  handler = JS_EvalFunction(ctx, body);
  if (JS_IsException(handler)) return compile_failed(JS_GetException(ctx));
  if (!is_whole_body(handler, open, bytes)) {
    JS_ThrowSyntaxError(ctx, "unbalanced braces: the source closes the function it is the body of");
    return compile_failed(JS_GetException(ctx));
  }
  return NX_STATUS_DONE;
}

/* The source lies in the input buffer, `bytes` long, followed by a NUL. */
EXPORT("nx_compile") int32_t nx_compile(uint32_t bytes) {
  enter_engine();
  int32_t status = compile(input_buffer(), bytes);
  if (status != NX_STATUS_DONE) return status;
  free_input();
  memset(area.input, 0, sizeof area.input);
  settle_heap();
  return NX_STATUS_DONE;
}

/* ---- Invoke ------------------------------------------------------------------------------------------------------ */

/* Sets a `$` global from JSON; an absent one keeps the value it has in the image. */
static bool set_global(JSValueConst global, JSAtom name, const char *text, uint32_t bytes) {
  if (bytes == NX_ABI_ABSENT) return true;
  JSValue value = nx_json_parse(ctx, text, bytes, "input");
  return !JS_IsException(value) && JS_SetProperty(ctx, global, name, value) >= 0;
}

/* The state stays a text until it is asked for: most handlers never do. */
static void begin_state(const char *text, uint32_t bytes) {
  if (bytes == NX_ABI_ABSENT) {
    free_input();
    return;
  }
  unread_state.text = text;
  unread_state.bytes = bytes;
  if (input_buffer() != area.input) unread_state.block = input_buffer();
}

static bool begin_call(void) {
  const struct nx_abi_call *call = &area.call;
  const char *args = input_buffer();
  const char *state = args + text_span(call->args_bytes);
  const char *scope = state + text_span(call->state_bytes);
  JSValue global = JS_GetGlobalObject(ctx);
  bool ok = set_global(global, atom_args, args, call->args_bytes) &&
            set_global(global, atom_scope, scope, call->scope_bytes);
  JS_FreeValue(ctx, global);
  begin_state(state, call->state_bytes);
  return ok;
}

static JSValue call_handler(void) {
  if (form != MODULE) return JS_Call(ctx, handler, JS_UNDEFINED, 0, NULL);
  JSValue global = JS_GetGlobalObject(ctx);
  JSValue argv[2] = {JS_GetProperty(ctx, global, atom_args), module_ctx};
  JS_FreeValue(ctx, global);
  JSValue result = JS_Call(ctx, handler, JS_UNDEFINED, 2, argv);
  JS_FreeValue(ctx, argv[0]);
  return result;
}

/* Moves what is still needed out of the input buffer and clears that: an execution that waits is kept as what differs
 * from its image. */
static bool leave_input(void) {
  if (unread_state.text && unread_state.text != unread_state.block) {
    char *copy = malloc(unread_state.bytes + 1);
    if (!copy) return false;
    memcpy(copy, unread_state.text, unread_state.bytes + 1);
    free(unread_state.block);
    unread_state.text = unread_state.block = copy;
  }
  memset(area.input, 0, sizeof area.input);
  return true;
}

static int32_t wait_for(JSValue promise) {
  JSValue open = JS_Call(ctx, has_open_calls, JS_UNDEFINED, 0, NULL);
  if (JS_ToBool(ctx, open) <= 0) return NX_STATUS_NEVER_SETTLES;
  main_promise = promise;
  return leave_input() ? NX_STATUS_WAITING : NX_STATUS_NO_MEMORY;
}

/* Reports the outcome of the main promise, or says that it is still pending. */
static int32_t conclude(JSValue result) {
  switch (JS_PromiseState(ctx, result)) {
  case JS_PROMISE_PENDING:
    return wait_for(result);
  case JS_PROMISE_REJECTED:
    report_throw(JS_PromiseResult(ctx, result));
    return NX_STATUS_DONE;
  case JS_PROMISE_FULFILLED:
    report_return(JS_PromiseResult(ctx, result));
    return NX_STATUS_DONE;
  default:
    report_return(result);
    return NX_STATUS_DONE;
  }
}

/* A module's function may return any thenable; what has a `then` is awaited like a promise. */
static JSValue as_promise(JSValue value) {
  if (!JS_IsObject(value) || JS_IsPromise(value)) return value;
  JSValue then = JS_GetPropertyStr(ctx, value, "then");
  bool thenable = JS_IsFunction(ctx, then);
  JS_FreeValue(ctx, then);
  if (!thenable) return value;
  JSValue resolving[2];
  JSValue promise = JS_NewPromiseCapability(ctx, resolving);
  if (JS_IsException(promise)) return promise;
  JSValue done = JS_Call(ctx, resolving[0], JS_UNDEFINED, 1, (JSValueConst[]){value});
  JS_FreeValue(ctx, done);
  JS_FreeValue(ctx, resolving[0]);
  JS_FreeValue(ctx, resolving[1]);
  JS_FreeValue(ctx, value);
  return promise;
}

static JSValue call_then(JSContext *c, int argc, JSValueConst *argv) {
  (void)argc;
  JSValue done = JS_Call(c, argv[1], argv[0], 2, argv + 2);
  if (!JS_IsException(done)) return done;
  JSValue error = JS_GetException(c);
  done = JS_Call(c, argv[3], JS_UNDEFINED, 1, (JSValueConst[]){error});
  JS_FreeValue(c, error);
  return done;
}

/* Makes `*value` the promise that an async function which returned it would settle with it, when that is to be seen: when the
 * value has a `then`. Returns whether it is such a promise, -1 for an exception. */
static int adopt_thenable(JSValue *value) {
  if (!JS_IsObject(*value)) return 0;
  JSValue then = JS_GetProperty(ctx, *value, atom_then);
  if (!JS_IsException(then) && !JS_IsFunction(ctx, then)) {
    JS_FreeValue(ctx, then);
    return 0;
  }
  JSValue thenable = *value, resolving[2];
  *value = JS_IsException(then) ? then : JS_NewPromiseCapability(ctx, resolving);
  bool ok = !JS_IsException(*value);
  if (ok) {
    ok = !JS_EnqueueJob(ctx, call_then, 4, (JSValueConst[]){thenable, then, resolving[0], resolving[1]});
    JS_FreeValue(ctx, resolving[0]);
    JS_FreeValue(ctx, resolving[1]);
  }
  JS_FreeValue(ctx, then);
  JS_FreeValue(ctx, thenable);
  return ok ? 1 : -1;
}

/* What became of a plain body, told when and as it would be told of an async one. */
static int32_t conclude_plain(JSValue result) {
  int adopted = JS_IsException(result) ? -1 : adopt_thenable(&result);
  JSValue thrown = adopted < 0 ? JS_GetException(ctx) : JS_UNDEFINED;
  run_jobs();
  if (adopted > 0) return conclude(result);
  if (adopted < 0)
    report_throw(thrown);
  else
    report_return(result);
  return NX_STATUS_DONE;
}

EXPORT("nx_invoke") int32_t nx_invoke(void) {
  executing = true;
  enter_engine();
  JS_SetGCThreshold(rt, image_heap_bytes + area.call.gc_headroom_bytes);
  if (!begin_call()) {
    report_throw(JS_GetException(ctx));
    return NX_STATUS_DONE;
  }
  JSValue result = call_handler();
  if (form == PLAIN_BODY) return conclude_plain(result);
  if (!JS_IsException(result)) result = as_promise(result);
  if (JS_IsException(result)) {
    report_throw(JS_GetException(ctx));
    run_jobs();
    return NX_STATUS_DONE;
  }
  run_jobs();
  return conclude(result);
}

/* ---- Resume ------------------------------------------------------------------------------------------------------ */

/* Each answer is a task of its own, as an event is in a browser: all that follows from it has run when the next one
 * counts, so that it may still cancel that one, or end the execution. */
static bool settle_calls(JSValueConst answers) {
  int64_t count;
  if (JS_GetLength(ctx, answers, &count)) return false;
  for (int64_t i = 0; i < count && JS_PromiseState(ctx, main_promise) == JS_PROMISE_PENDING; i++) {
    JSValue answer = JS_GetPropertyInt64(ctx, answers, i);
    JSValue done = JS_Call(ctx, settle_call, JS_UNDEFINED, 1, (JSValueConst[]){answer});
    JS_FreeValue(ctx, answer);
    if (JS_IsException(done)) return false;
    run_jobs();
  }
  return true;
}

/* The threshold of the collector is not set anew: the engine has fitted it to the heap that this execution has by now. */
EXPORT("nx_resume") int32_t nx_resume(void) {
  enter_engine();
  JSValue answers = nx_json_parse(ctx, input_buffer(), area.call.args_bytes, "answers");
  free_input();
  if (JS_IsException(answers) || !settle_calls(answers)) {
    report_throw(JS_GetException(ctx));
    return NX_STATUS_DONE;
  }
  JS_FreeValue(ctx, answers);
  return conclude(main_promise);
}
