// Bundles the page's scripts into the static site that Python ships: `node page/build.mjs [SITE]`, after `npm run build`.
// The site's index page names the script and the style sheet with their SHA-384 (subresource integrity), so that who has checked it has checked all;
// the script names onnxruntime's files in the same way.
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { build } from "esbuild";

const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"]; // of onnxruntime-web, if they are beside the page
const here = import.meta.dirname;
const site = process.argv[2] ?? join(here, "..", "..", "page", "site");

const sha384 = async (file) => `sha384-${createHash("sha384").update(await readFile(file)).digest("base64")}`;
const runtime = join(here, "..", "node_modules", "onnxruntime-web");
const { version } = JSON.parse(await readFile(join(runtime, "package.json"), "utf-8"));
const files = await Promise.all(RUNTIME.map(async (name) => ({ name, integrity: await sha384(join(runtime, "dist", name)) })));

await build({
  entryPoints: [join(here, "page.js")], bundle: true, define: { ONNXRUNTIME: JSON.stringify({ version, files }) }, minify: true, format: "esm", target: "es2022", legalComments: "eof", logLevel: "warning",
  outfile: join(site, "page.js"),
});
const index = join(site, "index.html");
let page = await readFile(index, "utf-8");
for (const name of ["style.css", "page.js"]) {
  page = page.replace(new RegExp(`"${name}" integrity="[^"]*"`), `"${name}" integrity="${await sha384(join(site, name))}"`);
}
await writeFile(index, page);
