// SPDX-License-Identifier: Apache-2.0
//
// Type-checks handlers against types/nexus.d.ts, body form and module form alike.
//
// usage: node types/check.mjs [FILE.js …]        without files: what types/tsconfig.json includes
//
// A function body (top-level `return` and `await`) is no JavaScript file that TypeScript knows, so such a file is shown
// to the compiler wrapped into an async function, as nexus does it. The wrapping happens in memory and on the first
// line, so every message carries the file's own name and line. The compiler comes from npm, in one pinned version,
// into the build cache ($NEXUS_BUILD_CACHE, else ~/.cache/nexus-build): never into the checkout.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const TYPESCRIPT = "5.9.3";
const HERE = dirname(fileURLToPath(import.meta.url));
const BODY_OPEN = "(async function handler() { ";
const BODY_CLOSE = "\n});";
/** In lib.es5.d.ts, but not in QuickJS. */
const ABSENT = new Set(["Intl"]);

/** The compiler's API; installed on first use, whole or not at all. */
function loadCompiler() {
  const { NEXUS_BUILD_CACHE, XDG_CACHE_HOME } = process.env;
  const cache = NEXUS_BUILD_CACHE || join(XDG_CACHE_HOME || join(homedir(), ".cache"), "nexus-build");
  const home = join(cache, `typescript-${TYPESCRIPT}`);
  if (!existsSync(home)) {
    mkdirSync(cache, { recursive: true });
    const work = mkdtempSync(join(cache, ".typescript-"));
    try {
      console.error(`types: fetching typescript ${TYPESCRIPT}`);
      const options = ["--silent", "--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"];
      const command = ["install", ...options, "--prefix", work, `typescript@${TYPESCRIPT}`];
      execFileSync("npm", command, { stdio: ["ignore", 2, 2] });
      if (!existsSync(home)) renameSync(work, home);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  return createRequire(join(home, "/"))("typescript");
}

const ts = loadCompiler();

/** Like nexus itself: a module is what the parser finds an export in. */
function isModule(path, text) {
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ES2023, false, ts.ScriptKind.JS);
  return file.statements.some(
    (statement) =>
      ts.isExportAssignment(statement) ||
      ts.isExportDeclaration(statement) ||
      ts.getModifiers(statement)?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword),
  );
}

/** A compiler host that shows body-form handlers wrapped. */
function createHost(options, handlers) {
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getSourceFile = (path, target, ...rest) => {
    if (!handlers.has(resolve(path))) return getSourceFile.call(host, path, target, ...rest);
    const text = host.readFile(path);
    if (text === undefined) return undefined;
    return ts.createSourceFile(path, isModule(path, text) ? text : BODY_OPEN + text + BODY_CLOSE, target, true);
  };
  return host;
}

/** nexus refuses a module whose default export is no function (INVALID_HANDLER). */
function* checkDefaultExport(file, checker) {
  if (file.text.startsWith(BODY_OPEN)) return;
  const symbol = checker.getSymbolAtLocation(file);
  const exported = symbol && checker.tryGetMemberInModuleExports("default", symbol);
  if (!exported) return yield problem(file, 0, "a module handler needs a default export");
  const type = checker.getTypeOfSymbolAtLocation(exported, file);
  const at = exported.declarations?.[0]?.getStart() ?? 0;
  if (type.getCallSignatures().length === 0)
    yield problem(file, at, `the default export is no function but ${checker.typeToString(type)}`);
}

/** Uses of globals that the standard library's types promise and the sandbox does not have. */
function* checkAbsent(file, checker) {
  const inLibrary = (declaration) => /[\\/]lib\.[^\\/]*\.d\.ts$/.test(declaration.getSourceFile().fileName);
  const isGlobal = (node) => checker.getSymbolAtLocation(node)?.declarations?.every(inLibrary);
  const nodes = [file];
  for (let node; (node = nodes.pop()); ) {
    if (ts.isIdentifier(node) && ABSENT.has(node.text) && isGlobal(node))
      yield problem(file, node.getStart(), `${node.text} does not exist in the sandbox`);
    node.forEachChild((child) => void nodes.push(child));
  }
}

const problem = (file, start, messageText) =>
  ({ file, start, length: 1, messageText, category: ts.DiagnosticCategory.Error, code: 90000 });

/** The columns of a wrapped first line are shifted. */
function print(diagnostic) {
  const { file, start = 0 } = diagnostic;
  const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n");
  if (!file) return console.log(`error TS${diagnostic.code}: ${text}`);
  const { line, character } = file.getLineAndCharacterOfPosition(start);
  const shift = line === 0 && file.text.startsWith(BODY_OPEN) ? BODY_OPEN.length : 0;
  const where = `${relative(process.cwd(), file.fileName)}:${line + 1}:${Math.max(0, character - shift) + 1}`;
  console.log(`${where} error ${diagnostic.code === 90000 ? "nexus" : `TS${diagnostic.code}`}: ${text}`);
}

const config = ts.getParsedCommandLineOfConfigFile(join(HERE, "tsconfig.json"), {}, {
  ...ts.sys,
  onUnRecoverableConfigFileDiagnostic(diagnostic) {
    print(diagnostic);
    process.exit(2);
  },
});
const declarations = join(HERE, "nexus.d.ts");
const named = process.argv.slice(2).map((path) => resolve(path));
const configured = config.fileNames.map((path) => resolve(path)).filter((path) => path !== declarations);
const handlers = new Set(named.length ? named : configured);
for (const path of handlers)
  if (!existsSync(path)) {
    console.error(`types: there is no file ${path}`);
    process.exit(2);
  }

const program = ts.createProgram([declarations, ...handlers], config.options, createHost(config.options, handlers));
const checker = program.getTypeChecker();
const files = program.getSourceFiles().filter((file) => handlers.has(resolve(file.fileName)));
const problems = [
  ...config.errors,
  ...ts.getPreEmitDiagnostics(program),
  ...files.flatMap((file) => [...checkDefaultExport(file, checker), ...checkAbsent(file, checker)]),
];
problems.forEach(print);
const bodies = files.filter((file) => file.text.startsWith(BODY_OPEN)).length;
const forms = `${bodies} bodies, ${files.length - bodies} modules`;
console.log(`types: ${files.length} handlers (${forms}), ${problems.length} problems`);
process.exit(problems.length ? 1 : 0);
