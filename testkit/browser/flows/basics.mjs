// What is around every page: logging in and out, the theme, errors, a session that is over, and the kit.

export const flows = {
  login: {
    async play(t) {
      await t.go('/login');
      await t.look('empty');
      // A name of its own: failures of one name in all windows would add up to a wait.
      await t.page.getByLabel('Name', { exact: true }).fill(`nobody-${t.label}`);
      await t.page.getByLabel('Password', { exact: true }).fill('not the password');
      t.expected.push('401');
      await t.press('Log in');
      await t.has('That name and password do not go together.');
      await t.look('refused');
      await t.go(`/login?next=${encodeURIComponent('/inventory?state=absent')}`);
      await t.page.getByLabel('Name', { exact: true }).fill(t.job.name);
      await t.page.getByLabel('Password', { exact: true }).fill(t.job.password);
      await t.press('Log in');
      t.must(t.page.url().endsWith('/inventory?state=absent'), 'the login goes on to where its reader wanted');
      await t.page.locator('.menu summary').click();
      await t.press('Log out');
      t.must(new URL(t.page.url()).pathname === '/login', 'logged out');
    },
  },
  kit: {
    async play(t) {
      await t.logIn();
      await t.go('/_kit');
      await t.look('kit');
      await t.page.getByRole('button', { name: 'Retire…' }).click();
      await t.page.getByRole('heading', { name: 'Retire web-1?' }).waitFor();
      await t.look('dialog');
      await t.page.keyboard.press('Escape');
      await t.page.getByRole('heading', { name: 'Retire web-1?' }).waitFor({ state: 'hidden' });
    },
  },
  theme: {
    async play(t) {
      await t.logIn();
      await t.go('/inventory');
      const ground = () => t.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const before = await ground();
      const other = t.variant.theme === 'light' ? 'dark' : 'light';
      await t.page.locator('.menu summary').click();
      await t.press(other);
      t.must(t.page.url().endsWith('/inventory'), 'the choice comes back to its page');
      t.must((await ground()) !== before, 'the colours change with the theme');
      await t.page.reload();
      t.must((await ground()) !== before, 'the choice is kept');
      await t.page.locator('.menu summary').click();
      await t.look('menu');
    },
  },
  failed: {
    async play(t) {
      await t.logIn();
      await t.go('/nowhere', 404);
      await t.has('there is no page /nowhere');
      await t.has('Request id');
      await t.look('missing');
      await t.go('/hosts/00000000-0000-7000-8000-000000000000', 404);
      await t.look('no-host');
    },
  },
  over: {
    // The form that is sent when the session is over comes back after the login.
    async play(t) {
      await t.logIn();
      await t.go('/inventory');
      await t.context.clearCookies();
      t.expected.push('401');
      await t.page.evaluate(() => {
        const form = document.createElement('form');
        Object.assign(form, { method: 'post', action: '/inventory/sync' });
        for (const [name, value] of [['from', 'a source & its name'], ['dry_run', 'true']]) {
          form.append(Object.assign(document.createElement('input'), { name, value }));
        }
        form.append(Object.assign(document.createElement('button'), { textContent: 'Send' }));
        document.querySelector('main').append(form);
      });
      await t.press('Send');
      await t.has('Your session is over.');
      await t.look('login');
      await t.page.getByLabel('Name', { exact: true }).fill(t.job.name);
      await t.page.getByLabel('Password', { exact: true }).fill(t.job.password);
      await t.press('Log in');
      await t.has('a source & its name');
      await t.look('kept');
      await t.press('Send it');
      await t.has('Not synced');
    },
  },
};
