// SPDX-License-Identifier: Apache-2.0
//
// Validates a value against a subset of JSON Schema (2020-12) and says where it is wrong.
//
// Source form: ES module. A keyword that is not implemented here is refused, because ignoring it would call values
// valid that are not. Annotations (title, description, …) are fine. `$ref` may point into the same schema.

/**
 * @typedef {{[keyword: string]: any}} SchemaObject
 * @typedef {boolean | SchemaObject} Schema
 * @typedef {{path: string, keyword: string, message: string}} Problem  path is a JSON pointer into the value
 * @typedef {{path: string, keyword?: string, message: string}} Found  without a keyword it is about the one at hand
 * @typedef {{path: string, schema: SchemaObject, root: Schema}} Place
 * @typedef {(value: any, parameter: any, place: Place) => Iterable<Found>} Check
 */

/** @param {unknown} value */
function typeOf(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value;
}

/**
 * @param {unknown} value
 * @param {string} type
 */
const hasType = (value, type) => (type === "integer" ? Number.isInteger(value) : typeOf(value) === type);

/**
 * Equality of JSON values; the order of an object's keys does not matter.
 * @param {any} a
 * @param {any} b
 * @returns {boolean}
 */
function equal(a, b) {
  if (a === b) return true;
  if (typeOf(a) !== typeOf(b) || typeof a !== "object" || a === null || b === null) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && equal(a[key], b[key]));
}

/** @param {string | number} key */
const pointerPart = (key) => "/" + String(key).replace(/~/g, "~0").replace(/\//g, "~1");

/** @param {string} text */
const characters = (text) => [...text].length;

/**
 * A check of one number or size.
 * @param {string} type
 * @param {(value: any, parameter: any) => boolean} holds
 * @param {string} words
 * @returns {Check}
 */
const bound = (type, holds, words) =>
  function* (value, parameter, { path }) {
    if (typeOf(value) === type && !holds(value, parameter))
      yield { path, message: `must ${words} ${parameter}` };
  };

/** @type {Record<string, Check>} */
const CHECKS = {
  *type(value, types, { path }) {
    const allowed = [types].flat();
    if (!allowed.some((type) => hasType(value, type)))
      yield { path, message: `must be ${allowed.join(" or ")}, not ${typeOf(value)}` };
  },
  *enum(value, values, { path }) {
    if (!values.some((/** @type {any} */ candidate) => equal(candidate, value)))
      yield { path, message: `must be one of ${JSON.stringify(values)}` };
  },
  *const(value, wanted, { path }) {
    if (!equal(value, wanted)) yield { path, message: `must be ${JSON.stringify(wanted)}` };
  },

  minimum: bound("number", (value, limit) => value >= limit, "be at least"),
  maximum: bound("number", (value, limit) => value <= limit, "be at most"),
  exclusiveMinimum: bound("number", (value, limit) => value > limit, "be above"),
  exclusiveMaximum: bound("number", (value, limit) => value < limit, "be below"),
  multipleOf: bound("number", (value, step) => Number.isInteger(value / step), "be a multiple of"),
  minLength: bound("string", (value, limit) => characters(value) >= limit, "have a length of at least"),
  maxLength: bound("string", (value, limit) => characters(value) <= limit, "have a length of at most"),
  pattern: bound("string", (value, source) => new RegExp(source, "u").test(value), "match"),
  minItems: bound("array", (value, limit) => value.length >= limit, "have this many items at least:"),
  maxItems: bound("array", (value, limit) => value.length <= limit, "have this many items at most:"),

  *required(value, names, { path }) {
    if (typeOf(value) !== "object") return;
    for (const name of names)
      if (!Object.hasOwn(value, name)) yield { path: path + pointerPart(name), message: "is missing" };
  },
  *properties(value, schemas, { path, root }) {
    if (typeOf(value) !== "object") return;
    for (const [name, schema] of Object.entries(schemas))
      if (Object.hasOwn(value, name)) yield* check(value[name], schema, path + pointerPart(name), root);
  },
  *additionalProperties(value, extra, { path, schema, root }) {
    if (typeOf(value) !== "object") return;
    const named = schema.properties ?? {};
    for (const name of Object.keys(value))
      if (!Object.hasOwn(named, name)) yield* check(value[name], extra, path + pointerPart(name), root);
  },
  *items(value, schema, { path, root }) {
    if (!Array.isArray(value)) return;
    for (const [i, item] of value.entries()) yield* check(item, schema, path + pointerPart(i), root);
  },
  *uniqueItems(value, wanted, { path }) {
    if (!wanted || !Array.isArray(value)) return;
    for (const [i, item] of value.entries())
      if (value.slice(0, i).some((earlier) => equal(earlier, item)))
        yield { path: path + pointerPart(i), message: "is there twice" };
  },

  *allOf(value, schemas, { path, root }) {
    for (const schema of schemas) yield* check(value, schema, path, root);
  },
  *anyOf(value, schemas, { path, root }) {
    if (count(value, schemas, root) === 0) yield { path, message: "matches none of the alternatives" };
  },
  *oneOf(value, schemas, { path, root }) {
    const matching = count(value, schemas, root);
    if (matching !== 1) yield { path, message: `matches ${matching} of the alternatives, not exactly one` };
  },
  *not(value, schema, { path, root }) {
    if (count(value, [schema], root) === 1) yield { path, message: "is of a form that is not allowed" };
  },
  *$ref(value, reference, { path, root }) {
    yield* check(value, resolve(reference, root), path, root);
  },
};

const ANNOTATIONS = new Set(["$schema", "$id", "$comment", "$defs", "title", "description", "default", "examples"]);

/**
 * @param {string} reference
 * @param {Schema} root
 * @returns {Schema}
 */
function resolve(reference, root) {
  if (reference !== "#" && !reference.startsWith("#/")) throw new TypeError(`$ref ${reference} leaves the schema`);
  /** @type {any} */
  let schema = root;
  for (const part of reference.split("/").slice(1)) {
    const key = part.replace(/~1/g, "/").replace(/~0/g, "~");
    if (typeof schema !== "object" || schema === null || !Object.hasOwn(schema, key))
      throw new TypeError(`$ref ${reference} points nowhere`);
    schema = schema[key];
  }
  return schema;
}

/**
 * @param {unknown} value
 * @param {Schema[]} schemas
 * @param {Schema} root
 */
const count = (value, schemas, root) => schemas.filter((schema) => check(value, schema, "", root).next().done).length;

/**
 * Yields problems as they are found: whoever only asks "valid?" stops at the first.
 * @param {unknown} value
 * @param {Schema} schema
 * @param {string} path
 * @param {Schema} root
 * @returns {Generator<Problem, void>}
 */
function* check(value, schema, path, root) {
  if (schema === true) return;
  if (schema === false) {
    yield { path, keyword: "false", message: "is not allowed" };
    return;
  }
  for (const [keyword, parameter] of Object.entries(schema)) {
    if (ANNOTATIONS.has(keyword)) continue;
    if (!Object.hasOwn(CHECKS, keyword)) throw new TypeError(`the keyword ${keyword} is not supported`);
    for (const found of CHECKS[keyword](value, parameter, { path, schema, root })) yield { keyword, ...found };
  }
}

/** @type {Handler<{schema: Schema, value: unknown}, {valid: boolean, errors: Problem[]}>} */
export default function validate({ schema, value }) {
  if (typeof schema !== "boolean" && typeOf(schema) !== "object")
    throw new TypeError("schema must be an object or a boolean");
  const errors = [...check(value, schema, "", schema)];
  return { valid: errors.length === 0, errors };
}
