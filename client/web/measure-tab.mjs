// Memory of the tab that has the page open, as JSON: `node client/web/measure-tab.mjs BROWSER URL`, with Chromium's program and the address of a page
// (`ciphershift serve --page`), on Linux. The kernel tells of each process what is its alone, and its share of what several have; the largest
// values of the tab's process while it makes keys, sends them and predicts are kept.
import { readFile, readdir } from "node:fs/promises";

import puppeteer from "puppeteer-core";

const PAUSE_MILLISECONDS = 20;
const MB = 1e6;
const [executablePath, url] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath, headless: true, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
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

try {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(url);
  await (await page.waitForSelector("#example-list button")).click();
  await page.waitForFunction(() => document.getElementById("status").textContent === "Ready to encrypt.");
  const pids = await renderers();
  const before = (await Promise.all(pids.map(memory))).reduce((most, each) => Math.max(most, each.proportional), 0);
  const watching = watch(pids);
  await page.click("#send");
  await page.waitForSelector("#verdict[data-class]");
  running = false;
  await watching;
  const megabytes = (bytes) => Math.round(bytes / MB);
  const after = (await Promise.all(pids.map(memory))).reduce((most, each) => Math.max(most, each.proportional), 0);
  console.log(JSON.stringify({
    browser: await browser.version(),
    before_megabytes: megabytes(before),
    largest_megabytes: megabytes(largest.proportional),
    largest_private_megabytes: megabytes(largest.private),
    after_megabytes: megabytes(after),
  }, null, 1));
} finally {
  running = false;
  await browser.close();
}
