// SPDX-License-Identifier: Apache-2.0
//
// fetch, Headers and Response after the WHATWG Fetch standard, over the host's extension `net`, to which the execution
// is suspended meanwhile. Bodies are whole: there are no streams, so Response has no `body`. There are no Request, Blob,
// FormData and AbortController either; what stands for them in an argument is refused rather than ignored.
(function (host, globalThis) {
  "use strict";

  const { Array, JSON, Number, Object, Promise, RangeError, Reflect, RegExp, String, TextDecoder, TypeError,
    Uint8Array } = globalThis;
  const { bytesOf, define, encode: encodeUtf8, expose, openCall, pairIterators, pairsOf, required,
    uncurry } = host;
  const { parse, stringify } = JSON;
  const { keys } = Object;
  const { apply } = Reflect;
  const fromBase64 = Uint8Array.fromBase64.bind(Uint8Array);
  const exec = uncurry(RegExp.prototype.exec);
  const includes = uncurry(Array.prototype.includes);
  const lower = uncurry(String.prototype.toLowerCase);
  const push = uncurry(Array.prototype.push);
  const replace = uncurry(String.prototype.replace);
  const slice = uncurry(Array.prototype.slice);
  const sort = uncurry(Array.prototype.sort);
  const splice = uncurry(Array.prototype.splice);
  const toBase64 = uncurry(Uint8Array.prototype.toBase64);
  const toWellFormed = uncurry(String.prototype.toWellFormed);
  const upper = uncurry(String.prototype.toUpperCase);

  const decode = uncurry(TextDecoder.prototype.decode);
  const utf8 = new TextDecoder();

  const matches = (pattern, text) => exec(pattern, text) !== null;

  function dictionary(init) {
    if (init === undefined || init === null) return {};
    if (typeof init !== "object" && typeof init !== "function") throw new TypeError("the second argument is an object");
    return init;
  }

  // ---- Headers ----------------------------------------------------------------------------------------------------

  function byteString(value) {
    value = `${value}`;
    if (matches(/[^\0-\xff]/, value)) throw new TypeError("a header has a character above U+00FF");
    return value;
  }

  const isToken = (text) => matches(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/, text);

  function headerName(name) {
    if (!isToken(name)) throw new TypeError(`not a header name: ${name}`);
    return lower(name);
  }

  function headerValue(value) {
    value = replace(value, /^[\t\n\r ]+|[\t\n\r ]+$/g, "");
    if (matches(/[\0\n\r]/, value)) throw new TypeError("a header's value has a line break or a NUL");
    return value;
  }

  function combined(list, name) {
    let all = null;
    for (let i = 0; i < list.length; i++)
      if (list[i][0] === name) all = all === null ? list[i][1] : `${all}, ${list[i][1]}`;
    return all;
  }

  function remove(list, name, from) {
    for (let i = list.length - 1; i >= from; i--) if (list[i][0] === name) splice(list, i, 1);
  }

  // By name, each once; only cookies cannot be joined into one value.
  function sortedAndCombined(list) {
    const names = [], out = [];
    for (let i = 0; i < list.length; i++) if (!includes(names, list[i][0])) push(names, list[i][0]);
    sort(names);
    for (let i = 0; i < names.length; i++) {
      if (names[i] !== "set-cookie") push(out, [names[i], combined(list, names[i])]);
      else for (let j = 0; j < list.length; j++) if (list[j][0] === "set-cookie") push(out, list[j]);
    }
    return out;
  }

  const iterate = pairIterators("Headers");
  let listOf, makeHeaders;

  class Headers {
    #list = []; // [name in lower case, value]
    #isImmutable = false;

    static {
      listOf = (headers) => headers.#list;
      makeHeaders = (list, isImmutable) => {
        const headers = new Headers();
        headers.#list = list;
        headers.#isImmutable = isImmutable;
        return headers;
      };
      expose(this, (value) => #list in value);
    }

    constructor(init = undefined) {
      if (init === undefined) return;
      if ((typeof init !== "object" && typeof init !== "function") || init === null)
        throw new TypeError("headers are pairs of name and value, or an object");
      const pairs = pairsOf(init, byteString);
      for (let i = 0; i < pairs.length; i++) push(this.#list, [headerName(pairs[i][0]), headerValue(pairs[i][1])]);
    }

    #assertMutable() {
      if (this.#isImmutable) throw new TypeError("these headers cannot be changed");
    }

    append(name, value) {
      required(arguments, 2);
      const pair = [byteString(name), byteString(value)];
      pair[1] = headerValue(pair[1]);
      pair[0] = headerName(pair[0]);
      this.#assertMutable();
      push(this.#list, pair);
    }

    delete(name) {
      required(arguments, 1);
      name = headerName(byteString(name));
      this.#assertMutable();
      remove(this.#list, name, 0);
    }

    get(name) {
      required(arguments, 1);
      return combined(this.#list, headerName(byteString(name)));
    }

    getSetCookie() {
      const cookies = [];
      for (let i = 0; i < this.#list.length; i++) if (this.#list[i][0] === "set-cookie") push(cookies, this.#list[i][1]);
      return cookies;
    }

    has(name) {
      required(arguments, 1);
      return combined(this.#list, headerName(byteString(name))) !== null;
    }

    set(name, value) {
      required(arguments, 2);
      name = byteString(name);
      value = headerValue(byteString(value));
      name = headerName(name);
      this.#assertMutable();
      let at = 0;
      while (at < this.#list.length && this.#list[at][0] !== name) at++;
      this.#list[at] = [name, value];
      remove(this.#list, name, at + 1);
    }

    forEach(callback, thisArg = undefined) {
      this.#list;
      if (typeof callback !== "function") throw new TypeError("forEach takes a function");
      for (let i = 0, list; i < (list = sortedAndCombined(this.#list)).length; i++)
        apply(callback, thisArg, [list[i][1], list[i][0], this]);
    }

    keys() {
      return iterate(() => sortedAndCombined(this.#list), (pair) => pair[0]);
    }

    values() {
      return iterate(() => sortedAndCombined(this.#list), (pair) => pair[1]);
    }

    entries() {
      return iterate(() => sortedAndCombined(this.#list), (pair) => [pair[0], pair[1]]);
    }
  }
  Object.defineProperty(Headers.prototype, Symbol.iterator,
    { value: Headers.prototype.entries, writable: true, configurable: true });

  // ---- Bodies -----------------------------------------------------------------------------------------------------

  // {text, type} or {bytes, type} of what a handler gives as a body; the type is null when the value implies none.
  function extract(body) {
    if (typeof body === "string") return { text: toWellFormed(body), type: "text/plain;charset=UTF-8" };
    const form = host.formText(body);
    if (form !== undefined) return { text: form, type: "application/x-www-form-urlencoded;charset=UTF-8" };
    let bytes;
    try {
      bytes = bytesOf(body);
    } catch {
      throw new TypeError("a body is a string, URLSearchParams, an ArrayBuffer or a view of one");
    }
    return { bytes: new Uint8Array(bytes), type: null };
  }

  function addContentType(list, type) {
    if (type !== null && combined(list, "content-type") === null) push(list, ["content-type", type]);
  }

  // ---- Response ---------------------------------------------------------------------------------------------------

  const NULL_BODY_STATUSES = [204, 205, 304];

  // What comes before the body of a response that a handler makes. `body` is null or what extract() gave.
  function headOf(init, body) {
    const { headers, status = 200, statusText = "" } = dictionary(init);
    const code = Number(status) & 0xffff;
    if (code < 200 || code > 599) throw new RangeError("the status of a response is 200 to 599");
    const reason = byteString(statusText);
    if (!matches(/^[\t -~\x80-\xff]*$/, reason)) throw new TypeError("the status text has a control character");
    const list = listOf(new Headers(headers));
    if (body && includes(NULL_BODY_STATUSES, code)) throw new TypeError(`a response of status ${code} has no body`);
    if (body) addContentType(list, body.type);
    return { type: "default", status: code, statusText: reason, url: "", redirected: false,
      headers: makeHeaders(list, false) };
  }

  let makeResponse; // (head, bytes): without the checks of the constructor

  class Response {
    #head; // {type, status, statusText, url, redirected, headers}
    #bytes = null; // null: it has no body
    #isUsed = false;

    static {
      makeResponse = (head, bytes) => {
        const response = new Response();
        response.#head = head;
        response.#bytes = bytes;
        return response;
      };
      expose(this, (value) => #head in value);
    }

    static error() {
      const head = { type: "error", status: 0, statusText: "", url: "", redirected: false, headers: makeHeaders([], true) };
      return makeResponse(head, null);
    }

    static json(data, init = undefined) {
      required(arguments, 1);
      const text = stringify(data);
      if (text === undefined) throw new TypeError("the value has no JSON form");
      return makeResponse(headOf(init, { type: "application/json" }), encodeUtf8(text));
    }

    constructor(body = null, init = undefined) {
      const given = body === null ? null : extract(body);
      this.#head = headOf(init, given);
      if (given) this.#bytes = given.bytes ?? encodeUtf8(given.text);
    }

    get type() {
      return this.#head.type;
    }

    get url() {
      return this.#head.url;
    }

    get redirected() {
      return this.#head.redirected;
    }

    get status() {
      return this.#head.status;
    }

    get ok() {
      return this.#head.status >= 200 && this.#head.status <= 299;
    }

    get statusText() {
      return this.#head.statusText;
    }

    get headers() {
      return this.#head.headers;
    }

    get bodyUsed() {
      return this.#isUsed;
    }

    clone() {
      if (this.#isUsed) throw new TypeError("the body was read already");
      const { headers, ...rest } = this.#head;
      const head = { ...rest, headers: makeHeaders(slice(listOf(headers), 0), rest.type !== "default") };
      return makeResponse(head, this.#bytes && new Uint8Array(this.#bytes));
    }

    #read() {
      if (this.#isUsed) throw new TypeError("the body was read already");
      if (this.#bytes === null) return new Uint8Array();
      this.#isUsed = true;
      const bytes = this.#bytes;
      this.#bytes = null;
      return bytes;
    }

    async arrayBuffer() {
      return this.#read().buffer;
    }

    async bytes() {
      return this.#read();
    }

    async json() {
      return parse(decode(utf8, this.#read()));
    }

    async text() {
      return decode(utf8, this.#read());
    }
  }

  // ---- fetch ------------------------------------------------------------------------------------------------------

  function methodOf(given) {
    const method = byteString(given);
    const normal = upper(method);
    if (!isToken(method) || includes(["CONNECT", "TRACE", "TRACK"], normal))
      throw new TypeError(`fetch does not send the method ${method}`);
    return includes(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"], normal) ? normal : method;
  }

  // A handler that relies on these must not believe that it has them.
  function assertSupported({ integrity, redirect, signal }) {
    if (signal !== undefined && signal !== null) throw new TypeError("fetch takes no signal: race with a timer instead");
    if (redirect !== undefined && redirect !== "follow") throw new TypeError("fetch follows redirects, and nothing else");
    if (integrity !== undefined && integrity !== "") throw new TypeError("fetch does not check the integrity of a body");
  }

  // The arguments of the host's call.
  function requestOf(input, init) {
    input = `${input}`;
    const url = host.fetchableUrl(input);
    if (url === null) throw new TypeError(`fetch takes an absolute URL without a user and a password, not ${input}`);
    assertSupported(init);
    const method = methodOf(init.method ?? "GET");
    const list = listOf(new Headers(init.headers));
    const request = { __proto__: null, method, headers: { __proto__: null } };
    if (init.body !== undefined && init.body !== null) {
      if (method === "GET" || method === "HEAD") throw new TypeError(`a ${method} request has no body`);
      const { text, bytes, type } = extract(init.body);
      addContentType(list, type);
      if (bytes) request.bodyBase64 = toBase64(bytes);
      else request.body = text;
    }
    for (let i = 0; i < list.length; i++) request.headers[list[i][0]] = combined(list, list[i][0]);
    return [url, request];
  }

  function responseOf(reply) {
    const { status, statusText, url, redirected, headers, body, bodyBase64 } = reply;
    const list = [];
    const names = keys(headers);
    for (let i = 0; i < names.length; i++) push(list, [lower(names[i]), headers[names[i]]]);
    const bytes = bodyBase64 === undefined ? encodeUtf8(body) : fromBase64(bodyBase64);
    const head = { type: "basic", status, statusText, url, redirected, headers: makeHeaders(list, true) };
    return makeResponse(head, includes(NULL_BODY_STATUSES, status) ? null : bytes);
  }

  define("fetch", function fetch(input, init = undefined) {
    return new Promise((resolve, reject) => {
      required(arguments, 1);
      openCall("net", "fetch", requestOf(input, dictionary(init)), {
        resolve(reply) {
          try {
            resolve(responseOf(reply));
          } catch (error) {
            reject(error);
          }
        },
        reject: (error) => reject(new TypeError(`fetch failed: ${error.message}`, { cause: error })),
      });
    });
  });
})
