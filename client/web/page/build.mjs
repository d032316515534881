// Makes the static site of the page: `node page/build.mjs [FOLDER]`, after `npm run build`; by default the folder that Python ships.
// The index page names the script and the style sheet with their SHA-384 (subresource integrity), so that who has checked it has checked all.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { build } from "esbuild";

const here = import.meta.dirname;
const folder = process.argv[2] ?? join(here, "..", "..", "page", "site");

async function integrity(name) {
  const digest = createHash("sha384").update(await readFile(join(folder, name))).digest("base64");
  return `integrity="sha384-${digest}"`;
}

await mkdir(folder, { recursive: true });
await build({
  entryPoints: [join(here, "page.js")], bundle: true, minify: true, format: "esm", target: "es2022", legalComments: "eof", logLevel: "warning",
  outfile: join(folder, "page.js"),
});
for (const name of ["icon.svg", "page.json", "style.css"]) await copyFile(join(here, name), join(folder, name));
const page = (await readFile(join(here, "index.html"), "utf-8"))
  .replace('href="style.css"', `href="style.css" ${await integrity("style.css")}`)
  .replace('src="page.js"', `src="page.js" ${await integrity("page.js")}`);
await writeFile(join(folder, "index.html"), page);
