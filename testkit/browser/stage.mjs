// One browser window of the flows, and what has to hold on every page that a flow comes to: no error in the console, no
// request to another place, nothing that the page's CSP refuses, nothing wider than the window, nothing serious for axe.

import { mkdir } from 'node:fs/promises';
import path from 'node:path';

const TIMEOUT_MS = 20_000;
// A page that is longer is cut in its picture.
const PICTURE_PX = 3000;

// Cookies, by the name of the user.
const sessions = new Map();

export class Stage {
  constructor(context, page, job, flow, variant) {
    Object.assign(this, { context, page, job, flow, variant, faults: [], expected: [] });
    this.script = variant.script;
    this.narrow = variant.width < 600;
    // For what a flow makes: its own in every window.
    this.label = `${variant.theme}-${variant.width}${variant.script ? '' : '-plain'}`;
    this.watch();
  }

  static async open(browser, axe, job, flow, variant) {
    const context = await browser.newContext({
      viewport: { width: variant.width, height: variant.width < 600 ? 800 : 900 },
      colorScheme: variant.theme,
      javaScriptEnabled: variant.script,
      reducedMotion: 'reduce',
      permissions: variant.script ? ['clipboard-write'] : [],
    });
    context.setDefaultTimeout(TIMEOUT_MS);
    const stage = new Stage(context, await context.newPage(), job, flow, variant);
    stage.axe = axe;
    return stage;
  }

  watch() {
    const origin = new URL(this.job.base).origin;
    this.page.on('console', (message) => {
      if (message.type() === 'error' && !this.expected.some((text) => message.text().includes(text))) {
        this.fault(`console: ${message.text()}`);
      }
    });
    this.page.on('pageerror', (error) => this.fault(`script: ${error.stack ?? error}`));
    this.context.on('request', (request) => {
      const url = request.url();
      if (!url.startsWith(origin) && !url.startsWith('data:') && !url.startsWith('blob:')) {
        this.fault(`a request elsewhere: ${url}`);
      }
    });
  }

  fault(text) {
    this.faults.push(`${this.flow} (${this.label}) at ${this.page.url()}: ${text}`);
  }

  // A check of the flow's own.
  must(holds, text) {
    if (!holds) {
      this.fault(text);
    }
  }

  // Goes to a path; another status than 200 has to be named.
  async go(address, status = 200) {
    if (status >= 400) {
      this.expected.push(`${status}`);
    }
    const response = await this.page.goto(new URL(address, this.job.base).href);
    this.must(response.status() === status, `${address} answers ${response.status()}`);
  }

  // With a session that an earlier flow began, where it still holds: to check a password takes its time.
  async logIn(name = this.job.name, password = this.job.password) {
    await this.context.addCookies(sessions.get(name) ?? []);
    const account = new URL('/settings/account', this.job.base).href;
    const answer = await this.context.request.get(account, { maxRedirects: 0 });
    if (answer.status() === 200) return;
    await this.logInAnew(name, password);
    sessions.set(name, await this.context.cookies());
  }

  async logInAnew(name, password) {
    await this.page.goto(new URL('/login', this.job.base).href);
    await this.page.getByLabel('Name', { exact: true }).fill(name);
    await this.page.getByLabel('Password', { exact: true }).fill(password);
    await this.page.getByRole('button', { name: 'Log in', exact: true }).click();
    await this.page.waitForURL((url) => url.pathname !== '/login');
  }

  // Presses a button and waits for the page behind it.
  async press(name, within = this.page) {
    const before = this.page.waitForNavigation();
    await within.getByRole('button', { name, exact: true }).click();
    await before;
  }

  async has(text) {
    const found = this.page.getByText(text).first();
    await found.waitFor({ state: 'attached' }).catch(() => this.fault(`"${text}" is nowhere`));
  }

  // Looks at the page as it is: takes its picture, and finds what is wrong with any page.
  async look(name) {
    const title = await this.page.title();
    this.must(/\S+ · Infratrack$/.test(title), `the title is ${JSON.stringify(title)}`);
    if (this.script) {
      await this.takePicture(name);
    }
    const wide = await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    this.must(wide <= 0, `${name} is ${wide} px wider than the window`);
    // Both themes and both widths, in two of the four windows.
    if (this.script && this.narrow === (this.variant.theme === 'dark')) {
      await this.check(name);
    }
  }

  // Without script a page looks the same.
  async takePicture(name) {
    const picture = path.join(this.job.pictures, `${this.flow}-${name}-${this.label}.png`);
    await mkdir(path.dirname(picture), { recursive: true });
    const height = await this.page.evaluate(() => document.documentElement.scrollHeight);
    const clip = { x: 0, y: 0, width: this.variant.width, height: Math.min(height, PICTURE_PX) };
    await this.page.screenshot({ path: picture, fullPage: true, clip });
  }

  async check(name) {
    await this.page.evaluate(this.axe);
    const found = await this.page.evaluate(() => globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
      resultTypes: ['violations'],
    }));
    for (const violation of found.violations.filter((one) => ['serious', 'critical'].includes(one.impact))) {
      const nodes = violation.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)}: ${node.failureSummary?.slice(0, 240)}`);
      this.fault(`${name}: axe ${violation.id}: ${nodes.join(' | ')}`);
    }
  }

  async close() {
    await this.context.close();
  }
}
