// Opens an address in Chromium, follows where it leads, and prints the page it comes to rest on.
//
// usage: node land.mjs MODULES ADDRESS SELECTOR SECONDS
// Ends with 0 when the page has SELECTOR, with 1 when it has none in SECONDS; the page is printed in both cases.

import { launch } from './chromium.mjs';

const [modules, address, selector, seconds] = process.argv.slice(2);
const browser = await launch(modules);
const page = await browser.newPage();
const timeout = Number(seconds) * 1000;
let found = true;
try {
  await page.goto(address, { timeout });
  await page.waitForSelector(selector, { timeout, state: 'attached' });
} catch (error) {
  found = false;
  console.error(String(error));
}
console.log(await page.content().catch(String));
await browser.close();
process.exit(found ? 0 : 1);
