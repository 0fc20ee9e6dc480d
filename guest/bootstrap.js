// SPDX-License-Identifier: Apache-2.0
//
// The handler's world: $state, $emit, $view, $ext, timers, $log, console, and how errors are described to the host.
//
// Runs once, when the base image is made, before any handler. Handlers share these objects and may poison every
// prototype, so whatever must work afterwards is captured here first. None of this is a security boundary: the host
// decides each call (src/exec/host_calls.c); this file only turns its answers into good errors.
(function (host, globalThis) {
  "use strict";

  const OP = { LOG: 3, STATE_SET: 4, STATE_DELETE: 5, STATE_READ: 6, EMIT: 7, VIEW: 8, EXT_CALL: 9, EXT_CANCEL: 10 };
  const DENIED = -1;

  const { Error, JSON, Map, Math, Number, Object, Promise, Proxy, Reflect, String, TypeError } = globalThis;
  const { stringify } = JSON;
  const { trunc } = Math;
  const { defineProperty, freeze, prototype: objectPrototype } = Object;
  const { apply, deleteProperty, get: reflectGet, getOwnPropertyDescriptor, ownKeys, has: reflectHas } = Reflect;
  const uncurry = Function.prototype.bind.bind(Function.prototype.call);
  const hasOwn = Object.hasOwn;
  const join = uncurry(Array.prototype.join);
  const mapGet = uncurry(Map.prototype.get);
  const mapSet = uncurry(Map.prototype.set);
  const mapDelete = uncurry(Map.prototype.delete);
  const mapSize = uncurry(getOwnPropertyDescriptor(Map.prototype, "size").get);
  const match = uncurry(RegExp.prototype.exec);
  const push = uncurry(Array.prototype.push);
  const slice = uncurry(String.prototype.slice);
  const split = uncurry(String.prototype.split);
  const toWellFormed = uncurry(String.prototype.toWellFormed);
  const includes = uncurry(String.prototype.includes);
  const hostCall = host.call;

  class PermissionError extends Error {}
  defineProperty(PermissionError.prototype, "name", { value: "PermissionError", configurable: true, writable: true });

  const define = (name, value) =>
    defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });

  // Sends one effect; `right` is the capability token that a refusal names.
  function call(op, a, b, right) {
    const reply = hostCall(op, a, b);
    if (reply === DENIED) throw new PermissionError(`missing capability ${right}`);
    if (reply < 0) throw new Error(`the host refused ${right}`);
    return reply;
  }

  // JSON of a value that leaves the sandbox; what has none (undefined, functions) is `fallback`.
  function json(value, fallback, what) {
    const text = stringify(value);
    if (text !== undefined) return text;
    if (value === undefined) return fallback;
    throw new TypeError(`${what} has no JSON form`);
  }

  // ---- $state ---------------------------------------------------------------------------------------------------

  // The snapshot is parsed when it is first touched: most handlers never do.
  let snapshot = null;
  const state = () => (snapshot ??= host.state());

  // Names that the language itself asks every object for. They are no state keys unless the snapshot has them.
  const isLanguageKey = (key) => key === "toJSON" || key === "then" || reflectHas(objectPrototype, key);

  function assertReadable(key) {
    if (typeof key === "symbol" || hasOwn(state(), key) || isLanguageKey(key)) return;
    call(OP.STATE_READ, key, undefined, `state:read:${key}`);
  }

  function setState(key, value) {
    if (typeof key === "symbol") throw new TypeError("state keys are strings");
    call(OP.STATE_SET, key, json(value, "null", `$state.${key}`), `state:write:${key}`);
    defineProperty(state(), key, { value, writable: true, enumerable: true, configurable: true });
    return true;
  }

  define("$state", new Proxy(Object.create(null), {
    get(_, key) {
      assertReadable(key);
      return reflectGet(state(), key);
    },
    has(_, key) {
      assertReadable(key);
      return reflectHas(state(), key);
    },
    set: (_, key, value) => setState(key, value),
    deleteProperty(_, key) {
      if (typeof key === "symbol") return true;
      call(OP.STATE_DELETE, key, undefined, `state:write:${key}`);
      return deleteProperty(state(), key);
    },
    ownKeys: () => ownKeys(state()),
    getOwnPropertyDescriptor(_, key) {
      assertReadable(key);
      const found = getOwnPropertyDescriptor(state(), key);
      if (found) found.configurable = true;
      return found;
    },
    defineProperty(_, key, descriptor) {
      if (!hasOwn(descriptor, "value")) throw new TypeError("$state holds values, not accessors");
      return setState(key, descriptor.value);
    },
    getPrototypeOf: () => objectPrototype,
    setPrototypeOf: () => false,
    preventExtensions: () => false,
  }));

  // ---- $emit, $view ---------------------------------------------------------------------------------------------

  define("$emit", function $emit(name, payload) {
    name = String(name);
    call(OP.EMIT, name, json(payload, "", "the payload"), `events:emit:${name}`);
  });

  const viewCommand = (type) => function (componentId, ...args) {
    componentId = String(componentId);
    call(OP.VIEW, `${type}\0${componentId}`, stringify(args), `view:update:${componentId}`);
  };
  define("$view", freeze({
    setFilter: viewCommand("setFilter"),
    scrollTo: viewCommand("scrollTo"),
    focus: viewCommand("focus"),
    custom: viewCommand("custom"),
  }));

  // ---- $ext -----------------------------------------------------------------------------------------------------

  // Calls that wait for an answer: id → {resolve, reject}, functions of the value and of an error.
  const openCalls = new Map();

  // The call's id. `waiting` is told the answer, in a later stay in the guest.
  function openCall(extension, method, args, waiting) {
    const id = hostCall(OP.EXT_CALL, `${extension}\0${method}`, stringify(args));
    if (id === DENIED) throw new PermissionError(`missing capability ext:${extension}`);
    if (id < 0) throw new Error(`there is no $ext.${extension}.${method} for this execution`);
    mapSet(openCalls, id, waiting);
    return id;
  }

  host.openCall = openCall;

  // Nobody waits for it any more; the host need not serve it.
  function cancelCall(id) {
    if (mapDelete(openCalls, id)) hostCall(OP.EXT_CANCEL, String(id));
  }

  host.hasOpenCalls = () => mapSize(openCalls) > 0;

  // What a call is rejected with: the caller gives a text, an object with a message and perhaps a name, or any other JSON.
  function callError(reason) {
    const isDescribed = typeof reason === "object" && reason !== null && hasOwn(reason, "message");
    const error = new Error(format(isDescribed ? reason.message : reason));
    if (isDescribed && hasOwn(reason, "name") && typeof reason.name === "string")
      defineProperty(error, "name", { value: reason.name, writable: true, configurable: true });
    return error;
  }

  // An answer that the host brings with a resume. There may be one to a call that nobody waits for any more.
  host.settleCall = function (answer) {
    const waiting = mapGet(openCalls, answer.callId);
    if (!waiting) return;
    mapDelete(openCalls, answer.callId);
    if (answer.success) waiting.resolve(hasOwn(answer, "value") ? answer.value : undefined);
    else waiting.reject(callError(answer.error));
  };

  const namespace = (lookup) => new Proxy(freeze(Object.create(null)), {
    get: (_, name) => (typeof name === "string" && name !== "then" && name !== "toJSON" ? lookup(name) : undefined),
  });
  define("$ext", namespace((extension) =>
    namespace((method) => (...args) =>
      new Promise((resolve, reject) => { openCall(extension, method, args, { resolve, reject }); }))));

  // ---- Timers: calls of the built-in extension `time` -----------------------------------------------------------

  const DELAY_MAX_MS = 2 ** 31 - 1;

  let lastTimer = 0;
  const timers = new Map(); // id → {callback, args, delay, repeats, call}

  // Nobody waits for a timer, so what goes wrong in one is logged.
  function guarded(task) {
    try {
      task();
    } catch (error) {
      const text = attempt(() => format(error), "unprintable value");
      hostCall(OP.LOG, "error", `uncaught in a timer: ${text}`);
    }
  }

  function startTimer(id, timer) {
    timer.call = openCall("time", "sleep", [timer.delay], {
      resolve: () => fireTimer(id, timer),
      reject(error) {
        mapDelete(timers, id);
        guarded(() => { throw error; });
      },
    });
    mapSet(timers, id, timer);
  }

  // As in a browser the next tick of an interval is counted from the end of this one, and its callback may clear it.
  function fireTimer(id, timer) {
    if (!timer.repeats) mapDelete(timers, id);
    guarded(() => apply(timer.callback, undefined, timer.args));
    if (timer.repeats && mapGet(timers, id)) guarded(() => startTimer(id, timer));
  }

  function addTimer(callback, delay, args, repeats) {
    if (typeof callback !== "function") throw new TypeError("a timer takes a function");
    delay = trunc(delay);
    delay = delay > 0 ? (delay < DELAY_MAX_MS ? delay : DELAY_MAX_MS) : 0; // NaN, too, is 0
    const id = ++lastTimer;
    startTimer(id, { callback, args, delay, repeats, call: 0 });
    return id;
  }

  function clearTimer(id) {
    id = Number(id);
    const timer = mapGet(timers, id);
    if (!timer) return;
    mapDelete(timers, id);
    cancelCall(timer.call);
  }

  define("setTimeout", function setTimeout(callback, delay = 0, ...args) {
    return addTimer(callback, delay, args, false);
  });
  define("setInterval", function setInterval(callback, delay = 0, ...args) {
    return addTimer(callback, delay, args, true);
  });
  define("clearTimeout", function clearTimeout(id) { clearTimer(id); });
  define("clearInterval", function clearInterval(id) { clearTimer(id); });

  // ---- Logs -----------------------------------------------------------------------------------------------------

  function format(value) {
    if (typeof value === "string") return value;
    if (value instanceof Error) return describe(value).stack;
    if (typeof value === "object" && value !== null) {
      try {
        return stringify(value) ?? String(value);
      } catch {
        return "[object that has no JSON form]";
      }
    }
    return typeof value === "bigint" ? `${value}n` : String(value);
  }

  const logger = (level) => function (...values) {
    const parts = [];
    for (let i = 0; i < values.length; i++) push(parts, format(values[i]));
    hostCall(OP.LOG, level, join(parts, " "));
  };
  const levels = { debug: logger("debug"), info: logger("info"), warn: logger("warn"), error: logger("error") };
  const log = logger("info");
  define("$log", Object.assign(log, levels));
  define("console", { log: logger("info"), trace: logger("debug"), ...levels });

  define("performance", globalThis.performance); // the engine makes it enumerable, unlike every other global

  // ---- Errors -----------------------------------------------------------------------------------------------------

  const FRAME = /handler\.js:(\d+)(?::(\d+))?/;

  const attempt = (read, fallback) => {
    try {
      return read();
    } catch {
      return fallback;
    }
  };

  // Texts of errors are cut: they go to logs and replies.
  const MESSAGE_MAX = 4096, STACK_MAX = 8192;

  // {name, message, stack, line, column} of anything that was thrown. The message of a plain Error stands alone, any
  // other kind's begins with its name. Stack lines of our own scripts are left out.
  function describe(thrown) {
    const isError = attempt(() => thrown instanceof Error, false);
    const read = (key) => (isError ? attempt(() => thrown[key], undefined) : undefined);
    const name = isError ? slice(attempt(() => String(read("name")), "Error"), 0, 256) : "Error";
    const text = isError ? attempt(() => String(read("message")), "") : attempt(() => format(thrown), "unprintable value");
    const message = slice(text, 0, MESSAGE_MAX);
    const headline = message ? `${name}: ${message}` : name;
    const lines = split(slice(attempt(() => String(read("stack") ?? ""), ""), 0, STACK_MAX), "\n");
    const kept = [headline];
    let line, column;
    for (let i = 0; i < lines.length; i++) {
      if (lines[i] === "" || includes(lines[i], "nexus:internal")) continue;
      const frame = line === undefined ? match(FRAME, lines[i]) : null;
      if (frame) {
        line = Number(frame[1]);
        column = frame[2] === undefined ? undefined : Number(frame[2]);
      }
      push(kept, lines[i]);
    }
    return {
      __proto__: null,
      name: toWellFormed(name),
      message: toWellFormed(name === "Error" ? message : headline),
      stack: toWellFormed(join(kept, "\n")),
      line, column,
    };
  }
  host.describeError = (thrown) => stringify(describe(thrown));

  // The engine's call sites hand out the functions of every frame, ours and our callers' included.
  Error.prepareStackTrace = (_, sites) => sites;
  const callSite = Object.getPrototypeOf(new Error().stack[0]);
  Error.prepareStackTrace = undefined;
  delete callSite.getFunction;
  delete callSite.getThis;

  // ---- The second argument of a module's default export ------------------------------------------------------------

  define("$args", undefined);
  define("$scope", {});
  const { $state, $emit, $view, $ext, $log } = globalThis;
  host.moduleContext = freeze({
    get args() { return globalThis.$args; },
    get scope() { return globalThis.$scope; },
    state: $state, emit: $emit, view: $view, ext: $ext, log: $log,
  });
})
