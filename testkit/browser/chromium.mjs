// Debian's Chromium, driven by the library below MODULES; it asks nobody for anything by itself.

import path from 'node:path';
import { pathToFileURL } from 'node:url';

export async function launch(modules) {
  const { chromium } = await import(pathToFileURL(path.join(modules, 'playwright-core', 'index.mjs')));
  return chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-quic', '--disable-background-networking', '--disable-component-update'],
  });
}
