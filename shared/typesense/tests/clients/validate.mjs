// Sends requests to prism, which validates each by an OpenAPI document and answers as that says. By scripts/prove typesense:
//
//   node validate.mjs REQUESTS.json OPENAPI.yml        in the folder where prism is installed
//
// Fails when one is not accepted, and when a request that is none is.
import { readFileSync } from "node:fs";
import { spawn } from "node:child_process";
import { createServer } from "node:net";

const [requests, document] = process.argv.slice(2);
const port = await new Promise((done) => {
  const probe = createServer().listen(0, "127.0.0.1", () => {
    const { port } = probe.address();
    probe.close(() => done(port));
  });
});
const prism = spawn(process.execPath, ["node_modules/@stoplight/prism-cli/dist/index.js", "mock", "--errors", "--host", "127.0.0.1", "--port", String(port), document], {
  stdio: ["ignore", "pipe", "inherit"],
});
process.on("exit", () => prism.kill());
await new Promise((done, failed) => {
  prism.on("exit", () => failed(new Error("prism ended")));
  prism.stdout.on("data", (said) => String(said).includes("is listening") && done());
});

const send = async ({ method, target, headers, body }) => {
  const answer = await fetch(`http://127.0.0.1:${port}${target}`, { method, headers, body: body === "" ? undefined : body });
  return { status: answer.status, text: await answer.text(), violations: answer.headers.get("sl-violations") };
};
const ours = JSON.parse(readFileSync(requests, "utf8"));
const by = Object.fromEntries(ours.map((request) => [request.call, request]));
const bad = [
  { ...by.createCollection, call: "a collection without fields", body: '{"name":"x"}' },
  { ...by.putAlias, call: "an alias of nothing", body: "{}" },
  { ...by.delete0, call: "a deletion of everything", target: by.delete0.target.split("?")[0] },
  { ...by.import, call: "an import that does what it likes", target: by.import.target.replace("upsert", "like") },
  { ...by.search, call: "a search without a key", headers: { ...by.search.headers, "x-typesense-api-key": undefined } },
];
for (const request of bad) if (request.headers["x-typesense-api-key"] === undefined) delete request.headers["x-typesense-api-key"];
let failed = 0;
for (const [request, isGood] of [...ours.map((request) => [request, true]), ...bad.map((request) => [request, false])]) {
  const { status, text, violations } = await send(request);
  // What prism makes up as an answer does not always fit the document either: that is no fault of the request.
  const ofRequest = JSON.parse(violations ?? "[]").filter(({ location }) => location[0] !== "response");
  const isAccepted = (status < 300 || (status === 500 && violations !== null)) && ofRequest.length === 0;
  console.log(`${isAccepted ? "accepted" : "refused "} ${status} ${request.call}${isAccepted ? "" : ` ${violations ?? text.slice(0, 300)}`}`);
  if (isAccepted !== isGood) failed += 1;
}
process.exit(failed === 0 ? 0 : 1);
