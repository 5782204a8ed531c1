// Plays flows in Chromium against a collector that runs: each in light and wide and in dark and narrow, with script, and where
// it is for reading and forms in light and wide without. INFRATRACK_ALL_WINDOWS=1: both themes in both widths, and narrow without
// script, too.
//
// usage: node flows.mjs MODULES JOB, where JOB is JSON: base, name, password, pictures (a folder), parts (files in flows/),
// themes if not both, script_only, and whatever the flows want to know. Prints what is wrong, a line each, and ends with 1 if anything is.

import { readFile } from 'node:fs/promises';
import path from 'node:path';

import { launch } from './chromium.mjs';
import { Stage } from './stage.mjs';

const AT_ONCE = 2;

const [modules, text] = process.argv.slice(2);
const job = JSON.parse(text);
const axe = await readFile(path.join(modules, 'axe-core', 'axe.min.js'), 'utf8');

const variants = [];
for (const script of job.script_only ? [true] : [true, false]) {
  for (const theme of job.themes ?? ['light', 'dark']) {
    for (const width of [1440, 360]) {
      const isUsual = (theme === 'dark') === (width === 360);
      if ((script ? isUsual : width === 1440) || job.themes || process.env.INFRATRACK_ALL_WINDOWS === '1') {
        variants.push({ theme, width, script });
      }
    }
  }
}

const work = [];
for (const part of job.parts) {
  const { flows } = await import(new URL(`flows/${part}.mjs`, import.meta.url));
  for (const [name, flow] of Object.entries(flows)) {
    // Without script, colours are the same: one theme at each width is enough.
    const wanted = variants.filter((variant) => variant.script || (flow.plain !== false && variant.theme === 'light'));
    work.push(...wanted.map((variant) => ({ name: `${part}-${name}`, flow, variant })));
  }
}

const browser = await launch(modules);

const faults = [];
let played = 0;

async function play() {
  for (let next = work.shift(); next; next = work.shift()) {
    const { name, flow, variant } = next;
    const stage = await Stage.open(browser, axe, job, name, variant);
    try {
      await flow.play(stage);
      played += 1;
    } catch (error) {
      stage.fault(String(error.stack ?? error));
      await stage.page.screenshot({ path: path.join(job.pictures, `FAILED-${name}-${stage.label}.png`) }).catch(() => {});
    }
    faults.push(...stage.faults);
    await stage.close();
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, play));
await browser.close();
console.log(`${played} flows played`);
for (const fault of faults) {
  console.error(fault);
}
process.exit(faults.length === 0 ? 0 : 1);
