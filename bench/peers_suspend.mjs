// SPDX-License-Identifier: Apache-2.0
//
// What a suspended execution costs elsewhere: one async handler that waits for its host, many times, alive at once.
//
//   node --expose-gc --no-node-snapshot bench/peers_suspend.mjs PEER COUNT [PACKAGES]
//
// PEER: node:vm, isolated-vm, isolated-vm-context or quickjs-wasi. PACKAGES is where npm installed the last three.
// Prints {"kib_each", "suspend_us", "resume_us"}: growth of PSS by execution, and medians of the time from its start until it waits
// (for quickjs-wasi with the snapshot, of which alone it can go on) and from the answer to its result.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import vm from "node:vm";

const [peer, count, packages = "."] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${packages}/package.json`));
const SOURCE = "const order = await $ext.http.get('https://example.com/orders', {id: $args.id}); return order.total;";
const ARGS = { id: 7 };
const ORDER = { total: 12.5 };

// Each gives {suspend() → what is kept, resume(kept) → the result}.
const PEERS = {
  // Compiled once; a context per execution. Not a security boundary.
  "node:vm"() {
    const script = new vm.Script(`(async ($args, $ext) => { ${SOURCE} })`);
    return {
      suspend() {
        const kept = {};
        const get = () => new Promise((settle) => { kept.settle = settle; });
        kept.context = vm.createContext({});
        kept.result = script.runInContext(kept.context)(ARGS, { http: { get } });
        return kept;
      },
      resume(kept) {
        kept.settle(ORDER);
        return kept.result;
      },
    };
  },

  "isolated-vm"(isolate = null) {
    const ivm = require("isolated-vm");
    const code = `const $args = $0, $ext = { http: { get: (...a) => $1.apply(undefined, a,
      { arguments: { copy: true }, result: { copy: true, promise: true } }) } };
      return (async () => { ${SOURCE} })();`;
    return {
      async suspend() {
        const kept = { isolate: isolate ?? new ivm.Isolate({ memoryLimit: 32 }) };
        kept.context = kept.isolate.createContextSync();
        await new Promise((waits) => {
          const get = new ivm.Reference(() => new Promise((settle) => { kept.settle = settle; waits(); }));
          kept.result = kept.context.evalClosure(code, [new ivm.ExternalCopy(ARGS).copyInto(), get],
            { result: { promise: true, copy: true } });
        });
        return kept;
      },
      resume(kept) {
        kept.settle(ORDER);
        return kept.result;
      },
    };
  },

  // Contexts that share one heap, and its limit.
  "isolated-vm-context"() {
    return PEERS["isolated-vm"](new (require("isolated-vm").Isolate)({ memoryLimit: 1024 }));
  },

  // The whole memory is kept, and nothing else; another instance goes on.
  async "quickjs-wasi"() {
    const { QuickJS } = await import(pathToFileURL(require.resolve("quickjs-wasi")).href);
    const wasm = await WebAssembly.compile(readFileSync(require.resolve("quickjs-wasi/quickjs.wasm")));
    const code = `(async ($args, $ext) => { ${SOURCE} })(${JSON.stringify(ARGS)},
      { http: { get: () => new Promise((settle) => { globalThis.settle = settle; }) } })
      .then((value) => { globalThis.result = value; }); 0`;
    return {
      async suspend() {
        const instance = await QuickJS.create(wasm);
        instance.evalCode(code).dispose();
        instance.executePendingJobs();
        const kept = instance.snapshot();
        instance.dispose();
        return kept;
      },
      async resume(kept) {
        const instance = await QuickJS.restore(kept, wasm);
        instance.evalCode(`settle(${JSON.stringify(ORDER)}); 0`).dispose();
        instance.executePendingJobs();
        const result = instance.evalCode("result").consume((handle) => handle.toNumber());
        instance.dispose();
        return result;
      },
    };
  },
};

function pssKib() {
  globalThis.gc();
  return Number(/^Pss:\s+(\d+)/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))[1]);
}

async function timed(times, work) {
  const began = process.hrtime.bigint();
  const result = await work();
  times.push(Number(process.hrtime.bigint() - began) / 1000);
  return result;
}

const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];

async function resumeAll(handler, kept, times) {
  for (const one of kept) {
    const result = await timed(times, () => handler.resume(one));
    if (result !== ORDER.total) throw new Error(`${peer}: the result is ${result}`);
  }
}

async function suspendMany(handler, howMany, times) {
  const kept = [];
  for (let i = 0; i < howMany; i++) kept.push(await timed(times, () => handler.suspend()));
  return kept;
}

const handler = await PEERS[peer]();
const suspends = [], resumes = [];
await resumeAll(handler, await suspendMany(handler, 50, []), []); // warm
const before = pssKib();
const kept = await suspendMany(handler, Number(count), suspends);
const grown = pssKib() - before;
await resumeAll(handler, kept, resumes);
console.log(JSON.stringify({ kib_each: grown / kept.length, suspend_us: median(suspends), resume_us: median(resumes) }));
process.exit(0);
