// SPDX-License-Identifier: Apache-2.0
//
// The world of a nexus handler: what exists inside the sandbox besides the language itself.
//
// Use it with `lib: ["ES2023"]` and without "dom": there is no window, no require, no process and no Intl.
// A handler is either a function body, which uses the `$` globals, or an ES module whose default export is a
// `Handler`; the `$` globals exist there too. `types/check.mjs` checks both forms.

// ---- Handlers ---------------------------------------------------------------------------------------------------------

/** The default export of a module handler. It may be async; what it returns is the answer, as JSON. */
type Handler<Args = any, Result = unknown> = (
  args: Args,
  ctx: HandlerContext<Args>,
) => Serializable<Result> | PromiseLike<Serializable<Result>>;

/** The second argument of a module handler: the `$` globals without the `$`. */
interface HandlerContext<Args = any> {
  readonly args: Args;
  readonly scope: HandlerScope;
  readonly state: HandlerState;
  readonly emit: EmitFunction;
  readonly view: HandlerView;
  readonly ext: HandlerExtensions;
  readonly log: LogFunction;
}

/** What JSON.stringify can write at the top: functions and symbols have no JSON form, a bigint throws. */
type Serializable<T> = T extends bigint | symbol | ((...args: never[]) => unknown) ? never : T;

/**
 * Key → JSON value. Reading a key needs the capability `state:read:KEY`, writing or deleting it `state:write:KEY`.
 *
 * Only assignments to a key are recorded: `$state.list = [...$state.list, item]` is a mutation,
 * `$state.list.push(item)` changes nothing but this execution's copy.
 *
 * Declare your keys to have them checked: `interface HandlerState { counter?: number }`.
 */
interface HandlerState {
  [key: string]: any;
}

/** Further input of the execution beside the arguments, chosen by the caller; `{}` when it gave none. */
interface HandlerScope {
  readonly [name: string]: any;
}

/** Records an event for the caller. Needs `events:emit:NAME`. */
type EmitFunction = <Payload>(name: string, payload?: Serializable<Payload>) => void;

/** Commands to the caller's user interface. All need `view:update:COMPONENT`. */
interface HandlerView {
  readonly setFilter: ViewCommand;
  readonly scrollTo: ViewCommand;
  readonly focus: ViewCommand;
  readonly custom: ViewCommand;
}
type ViewCommand = (componentId: string, ...args: unknown[]) => void;

/**
 * Extensions: calls that are answered while the execution is suspended. `$ext.NAME.METHOD(…)` needs `ext:NAME`, and a
 * caller that offers the method; `time` and `net` are served by nexus itself, and `time` needs no capability. What the
 * caller answers as an error rejects the promise.
 *
 * Declare yours to have them checked:
 * `interface HandlerExtensions { crm: { find(id: string): Promise<Customer | null> } }`.
 */
interface HandlerExtensions {
  readonly time: { sleep(milliseconds: number): Promise<void> };
  readonly net: { fetch(url: string, request?: NetRequest): Promise<NetReply> };
  readonly [name: string]: { readonly [method: string]: (...args: any[]) => Promise<any> };
}

/** What `fetch` is made of, as plain JSON. */
interface NetRequest {
  method?: string;
  headers?: Readonly<Record<string, string>>;
  body?: string;
  /** Instead of `body`. */
  bodyBase64?: string;
  timeoutMs?: number;
}
interface NetReply {
  status: number;
  statusText: string;
  url: string;
  redirected: boolean;
  headers: Record<string, string>;
  body?: string;
  /** Instead of `body` when the bytes are not UTF-8. */
  bodyBase64?: string;
}

/** Writes a line to the execution's logs. Objects are written as JSON, errors with their stack. */
type LogLine = (...values: unknown[]) => void;
/** Called itself it logs with level info. */
type LogFunction = LogLine & Record<"debug" | "info" | "warn" | "error", LogLine>;

/** Thrown by whatever lacks a capability. Its class is not a global: look at `error.name === "PermissionError"`. */
interface PermissionError extends Error {
  name: "PermissionError";
}

/** The arguments of this execution: any JSON, undefined when the caller sent none. */
declare const $args: any;
declare const $scope: HandlerScope;
declare const $state: HandlerState;
declare const $emit: EmitFunction;
declare const $view: HandlerView;
declare const $ext: HandlerExtensions;
declare const $log: LogFunction;

// ---- Standard globals -------------------------------------------------------------------------------------------------

/** Goes to the execution's logs, like `$log`. */
declare const console: Record<"log" | "trace" | "debug" | "info" | "warn" | "error", LogLine>;

type Cloneable<T> = T extends symbol | ((...args: never[]) => unknown) ? never : T;
declare function structuredClone<T>(value: Cloneable<T>, options?: { transfer?: ArrayBuffer[] }): T;
declare function queueMicrotask(callback: () => void): void;

/**
 * Like `$ext.time.sleep`: an execution that waits for a timer is suspended. Timers do not keep an execution whose
 * function has returned, and there are none while the top level runs.
 */
declare function setTimeout<Args extends unknown[]>(
  callback: (...args: Args) => void,
  milliseconds?: number,
  ...args: Args
): number;
declare function setInterval<Args extends unknown[]>(
  callback: (...args: Args) => void,
  milliseconds?: number,
  ...args: Args
): number;
declare function clearTimeout(id: number | undefined): void;
declare function clearInterval(id: number | undefined): void;

/** Base64 of a text whose characters are all below U+0100. */
declare function btoa(data: string): string;
declare function atob(data: string): string;

declare const performance: {
  /** Milliseconds since this execution began. */
  now(): number;
};

type BufferSource = ArrayBuffer | ArrayBufferView;

declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array<ArrayBuffer>;
  encodeInto(text: string, destination: Uint8Array): { read: number; written: number };
}

/** Knows UTF-8, UTF-16 and windows-1252 (latin1) under all their labels. */
declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(input?: BufferSource, options?: { stream?: boolean }): string;
}

declare class URL {
  constructor(url: string | URL, base?: string | URL);
  static canParse(url: string | URL, base?: string | URL): boolean;
  static parse(url: string | URL, base?: string | URL): URL | null;
  href: string;
  readonly origin: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  readonly searchParams: URLSearchParams;
  hash: string;
  toString(): string;
  toJSON(): string;
}

declare class URLSearchParams {
  constructor(init?: string | Iterable<readonly [string, string]> | Readonly<Record<string, string>>);
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(callback: (value: string, name: string, params: URLSearchParams) => void, thisArg?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
  toString(): string;
}

type HeadersInit = Iterable<readonly [string, string]> | Readonly<Record<string, string>>;
type BodyInit = string | URLSearchParams | BufferSource;

declare class Headers {
  constructor(init?: HeadersInit);
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getSetCookie(): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(callback: (value: string, name: string, headers: Headers) => void, thisArg?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
}

interface ResponseInit {
  status?: number;
  statusText?: string;
  headers?: HeadersInit;
}

/** Its body is whole: there are no streams. */
declare class Response {
  constructor(body?: BodyInit | null, init?: ResponseInit);
  static error(): Response;
  static json(data: unknown, init?: ResponseInit): Response;
  readonly type: "basic" | "default" | "error";
  readonly url: string;
  readonly redirected: boolean;
  readonly status: number;
  readonly ok: boolean;
  readonly statusText: string;
  readonly headers: Headers;
  readonly bodyUsed: boolean;
  clone(): Response;
  arrayBuffer(): Promise<ArrayBuffer>;
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  json(): Promise<any>;
  text(): Promise<string>;
}

interface RequestInit {
  method?: string;
  headers?: HeadersInit;
  body?: BodyInit | null;
}

/** Needs `ext:net`, and a destination that the operator allows. Suspends the execution; redirects are followed. */
declare function fetch(input: string | URL, init?: RequestInit): Promise<Response>;

declare class DOMException extends Error {
  constructor(message?: string, name?: string);
  readonly code: number;
}

type HashName = "SHA-1" | "SHA-256" | "SHA-384" | "SHA-512";
type IntegerArray =
  | Int8Array | Uint8Array | Uint8ClampedArray | Int16Array | Uint16Array | Int32Array | Uint32Array
  | BigInt64Array | BigUint64Array;

type HmacName = "HMAC" | { name: "HMAC" };

declare class CryptoKey {
  private constructor();
  readonly type: "secret";
  readonly extractable: boolean;
  readonly algorithm: { readonly name: "HMAC"; readonly hash: { readonly name: HashName }; readonly length: number };
  readonly usages: readonly ("sign" | "verify")[];
}

/** Of the Web Cryptography standard: digests, and HMAC with raw keys. */
declare class SubtleCrypto {
  private constructor();
  digest(algorithm: HashName | { name: HashName }, data: BufferSource): Promise<ArrayBuffer>;
  importKey(
    format: "raw",
    keyData: BufferSource,
    algorithm: { name: "HMAC"; hash: HashName | { name: HashName }; length?: number },
    extractable: boolean,
    usages: readonly ("sign" | "verify")[],
  ): Promise<CryptoKey>;
  sign(algorithm: HmacName, key: CryptoKey, data: BufferSource): Promise<ArrayBuffer>;
  /** Takes the same time wherever the signature differs. */
  verify(algorithm: HmacName, key: CryptoKey, signature: BufferSource, data: BufferSource): Promise<boolean>;
}

declare class Crypto {
  private constructor();
  readonly subtle: SubtleCrypto;
  randomUUID(): string;
  /** Fills the array, at most 65,536 bytes, and returns it. */
  getRandomValues<T extends IntegerArray>(array: T): T;
}
declare const crypto: Crypto;
