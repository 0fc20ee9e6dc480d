// SPDX-License-Identifier: Apache-2.0
//
// CSV (RFC 4180) to JSON: quoted fields may hold delimiters, line breaks and doubled quotes.
//
// Source form: ES module. The first record names the columns. Every value stays a string, because guessing types is
// how part numbers lose their leading zeros; list the columns that hold numbers in `numbers`.

const QUOTE = '"';

/**
 * @param {string} text
 * @param {string} delimiter
 * @returns {{fields: string[], line: number}[]} records with the line each begins on
 */
function parseRecords(text, delimiter) {
  const records = [];
  /** @type {string[]} */
  let fields = [];
  let at = text.startsWith("\uFEFF") ? 1 : 0; // spreadsheets like to put a byte order mark first
  let line = 1;
  let recordLine = 1;

  while (at < text.length) {
    let field = "";
    if (text[at] === QUOTE) {
      const begin = line;
      for (at++; ; at++) {
        if (at >= text.length) throw new SyntaxError(`line ${begin}: a quoted field is never closed`);
        if (text[at] === "\n") line++;
        if (text[at] === QUOTE && text[++at] !== QUOTE) break;
        field += text[at];
      }
      if (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r")
        throw new SyntaxError(`line ${line}: text after a closing quote`);
    } else {
      const begin = at;
      while (at < text.length && text[at] !== delimiter && text[at] !== "\n" && text[at] !== "\r") at++;
      field = text.slice(begin, at);
    }
    fields.push(field);

    if (text[at] === delimiter) {
      at++;
      if (at < text.length) continue;
      fields.push(""); // the text ends behind a delimiter: one more, empty field
    }
    if (text[at] === "\r") at++;
    if (text[at] === "\n") at++;
    line++;
    if (fields.length > 1 || fields[0] !== "") records.push({ fields, line: recordLine }); // blank lines are skipped
    fields = [];
    recordLine = line;
  }
  return records;
}

/** @type {Handler<{csv: string, delimiter?: string, numbers?: string[]}, {columns: string[], rows: object[]}>} */
export default function csvToJson({ csv, delimiter = ",", numbers = [] }) {
  if (delimiter.length !== 1 || '"\r\n'.includes(delimiter)) throw new RangeError("delimiter must be one character");
  const [header, ...records] = parseRecords(csv, delimiter);
  if (!header) return { columns: [], rows: [] };
  const columns = header.fields;
  if (new Set(columns).size !== columns.length) throw new SyntaxError("two columns have the same name");

  const rows = records.map(({ fields, line }) => {
    if (fields.length !== columns.length)
      throw new SyntaxError(`line ${line}: ${fields.length} fields, but the header names ${columns.length}`);
    return Object.fromEntries(columns.map((column, i) => [column, convert(fields[i], column, line)]));
  });
  return { columns, rows };

  /**
   * @param {string} field
   * @param {string} column
   * @param {number} line
   */
  function convert(field, column, line) {
    if (!numbers.includes(column)) return field;
    if (field.trim() === "") return null;
    const number = Number(field);
    if (Number.isNaN(number)) throw new SyntaxError(`line ${line}: ${column} is not a number: ${field}`);
    return number;
  }
}
