// SPDX-License-Identifier: Apache-2.0
//
// URL and URLSearchParams after the WHATWG URL standard. The standard's state machine is written here as functions that
// cut the text at its delimiters: '#' and '?' first, since no state before them lets one pass. Internationalised names
// are mapped by NFKC and lower case and encoded by punycode; the tables of UTS 46 are not here, nor its rules on
// bidirectional text and joiners: a few names that it forbids are accepted, and a few exotic letters map differently.
(function (host, globalThis) {
  "use strict";

  const { Array, Math, Number, Object, Reflect, RegExp, String, TextDecoder, TypeError, Uint8Array } = globalThis;
  const { decodeURIComponent, encodeURIComponent, parseInt } = globalThis;
  const { encode: encodeUtf8, expose, pairIterators, pairsOf, required, uncurry } = host;
  const charCodeAt = uncurry(String.prototype.charCodeAt);
  const decodeUtf8 = uncurry(TextDecoder.prototype.decode);
  const endsWith = uncurry(String.prototype.endsWith);
  const exec = uncurry(RegExp.prototype.exec);
  const indexOf = uncurry(String.prototype.indexOf);
  const join = uncurry(Array.prototype.join);
  const lastIndexOf = uncurry(String.prototype.lastIndexOf);
  const lower = uncurry(String.prototype.toLowerCase);
  const normalize = uncurry(String.prototype.normalize);
  const pop = uncurry(Array.prototype.pop);
  const push = uncurry(Array.prototype.push);
  const replace = uncurry(String.prototype.replace);
  const search = uncurry(String.prototype.search);
  const slice = uncurry(String.prototype.slice);
  const split = uncurry(String.prototype.split);
  const startsWith = uncurry(String.prototype.startsWith);
  const test = uncurry(RegExp.prototype.test);
  const toString = uncurry(Number.prototype.toString);
  const toWellFormed = uncurry(String.prototype.toWellFormed);
  const upper = uncurry(String.prototype.toUpperCase);

  const text = (value) => toWellFormed(`${value}`);

  // [before, after] the first `mark`; after is null when there is none.
  function cut(whole, mark) {
    const at = indexOf(whole, mark);
    return at < 0 ? [whole, null] : [slice(whole, 0, at), slice(whole, at + 1)];
  }

  // ---- Percent-encoding -------------------------------------------------------------------------------------------

  // What each part has to encode; named like the standard's percent-encode sets.
  const CONTROL = /[^ -~]/gu;
  const FRAGMENT = /[^!#-;=?-_a-~]/gu;
  const QUERY = /[^!$-;=?-~]/gu;
  const SPECIAL_QUERY = /[^!$-&(-;=?-~]/gu;
  const PATH = /[^!$-;=@-\]_a-z|~]/gu;
  const USERINFO = /[^!$-.0-9A-Z_a-z~]/gu;
  const FORM = /[^*\-.0-9A-Z_a-z]/gu;

  function percentEncodeCharacter(character) {
    const code = charCodeAt(character, 0);
    return code < 0x80 ? `%${code < 16 ? "0" : ""}${upper(toString(code, 16))}` : encodeURIComponent(character);
  }
  const percentEncode = (part, set) => replace(part, set, percentEncodeCharacter);

  const lossy = new TextDecoder("utf-8", { ignoreBOM: true });

  function percentDecode(part) {
    if (indexOf(part, "%") < 0) return part;
    try {
      return decodeURIComponent(part);
    } catch {
      return percentDecodeBytes(encodeUtf8(part));
    }
  }

  // For text that is not throughout percent-encoded UTF-8: whatever does not decode is kept, or becomes U+FFFD.
  function percentDecodeBytes(bytes) {
    const isHex = (byte) => (byte >= 48 && byte <= 57) || ((byte |= 32) >= 97 && byte <= 102);
    const digit = (byte) => (byte <= 57 ? byte - 48 : (byte | 32) - 87);
    let length = 0;
    for (let i = 0; i < bytes.length; i++) {
      const escaped = bytes[i] === 37 && isHex(bytes[i + 1]) && isHex(bytes[i + 2]);
      bytes[length++] = escaped ? digit(bytes[i + 1]) * 16 + digit(bytes[i + 2]) : bytes[i];
      if (escaped) i += 2;
    }
    return decodeUtf8(lossy, new Uint8Array(bytes.buffer, 0, length));
  }

  // ---- Punycode (RFC 3492) ----------------------------------------------------------------------------------------

  const BASE = 36, T_MIN = 1, T_MAX = 26;
  const threshold = (k, bias) => Math.min(Math.max(k - bias, T_MIN), T_MAX);

  function adapt(delta, points, first) {
    delta = Math.floor(delta / (first ? 700 : 2));
    delta += Math.floor(delta / points);
    let k = 0;
    for (; delta > ((BASE - T_MIN) * T_MAX) / 2; k += BASE) delta = Math.floor(delta / (BASE - T_MIN));
    return k + Math.floor(((BASE - T_MIN + 1) * delta) / (delta + 38));
  }

  function variableLength(value, bias) {
    let out = "";
    for (let k = BASE; ; k += BASE) {
      const t = threshold(k, bias);
      if (value < t) return out + punyDigit(value);
      out += punyDigit(t + ((value - t) % (BASE - t)));
      value = Math.floor((value - t) / (BASE - t));
    }
  }
  const punyDigit = (value) => String.fromCharCode(value < 26 ? value + 97 : value + 22);

  function punyEncode(label) {
    const points = Array.from(label, (character) => character.codePointAt(0));
    const basic = replace(label, /[^\0-\x7f]/gu, "");
    let out = basic === "" ? "" : `${basic}-`;
    let done = basic.length, delta = 0, bias = 72;
    for (let n = 0x80; done < points.length; n++, delta++) {
      const next = points.reduce((least, point) => (point >= n && point < least ? point : least), Infinity);
      delta += (next - n) * (done + 1);
      n = next;
      for (const point of points) {
        if (point < n) delta++;
        if (point !== n) continue;
        out += variableLength(delta, bias);
        bias = adapt(delta, done + 1, done === basic.length);
        delta = 0;
        done++;
      }
    }
    return out;
  }

  // null when it is no punycode.
  function punyDecode(label) {
    const dash = lastIndexOf(label, "-");
    const points = Array.from(slice(label, 0, Math.max(dash, 0)), (character) => character.codePointAt(0));
    let n = 0x80, i = 0, bias = 72;
    for (let at = dash + 1; at < label.length;) {
      const before = i;
      for (let k = BASE, weight = 1; ; k += BASE) {
        const digit = parseInt(label[at++], BASE); // 0-9 are 26 to 35, letters 0 to 25
        if (!(digit >= 0)) return null;
        const value = digit < 10 ? digit + 26 : digit - 10;
        i += value * weight;
        const t = threshold(k, bias);
        if (value < t) break;
        weight *= BASE - t;
        if (i > 0x7fffffff) return null;
      }
      const count = points.length + 1;
      bias = adapt(i - before, count, before === 0);
      n += Math.floor(i / count);
      if (n > 0x10ffff || (n >= 0xd800 && n <= 0xdfff)) return null;
      i %= count;
      points.splice(i++, 0, n);
    }
    return join(points.map((point) => String.fromCodePoint(point)), "");
  }

  // ---- Hosts ------------------------------------------------------------------------------------------------------

  const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
  const FORBIDDEN_DOMAIN = /[\0- #%/:<>?@[\\\]^|\x7f]/;
  const NOT_ASCII = /[^\0-\x7f]/;

  let ignored, refused; // made when first needed: Unicode properties are large

  function mapDomain(domain) {
    ignored ??= new RegExp("[\\xad\\u034f\\u180b-\\u180d\\u180f\\u200b\\u2060\\u2064\\ufe00-\\ufe0f\\ufeff" +
      "\\u{e0100}-\\u{e01ef}]", "gu");
    const folded = lower(replace(normalize(replace(domain, ignored, ""), "NFKC"), /\u03a3/g, "\u03c3"));
    return replace(normalize(folded, "NFKC"), /\u3002/g, ".");
  }

  // Of a label with letters outside ASCII. Joiners are let through.
  function isValidLabel(label) {
    refused ??= new RegExp("^\\p{M}|(?![\\u200c\\u200d])[\\p{C}\\p{Z}\\ufffd]", "u");
    return !test(refused, label);
  }

  function labelToAscii(label) {
    if (startsWith(label, "xn--")) {
      const decoded = punyDecode(slice(label, 4));
      if (decoded === null || !test(NOT_ASCII, decoded) || mapDomain(decoded) !== decoded) return null;
      return isValidLabel(decoded) && punyEncode(decoded) === slice(label, 4) ? label : null;
    }
    if (!test(NOT_ASCII, label)) return label;
    return isValidLabel(label) ? `xn--${punyEncode(label)}` : null;
  }

  function domainToAscii(domain) {
    domain = test(NOT_ASCII, domain) ? mapDomain(domain) : lower(domain);
    if (!test(NOT_ASCII, domain) && indexOf(domain, "xn--") < 0) return domain;
    const labels = split(domain, ".");
    for (let i = 0; i < labels.length; i++) if ((labels[i] = labelToAscii(labels[i])) === null) return null;
    return join(labels, ".");
  }

  function parseIpv4Number(part) {
    if (test(/^0x[0-9a-f]*$/i, part)) return part.length === 2 ? 0 : parseInt(part, 16);
    if (test(/^0[0-7]+$/, part)) return parseInt(part, 8);
    return test(/^(?:0|[1-9][0-9]*)$/, part) ? Number(part) : NaN;
  }

  function parseIpv4(domain) {
    const parts = split(domain, ".");
    if (parts.length > 1 && parts[parts.length - 1] === "") pop(parts);
    if (parts.length > 4) return null;
    let address = 0;
    for (let i = 0; i < parts.length; i++) {
      const number = parseIpv4Number(parts[i]);
      const last = i === parts.length - 1;
      if (!(number < (last ? 256 ** (5 - parts.length) : 256))) return null;
      address += last ? number : number * 256 ** (3 - i);
    }
    return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
  }

  // Sixteen-bit pieces of one side of "::"; an IPv4 address may stand at the very end. null when malformed.
  function parseIpv6Side(side, isLast) {
    const pieces = [];
    if (side === "") return pieces;
    const parts = split(side, ":");
    for (let i = 0; i < parts.length; i++) {
      const octets = isLast && i === parts.length - 1 && exec(/^(\d+)\.(\d+)\.(\d+)\.(\d+)$/, parts[i]);
      if (octets) {
        for (let k = 1; k <= 4; k++) if (octets[k] > 255 || (octets[k].length > 1 && octets[k][0] === "0")) return null;
        push(pieces, octets[1] * 256 + +octets[2], octets[3] * 256 + +octets[4]);
      } else {
        if (!test(/^[0-9a-f]{1,4}$/i, parts[i])) return null;
        push(pieces, parseInt(parts[i], 16));
      }
    }
    return pieces;
  }

  function parseIpv6(address) {
    const sides = split(address, "::");
    if (sides.length > 2) return null;
    const head = parseIpv6Side(sides[0], sides.length === 1);
    const tail = sides.length === 2 ? parseIpv6Side(sides[1], true) : [];
    if (!head || !tail) return null;
    const missing = 8 - head.length - tail.length;
    if (sides.length === 2 ? missing < 1 : missing !== 0) return null;
    for (let i = 0; i < missing; i++) push(head, 0);
    return `[${serializeIpv6([...head, ...tail])}]`;
  }

  function serializeIpv6(pieces) {
    let start = -1, longest = 1;
    for (let i = 0; i < 8; i++) {
      let end = i;
      while (end < 8 && pieces[end] === 0) end++;
      if (end - i > longest) longest = end - (start = i);
      if (end > i) i = end;
    }
    const hex = pieces.map((piece) => toString(piece, 16));
    if (start < 0) return join(hex, ":");
    return `${join(hex.slice(0, start), ":")}::${join(hex.slice(start + longest), ":")}`;
  }

  // The serialised host, or null for failure.
  function parseHost(input, special) {
    if (input[0] === "[") return endsWith(input, "]") ? parseIpv6(slice(input, 1, -1)) : null;
    if (!special) return test(FORBIDDEN_HOST, input) ? null : percentEncode(input, CONTROL);
    const domain = domainToAscii(percentDecode(input));
    if (!domain || test(FORBIDDEN_DOMAIN, domain)) return null;
    return test(/(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$/, domain) ? parseIpv4(domain) : domain;
  }

  // ---- The parser -------------------------------------------------------------------------------------------------

  const DEFAULT_PORTS = { __proto__: null, ftp: 21, file: null, http: 80, https: 443, ws: 80, wss: 443 };

  // A URL record. `path` is an array of segments, or a string when it is opaque; the host is kept serialised.
  const newRecord = (scheme) =>
    ({ scheme, username: "", password: "", host: null, port: null, path: [], query: null, fragment: null });

  const isSpecial = (url) => url.scheme in DEFAULT_PORTS;
  const isOpaque = (url) => typeof url.path === "string";
  const isSlash = (url, character) => character === "/" || (character === "\\" && isSpecial(url));
  const hasCredentials = (url) => url.username !== "" || url.password !== "";
  const isDriveLetter = (part) => test(/^[a-zA-Z][:|]$/, part);
  const startsWithDriveLetter = (rest) => test(/^[a-zA-Z][:|](?:[/\\]|$)/, rest);
  const isNormalDriveLetter = (part) => test(/^[a-zA-Z]:$/, part);

  const withoutTabs = (input) => replace(input, /[\t\n\r]+/g, "");

  function trimmed(input) {
    let begin = 0, end = input.length;
    while (begin < end && charCodeAt(input, begin) <= 32) begin++;
    while (end > begin && charCodeAt(input, end - 1) <= 32) end--;
    return withoutTabs(slice(input, begin, end));
  }

  // Each parse function below fills the record `url` and is false on failure.

  function parseUrl(input, base) {
    const [whole, fragment] = cut(trimmed(input), "#");
    const [rest, query] = cut(whole, "?");
    const scheme = exec(/^([a-zA-Z][a-zA-Z0-9+\-.]*):/, rest);
    if (!scheme && !base) return null;
    const url = newRecord(scheme ? lower(scheme[1]) : base.scheme);
    const good = scheme
      ? parseAfterScheme(url, slice(rest, scheme[0].length), base)
      : parseWithoutScheme(url, rest, base, query === null && fragment !== null);
    if (!good) return null;
    if (isOpaque(url) && (query !== null || fragment !== null)) url.path = replace(url.path, / $/, "%20");
    if (query !== null) setQuery(url, query);
    if (fragment !== null) url.fragment = percentEncode(fragment, FRAGMENT);
    return url;
  }

  function setQuery(url, query) {
    url.query = percentEncode(query, isSpecial(url) ? SPECIAL_QUERY : QUERY);
  }

  function parseAfterScheme(url, rest, base) {
    const sibling = base && base.scheme === url.scheme ? base : null;
    if (url.scheme === "file") return parseFile(url, rest, sibling);
    if (isSpecial(url))
      return sibling && !startsWith(rest, "//") ? parseRelative(url, rest, sibling) : parseAuthority(url, rest);
    if (startsWith(rest, "//")) return parseAuthority(url, rest);
    if (startsWith(rest, "/")) return parsePath(url, slice(rest, 1));
    url.path = percentEncode(rest, CONTROL);
    return true;
  }

  function parseWithoutScheme(url, rest, base, onlyFragment) {
    if (isOpaque(base)) {
      if (rest !== "" || !onlyFragment) return false;
      url.path = base.path;
      url.query = base.query;
      return true;
    }
    return url.scheme === "file" ? parseFile(url, rest, base) : parseRelative(url, rest, base);
  }

  function parseRelative(url, rest, base) {
    const absolute = isSlash(url, rest[0]);
    if (absolute && isSlash(url, rest[1])) return parseAuthority(url, rest);
    url.username = base.username;
    url.password = base.password;
    url.host = base.host;
    url.port = base.port;
    if (absolute) return parsePath(url, slice(rest, 1));
    return parseRelativePath(url, rest, base);
  }

  function parseRelativePath(url, rest, base) {
    url.path = [...base.path];
    url.query = rest === "" ? base.query : null;
    if (rest === "") return true;
    shorten(url);
    return parsePath(url, rest);
  }

  // `rest` begins with slashes: two, or with a special scheme any number.
  function parseAuthority(url, rest) {
    const special = isSpecial(url);
    rest = special ? replace(rest, /^[/\\]+/, "") : slice(rest, 2);
    const end = search(rest, special ? /[/\\]|$/ : /\/|$/);
    let authority = slice(rest, 0, end);
    const at = lastIndexOf(authority, "@");
    if (at >= 0) {
      const [username, password] = cut(slice(authority, 0, at), ":");
      authority = slice(authority, at + 1);
      if (authority === "") return false;
      url.username = percentEncode(username, USERINFO);
      url.password = percentEncode(password ?? "", USERINFO);
    }
    return parseHostAndPort(url, authority) && startPath(url, slice(rest, end));
  }

  // Where the port begins: at the first colon outside brackets.
  function portColon(authority) {
    if (indexOf(authority, "[") < 0) return indexOf(authority, ":");
    let inBrackets = false;
    for (let i = 0; i < authority.length; i++) {
      const character = authority[i];
      if (character === ":" && !inBrackets) return i;
      if (character === "[") inBrackets = true;
      if (character === "]") inBrackets = false;
    }
    return -1;
  }

  function parseHostAndPort(url, authority) {
    const colon = portColon(authority);
    const name = colon < 0 ? authority : slice(authority, 0, colon);
    if (name === "" && (colon >= 0 || isSpecial(url))) return false;
    url.host = parseHost(name, isSpecial(url));
    if (url.host === null) return false;
    const port = colon < 0 ? "" : slice(authority, colon + 1);
    return port === "" || (test(/^[0-9]+$/, port) && setPort(url, port));
  }

  function setPort(url, digits) {
    const port = Number(digits);
    if (port > 65535) return false;
    url.port = port === DEFAULT_PORTS[url.scheme] ? null : port;
    return true;
  }

  function parseFileHost(url, name) {
    const host = name === "" ? "" : parseHost(name, true);
    if (host === null) return false;
    url.host = host === "localhost" ? "" : host;
    return true;
  }

  function parseFile(url, rest, base) {
    url.host = "";
    const slashes = search(rest, /^[/\\]/) < 0 ? 0 : isSlash(url, rest[1]) ? 2 : 1;
    rest = slice(rest, slashes);
    if (slashes === 2) {
      const end = search(rest, /[/\\]|$/);
      const name = slice(rest, 0, end);
      if (isDriveLetter(name)) return parsePath(url, rest);
      return parseFileHost(url, name) && startPath(url, slice(rest, end));
    }
    if (!base) return parsePath(url, rest);
    url.host = base.host;
    if (slashes === 1) {
      const drive = base.path[0];
      if (!startsWithDriveLetter(rest) && drive !== undefined && isNormalDriveLetter(drive)) push(url.path, drive);
      return parsePath(url, rest);
    }
    return startsWithDriveLetter(rest) ? parsePath(url, rest) : parseRelativePath(url, rest, base);
  }

  // A path after an authority, or one that a setter gives: the first slash belongs to no segment.
  function startPath(url, rest) {
    if (rest === "" && !isSpecial(url)) return true;
    return parsePath(url, isSlash(url, rest[0]) ? slice(rest, 1) : rest);
  }

  // How many dots a segment is: 1 for ".", 2 for "..", however written, else 0.
  function dotsOf(segment) {
    if (segment[0] !== "." && segment[0] !== "%") return 0;
    const dots = exec(/^(?:\.|%2e)(\.|%2e)?$/i, segment);
    return !dots ? 0 : dots[1] ? 2 : 1;
  }

  function parsePath(url, rest) {
    const segments = split(isSpecial(url) ? replace(rest, /\\/g, "/") : rest, "/");
    for (let i = 0; i < segments.length; i++) {
      const segment = segments[i], dots = dotsOf(segment);
      if (dots === 2) shorten(url);
      if (!dots) push(url.path, isFirstDrive(url, segment) ? `${segment[0]}:` : percentEncode(segment, PATH));
      else if (i === segments.length - 1) push(url.path, "");
    }
    return true;
  }

  const isFirstDrive = (url, segment) => url.scheme === "file" && url.path.length === 0 && isDriveLetter(segment);

  function shorten(url) {
    if (url.scheme === "file" && url.path.length === 1 && isNormalDriveLetter(url.path[0])) return;
    pop(url.path);
  }

  // ---- Serialising ------------------------------------------------------------------------------------------------

  const pathOf = (url) => (isOpaque(url) ? url.path : url.path.length ? `/${join(url.path, "/")}` : "");
  const hostOf = (url) => (url.host === null ? "" : url.port === null ? url.host : `${url.host}:${url.port}`);

  function serialize(url) {
    let start = `${url.scheme}:`;
    if (url.host !== null) {
      const password = url.password === "" ? "" : `:${url.password}`;
      start += hasCredentials(url) ? `//${url.username}${password}@${hostOf(url)}` : `//${hostOf(url)}`;
    } else if (!isOpaque(url) && url.path.length > 1 && url.path[0] === "") {
      start += "/."; // or the path would read as an authority
    }
    const query = url.query === null ? "" : `?${url.query}`;
    return start + pathOf(url) + query + (url.fragment === null ? "" : `#${url.fragment}`);
  }

  function originOf(url) {
    if (url.scheme === "blob") {
      const inner = parseUrl(pathOf(url), null);
      return inner && (inner.scheme === "http" || inner.scheme === "https") ? originOf(inner) : "null";
    }
    return isSpecial(url) && url.scheme !== "file" ? `${url.scheme}://${hostOf(url)}` : "null";
  }

  // ---- URLSearchParams --------------------------------------------------------------------------------------------

  const formDecode = (part) => percentDecode(replace(part, /\+/g, " "));
  const formEncode = (part) => replace(percentEncode(part, FORM), /%20/g, "+");

  // A list of [name, value] pairs.
  function parseForm(input) {
    const list = [];
    for (const pair of split(input, "&")) {
      if (pair === "") continue;
      const [name, value] = cut(pair, "=");
      push(list, [formDecode(name), formDecode(value ?? "")]);
    }
    return list;
  }

  function serializeForm(list) {
    let out = "";
    for (let i = 0; i < list.length; i++)
      out += `${i ? "&" : ""}${formEncode(list[i][0])}=${formEncode(list[i][1])}`;
    return out;
  }

  const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

  function listOf(init) {
    if (isObject(init)) return pairsOf(init, text);
    const input = text(init);
    return parseForm(input[0] === "?" ? slice(input, 1) : input);
  }

  const iterate = pairIterators("URLSearchParams");
  let linkParams; // (params, list, changed): what URL needs of the private fields

  class URLSearchParams {
    #list = [];
    #changed = null; // called after each change: the URL this belongs to

    static {
      linkParams = (params, list, changed) => {
        params.#list = list;
        params.#changed = changed;
      };
      expose(this, (value) => #list in value);
      host.formText = (value) => (isObject(value) && #list in value ? serializeForm(value.#list) : undefined);
    }

    constructor(init = "") {
      this.#list = listOf(init);
    }

    get size() {
      return this.#list.length;
    }

    append(name, value) {
      required(arguments, 2);
      push(this.#list, [text(name), text(value)]);
      this.#changed?.(this.#list);
    }

    delete(name, value = undefined) {
      required(arguments, 1);
      this.#list = this.#list.filter(not(matcher(name, value)));
      this.#changed?.(this.#list);
    }

    get(name) {
      required(arguments, 1);
      return this.#list.find(matcher(name))?.[1] ?? null;
    }

    getAll(name) {
      required(arguments, 1);
      return this.#list.filter(matcher(name)).map((pair) => pair[1]);
    }

    has(name, value = undefined) {
      required(arguments, 1);
      return this.#list.some(matcher(name, value));
    }

    set(name, value) {
      required(arguments, 2);
      name = text(name);
      value = text(value);
      const matches = matcher(name);
      const first = this.#list.findIndex(matches);
      if (first < 0) push(this.#list, [name, value]);
      else this.#list = this.#list.filter((pair, i) => i === first || !matches(pair));
      if (first >= 0) this.#list[first][1] = value;
      this.#changed?.(this.#list);
    }

    sort() {
      this.#list.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
      this.#changed?.(this.#list);
    }

    toString() {
      return serializeForm(this.#list);
    }

    forEach(callback, thisArg = undefined) {
      this.#list;
      if (typeof callback !== "function") throw new TypeError("forEach takes a function");
      for (let i = 0; i < this.#list.length; i++)
        Reflect.apply(callback, thisArg, [this.#list[i][1], this.#list[i][0], this]);
    }

    keys() {
      return iterate(() => this.#list, (pair) => pair[0]);
    }

    values() {
      return iterate(() => this.#list, (pair) => pair[1]);
    }

    entries() {
      return iterate(() => this.#list, (pair) => [pair[0], pair[1]]);
    }
  }
  Object.defineProperty(URLSearchParams.prototype, Symbol.iterator,
    { value: URLSearchParams.prototype.entries, writable: true, configurable: true });

  const not = (predicate) => (pair) => !predicate(pair);

  function matcher(name, value) {
    name = text(name);
    if (value === undefined) return (pair) => pair[0] === name;
    value = text(value);
    return (pair) => pair[0] === name && pair[1] === value;
  }

  // ---- URL --------------------------------------------------------------------------------------------------------

  function resolve(input, base) {
    if (base === undefined) return parseUrl(input, null);
    const record = parseUrl(base, null);
    return record && parseUrl(input, record);
  }

  // What fetch may be given: the serialized URL, null for what is none or carries a user or a password.
  host.fetchableUrl = (input) => {
    const url = parseUrl(text(input), null);
    return url && !hasCredentials(url) ? serialize(url) : null;
  };

  const optionalText = (value) => (value === undefined ? undefined : text(value));

  const cannotHaveCredentialsOrPort = (url) => url.host === null || url.host === "" || url.scheme === "file";

  function changeScheme(url, input) {
    const match = exec(/^([a-zA-Z][a-zA-Z0-9+\-.]*):/, input);
    if (!match) return;
    const scheme = lower(match[1]);
    if (scheme in DEFAULT_PORTS !== isSpecial(url)) return;
    if (scheme === "file" && (hasCredentials(url) || url.port !== null)) return;
    if (url.scheme === "file" && url.host === "") return;
    url.scheme = scheme;
    if (url.port === DEFAULT_PORTS[scheme]) url.port = null;
  }

  function changeHost(url, input, withPort) {
    if (isOpaque(url)) return;
    input = slice(input, 0, search(input, isSpecial(url) ? /[/\\?#]|$/ : /[/?#]|$/));
    if (url.scheme === "file") return void parseFileHost(url, input);
    const colon = portColon(input);
    const name = colon < 0 ? input : slice(input, 0, colon);
    if (colon >= 0 && (name === "" || !withPort)) return;
    if (name === "" && (isSpecial(url) || hasCredentials(url) || url.port !== null)) return;
    const host = parseHost(name, isSpecial(url));
    if (host === null) return;
    url.host = host;
    if (colon >= 0) changePort(url, slice(input, colon + 1));
  }

  function changePort(url, input) {
    const digits = exec(/^[0-9]+/, input);
    if (digits) setPort(url, digits[0]);
  }

  class URL {
    #url;
    #params = null;

    static {
      expose(this, (value) => #url in value);
    }

    static parse(input, base = undefined) {
      required(arguments, 1);
      input = text(input);
      base = optionalText(base);
      try {
        return new URL(input, base);
      } catch {
        return null;
      }
    }

    static canParse(input, base = undefined) {
      required(arguments, 1);
      return resolve(text(input), optionalText(base)) !== null;
    }

    constructor(input, base = undefined) {
      required(arguments, 1);
      input = text(input);
      this.#url = resolve(input, optionalText(base));
      if (!this.#url) throw new TypeError(`invalid URL: ${input}`);
    }

    #linkParams() {
      linkParams(this.#params, parseForm(this.#url.query ?? ""), (list) => {
        const query = serializeForm(list);
        this.#url.query = query === "" ? null : query;
      });
    }

    get href() {
      return serialize(this.#url);
    }

    set href(value) {
      value = text(value);
      const url = parseUrl(value, null);
      if (!url) throw new TypeError(`invalid URL: ${value}`);
      this.#url = url;
      if (this.#params) this.#linkParams();
    }

    toString() {
      return serialize(this.#url);
    }

    toJSON() {
      return serialize(this.#url);
    }

    get origin() {
      return originOf(this.#url);
    }

    get protocol() {
      return `${this.#url.scheme}:`;
    }

    set protocol(value) {
      changeScheme(this.#url, `${withoutTabs(text(value))}:`);
    }

    get username() {
      return this.#url.username;
    }

    set username(value) {
      value = text(value);
      if (!cannotHaveCredentialsOrPort(this.#url)) this.#url.username = percentEncode(value, USERINFO);
    }

    get password() {
      return this.#url.password;
    }

    set password(value) {
      value = text(value);
      if (!cannotHaveCredentialsOrPort(this.#url)) this.#url.password = percentEncode(value, USERINFO);
    }

    get host() {
      return hostOf(this.#url);
    }

    set host(value) {
      changeHost(this.#url, withoutTabs(text(value)), true);
    }

    get hostname() {
      return this.#url.host ?? "";
    }

    set hostname(value) {
      changeHost(this.#url, withoutTabs(text(value)), false);
    }

    get port() {
      return this.#url.port === null ? "" : `${this.#url.port}`;
    }

    set port(value) {
      value = text(value);
      if (cannotHaveCredentialsOrPort(this.#url)) return;
      if (value === "") this.#url.port = null;
      else changePort(this.#url, withoutTabs(value));
    }

    get pathname() {
      return pathOf(this.#url);
    }

    set pathname(value) {
      value = withoutTabs(text(value));
      if (isOpaque(this.#url)) return;
      this.#url.path = [];
      startPath(this.#url, value);
      if (value === "" && !isSpecial(this.#url) && this.#url.host === null) push(this.#url.path, "");
    }

    get search() {
      return this.#url.query ? `?${this.#url.query}` : "";
    }

    set search(value) {
      value = text(value);
      if (value === "") this.#url.query = null;
      else setQuery(this.#url, withoutTabs(value[0] === "?" ? slice(value, 1) : value));
      if (this.#params) this.#linkParams();
    }

    get searchParams() {
      if (!this.#params) {
        this.#params = new URLSearchParams();
        this.#linkParams();
      }
      return this.#params;
    }

    get hash() {
      return this.#url.fragment ? `#${this.#url.fragment}` : "";
    }

    set hash(value) {
      value = text(value);
      const fragment = withoutTabs(value[0] === "#" ? slice(value, 1) : value);
      this.#url.fragment = value === "" ? null : percentEncode(fragment, FRAGMENT);
    }
  }
})
