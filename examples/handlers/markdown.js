// SPDX-License-Identifier: Apache-2.0
//
// A subset of Markdown to HTML, safe to show: everything is escaped, there is no raw HTML, and links go only to
// http, https, mailto, or places on the same site.
//
//   # headings      paragraphs      - lists      1. numbered lists      > quotes      ``` code blocks      ---
//   **strong**      *emphasis*      `code`       [text](link)
//
// Source form: ES module.

/** @type {Record<string, string>} */
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** @param {string} text */
const escape = (text) => text.replace(/[&<>"']/g, (character) => ENTITIES[character]);

const SAFE_LINK = /^(?:https?:\/\/|mailto:|\/(?!\/)|#)/i;

/** @param {string} text */
const emphasis = (text) =>
  escape(text)
    .replace(/\*\*([^*]+)\*\*/g, "<strong>$1</strong>")
    .replace(/\*([^*]+)\*/g, "<em>$1</em>");

/** @param {string} text */
function inline(text) {
  // Code and links first: nothing inside them is emphasis. Odd pieces are what the group matched.
  const pieces = text.split(/(`[^`]+`|\[[^[\]]+\]\([^()\s]+\))/);
  return pieces.map((piece, i) => (i % 2 === 0 ? emphasis(piece) : codeOrLink(piece))).join("");
}

/** @param {string} piece */
function codeOrLink(piece) {
  if (piece.startsWith("`")) return `<code>${escape(piece.slice(1, -1))}</code>`;
  const middle = piece.lastIndexOf("](");
  const text = emphasis(piece.slice(1, middle));
  const target = piece.slice(middle + 2, -1);
  return SAFE_LINK.test(target) ? `<a href="${escape(target)}">${text}</a>` : text;
}

const BULLET = /^[-*+] +/;
const NUMBER = /^\d{1,9}\. +/;
const QUOTED = /^> ?/;
const RULE = /^(?:-{3,}|\*{3,})\s*$/;
const HEADING = /^(#{1,6}) +(.*?) *#*$/;
const FENCE = /^```(\w*)/;

/**
 * @param {string[]} lines
 * @returns {string}
 */
function blocks(lines) {
  /** @type {string[]} */
  const out = [];
  let at = 0;

  /** Takes the lines that match and removes what matched. @param {RegExp} prefix */
  const takeWhile = (prefix) => {
    /** @type {string[]} */
    const taken = [];
    while (at < lines.length && prefix.test(lines[at])) taken.push(lines[at++].replace(prefix, ""));
    return taken;
  };
  /** @param {RegExp} prefix */
  const listItems = (prefix) => takeWhile(prefix).map((item) => `<li>${inline(item)}</li>`).join("");

  while (at < lines.length) {
    const line = lines[at];
    const heading = HEADING.exec(line);
    const fence = FENCE.exec(line);
    if (line.trim() === "") {
      at++;
    } else if (heading) {
      const level = heading[1].length;
      out.push(`<h${level}>${inline(heading[2])}</h${level}>`);
      at++;
    } else if (fence) {
      const close = lines.indexOf("```", at + 1);
      const end = close < 0 ? lines.length : close;
      const language = fence[1] ? ` class="language-${fence[1]}"` : "";
      const code = lines.slice(at + 1, end).map((codeLine) => escape(codeLine) + "\n");
      out.push(`<pre><code${language}>${code.join("")}</code></pre>`);
      at = end + 1;
    } else if (RULE.test(line)) {
      out.push("<hr>");
      at++;
    } else if (BULLET.test(line)) {
      out.push(`<ul>${listItems(BULLET)}</ul>`);
    } else if (NUMBER.test(line)) {
      out.push(`<ol>${listItems(NUMBER)}</ol>`);
    } else if (QUOTED.test(line)) {
      out.push(`<blockquote>${blocks(takeWhile(QUOTED))}</blockquote>`);
    } else {
      const begin = at;
      do at++;
      while (at < lines.length && lines[at].trim() !== "" && !startsBlock(lines[at]));
      out.push(`<p>${inline(lines.slice(begin, at).join("\n"))}</p>`);
    }
  }
  return out.join("\n");
}

/** @param {string} line */
const startsBlock = (line) => [HEADING, FENCE, RULE, BULLET, NUMBER, QUOTED].some((start) => start.test(line));

/** @type {Handler<{markdown: string}, {html: string}>} */
export default function render({ markdown }) {
  if (typeof markdown !== "string") throw new TypeError("markdown must be a string");
  return { html: blocks(markdown.replace(/\r\n?/g, "\n").split("\n")) };
}
