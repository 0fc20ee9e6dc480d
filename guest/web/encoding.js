// SPDX-License-Identifier: Apache-2.0
//
// TextEncoder and TextDecoder after the WHATWG Encoding standard, for UTF-8, UTF-16 and windows-1252 under all their
// labels. The standard's other legacy encodings are unknown here: their tables are larger than the rest of the guest.
(function (host, globalThis) {
  "use strict";

  const { Object, RangeError, String, TypeError, Uint8Array, Uint16Array } = globalThis;
  const { bytesOf, expose, typedArrayName, uncurry } = host;
  const { encode: encodeUtf8, decode: decodeValid, utf8Prefix } = host;
  const isWellFormed = uncurry(String.prototype.isWellFormed);
  const toWellFormed = uncurry(String.prototype.toWellFormed);
  const slice = uncurry(String.prototype.slice);
  const setBytes = uncurry(Uint8Array.prototype.set);
  const subarray = uncurry(Uint8Array.prototype.subarray);
  const { fromCharCode } = String;
  const { apply } = Reflect;

  class TextEncoder {
    #brand;

    static {
      expose(this, (value) => #brand in value);
    }

    get encoding() {
      return this.#brand ?? "utf-8";
    }

    encode(input = "") {
      this.#brand;
      return encodeUtf8(toWellFormed(`${input}`));
    }

    encodeInto(source, destination) {
      this.#brand;
      source = `${source}`;
      if (typedArrayName(destination) !== "Uint8Array") throw new TypeError("encodeInto writes to a Uint8Array");
      const room = destination.length;
      // No unit takes less than a byte. A pair cut in half here would not have fitted.
      const bytes = encodeUtf8(toWellFormed(slice(source, 0, room)));
      let written = bytes.length;
      if (written > room) for (written = room; (bytes[written] & 0xc0) === 0x80;) written--;
      setBytes(destination, subarray(bytes, 0, written));
      return { read: decodeValid(bytes, 0, written).length, written };
    }
  }

  // Each decoder below takes bytes and tells {text, used}: with `more` bytes to come it leaves an incomplete sequence
  // at the end unused. What is malformed becomes U+FFFD, or a TypeError when `fatal`.

  function malformed(fatal) {
    if (fatal) throw new TypeError("the bytes are not valid in this encoding");
    return "\uFFFD";
  }

  const isUtf8Lead = (byte) => byte >= 0xc2 && byte <= 0xf4;

  // How many bytes from `at` on are the beginning of some well-formed sequence: they become one U+FFFD together.
  function maximalSubpart(bytes, at) {
    const lead = bytes[at];
    if (!isUtf8Lead(lead)) return 1;
    const needed = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    let low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    let high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    let length = 1;
    while (length < needed && bytes[at + length] >= low && bytes[at + length] <= high) {
      length++;
      low = 0x80;
      high = 0xbf;
    }
    return length;
  }

  function decodeUtf8(bytes, fatal, more) {
    const end = bytes.length;
    let text = "";
    for (let at = 0; ;) {
      const stop = utf8Prefix(bytes, at);
      text += decodeValid(bytes, at, stop);
      if (stop === end) return { text, used: end };
      at = stop + maximalSubpart(bytes, stop);
      if (more && at === end && isUtf8Lead(bytes[stop])) return { text, used: stop };
      text += malformed(fatal);
    }
  }

  function textOfUnits(units, count) {
    const atOnce = 1024; // arguments lie on the stack
    let text = "";
    for (let at = 0; at < count; at += atOnce)
      text += apply(fromCharCode, undefined, subarray(units, at, at + atOnce < count ? at + atOnce : count));
    return text;
  }

  // The engine's memory is little-endian.
  function decodeUtf16(bytes, fatal, more) {
    const units = new Uint16Array(new Uint8Array(bytes).buffer, 0, bytes.length >> 1);
    let count = units.length;
    let odd = bytes.length & 1;
    if (count && (units[count - 1] & 0xfc00) === 0xd800) {
      if (more) count--;
      else odd = 0; // half a pair and half a unit: one error
    }
    const text = textOfUnits(units, count);
    if (fatal && !isWellFormed(text)) malformed(fatal);
    const end = odd && !more ? malformed(fatal) : "";
    return { text: toWellFormed(text) + end, used: more ? 2 * count : bytes.length };
  }

  function decodeUtf16BigEndian(bytes, fatal, more) {
    const swapped = new Uint8Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) swapped[i ^ 1] = bytes[i];
    if (bytes.length & 1) swapped[bytes.length - 1] = bytes[bytes.length - 1];
    return decodeUtf16(swapped, fatal, more);
  }

  // Bytes 0x80 to 0x9F; the others are their own code points.
  const WINDOWS_1252 =
    "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
    "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

  function decodeWindows1252(bytes) {
    const units = new Uint16Array(bytes);
    for (let i = 0; i < units.length; i++)
      if (units[i] >> 5 === 4) units[i] = WINDOWS_1252.charCodeAt(units[i] & 31);
    return { text: textOfUnits(units, units.length), used: bytes.length };
  }

  const ENCODINGS = [
    { name: "utf-8", decode: decodeUtf8, hasBom: true,
      labels: "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8" },
    { name: "utf-16le", decode: decodeUtf16, hasBom: true,
      labels: "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le" },
    { name: "utf-16be", decode: decodeUtf16BigEndian, hasBom: true, labels: "unicodefffe utf-16be" },
    { name: "windows-1252", decode: decodeWindows1252, hasBom: false,
      labels: "ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1 iso88591 " +
        "iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252" },
  ];
  const byLabel = Object.create(null);
  for (const encoding of ENCODINGS) for (const label of encoding.labels.split(" ")) byLabel[label] = encoding;

  function findEncoding(label) {
    const encoding = byLabel[label.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase()];
    if (!encoding) throw new RangeError(`unknown encoding: ${label}`);
    return encoding;
  }

  function dictionary(options) {
    if (options === undefined || options === null) return {};
    if (typeof options !== "object" && typeof options !== "function") throw new TypeError("options must be an object");
    return options;
  }

  function concat(head, tail) {
    const all = new Uint8Array(head.length + tail.length);
    setBytes(all, head);
    setBytes(all, tail, head.length);
    return all;
  }

  const NOTHING = new Uint8Array();

  class TextDecoder {
    #encoding;
    #fatal;
    #ignoreBOM;
    #held = NOTHING; // an incomplete sequence at the end of the bytes before
    #inStream = false;
    #atStart = true; // no character was seen yet: it may be a byte order mark

    static {
      expose(this, (value) => #encoding in value);
    }

    constructor(label = "utf-8", options = undefined) {
      this.#encoding = findEncoding(`${label}`);
      const { fatal, ignoreBOM } = dictionary(options);
      this.#fatal = !!fatal;
      this.#ignoreBOM = !!ignoreBOM;
    }

    get encoding() {
      return this.#encoding.name;
    }

    get fatal() {
      return this.#fatal;
    }

    get ignoreBOM() {
      return this.#ignoreBOM;
    }

    decode(input = NOTHING, options = undefined) {
      let bytes = bytesOf(input);
      const more = !!dictionary(options).stream;
      if (!this.#inStream) this.#restart();
      this.#inStream = more;
      if (this.#held.length) bytes = concat(this.#held, bytes);
      this.#held = NOTHING;
      const { text, used } = this.#encoding.decode(bytes, this.#fatal, more);
      if (used < bytes.length) this.#held = new Uint8Array(subarray(bytes, used));
      return this.#withoutMark(text);
    }

    #restart() {
      this.#held = NOTHING;
      this.#atStart = true;
    }

    #withoutMark(text) {
      if (!this.#atStart || text === "") return text;
      this.#atStart = false;
      const drop = this.#encoding.hasBom && !this.#ignoreBOM && text[0] === "\uFEFF";
      return drop ? slice(text, 1) : text;
    }
  }
})
