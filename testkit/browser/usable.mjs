// How long the list of hosts takes in Chromium until it does what it is asked: from the beginning of the navigation, with
// nothing in the cache, until its first host is ticked and the page says so.
//
// usage: node usable.mjs MODULES JOB, where JOB is JSON: base, token, path, loads. Prints the milliseconds of each load as JSON.

import { launch } from './chromium.mjs';

const TIMEOUT_MS = 20_000;

const [modules, text] = process.argv.slice(2);
const job = JSON.parse(text);
const browser = await launch(modules);

const took = [];
for (let load = 0; load < job.loads; load += 1) {
  const context = await browser.newContext({
    viewport: { width: 1440, height: 900 },
    extraHTTPHeaders: { authorization: `Bearer ${job.token}` },
  });
  context.setDefaultTimeout(TIMEOUT_MS);
  const page = await context.newPage();
  const began = performance.now();
  await page.goto(new URL(job.path, job.base).href, { waitUntil: 'commit' });
  await page.locator('#hosts tbody input[type="checkbox"]').first().check();
  await page.getByText('(1)', { exact: true }).waitFor();
  took.push(performance.now() - began);
  await context.close();
}
await browser.close();
console.log(JSON.stringify(took));
