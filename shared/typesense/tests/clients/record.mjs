// Records what Typesense's own clients send, npm's and PyPI's, for the calls that astra-typesense makes. By scripts/prove typesense:
//
//   node record.mjs PYTHON OUT_FOLDER      writes OUT_FOLDER/npm.json and OUT_FOLDER/pypi.json
//
// Both speak to one endpoint, which writes down each request as it came and answers as a Typesense would. tests/clients.rs compares what is written down with what we send.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { readFileSync, writeFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const [python, out] = process.argv.slice(2);
// From where the packages are installed, which is not here.
const require = createRequire(`${process.cwd()}/`);
const Typesense = require("typesense");

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const digest = (of, text) => createHash("sha256").update(of).update(Buffer.from([0])).update(text).digest("hex").slice(0, 32);
const text = readFileSync(here("inputs.json"), "utf8");
const { workspace, subject } = JSON.parse(text);
const inputs = JSON.parse(text.replaceAll("WORKSPACE", digest("workspace", workspace)).replaceAll("OWNER", digest("user", subject)));

let call = "";
let recorded = [];
const ANSWERS = {
  createCollection: [201, { ...inputs.schema, num_documents: 0 }],
  dropCollection: [200, { name: inputs.collection }],
  putAlias: [200, { name: inputs.alias, collection_name: inputs.collection }],
  deleteAlias: [200, { name: inputs.alias, collection_name: inputs.collection }],
  import: [200, inputs.documents.map(() => '{"success":true}').join("\n")],
  search: [200, { results: [{ found: 0, hits: [] }] }],
};
const server = createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    if (request.url === "/call") {
      call = Buffer.concat(pieces).toString();
      response.end();
      return;
    }
    const url = new URL(request.url, "http://x");
    recorded.push({
      call,
      method: request.method,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      apiKey: request.headers["x-typesense-api-key"],
      contentType: request.headers["content-type"] ?? null,
      body: Buffer.concat(pieces).toString(),
    });
    const [status, body] = ANSWERS[call] ?? [200, { num_deleted: 1 }];
    response.writeHead(status, { "content-type": typeof body === "string" ? "text/plain" : "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const { port } = server.address();

const client = (apiKey) => new Typesense.Client({ nodes: [{ ...inputs.url, port }], apiKey, connectionTimeoutSeconds: 5, numRetries: 0 });
const keys = client(inputs.key).keys();
const scoped = keys.generateScopedSearchKey(inputs.searchKey, inputs.scoped);
const admin = client(inputs.key);
const calls = {
  createCollection: () => admin.collections().create(inputs.schema),
  dropCollection: () => admin.collections(inputs.collection).delete(),
  putAlias: () => admin.aliases().upsert(inputs.alias, { collection_name: inputs.collection }),
  deleteAlias: () => admin.aliases(inputs.alias).delete(),
  import: () => admin.collections(inputs.collection).documents().import(inputs.documents, { action: "upsert" }),
  ...Object.fromEntries(inputs.filters.map((filter_by, n) => [`delete${n}`, () => admin.collections(inputs.collection).documents().delete({ filter_by })])),
  search: () => client(scoped).multiSearch.perform({ searches: [inputs.search] }),
};
for (const [name, perform] of Object.entries(calls)) {
  call = name;
  await perform();
}
const text_of = (key) => Buffer.from(key, "base64").toString().slice(48);
const write = (name, version, scopedKeys) => {
  const all = { client: name, version, requests: recorded, scopedKeys: scopedKeys.map((key) => ({ parameters: text_of(key), key })) };
  writeFileSync(`${out}/${name}.json`, `${JSON.stringify(all, null, 2)}\n`);
  recorded = [];
};
write("npm", require("typesense/package.json").version, [scoped, ...inputs.otherScoped.map((parameters) => keys.generateScopedSearchKey(inputs.searchKey, parameters))]);

const child = spawn(python, [here("record.py"), String(port)], { stdio: ["pipe", "pipe", "inherit"] });
child.stdin.end(JSON.stringify(inputs));
let said = "";
child.stdout.on("data", (piece) => (said += piece));
const status = await new Promise((done) => child.on("close", done));
if (status !== 0) throw new Error(`record.py ended with ${status}`);
const { version, scopedKeys } = JSON.parse(said);
write("pypi", version, scopedKeys);
server.close();
server.closeAllConnections();
