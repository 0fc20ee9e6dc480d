// SPDX-License-Identifier: Apache-2.0
//
// What nexus is compared with: plain Node, its http module, the same handler source, no isolation at all.
//
//   node bench/node_cart.mjs PORT HANDLERS_DIR [PROCESSES]
//
// Answers POST /run/{cart,spin} and GET /health. With PROCESSES > 1 the port is shared by that many of them (cluster).
import cluster from "node:cluster";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const [port, directory, processes = "1"] = process.argv.slice(2);

function load(name) {
  return new Function("$args", readFileSync(`${directory}/${name}.js`, "utf8"));
}

function serve() {
  const handlers = { "/run/cart": load("cart"), "/run/spin": load("spin") };

  function answer(response, status, value) {
    const text = JSON.stringify(value);
    response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
    response.end(text);
  }

  const server = createServer((request, response) => {
    if (request.url === "/health") {
      answer(response, 200, { status: "healthy" });
      return;
    }
    const handler = handlers[request.url];
    if (!handler) {
      answer(response, 404, { code: "NOT_FOUND" });
      return;
    }
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      try {
        answer(response, 200, handler(JSON.parse(body || "null")));
      } catch (error) {
        answer(response, 500, { code: "EXECUTION_ERROR", detail: String(error) });
      }
    });
  });
  server.listen(Number(port), "127.0.0.1", 1024, () => console.log("listening"));
}

if (cluster.isPrimary && Number(processes) > 1) for (let i = 0; i < Number(processes); i++) cluster.fork();
else serve();
