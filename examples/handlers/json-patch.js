// SPDX-License-Identifier: Apache-2.0
//
// JSON Patch (RFC 6902): `{before, after}` gives the patch between two documents, `{document, patch}` applies one.
//
// Source form: ES module. A patch is applied whole or not at all: the first operation that fails ends the execution.

/**
 * @typedef {{op: "add" | "replace" | "test", path: string, value: any} | {op: "remove", path: string}
 *   | {op: "move" | "copy", from: string, path: string}} Operation
 */

/** @param {unknown} value @returns {value is {[key: string]: any}} */
const isContainer = (value) => typeof value === "object" && value !== null;

/** @param {string | number} key */
const part = (key) => "/" + String(key).replace(/~/g, "~0").replace(/\//g, "~1");

/**
 * @param {any} a
 * @param {any} b
 * @returns {boolean}
 */
function equal(a, b) {
  if (a === b) return true;
  if (!isContainer(a) || !isContainer(b) || Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]));
}

/**
 * @param {any} before
 * @param {any} after
 * @param {string} path
 * @returns {Generator<Operation, void>}
 */
function* diff(before, after, path) {
  if (equal(before, after)) return;
  if (Array.isArray(before) && Array.isArray(after)) yield* diffArrays(before, after, path);
  else if (isContainer(before) && isContainer(after) && !Array.isArray(before) && !Array.isArray(after)) {
    for (const key of Object.keys(before))
      if (!Object.hasOwn(after, key)) yield { op: "remove", path: path + part(key) };
    for (const key of Object.keys(after))
      if (Object.hasOwn(before, key)) yield* diff(before[key], after[key], path + part(key));
      else yield { op: "add", path: path + part(key), value: after[key] };
  } else yield { op: "replace", path, value: after };
}

/**
 * What both arrays begin and end with stays; the middle is changed in place, then shortened or lengthened.
 * @param {any[]} before
 * @param {any[]} after
 * @param {string} path
 * @returns {Generator<Operation, void>}
 */
function* diffArrays(before, after, path) {
  let head = 0;
  while (head < before.length && head < after.length && equal(before[head], after[head])) head++;
  let tail = 0;
  const rest = Math.min(before.length, after.length) - head;
  while (tail < rest && equal(before.at(-1 - tail), after.at(-1 - tail))) tail++;
  const oldEnd = before.length - tail;
  const newEnd = after.length - tail;
  for (let i = head; i < Math.min(oldEnd, newEnd); i++) yield* diff(before[i], after[i], path + part(i));
  for (let i = oldEnd - 1; i >= newEnd; i--) yield { op: "remove", path: path + part(i) };
  for (let i = oldEnd; i < newEnd; i++) yield { op: "add", path: path + part(i), value: after[i] };
}

/** @param {string} key */
const isIndex = (key) => /^(?:0|[1-9]\d*)$/.test(key);

/** @param {string} pointer */
function keysOf(pointer) {
  if (pointer !== "" && !pointer.startsWith("/")) throw new SyntaxError(`${pointer} is not a JSON pointer`);
  return pointer.split("/").slice(1).map((key) => key.replace(/~1/g, "/").replace(/~0/g, "~"));
}

/**
 * @param {any} container
 * @param {string} key
 * @param {string} path for the message
 */
function child(container, key, path) {
  const possible = isContainer(container) && (!Array.isArray(container) || isIndex(key));
  if (!possible || !Object.hasOwn(container, key)) throw new RangeError(`there is nothing at ${path}`);
  return container[key];
}

/**
 * The document with the value at `path` added, replaced or (value undefined) removed.
 * @param {any} document
 * @param {string} path
 * @param {"add" | "replace" | "remove"} op
 * @param {any} [value]
 */
function changed(document, path, op, value) {
  const keys = keysOf(path);
  const last = keys.pop();
  if (last === undefined) return op === "remove" ? null : value;
  const parent = keys.reduce((container, key) => child(container, key, path), document);
  if (op !== "add") child(parent, last, path);
  if (Array.isArray(parent)) {
    const at = last === "-" ? parent.length : isIndex(last) ? Number(last) : Infinity;
    if (at > parent.length) throw new RangeError(`there is nothing at ${path}`);
    parent.splice(at, op === "add" ? 0 : 1, ...(op === "remove" ? [] : [value]));
  } else if (!isContainer(parent)) throw new RangeError(`there is nothing at ${path}`);
  else if (op === "remove") delete parent[last];
  // Not parent[last] = value: the key "__proto__" must become a key like any other.
  else Object.defineProperty(parent, last, { value, writable: true, enumerable: true, configurable: true });
  return document;
}

/**
 * @param {any} document
 * @param {Operation} operation
 */
function applied(document, operation) {
  const { op, path } = operation;
  /** @param {string} pointer */
  const at = (pointer) => keysOf(pointer).reduce((container, key) => child(container, key, pointer), document);
  switch (op) {
    case "test":
      if (!equal(at(path), operation.value)) throw new RangeError(`the test of ${path || "the document"} fails`);
      return document;
    case "add": case "replace":
      return changed(document, path, op, structuredClone(operation.value));
    case "remove":
      return changed(document, path, op);
    case "copy":
      return changed(document, path, "add", structuredClone(at(operation.from)));
    case "move": {
      if (path.startsWith(operation.from + "/")) throw new RangeError(`${operation.from} cannot move into itself`);
      const value = at(operation.from);
      return changed(changed(document, operation.from, "remove"), path, "add", value);
    }
    default:
      throw new TypeError(`there is no operation ${op}`);
  }
}

/** @type {Handler<{before: unknown, after: unknown} | {document: unknown, patch: Operation[]}, object>} */
export default (args) =>
  "patch" in args
    ? { document: args.patch.reduce(applied, args.document) }
    : { patch: [...diff(args.before, args.after, "")] };
