// SPDX-License-Identifier: Apache-2.0
//
// Renders a Mustache-like template.
//
//   {{name}}  {{order.id}}  {{.}}     a value, HTML-escaped (dots walk into objects, a lone dot is the current value)
//   {{{name}}}  {{&name}}             a value as it is
//   {{#list}}…{{/list}}               once per element, or once for any other value that is not false, null or empty
//   {{^list}}…{{/list}}               only for a value that is missing, false, null or empty
//   {{! remark }}                     nothing
//
// Source form: ES module. Names are looked up as own properties only, so `{{constructor}}` finds nothing.

/**
 * @typedef {{kind: "text", text: string}
 *   | {kind: "value", name: string, raw: boolean}
 *   | {kind: "section", name: string, inverted: boolean, children: Node[]}} Node
 */

/** @type {Record<string, string>} */
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** @param {string} text */
const escape = (text) => text.replace(/[&<>"']/g, (character) => ENTITIES[character]);

/**
 * @param {string} template
 * @returns {Node[]}
 */
function parse(template) {
  /** @type {Node[]} */
  const root = [];
  /** @type {{name: string, children: Node[]}[]} */
  const open = [{ name: "", children: root }];
  const tag = /\{\{(?:\{([^{}]*)\}|([#^/!&]?)([^{}]*))\}\}/g;
  let end = 0;
  for (const match of template.matchAll(tag)) {
    const children = open[open.length - 1].children;
    if (match.index > end) children.push({ kind: "text", text: template.slice(end, match.index) });
    end = match.index + match[0].length;

    const sigil = match[1] === undefined ? match[2] : "&";
    const name = (match[1] ?? match[3]).trim();
    if (sigil === "!") continue;
    if (name === "") throw new SyntaxError(`empty tag at character ${match.index}`);
    if (sigil === "#" || sigil === "^") {
      /** @type {Node & {kind: "section"}} */
      const section = { kind: "section", name, inverted: sigil === "^", children: [] };
      children.push(section);
      open.push(section);
    } else if (sigil === "/") {
      if (open.length === 1 || open[open.length - 1].name !== name)
        throw new SyntaxError(`{{/${name}}} at character ${match.index} closes nothing`);
      open.pop();
    } else {
      children.push({ kind: "value", name, raw: sigil === "&" });
    }
  }
  if (open.length > 1) throw new SyntaxError(`{{#${open[open.length - 1].name}}} is never closed`);
  if (end < template.length) root.push({ kind: "text", text: template.slice(end) });
  return root;
}

/**
 * The innermost value that has the name's first part decides, as in Mustache.
 * @param {unknown[]} scopes
 * @param {string} name
 */
function lookup(scopes, name) {
  if (name === ".") return scopes[scopes.length - 1];
  const [first, ...rest] = name.split(".");
  /** @type {any} */
  let value = scopes.findLast((scope) => isObject(scope) && Object.hasOwn(scope, first));
  for (const part of [first, ...rest]) {
    if (!isObject(value) || !Object.hasOwn(value, part)) return undefined;
    value = value[part];
  }
  return value;
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
function isObject(value) {
  return typeof value === "object" && value !== null;
}

/**
 * @param {Node[]} nodes
 * @param {unknown[]} scopes outermost first
 * @returns {string}
 */
function render(nodes, scopes) {
  let out = "";
  for (const node of nodes) {
    if (node.kind === "text") {
      out += node.text;
      continue;
    }
    const value = lookup(scopes, node.name);
    if (node.kind === "value") {
      const text = value === undefined || value === null ? "" : isObject(value) ? JSON.stringify(value) : String(value);
      out += node.raw ? text : escape(text);
      continue;
    }
    const list = Array.isArray(value) ? value : value || value === 0 ? [value] : [];
    if (node.inverted) out += list.length === 0 ? render(node.children, scopes) : "";
    else for (const element of list) out += render(node.children, [...scopes, element]);
  }
  return out;
}

/** @type {Handler<{template: string, data?: object}, {text: string}>} */
export default ({ template, data = {} }) => ({ text: render(parse(template), [data]) });
