// SPDX-License-Identifier: Apache-2.0
//
// What Web IDL says about every interface, for the other files of this directory: how a class becomes a global, and how
// bytes and pairs are taken from an argument. The name begins with an underscore because it must run first.
(function (host, globalThis) {
  "use strict";

  const { Array, ArrayBuffer, DataView, Map, Object, Reflect, SharedArrayBuffer, TypeError, Uint8Array } = globalThis;
  const { defineProperty, getOwnPropertyNames, getPrototypeOf, setPrototypeOf } = Object;
  const { apply, getOwnPropertyDescriptor, ownKeys } = Reflect;
  const { isView } = ArrayBuffer;

  host.uncurry = Function.prototype.bind.bind(Function.prototype.call);

  host.define = (name, value) =>
    defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });

  // Tests, one per interface, that tell its instances: structuredClone refuses them.
  host.interfaces = [];

  // Makes `Interface` a global: members are enumerable, unlike a plain class's.
  host.expose = (Interface, isInstance) => {
    const own = ["length", "name", "prototype", "constructor"];
    for (const target of [Interface, Interface.prototype])
      for (const name of getOwnPropertyNames(target))
        if (!own.includes(name)) defineProperty(target, name, { enumerable: true });
    defineProperty(Interface.prototype, Symbol.toStringTag, { value: Interface.name, configurable: true });
    host.define(Interface.name, Interface);
    host.interfaces.push(isInstance);
  };

  host.required = (given, count) => {
    if (given.length < count) throw new TypeError(`${count} argument${count > 1 ? "s" : ""} required`);
  };

  // ---- Pairs of name and value ------------------------------------------------------------------------------------

  // A list of [name, value] from an object: a sequence of pairs, or a record. `text` converts each part.
  host.pairsOf = (init, text) => {
    if (init[Symbol.iterator] !== undefined && init[Symbol.iterator] !== null)
      return Array.from(init, (item) => pairOf(item, text));
    const record = new Map();
    for (const key of ownKeys(init))
      if (getOwnPropertyDescriptor(init, key)?.enumerable) record.set(text(key), text(init[key]));
    return [...record];
  };

  function pairOf(item, text) {
    if (typeof item !== "object" && typeof item !== "function") throw new TypeError("expected pairs of name and value");
    const pair = [...item];
    if (pair.length !== 2) throw new TypeError("a pair has a name and a value");
    return [text(pair[0]), text(pair[1])];
  }

  const iteratorPrototype = getPrototypeOf(getPrototypeOf([][Symbol.iterator]()));

  // The iterators of the interface `name`: a function of list(), which gives pairs, and of what to read of each. They
  // are live: what is added during an iteration is visited.
  host.pairIterators = (name) => {
    class PairIterator {
      #list;
      #read;
      #at = 0;

      constructor(list, read) {
        list(); // throws at once when `this` was of another class
        this.#list = list;
        this.#read = read;
      }

      next() {
        const list = this.#list();
        if (this.#at >= list.length) return { value: undefined, done: true };
        return { value: this.#read(list[this.#at++]), done: false };
      }
    }
    const { prototype } = PairIterator;
    setPrototypeOf(prototype, iteratorPrototype);
    delete prototype.constructor;
    defineProperty(prototype, "next", { enumerable: true });
    defineProperty(prototype, Symbol.toStringTag, { value: `${name} Iterator`, configurable: true });
    return (list, read) => new PairIterator(list, read);
  };

  // ---- Bytes ------------------------------------------------------------------------------------------------------

  const getter = (prototype, name) => getOwnPropertyDescriptor(prototype, name).get;
  const accessors = (prototype) => ({
    buffer: getter(prototype, "buffer"),
    byteOffset: getter(prototype, "byteOffset"),
    byteLength: getter(prototype, "byteLength"),
  });
  const typedArray = accessors(getPrototypeOf(Uint8Array.prototype));
  const dataView = accessors(DataView.prototype);
  const arrayBufferLength = getter(ArrayBuffer.prototype, "byteLength");
  const sharedBufferLength = getter(SharedArrayBuffer.prototype, "byteLength");
  const typedArrayTag = getter(getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag);

  // "Uint8Array" and so on for a typed array, undefined for all else.
  host.typedArrayName = (value) => apply(typedArrayTag, value, []);

  function bufferLength(source) {
    try {
      return apply(arrayBufferLength, source, []);
    } catch {
      return apply(sharedBufferLength, source, []);
    }
  }

  // A Uint8Array over the memory of a BufferSource; an empty one when it is detached.
  host.bytesOf = (source) => {
    if (isView(source)) {
      const { buffer, byteOffset, byteLength } = host.typedArrayName(source) ? typedArray : dataView;
      const length = apply(byteLength, source, []);
      if (!length) return new Uint8Array();
      return new Uint8Array(apply(buffer, source, []), apply(byteOffset, source, []), length);
    }
    let length;
    try {
      length = bufferLength(source);
    } catch {
      throw new TypeError("expected an ArrayBuffer or a view of one");
    }
    return length ? new Uint8Array(source) : new Uint8Array();
  };
})
