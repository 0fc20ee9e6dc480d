// SPDX-License-Identifier: Apache-2.0
//
// crypto: random values, UUIDs, digests and HMAC after the Web Cryptography standard. Random bytes come from the host;
// hashing is C (js_host_sha in guest.c). Other algorithms and key formats are refused with NotSupportedError, and the
// methods of SubtleCrypto that would serve only them are absent.
(function (host, globalThis) {
  "use strict";

  const { Array, ArrayBuffer, DOMException, Number, Object, String, TypeError, Uint8Array } = globalThis;
  const { bytesOf, define, expose, random, sha, typedArrayName, uncurry } = host;
  const { isView } = ArrayBuffer;
  const setBytes = uncurry(Uint8Array.prototype.set);
  const upper = uncurry(String.prototype.toUpperCase);
  const includes = uncurry(Array.prototype.includes);

  const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

  function assertThis(actual, expected) {
    if (actual !== expected) throw new TypeError("illegal invocation");
  }

  const INTEGER_ARRAY = /^(?:Big)?(?:Ui|I)nt\d+(?:Clamped)?Array$/;
  const HEX = "0123456789abcdef";

  class Crypto {
    static {
      expose(this, (value) => value === crypto);
    }

    constructor() {
      throw new TypeError("illegal constructor");
    }

    get subtle() {
      assertThis(this, crypto);
      return subtle;
    }

    getRandomValues(array) {
      assertThis(this, crypto);
      if (!isView(array)) throw new TypeError("getRandomValues fills a typed array");
      if (!INTEGER_ARRAY.test(typedArrayName(array)))
        throw new DOMException("getRandomValues fills arrays of integers", "TypeMismatchError");
      const bytes = bytesOf(array);
      if (bytes.length > 65536) throw new DOMException("more than 65536 random bytes at once", "QuotaExceededError");
      random(bytes);
      return array;
    }

    // RFC 9562, version 4.
    randomUUID() {
      assertThis(this, crypto);
      const bytes = new Uint8Array(16);
      random(bytes);
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      let text = "";
      for (let i = 0; i < 16; i++) {
        if (i === 4 || i === 6 || i === 8 || i === 10) text += "-";
        text += HEX[bytes[i] >> 4] + HEX[bytes[i] & 15];
      }
      return text;
    }
  }

  // ---- Digests and HMAC -------------------------------------------------------------------------------------------

  const HASHES = [
    { name: "SHA-1", sha: 1, blockBytes: 64 },
    { name: "SHA-256", sha: 256, blockBytes: 64 },
    { name: "SHA-384", sha: 384, blockBytes: 128 },
    { name: "SHA-512", sha: 512, blockBytes: 128 },
  ];

  function algorithmName(algorithm) {
    const name = isObject(algorithm) ? algorithm.name : algorithm;
    if (name === undefined) throw new TypeError("an algorithm has a name");
    return upper(`${name}`);
  }

  function unsupported(what) {
    return new DOMException(`${what} is not supported`, "NotSupportedError");
  }

  function findHash(algorithm) {
    const name = algorithmName(algorithm);
    for (const hash of HASHES) if (hash.name === name) return hash;
    throw unsupported(name);
  }

  function assertHmac(algorithm) {
    const name = algorithmName(algorithm);
    if (name !== "HMAC") throw unsupported(name);
  }

  // hash((key ^ pad) || data)
  function padded(hash, key, pad, data) {
    const all = new Uint8Array(hash.blockBytes + data.length);
    for (let i = 0; i < hash.blockBytes; i++) all[i] = key[i] ^ pad;
    setBytes(all, data, hash.blockBytes);
    return sha(hash.sha, all);
  }

  // RFC 2104
  function hmac(hash, key, data) {
    if (key.length > hash.blockBytes) key = sha(hash.sha, key);
    return padded(hash, key, 0x5c, padded(hash, key, 0x36, data));
  }

  // Takes the same time wherever the first difference is.
  function equalBytes(a, b) {
    if (a.length !== b.length) return false;
    let difference = 0;
    for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
    return difference === 0;
  }

  // ---- Keys -------------------------------------------------------------------------------------------------------

  let minting = null; // what the key that is being made holds; the constructor is closed to all others
  let contents;

  class CryptoKey {
    #contents;

    static {
      contents = (key) => key.#contents;
      expose(this, (value) => #contents in value);
    }

    constructor() {
      if (!minting) throw new TypeError("illegal constructor");
      this.#contents = minting;
    }

    get type() {
      this.#contents;
      return "secret";
    }

    get extractable() {
      return this.#contents.extractable;
    }

    get algorithm() {
      return this.#contents.algorithm;
    }

    get usages() {
      return this.#contents.usages;
    }
  }

  function makeKey(fields) {
    minting = fields;
    try {
      return new CryptoKey();
    } finally {
      minting = null;
    }
  }

  const USAGES = "encrypt decrypt sign verify deriveKey deriveBits wrapKey unwrapKey".split(" ");

  // The usages in the standard's order, each once.
  function hmacUsages(given) {
    const wanted = [];
    for (const usage of given) {
      if (!includes(USAGES, `${usage}`)) throw new TypeError(`no such key usage: ${usage}`);
      if (usage !== "sign" && usage !== "verify") throw new DOMException(`HMAC keys do not ${usage}`, "SyntaxError");
      wanted[wanted.length] = usage;
    }
    if (!wanted.length) throw new DOMException("a secret key needs a usage", "SyntaxError");
    const usages = [];
    if (includes(wanted, "sign")) usages[usages.length] = "sign";
    if (includes(wanted, "verify")) usages[usages.length] = "verify";
    return usages;
  }

  // Bits of the key. A `length` may leave out at most seven, which are then zero.
  function hmacLength(secret, length) {
    const bits = secret.length * 8;
    if (bits === 0) throw new DOMException("the key is empty", "DataError");
    if (length === undefined) return bits;
    length = Number(length);
    if (!(length > bits - 8 && length <= bits)) throw new DOMException("length does not fit the key", "DataError");
    if (length < bits) secret[secret.length - 1] &= 0xff << (bits - length);
    return length;
  }

  // What `key` holds, if it may be used so.
  function authorize(algorithm, key, usage) {
    assertHmac(algorithm);
    const found = contents(key);
    if (!includes(found.usages, usage)) throw new DOMException(`the key is not for ${usage}`, "InvalidAccessError");
    return found;
  }

  const FORMATS = ["raw", "pkcs8", "spki", "jwk"];

  class SubtleCrypto {
    static {
      expose(this, (value) => value === subtle);
    }

    constructor() {
      throw new TypeError("illegal constructor");
    }

    async digest(algorithm, data) {
      assertThis(this, subtle);
      return sha(findHash(algorithm).sha, bytesOf(data)).buffer;
    }

    async importKey(format, keyData, algorithm, extractable, keyUsages) {
      assertThis(this, subtle);
      if (!includes(FORMATS, `${format}`)) throw new TypeError(`no such key format: ${format}`);
      assertHmac(algorithm);
      if (format !== "raw") throw unsupported(`key format ${format}`);
      if (!isObject(algorithm) || algorithm.hash === undefined) throw new TypeError("HMAC needs a hash");
      const hash = findHash(algorithm.hash);
      const usages = hmacUsages(keyUsages);
      const secret = new Uint8Array(bytesOf(keyData));
      const length = hmacLength(secret, algorithm.length);
      const description = { name: "HMAC", hash: { name: hash.name }, length };
      return makeKey({ hash, secret, usages, extractable: !!extractable, algorithm: description });
    }

    async sign(algorithm, key, data) {
      assertThis(this, subtle);
      const { hash, secret } = authorize(algorithm, key, "sign");
      return hmac(hash, secret, bytesOf(data)).buffer;
    }

    async verify(algorithm, key, signature, data) {
      assertThis(this, subtle);
      const { hash, secret } = authorize(algorithm, key, "verify");
      return equalBytes(hmac(hash, secret, bytesOf(data)), bytesOf(signature));
    }
  }

  const subtle = Object.create(SubtleCrypto.prototype);
  const crypto = Object.create(Crypto.prototype);
  define("crypto", crypto);
})
