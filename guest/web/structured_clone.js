// SPDX-License-Identifier: Apache-2.0
//
// structuredClone after the HTML standard. What an object is, the engine's class number tells (host.classId), which no
// prototype or Symbol.toStringTag can forge. Proxies, promises and the like have no copier and are refused. A buffer
// that is transferred is copied and then detached: nobody can tell, and nothing moves on failure.
(function (host, globalThis) {
  "use strict";

  const { ArrayBuffer, BigInt, Boolean, DOMException, DataView, Date, Error, Map, Number, Object, RegExp, Set, String,
    TypeError, Uint8Array } = globalThis;
  const { classId, define, interfaces, uncurry } = host;
  const { defineProperty, getOwnPropertyDescriptor, getPrototypeOf, hasOwn, keys, prototype: objectPrototype } = Object;
  const mapGet = uncurry(Map.prototype.get);
  const mapSet = uncurry(Map.prototype.set);
  const getter = (Class, name) => uncurry(getOwnPropertyDescriptor(Class.prototype, name).get);

  const uncloneable = (what) => new DOMException(`${what} could not be cloned`, "DataCloneError");

  function describe(value) {
    if (typeof value === "symbol" || typeof value === "function") return `a ${typeof value}`;
    return "an object of this kind";
  }

  // Class number → function (value, seen) that makes the copy and notes it in `seen`, a Map from original to copy.
  const copiers = new Map();
  const register = (sample, copier) => mapSet(copiers, classId(sample), copier);

  function clone(value, seen) {
    if (typeof value === "symbol" || typeof value === "function") throw uncloneable(describe(value));
    if (typeof value !== "object" || value === null) return value;
    const known = mapGet(seen, value);
    if (known) return known;
    const copier = mapGet(copiers, classId(value));
    if (!copier) throw uncloneable(describe(value));
    return copier(value, seen);
  }

  function note(seen, value, copy) {
    mapSet(seen, value, copy);
    return copy;
  }

  const hidden = (value) => ({ value, writable: true, enumerable: false, configurable: true });
  const plain = (value) => ({ value, writable: true, enumerable: true, configurable: true });

  // Own enumerable properties. A getter may remove those that come after it.
  function copyProperties(from, to, seen) {
    const names = keys(from);
    for (let i = 0; i < names.length; i++) {
      const name = names[i];
      if (!hasOwn(from, name)) continue;
      const item = from[name];
      const copy = typeof item === "number" || typeof item === "string" ? item : clone(item, seen);
      if (name in to) defineProperty(to, name, plain(copy));
      else to[name] = copy;
    }
    return to;
  }

  // ---- Plain objects and arrays -----------------------------------------------------------------------------------

  // Objects of our own interfaces are of the same class as plain ones.
  function assertPlain(value) {
    if (getPrototypeOf(value) === objectPrototype) return;
    for (let i = 0; i < interfaces.length; i++) if (interfaces[i](value)) throw uncloneable(describe(value));
  }

  register({}, (value, seen) => {
    assertPlain(value);
    return copyProperties(value, note(seen, value, {}), seen);
  });

  register([], (value, seen) => {
    const copy = note(seen, value, []);
    copy.length = value.length;
    return copyProperties(value, copy, seen);
  });

  // ---- Values in objects ------------------------------------------------------------------------------------------

  for (const Class of [Boolean, Number, String, BigInt]) {
    const valueOf = uncurry(Class.prototype.valueOf);
    register(Object(Class(0)), (value, seen) => note(seen, value, Object(valueOf(value))));
  }

  const time = uncurry(Date.prototype.getTime);
  register(new Date(0), (value, seen) => note(seen, value, new Date(time(value))));

  const source = getter(RegExp, "source");
  const flags = getter(RegExp, "flags");
  register(/ /, (value, seen) => note(seen, value, new RegExp(source(value), flags(value))));

  // ---- Collections ------------------------------------------------------------------------------------------------

  const mapForEach = uncurry(Map.prototype.forEach);
  register(new Map(), (value, seen) => {
    const copy = note(seen, value, new Map());
    const entries = [];
    mapForEach(value, (item, key) => { entries[entries.length] = [key, item]; });
    for (let i = 0; i < entries.length; i++) mapSet(copy, clone(entries[i][0], seen), clone(entries[i][1], seen));
    return copy;
  });

  const setForEach = uncurry(Set.prototype.forEach);
  const setAdd = uncurry(Set.prototype.add);
  register(new Set(), (value, seen) => {
    const copy = note(seen, value, new Set());
    const items = [];
    setForEach(value, (item) => { items[items.length] = item; });
    for (let i = 0; i < items.length; i++) setAdd(copy, clone(items[i], seen));
    return copy;
  });

  // ---- Errors -----------------------------------------------------------------------------------------------------

  const errors = Object.create(null);
  for (const name of ["Error", "EvalError", "RangeError", "ReferenceError", "SyntaxError", "TypeError", "URIError"])
    errors[name] = globalThis[name];

  register(new Error(), (value, seen) => {
    const { name, stack } = value;
    const copy = note(seen, value, new (errors[name === undefined ? "Error" : `${name}`] ?? Error)());
    const message = getOwnPropertyDescriptor(value, "message");
    if (message && hasOwn(message, "value")) defineProperty(copy, "message", hidden(`${message.value}`));
    if (typeof stack === "string") defineProperty(copy, "stack", hidden(stack));
    const cause = getOwnPropertyDescriptor(value, "cause");
    if (cause && hasOwn(cause, "value")) defineProperty(copy, "cause", hidden(clone(cause.value, seen)));
    return copy;
  });

  const exceptionName = getter(DOMException, "name");
  const exceptionMessage = getter(DOMException, "message");
  register(new DOMException(), (value, seen) =>
    note(seen, value, new DOMException(exceptionMessage(value), exceptionName(value))));

  // ---- Binary data ------------------------------------------------------------------------------------------------

  const detached = getter(ArrayBuffer, "detached");
  const resizable = getter(ArrayBuffer, "resizable");
  const maxByteLength = getter(ArrayBuffer, "maxByteLength");
  const bufferLength = getter(ArrayBuffer, "byteLength");
  const detach = uncurry(ArrayBuffer.prototype.transfer);
  const resize = uncurry(ArrayBuffer.prototype.resize);
  const setBytes = uncurry(Uint8Array.prototype.set);

  function emptyCopy(buffer) {
    if (detached(buffer)) throw uncloneable("a detached ArrayBuffer");
    const length = bufferLength(buffer);
    return new ArrayBuffer(length, resizable(buffer) ? { maxByteLength: maxByteLength(buffer) } : undefined);
  }

  const fill = (copy, buffer) => setBytes(new Uint8Array(copy), new Uint8Array(buffer));

  const sampleBuffer = new ArrayBuffer(8);
  register(sampleBuffer, (value, seen) => {
    const copy = note(seen, value, emptyCopy(value));
    fill(copy, value);
    return copy;
  });

  // A view that follows the length of a resizable buffer becomes one of its present length: it cannot be told apart.
  function registerView(Class, accessors, lengthName) {
    const buffer = getter(accessors, "buffer");
    const byteOffset = getter(accessors, "byteOffset");
    const length = getter(accessors, lengthName);
    register(new Class(sampleBuffer), (value, seen) => {
      const copy = clone(buffer(value), seen);
      return note(seen, value, new Class(copy, byteOffset(value), length(value)));
    });
  }
  registerView(DataView, DataView, "byteLength");
  const TypedArray = getPrototypeOf(Uint8Array);
  for (const name of ["Int8", "Uint8", "Uint8Clamped", "Int16", "Uint16", "Int32", "Uint32", "BigInt64", "BigUint64",
    "Float16", "Float32", "Float64"]) {
    const Class = globalThis[`${name}Array`];
    if (Class) registerView(Class, TypedArray, "length");
  }

  // ---- The function -----------------------------------------------------------------------------------------------

  // The buffers to transfer, each with an empty buffer for its content already noted in `seen`.
  function prepareTransfer(list, seen) {
    const buffers = [];
    for (const buffer of list) {
      if (Object(buffer) !== buffer) throw new TypeError("only objects are transferred");
      if (classId(buffer) !== classId(sampleBuffer)) throw uncloneable("what is transferred but no ArrayBuffer");
      if (mapGet(seen, buffer)) throw uncloneable("an ArrayBuffer that is listed twice");
      note(seen, buffer, emptyCopy(buffer));
      buffers[buffers.length] = buffer;
    }
    return buffers;
  }

  function transfer(buffer, copy) {
    if (detached(buffer)) throw uncloneable("a detached ArrayBuffer");
    if (bufferLength(copy) !== bufferLength(buffer)) resize(copy, bufferLength(buffer));
    fill(copy, buffer);
    detach(buffer, 0);
  }

  define("structuredClone", function structuredClone(value, options = undefined) {
    if (!arguments.length) throw new TypeError("structuredClone takes a value");
    if (options !== undefined && options !== null && typeof options !== "object" && typeof options !== "function")
      throw new TypeError("options must be an object");
    const list = options?.transfer;
    const seen = new Map();
    const buffers = list === undefined ? [] : prepareTransfer(list, seen);
    const copy = clone(value, seen);
    for (let i = 0; i < buffers.length; i++) transfer(buffers[i], mapGet(seen, buffers[i]));
    return copy;
  });
})
