// Bundles the page's scripts into the static site that Python ships: `node page/build.mjs [SITE]`, after `npm run build`.
// The site's index page names the script and the style sheet with their SHA-384 (subresource integrity), so that who has checked it has checked all.
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { build } from "esbuild";

const here = import.meta.dirname;
const site = process.argv[2] ?? join(here, "..", "..", "page", "site");

await build({
  entryPoints: [join(here, "page.js")], bundle: true, minify: true, format: "esm", target: "es2022", legalComments: "eof", logLevel: "warning",
  outfile: join(site, "page.js"),
});
const index = join(site, "index.html");
let page = await readFile(index, "utf-8");
for (const name of ["style.css", "page.js"]) {
  const digest = createHash("sha384").update(await readFile(join(site, name))).digest("base64");
  page = page.replace(new RegExp(`"${name}" integrity="[^"]*"`), `"${name}" integrity="sha384-${digest}"`);
}
await writeFile(index, page);
