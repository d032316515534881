// Memory of the tab that has the page open, as JSON: `node client/web/measure-tab.mjs BROWSER URL`, with Chromium's program and the address of a page
// (`ciphershift serve --page`), on Linux. The kernel tells of each process what is its alone, and its share of what several have; the largest
// values of the tab's process while it makes keys, sends them and predicts are kept.
import { readFile, readdir } from "node:fs/promises";

import puppeteer from "puppeteer-core";

const PAUSE_MILLISECONDS = 20;
const MB = 1e6;
const [executablePath, url] = process.argv.slice(2);
const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : [];
const browser = await puppeteer.launch({ executablePath, headless: true, waitForInitialPage: false, protocolTimeout: 300_000, args: [...sandbox, url] });
let tab;
const largest = { private: 0, proportional: 0 };
let running = true;

/** The processes of the browser that show pages. */
async function renderers(parent = browser.process().pid) {
  const lists = await Promise.all((await readdir(`/proc/${parent}/task`)).map((task) => readFile(`/proc/${parent}/task/${task}/children`, "utf8")));
  const children = lists.join(" ").split(/\s+/).filter(Boolean);
  const below = await Promise.all(children.map((pid) => renderers(pid)));
  const named = await Promise.all(children.map(async (pid) => (await readFile(`/proc/${pid}/cmdline`, "utf8")).includes("--type=renderer")));
  return [...children.filter((_, at) => named[at]), ...below.flat()];
}

/** Bytes of one process. */
async function memory(pid) {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => "");
  const kilobytes = (name) => Number(text.match(new RegExp(`^${name}: +(\\d+) kB`, "m"))?.[1] ?? 0) * 1024;
  return { private: kilobytes("Private_Clean") + kilobytes("Private_Dirty"), proportional: kilobytes("Pss") };
}

async function watch(pids) {
  while (running) {
    for (const pid of pids) {
      const found = await memory(pid);
      for (const name of Object.keys(largest)) largest[name] = Math.max(largest[name], found[name]);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
  }
}

/** Runs a script in the tab. No more of the developer tools is switched on: those that record requests keep copies of all that is sent. */
async function run(expression) {
  const { result, exceptionDetails } = await tab.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

try {
  const target = await browser.waitForTarget((each) => each.type() === "page" && each.url().startsWith(url), { timeout: 60_000 });
  tab = await target.createCDPSession();
  for (let isThere = false; !isThere; ) isThere = await run(`location.href.startsWith("${url}") && document.readyState === "complete"`).catch(() => false); // it begins as an empty tab
  await run(`(async () => {
    window.until = async holds => { while (!holds()) await new Promise(done => setTimeout(done, 100)); };
    await until(() => document.querySelector("#example-list button"));
    document.querySelector("#example-list button").click();
    await until(() => document.getElementById("status").textContent === "Ready to encrypt.");
  })()`);
  const pids = await renderers();
  const now = async () => (await Promise.all(pids.map(memory))).reduce((most, each) => Math.max(most, each.proportional), 0);
  const before = await now();
  const watching = watch(pids);
  await run(`document.getElementById("send").click(), until(() => document.querySelector("#verdict[data-class]"))`);
  running = false;
  await watching;
  const megabytes = (bytes) => Math.round(bytes / MB);
  console.log(JSON.stringify({
    browser: await browser.version(),
    before_megabytes: megabytes(before),
    largest_megabytes: megabytes(largest.proportional),
    largest_private_megabytes: megabytes(largest.private),
    after_megabytes: megabytes(await now()),
  }, null, 1));
} finally {
  running = false;
  await browser.close();
}
