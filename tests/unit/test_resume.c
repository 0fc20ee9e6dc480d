/* SPDX-License-Identifier: Apache-2.0
 *
 * Executions that wait: which calls they leave open, and how they go on when answers come. The host here is a stub that
 * numbers extension calls from 1 on and writes down what it was asked. */
#include "sandbox_support.h"

#include "sandbox/instance.h"

#define ROUNDS 10000u

struct session {
  struct world world;
  struct nx_image *image;
  uint32_t calls;        /* made so far; the last one's id */
  uint32_t cancelled;    /* ids that were cancelled, as bits */
  int32_t refusal;       /* what the next calls are answered, when it is not 0 */
  char asked[2048];      /* "ext.method[args] " of each call */
  char logged[1024];
  struct nx_guest_result result;
};

static void append(char *out, size_t size, const char *text, uint32_t bytes, char end) {
  size_t used = strlen(out);
  snprintf(out + used, size - used, "%.*s%c", (int)bytes, text, end);
}

static int32_t open_call(struct session *s, const char *what, uint32_t what_bytes, const char *args, uint32_t args_bytes) {
  if (s->refusal) return s->refusal;
  uint32_t name_bytes = (uint32_t)strlen(what);
  append(s->asked, sizeof s->asked, what, name_bytes, '.');
  append(s->asked, sizeof s->asked, what + name_bytes + 1, what_bytes - name_bytes - 1, ' ');
  s->asked[strlen(s->asked) - 1] = 0;
  append(s->asked, sizeof s->asked, args, args_bytes, ' ');
  return (int32_t)++s->calls;
}

static int32_t session_host_call(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b,
                                 uint32_t b_bytes) {
  struct session *s = opaque;
  switch (op) {
  case NX_OP_EXT_CALL:
    return open_call(s, a, a_bytes, b, b_bytes);
  case NX_OP_EXT_CANCEL:
    s->cancelled |= 1u << atoi(a);
    return NX_REPLY_BAD_CALL; /* the guest has nothing to do with it */
  case NX_OP_LOG:
    append(s->logged, sizeof s->logged, b, b_bytes, '\n');
    return NX_REPLY_OK;
  default:
    return world_host_call(&s->world, op, a, a_bytes, b, b_bytes);
  }
}

static struct nx_guest_call session_call(struct session *s) {
  struct nx_guest_call call = world_call(&s->world);
  call.opaque = s;
  call.host_call = session_host_call;
  s->asked[0] = s->logged[0] = 0;
  return call;
}

static int32_t ended(struct session *s) {
  if (s->result.end != NX_GUEST_RETURNED) fail_msg("the guest ended with %d: %s", s->result.end, s->result.trap);
  return s->result.status;
}

static int32_t start_with(struct session *s, const char *args, const char *state) {
  struct nx_guest_call call = session_call(s);
  s->calls = s->cancelled = 0;
  s->result = nx_instance_invoke(s->world.instance, &call, text_of(args), text_of(state), text_of(NULL));
  return ended(s);
}

static int32_t start(struct session *s) { return start_with(s, NULL, NULL); }

static int32_t resume(struct session *s, const char *answers) {
  struct nx_guest_call call = session_call(s);
  s->result = nx_instance_resume(s->world.instance, &call, text_of(answers));
  return ended(s);
}

static void load(struct session *s, const char *source) {
  s->image = world_load(&s->world, source);
  if (!s->image) fail_msg("does not compile: %s\n%s", source, s->world.thrown);
}

static void unload(struct session *s) {
  nx_instance_reset(s->world.instance);
  assert_int_equal(nx_instance_verify(s->world.instance), 0);
  nx_image_release(s->image);
}

/* A handler, the answers it gets one resume after the other, and what comes of it. */
struct play {
  const char *source;
  const char *asked; /* before the first answers */
  const char *answers[5];
  const char *returned; /* JSON; after "!" part of what was thrown */
};

static void perform(struct session *s, const struct play *play) {
  load(s, play->source);
  int32_t status = start(s);
  if (play->asked) assert_string_equal(s->asked, play->asked);
  for (unsigned i = 0; play->answers[i]; i++) {
    if (status != NX_STATUS_WAITING) fail_msg("does not wait for answer %u: %s\n%s", i, play->source, s->world.thrown);
    status = resume(s, play->answers[i]);
  }
  if (status != NX_STATUS_DONE) fail_msg("ended with %d: %s", status, play->source);
  bool throws = play->returned[0] == '!';
  if (throws ? !strstr(s->world.thrown, play->returned + 1) : strcmp(s->world.returned, play->returned))
    fail_msg("%s\nreturned %s, threw %s, not %s", play->source, s->world.returned, s->world.thrown, play->returned);
  unload(s);
}

static void perform_all(const struct play *plays, size_t count) {
  struct session s = {0};
  world_open(&s.world);
  for (size_t i = 0; i < count; i++) perform(&s, &plays[i]);
  world_close(&s.world);
}
#define PERFORM(plays) perform_all((plays), sizeof(plays) / sizeof *(plays))

#define OK(id, value) "{\"callId\":" #id ",\"success\":true,\"value\":" value "}"
#define DONE(id) "{\"callId\":" #id ",\"success\":true}"
#define FAILED(id, error) "{\"callId\":" #id ",\"success\":false,\"error\":" error "}"

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

static void answers_settle_calls(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"return await $ext.crm.find(1, 'x')", "crm.find[1,\"x\"] ", {"[" OK(1, "{\"name\":\"A\",\"tags\":[1,null]}") "]"},
     "{\"name\":\"A\",\"tags\":[1,null]}"},
    {"return [await $ext.crm.find(), 1]", "crm.find[] ", {"[" DONE(1) "]"}, "[null,1]"},
    {"const a = await $ext.a.b(1); const b = await $ext.a.b(a + 1); return a + b", "a.b[1] ",
     {"[" OK(1, "10") "]", "[" OK(2, "20") "]"}, "30"},
    /* all at once, one at a time, in any order */
    {"return await Promise.all([$ext.a.b(1), $ext.c.d(2)])", "a.b[1] c.d[2] ", {"[" OK(2, "2") "," OK(1, "1") "]"}, "[1,2]"},
    {"return await Promise.all([$ext.a.b(1), $ext.c.d(2)])", NULL, {"[" OK(2, "2") "]", "[" OK(1, "1") "]"}, "[1,2]"},
    /* no answers, answers to nobody, a second answer */
    {"return await $ext.a.b()", NULL, {"[]", "[" OK(7, "7") "]", "[" OK(1, "1") "]"}, "1"},
    {"return await Promise.all([$ext.a.b(), $ext.a.b()])", NULL, {"[" OK(1, "1") "," OK(1, "9") "]", "[" OK(1, "9") "]",
     "[" OK(2, "2") "]"}, "[1,2]"},
    /* each answer is a task of its own */
    {"const seen = [];"
     "$ext.a.b().then(() => seen.push('a')).then(() => seen.push('then'));"
     "await $ext.a.b(); seen.push('b'); return seen", NULL, {"[" DONE(1) "," DONE(2) "]"}, "[\"a\",\"then\",\"b\"]"},
    {"return await Promise.race([$ext.a.b(), $ext.a.b()])", NULL, {"[" OK(2, "2") "," OK(1, "1") "]"}, "2"},
    /* the rest of the answers comes too late */
    {"$ext.a.b().then(() => $emit('late')); return await $ext.a.b()", NULL, {"[" OK(2, "2") "," OK(1, "1") "]"}, "2"},
    /* what is poisoned does not reach answers */
    {"Object.prototype.value = 1; Array.prototype[Symbol.iterator] = null; Map.prototype.get = null;"
     "return [await $ext.a.b()]", NULL, {"[" DONE(1) "]"}, "[null]"},
  };
  PERFORM(plays);
}

static void errors_reject_calls(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"await $ext.a.b()", NULL, {"[" FAILED(1, "\"no such customer\"") "]"}, "!\"message\":\"no such customer\""},
    {"try { await $ext.a.b() } catch (e) { return [e instanceof Error, e.name, e.message] }", NULL,
     {"[" FAILED(1, "\"no\"") "]"}, "[true,\"Error\",\"no\"]"},
    {"try { await $ext.a.b() } catch (e) { return [e instanceof Error, e.name, e.message, Object.keys(e)] }", NULL,
     {"[" FAILED(1, "{\"name\":\"Busy\",\"message\":\"later\"}") "]"}, "[true,\"Busy\",\"later\",[]]"},
    {"try { await $ext.a.b() } catch (e) { return [e.name, e.message] }", NULL,
     {"[" FAILED(1, "{\"name\":5,\"message\":[7]}") "]"}, "[\"Error\",\"[7]\"]"},
    {"try { await $ext.a.b() } catch (e) { return e.message }", NULL, {"[" FAILED(1, "{\"code\":3}") "]"}, "\"{\\\"code\\\":3}\""},
    {"try { await $ext.a.b() } catch (e) { return e.message }", NULL, {"[" FAILED(1, "null") "]"}, "\"null\""},
    {"await $ext.a.b(); null.x", NULL, {"[" DONE(1) "]"}, "!\"line\":1"},
    {"$ext.a.b().catch(() => 0); throw new RangeError('first')", NULL, {0}, "!first"},
  };
  PERFORM(plays);
}

static void combinators_wait(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"return (await Promise.allSettled([$ext.a.b(), $ext.a.b(), 3])).map((r) => r.value ?? r.reason.message)", NULL,
     {"[" FAILED(1, "\"no\"") "]", "[" OK(2, "2") "]"}, "[\"no\",2,3]"},
    {"return await Promise.any([$ext.a.b(), $ext.a.b()])", NULL, {"[" FAILED(1, "\"no\"") "]", "[" OK(2, "2") "]"}, "2"},
    {"try { await Promise.any([$ext.a.b(), $ext.a.b()]) } catch (e) { return e.errors.map((x) => x.message) }", NULL,
     {"[" FAILED(2, "\"y\"") "," FAILED(1, "\"x\"") "]"}, "[\"x\",\"y\"]"},
    {"return await Promise.race([$ext.approval.ask(), $ext.time.sleep(50).then(() => 'too late')])",
     "approval.ask[] time.sleep[50] ", {"[" DONE(2) "]"}, "\"too late\""},
    {"try { await Promise.all([$ext.a.b(), $ext.a.b()]) } catch (e) { return e.message }", NULL,
     {"[" FAILED(2, "\"no\"") "]"}, "\"no\""},
    {"const log = []; try { await $ext.a.b().finally(() => log.push('finally')) } catch { log.push('catch') } return log", NULL,
     {"[" FAILED(1, "0") "]"}, "[\"finally\",\"catch\"]"},
    {"try { return await $ext.a.b() } finally { await $ext.a.c() }", NULL, {"[" OK(1, "1") "]", "[" OK(2, "2") "]"}, "1"},
  };
  PERFORM(plays);
}

/* ---- What lives on ------------------------------------------------------------------------------------------------- */

static void everything_lives_on(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"let n = 1; const add = (x) => n += x; add(await $ext.a.b()); add(await $ext.a.b()); return n", NULL,
     {"[" OK(1, "10") "]", "[" OK(2, "100") "]"}, "111"},
    {"const m = new Map([['a', new Set([1])]]); const w = new WeakMap([[m, 7]]);"
     "m.get('a').add(await $ext.a.b()); return [[...m.get('a')], w.get(m)]", NULL, {"[" OK(1, "2") "]"}, "[[1,2],7]"},
    {"function* g() { let x = 0; for (;;) x += yield x }  const it = g(); it.next(); it.next(await $ext.a.b());"
     "return it.next(await $ext.a.b()).value", NULL, {"[" OK(1, "3") "]", "[" OK(2, "4") "]"}, "7"},
    {"async function* g() { for (let i = 0; i < 3; i++) yield await $ext.a.b(i) }"
     "const all = []; for await (const x of g()) all.push(x); return all", "a.b[0] ",
     {"[" OK(1, "\"x\"") "]", "[" OK(2, "\"y\"") "]", "[" OK(3, "\"z\"") "]"}, "[\"x\",\"y\",\"z\"]"},
    {"const it = { [Symbol.asyncIterator]() { let n = 0; return { next: async () => ({ value: await $ext.a.b(), done: n++ > 1 }),"
     "return: async () => { $log('closed'); return {} } } } };"
     "for await (const x of it) if (x === 2) return 'two'", NULL, {"[" OK(1, "1") "]", "[" OK(2, "2") "]"}, "\"two\""},
    {"const deep = async (n) => n ? 1 + await deep(n - 1) : await $ext.a.b(); return await deep(50)", NULL,
     {"[" OK(1, "1") "]"}, "51"},
    {"class A { #x = 1; static async make() { const a = new A(); a.#x += await $ext.a.b(); return a } get x() { return this.#x } }"
     "return (await A.make()).x", NULL, {"[" OK(1, "1") "]"}, "2"},
    {"const big = 2n ** 64n, re = /b/g; re.test('abb'); await $ext.a.b(); return [String(big), re.lastIndex]", NULL,
     {"[" DONE(1) "]"}, "[\"18446744073709551616\",2]"},
    {"Object.prototype.touched = 1; globalThis.own = 2; await $ext.a.b(); return [({}).touched, own]", NULL,
     {"[" DONE(1) "]"}, "[1,2]"},
    {"await $ext.a.b($args); return $args === undefined", NULL, {"[" DONE(1) "]"}, "true"},
  };
  PERFORM(plays);
}

static void every_form_can_wait(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"export default async () => 1 + await $ext.a.b()", NULL, {"[" OK(1, "1") "]"}, "2"},
    {"export default (args, { ext }) => ext.a.b()", NULL, {"[" OK(1, "1") "]"}, "1"},
    {"export default () => ({ then(resolve) { $ext.a.b().then(resolve) } })", NULL, {"[" OK(1, "1") "]"}, "1"},
    {"let runs = 0; export default async function () { runs++; await $ext.a.b(); return runs }", NULL, {"[" DONE(1) "]"}, "1"},
    /* bodies without `await` are plain functions */
    {"return $ext.a.b().then((x) => x + 1)", NULL, {"[" OK(1, "1") "]"}, "2"},
    {"return $ext.a.b().then((x) => $ext.a.b(x))", NULL, {"[" OK(1, "1") "]", "[" OK(2, "2") "]"}, "2"},
    {"return { then(resolve, reject) { $ext.a.b().then(resolve, reject) } }", NULL, {"[" FAILED(1, "\"no\"") "]"}, "!no"},
    {"$ext.a.b(); return 1", "a.b[] ", {0}, "1"},
  };
  PERFORM(plays);
}

static void what_can_never_settle_is_told(void **state) {
  (void)state;
  static const char *const sources[] = {
    "await new Promise(() => {})",
    "await $ext.a.b(); await new Promise(() => {})",
    "await Promise.all([$ext.a.b(), new Promise(() => {})])",
  };
  struct session s = {0};
  world_open(&s.world);
  for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
    load(&s, sources[i]);
    int32_t status = start(&s);
    if (i) {
      assert_int_equal(status, NX_STATUS_WAITING);
      status = resume(&s, "[" DONE(1) "]");
    }
    assert_int_equal(status, NX_STATUS_NEVER_SETTLES);
    unload(&s);
  }
  world_close(&s.world);
}

/* A refused call is not open: an execution that then waits for something else alone never settles. */
static void refused_calls_are_not_open(void **state) {
  (void)state;
  struct session s = {.refusal = NX_REPLY_DENIED};
  world_open(&s.world);
  load(&s, "try { await $ext.a.b() } catch (e) { $log(e.name) } await new Promise(() => {})");
  assert_int_equal(start(&s), NX_STATUS_NEVER_SETTLES);
  assert_string_equal(s.logged, "PermissionError\n");
  unload(&s);
  world_close(&s.world);
}

static void the_top_level_makes_no_calls(void **state) {
  (void)state;
  struct session s = {0};
  world_open(&s.world);
  static const char *const sources[] = {
    "await $ext.a.b(); export default () => 1",
    "setTimeout(() => 1, 5); export default () => 1",
    "await fetch('http://a'); export default () => 1",
  };
  for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
    assert_null(world_load(&s.world, sources[i]));
    assert_non_null(strstr(s.world.thrown, "during executions only, not while the top level runs"));
  }
  world_close(&s.world);
}

/* ---- Timers ---------------------------------------------------------------------------------------------------------- */

static void timers_are_calls(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"return await new Promise((done) => setTimeout((...args) => done(args), 50, 'x', 1))", "time.sleep[50] ",
     {"[" DONE(1) "]"}, "[\"x\",1]"},
    {"for (const ms of [undefined, -1, NaN, 'abc', '7', 1.9, 1e99, -Infinity]) setTimeout(() => 0, ms); return await $ext.a.b()",
     "time.sleep[0] time.sleep[0] time.sleep[0] time.sleep[0] time.sleep[7] time.sleep[1] time.sleep[2147483647] time.sleep[0] a.b[] ",
     {"[" OK(9, "1") "]"}, "1"},
    {"return [typeof await $ext.time.sleep(5)]", "time.sleep[5] ", {"[" DONE(1) "]"}, "[\"undefined\"]"},
    {"return [setTimeout(() => 0) === setTimeout(() => 0), typeof setTimeout(() => 0), setTimeout.name, setInterval.length]", NULL,
     {0}, "[false,\"number\",\"setTimeout\",1]"},
    {"try { setTimeout('code') } catch (e) { return e.name }", "", {0}, "\"TypeError\""},
    {"let n = 0; await new Promise((done) => { const id = setInterval(() => { if (++n === 3) { clearInterval(id); done() } }, 9) });"
     "return n", "time.sleep[9] ", {"[" DONE(1) "]", "[" DONE(2) "]", "[" DONE(3) "]"}, "3"},
    /* microtasks run between two timers, which may clear the other in time */
    {"let other; setTimeout(() => Promise.resolve().then(() => clearTimeout(other)), 1);"
     "other = setTimeout(() => { throw 'cleared' }, 2); return await $ext.a.b()", NULL,
     {"[" DONE(1) "," DONE(2) "," OK(3, "1") "]"}, "1"},
    /* pending timers do not keep an execution */
    {"setInterval(() => 0, 1); setTimeout(() => $emit('late'), 1); return await $ext.a.b()", NULL,
     {"[" OK(3, "1") "," DONE(1) "," DONE(2) "]"}, "1"},
    {"export default () => { setTimeout(() => 0, 1); return 1 }", "time.sleep[1] ", {0}, "1"},
    {"Promise.prototype.then = Map.prototype.get = Map.prototype.set = null; setTimeout(() => globalThis.done = 1, 1);"
     "await $ext.a.b(); return done", NULL, {"[" DONE(1) "]", "[" DONE(2) "]"}, "1"},
  };
  PERFORM(plays);
}

static void errors_in_timers_are_logged(void **state) {
  (void)state;
  struct session s = {0};
  world_open(&s.world);
  load(&s, "let n = 0; await new Promise((done) => setInterval(() => { if (++n === 2) done(); null.x }, 1)); return n");
  assert_int_equal(start(&s), NX_STATUS_WAITING);
  assert_int_equal(resume(&s, "[" DONE(1) "]"), NX_STATUS_WAITING);
  assert_non_null(strstr(s.logged, "uncaught in a timer: TypeError: "));
  assert_non_null(strstr(s.logged, "handler.js:1"));
  assert_int_equal(resume(&s, "[" DONE(2) "]"), NX_STATUS_DONE);
  assert_string_equal(s.world.returned, "2");
  unload(&s);

  load(&s, "setTimeout(() => $log('never'), 1); await $ext.a.b(); await new Promise(() => {})");
  assert_int_equal(start(&s), NX_STATUS_WAITING);
  assert_int_equal(resume(&s, "[" FAILED(1, "\"the host is tired\"") "]"), NX_STATUS_WAITING);
  assert_non_null(strstr(s.logged, "uncaught in a timer: Error: the host is tired"));
  assert_int_equal(resume(&s, "[" DONE(2) "]"), NX_STATUS_NEVER_SETTLES);
  unload(&s);
  world_close(&s.world);
}

static void cleared_timers_are_cancelled_at_the_host(void **state) {
  (void)state;
  struct session s = {0};
  world_open(&s.world);
  load(&s, "const a = setTimeout(() => 0, 1), b = setInterval(() => 0, 1), c = setTimeout(() => 0, 1);"
           "clearTimeout(b); clearInterval(c); clearTimeout(c); clearTimeout(); clearTimeout('x'); clearTimeout(99);"
           "await new Promise(() => {})");
  assert_int_equal(start(&s), NX_STATUS_WAITING); /* for a */
  assert_int_equal(s.cancelled, 1u << 2 | 1u << 3);
  assert_int_equal(resume(&s, "[" DONE(2) "," DONE(3) "," DONE(1) "]"), NX_STATUS_NEVER_SETTLES);
  unload(&s);

  load(&s, "const a = setTimeout(() => clearTimeout(a), 1); clearTimeout(String(setTimeout(() => 0))); await new Promise(() => {})");
  assert_int_equal(start(&s), NX_STATUS_WAITING);
  assert_int_equal(s.cancelled, 1u << 2);
  assert_int_equal(resume(&s, "[" DONE(1) "]"), NX_STATUS_NEVER_SETTLES);
  assert_int_equal(s.cancelled, 1u << 2); /* it had its answer */
  unload(&s);
  world_close(&s.world);
}

/* ---- fetch ----------------------------------------------------------------------------------------------------------- */

#define REPLY(body) \
  "{\"status\":200,\"statusText\":\"OK\",\"url\":\"http://a/\",\"redirected\":false,\"headers\":{\"X-A\":\"1\"}," body "}"

/* The conversions are tested against another implementation in tests/guest; here it is that they hold in the sandbox. */
static void fetch_is_a_call(void **state) {
  (void)state;
  static const struct play plays[] = {
    {"const r = await fetch('http://a'); return [r.status, r.headers.get('x-a'), await r.json(), r.bodyUsed]",
     "net.fetch[\"http://a/\",{\"method\":\"GET\",\"headers\":{}}] ", {"[" OK(1, REPLY("\"body\":\"{\\\"k\\\":2}\"")) "]"},
     "[200,\"1\",{\"k\":2},true]"},
    {"const r = await fetch('http://a/', { method: 'post', body: new Uint8Array([255, 0]) }); return [...await r.bytes()]",
     "net.fetch[\"http://a/\",{\"method\":\"POST\",\"headers\":{},\"bodyBase64\":\"/wA=\"}] ",
     {"[" OK(1, REPLY("\"bodyBase64\":\"AP8=\"")) "]"}, "[0,255]"},
    {"return await $ext.net.fetch('http://a/')", "net.fetch[\"http://a/\"] ", {"[" OK(1, REPLY("\"body\":\"x\"")) "]"},
     REPLY("\"body\":\"x\"")},
    {"return (await Promise.all(['http://a', 'http://b'].map((url) => fetch(url).then((r) => r.text())))).join()", NULL,
     {"[" OK(2, REPLY("\"body\":\"b\"")) "]", "[" OK(1, REPLY("\"body\":\"a\"")) "]"}, "\"a,b\""},
    {"const r = await fetch('http://a'); await $ext.time.sleep(1); return r.clone().text()", NULL,
     {"[" OK(1, REPLY("\"body\":\"late\"")) "]", "[" DONE(2) "]"}, "\"late\""},
    {"await fetch('http://a')", NULL, {"[" FAILED(1, "\"not allowed\"") "]"}, "!TypeError: fetch failed: not allowed"},
    {"return await fetch('http://a').catch((e) => [e instanceof TypeError, e.cause.message])", NULL,
     {"[" FAILED(1, "\"x\"") "]"}, "[true,\"x\"]"},
    {"return await fetch('nowhere').catch((e) => e.name)", "", {0}, "\"TypeError\""},
    {"Promise.prototype.then = Array.prototype.push = String.prototype.toLowerCase = Uint8Array.fromBase64 = null;"
     "const r = await fetch('http://a'); return await r.text()", NULL, {"[" OK(1, REPLY("\"bodyBase64\":\"eA==\"")) "]"}, "\"x\""},
  };
  PERFORM(plays);
}

static void a_denied_fetch_is_a_permission_error(void **state) {
  (void)state;
  struct session s = {.refusal = NX_REPLY_DENIED};
  world_open(&s.world);
  load(&s, "await fetch('http://a')");
  assert_int_equal(start(&s), NX_STATUS_DONE);
  assert_non_null(strstr(s.world.thrown, "PermissionError: missing capability ext:net"));
  unload(&s);
  world_close(&s.world);
}

/* ---- Inputs ---------------------------------------------------------------------------------------------------------- */

/* A JSON object {"a":"xxx…"} of about `bytes`. */
static char *large_json(size_t bytes) {
  char *text = malloc(bytes + 16);
  if (!text) abort();
  sprintf(text, "{\"a\":\"%*s\"}", (int)bytes, "");
  return text;
}

static void inputs_outlast_a_wait(void **state) {
  (void)state;
  struct session s = {0};
  world_open(&s.world);
  load(&s, "await $ext.a.b(); await $ext.a.b(); return [$state.a.length, $args?.a.length, Object.keys($state)]");
  char *large = large_json(100000), expected[64];
  const char *const inputs[][2] = {{NULL, "{\"a\":\"x\"}"}, {large, "{\"a\":\"x\"}"}, {"{\"a\":\"\"}", large}, {large, large}};
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
    const char *args = inputs[i][0], *text = inputs[i][1];
    assert_int_equal(start_with(&s, args, text), NX_STATUS_WAITING);
    assert_int_equal(resume(&s, "[" OK(1, "\"a text that lies where the input was, and is longer than a short state\"") "]"),
                     NX_STATUS_WAITING);
    assert_int_equal(resume(&s, "[" DONE(2) "]"), NX_STATUS_DONE);
    char args_length[16] = "null";
    if (args) sprintf(args_length, "%zu", strlen(args) - 8);
    sprintf(expected, "[%zu,%s,[\"a\"]]", strlen(text) - 8, args_length);
    assert_string_equal(s.world.returned, expected);
    nx_instance_reset(s.world.instance);
  }
  free(large);
  unload(&s);
  world_close(&s.world);
}

/* The memory of an execution that waits, as an image. */
static struct nx_image *freeze(struct session *s) {
  struct nx_error err;
  struct nx_image *image;
  if (nx_instance_capture(s->world.instance, NULL, &image, &err)) fail_msg("%s", err.text);
  return image;
}

/* Nothing of the input stays in its buffer, where it would be kept with every execution that waits. */
static void waiting_clears_the_input(void **state) {
  (void)state;
  static const char zeros[NX_PAGE_BYTES];
  struct session s = {0};
  world_open(&s.world);
  load(&s, "await $ext.a.b(); return await $ext.a.b()");
  assert_int_equal(start_with(&s, "{\"some\":\"args\"}", "{\"some\":\"state\"}"), NX_STATUS_WAITING);
  for (unsigned i = 0; i < 2; i++) {
    struct nx_image *frozen = freeze(&s);
    const uint8_t *page = nx_image_page(frozen, nx__sandbox.inline_input / NX_PAGE_BYTES);
    assert_memory_equal(page + nx__sandbox.inline_input % NX_PAGE_BYTES, zeros, nx__sandbox.inline_input_bytes);
    nx_image_release(frozen);
    assert_int_equal(resume(&s, i ? "[" OK(2, "7") "]" : "[" DONE(1) "]"), i ? NX_STATUS_DONE : NX_STATUS_WAITING);
  }
  assert_string_equal(s.world.returned, "7");
  unload(&s);
  world_close(&s.world);
}

/* All that an execution is lies in linear memory: it goes on in any instance, and more than once. */
static void executions_go_on_elsewhere(void **state) {
  (void)state;
  struct session s = {0}, other = {0};
  struct nx_error err;
  world_open(&s.world);
  world_open(&other.world);
  load(&s, "const a = await $ext.a.b(); return [a, $args, $state.k]");
  assert_int_equal(start_with(&s, "5", "{\"k\":6}"), NX_STATUS_WAITING);
  struct nx_image *frozen = freeze(&s);
  unload(&s);
  assert_int_equal(nx_instance_show(other.world.instance, frozen, &err), 0);
  for (unsigned i = 0; i < 2; i++) {
    assert_int_equal(resume(&other, "[" OK(1, "4") "]"), NX_STATUS_DONE);
    assert_string_equal(other.world.returned, "[4,5,6]");
    nx_instance_reset(other.world.instance);
  }
  nx_image_release(frozen);
  world_close(&other.world);
  world_close(&s.world);
}

/* ---- For long -------------------------------------------------------------------------------------------------------- */

/* Memory after a few rounds is memory after all of them, also when answers need more than the inline buffer. */
static void resumes_do_not_accumulate(void **state) {
  (void)state;
  static const char *const sources[] = {
    "for (let n = 0; ; n++) { const x = await $ext.a.b(n); if (x === null) return n }",
    "for await (const x of (async function* () { for (;;) yield $ext.a.b() })()) if (x === null) return 1",
    "await new Promise((done) => { let n = 0; setInterval(() => { if (++n > 10000) done() }, 1) })",
    "await new Promise((done) => { const go = () => { $ext.a.b().then((x) => { x === null ? done() : go() }) }; go() })",
  };
  struct session s = {0};
  world_open(&s.world);
  char *large = large_json(8000);
  char *answer = malloc(strlen(large) + 100);
  if (!answer) abort();
  for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
    load(&s, sources[i]);
    assert_int_equal(start(&s), NX_STATUS_WAITING);
    uint32_t memory_bytes = 0, heap_bytes = 0;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
      sprintf(answer, "[{\"callId\":%u,\"success\":true,\"value\":%s}]", round, round % 8 ? "1" : large);
      assert_int_equal(resume(&s, answer), NX_STATUS_WAITING);
      if (round == ROUNDS / 10) memory_bytes = s.result.memory_peak_bytes, heap_bytes = s.result.heap_bytes;
    }
    assert_true(s.result.memory_peak_bytes <= memory_bytes);
    assert_in_range(s.result.heap_bytes, 0, heap_bytes + 4096);
    sprintf(answer, "[{\"callId\":%u,\"success\":true,\"value\":null}]", s.calls);
    assert_int_equal(resume(&s, answer), NX_STATUS_DONE);
    unload(&s);
  }
  free(large);
  free(answer);
  world_close(&s.world);
}

/* ---- Runs ------------------------------------------------------------------------------------------------------------ */

static int set_up(void **state) {
  (void)state;
  struct nx_error err;
  struct nx_boot_image boot = nx_boot_image_linked();
  return nx_sandbox_init(NX_RESET_AUTO, &boot, &err) ? -1 : nx_sandbox_thread_enter(&err);
}

static int tear_down(void **state) {
  (void)state;
  nx_sandbox_thread_leave();
  nx_sandbox_deinit();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(answers_settle_calls),
    cmocka_unit_test(errors_reject_calls),
    cmocka_unit_test(combinators_wait),
    cmocka_unit_test(everything_lives_on),
    cmocka_unit_test(every_form_can_wait),
    cmocka_unit_test(what_can_never_settle_is_told),
    cmocka_unit_test(refused_calls_are_not_open),
    cmocka_unit_test(the_top_level_makes_no_calls),
    cmocka_unit_test(timers_are_calls),
    cmocka_unit_test(errors_in_timers_are_logged),
    cmocka_unit_test(cleared_timers_are_cancelled_at_the_host),
    cmocka_unit_test(fetch_is_a_call),
    cmocka_unit_test(a_denied_fetch_is_a_permission_error),
    cmocka_unit_test(inputs_outlast_a_wait),
    cmocka_unit_test(waiting_clears_the_input),
    cmocka_unit_test(executions_go_on_elsewhere),
    cmocka_unit_test(resumes_do_not_accumulate),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
