// node validate.mjs FILE: holds each recorded exchange (one JSON object a line) against GitHub's OpenAPI description: the path, the
// query, the request's body, and the answer's status and body. Stricter than the description where it is silent: a query name or a
// body field of ours that it does not list is a fault, since GitHub would ignore it and we would not notice.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import Ajv from "ajv";
import addFormats from "ajv-formats";

const METHODS = ["get", "post", "put", "patch", "delete"];
const api = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("@octokit/openapi/generated/api.github.com.json")));
const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true });
addFormats(ajv);
ajv.addFormat("timezone", true).addFormat("repo.nwo", true).addFormat("ssh-key-fingerprint", true);
// What may be null may be so out of an enumeration too: GitHub's own examples of a job in progress have `"conclusion": null`.
(function allowNull(node) {
  if (node === null || typeof node !== "object") return;
  if (node.nullable === true && Array.isArray(node.enum) && !node.enum.includes(null)) node.enum.push(null);
  // The validator takes the word only beside a type.
  if (node.nullable === true && !node.type && Array.isArray(node.anyOf)) {
    delete node.nullable;
    node.anyOf.push({ type: "null" });
  }
  Object.values(node).forEach(allowNull);
})(api);
// Registered as a whole so that its own `$ref`s resolve.
ajv.addSchema({ $id: "github", components: api.components });

const resolve = (node) => (node?.$ref ? resolve(at(node.$ref)) : node);
const at = (ref) => ref.slice(2).split("/").reduce((node, key) => node[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
const compiled = new Map();
function faultsOf(schema, value) {
  const key = JSON.stringify(schema);
  if (!compiled.has(key)) compiled.set(key, ajv.compile(JSON.parse(key.replaceAll('"$ref":"#/', '"$ref":"github#/'))));
  const check = compiled.get(key);
  return check(value) ? [] : check.errors.map((error) => `${error.instancePath || "/"} ${error.message}`);
}

// Literal segments win over parameters: `/actions/runners/downloads` is not `/actions/runners/{runner_id}`.
const templates = Object.keys(api.paths).map((path) => ({
  path,
  literal: path.split("/").filter((part) => part && !part.startsWith("{")).length,
  pattern: new RegExp("^" + path.replace(/[.+?^$()|[\]\\]/g, "\\$&").replace(/\{[^}]+\}/g, "([^/]+)") + "$"),
}));
function operation(method, path) {
  const found = templates.filter((template) => template.pattern.test(path) && api.paths[template.path][method]);
  const best = found.sort((a, b) => b.literal - a.literal)[0];
  if (!best) return undefined;
  const item = api.paths[best.path];
  const names = [...best.path.matchAll(/\{([^}]+)\}/g)].map((match) => match[1]);
  const values = best.pattern.exec(path).slice(1);
  return { ...item[method], parameters: [...(item.parameters ?? []), ...(item[method].parameters ?? [])].map(resolve), names, values };
}

function typed(schema, text) {
  const type = resolve(schema)?.type;
  if (type === "integer" || type === "number") return text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
  if (type === "boolean") return text === "true" ? true : text === "false" ? false : text;
  return text;
}

export function validate(exchange) {
  const method = exchange.method.toLowerCase();
  if (!METHODS.includes(method)) return [`unknown method ${exchange.method}`];
  const found = operation(method, exchange.path);
  if (!found) return ["no such operation in GitHub's description"];
  return [...pathFaults(found), ...queryFaults(found, exchange.query), ...bodyFaults(found, exchange.request_body), ...answerFaults(found, exchange)];
}

function pathFaults(found) {
  return found.names.flatMap((name, index) => {
    const parameter = found.parameters.find((one) => one.in === "path" && one.name === name);
    return parameter ? faultsOf(parameter.schema, typed(parameter.schema, decodeURIComponent(found.values[index]))).map((fault) => `path {${name}}: ${fault}`) : [];
  });
}

function queryFaults(found, query) {
  const sent = [...new URLSearchParams(query ?? "")];
  const allowed = found.parameters.filter((one) => one.in === "query");
  const faults = sent.flatMap(([name, value]) => {
    const parameter = allowed.find((one) => one.name === name);
    return parameter ? faultsOf(parameter.schema, typed(parameter.schema, value)).map((fault) => `query ${name}: ${fault}`) : [`unknown query name \`${name}\``];
  });
  const missing = allowed.filter((one) => one.required && !sent.some(([name]) => name === one.name));
  return [...faults, ...missing.map((one) => `query name \`${one.name}\` is missing`)];
}

function bodyFaults(found, body) {
  const declared = resolve(found.requestBody);
  if (body === null || body === undefined) return declared?.required ? ["the request's body is missing"] : [];
  const schema = declared?.content?.["application/json"]?.schema;
  if (!schema) return ["GitHub's description lists no body for this request"];
  const known = Object.keys(resolve(schema).properties ?? {});
  const unknown = Object.keys(body).filter((name) => !known.includes(name));
  return [...faultsOf(schema, body).map((fault) => `request body: ${fault}`), ...unknown.map((name) => `request body: unknown field \`${name}\``)];
}

// Any request can meet these, listed or not: bad credentials, a rate limit, a missing permission, a broken server.
const ANYWHERE = [401, 403, 404, 422, 429];
function answerFaults(found, { status, response_body: body }) {
  const declared = resolve(found.responses[String(status)]);
  if (!declared) return ANYWHERE.includes(status) || status >= 500 ? [] : [`GitHub's description lists no answer ${status}`];
  const schema = declared.content?.["application/json"]?.schema;
  if (!schema) return body === null || body === undefined || body === "" ? [] : status < 300 ? [`an answer ${status} has no body`] : [];
  return faultsOf(schema, body).map((fault) => `answer ${status}: ${fault}`);
}

// Each faulty exchange differs from one that passes in one thing, and must be told by exactly that fault.
function selfTest() {
  const runners = "/repos/octo/train/actions/runners";
  const refusal = { message: "Bad request", documentation_url: "https://docs.github.com" };
  const token = { method: "POST", path: `${runners}/registration-token`, query: "", request_body: null, status: 201, response_body: { token: "AAAA", expires_at: "2026-01-01T00:00:00Z" } };
  const list = { method: "GET", path: runners, query: "per_page=100&name=a", request_body: null, status: 200, response_body: { total_count: 0, runners: [] } };
  const body = { name: "a", runner_group_id: 1, labels: ["gpu"], work_folder: "_work" };
  const jit = { method: "POST", path: `${runners}/generate-jitconfig`, query: "", request_body: body, status: 422, response_body: refusal };
  const cases = [
    ["a good token", token],
    ["a good list", list],
    ["a good refusal", jit],
    ["a misspelt query name", { ...list, query: "per_pag=100" }, "unknown query name `per_pag`"],
    ["a wrong query value", { ...list, query: "per_page=many" }, "query per_page: / must be integer"],
    ["a wrong path value", { ...list, path: `${runners}/seven`, method: "DELETE", query: "", status: 204, response_body: null }, "path {runner_id}: / must be integer"],
    ["a wrong type in an answer", { ...list, response_body: { total_count: "0", runners: [] } }, "answer 200: /total_count must be integer"],
    ["a missing field in an answer", { ...token, response_body: { token: "AAAA" } }, "answer 201: / must have required property 'expires_at'"],
    ["a misspelt body field", { ...jit, request_body: { ...body, work_foldr: "_work" } }, "request body: unknown field `work_foldr`"],
    ["a missing body field", { ...jit, request_body: { ...body, labels: undefined } }, "request body: / must have required property 'labels'"],
    ["a body where none is taken", { ...token, request_body: {} }, "GitHub's description lists no body for this request"],
    ["an unknown path", { ...token, path: `${runners}/registration-tokens` }, "no such operation in GitHub's description"],
    ["an unknown method", { ...token, method: "PATCH" }, "no such operation in GitHub's description"],
    ["an unlisted status", { ...token, status: 299 }, "GitHub's description lists no answer 299"],
  ];
  const passed = cases.filter(([name, exchange, fault]) => {
    const faults = validate(JSON.parse(JSON.stringify(exchange)));
    const right = JSON.stringify(faults) === JSON.stringify(fault ? [fault] : []);
    if (!right) console.error(`self-test failed: ${name}: ${JSON.stringify(faults)}`);
    return right;
  });
  return passed.length === cases.length;
}

function main(file) {
  if (file === "--self-test") return selfTest();
  let lines;
  try {
    lines = readFileSync(file, "utf8").split("\n").filter(Boolean);
  } catch (error) {
    console.error(`error: no recording at ${file}: ${error.message}`);
    return false;
  }
  const seen = new Map();
  let faulty = 0;
  for (const line of lines) {
    const exchange = JSON.parse(line);
    const faults = validate(exchange);
    faulty += faults.length > 0;
    for (const fault of faults) {
      const text = `${exchange.method} ${exchange.path.replace(/\d+/g, "N")}: ${fault}`;
      seen.set(text, (seen.get(text) ?? 0) + 1);
    }
  }
  for (const [text, times] of seen) console.error(`${text}${times > 1 ? ` (${times} times)` : ""}`);
  console.log(`${lines.length} exchanges with GitHub's API, ${faulty} against its description`);
  return faulty === 0 && lines.length > 0;
}

process.exitCode = main(process.argv[2]) ? 0 : 1;
