// Settings, the audit log, the search and the keys.

const GIVEN = 'given by the admin';
const OWN = 'chosen by themselves';

async function fill(t, label, text) {
  await t.page.getByLabel(label, { exact: true }).fill(text);
}

export const flows = {
  account: {
    async play(t) {
      await t.logIn();
      await t.go('/settings');
      await t.has('name and password');
      await t.look('account');
      await t.page.getByRole('link', { name: 'Change your password' }).click();
      await t.has('Change your password');
      await t.look('password');
    },
  },
  users: {
    // An admin makes a user; who logs in with what they were given chooses a password first.
    async play(t) {
      const name = `u-${t.label}`;
      await t.logIn();
      await t.go('/settings/users');
      await t.page.getByRole('link', { name: 'Add a user' }).first().click();
      await t.look('new');
      await fill(t, 'Name', 'a name that is none');
      await fill(t, 'Password', GIVEN);
      t.expected.push('422');
      await t.press('Add the user');
      await t.has('is no name of a user');
      await t.look('refused');
      await fill(t, 'Name', name);
      await fill(t, 'Password', GIVEN);
      await t.press('Add the user');
      await t.has('has to choose a password');
      await t.look('list');
      await t.page.getByRole('link', { name, exact: true }).click();
      await t.look('user');
      await t.page.getByRole('button', { name: 'Delete…' }).click();
      await t.page.getByRole('heading', { name: `Delete ${name}?` }).waitFor();
      await t.look('delete');
      await t.context.clearCookies();
      await t.logIn(name, GIVEN);
      await t.go('/hosts');
      await t.has('Choose a password of your own');
      await t.look('forced');
      await fill(t, 'Current password', GIVEN);
      await fill(t, 'New password', OWN);
      await fill(t, 'New password once more', OWN);
      await t.press('Change it');
      t.must(new URL(t.page.url()).pathname !== '/password', 'everything is open then');
      await t.go('/settings/users', 403);
      await t.look('not-allowed');
    },
  },
  tokens: {
    async play(t) {
      const name = `t-${t.label} <b>"&amp;=cmd|`;
      await t.logIn();
      await t.go('/settings/tokens/new');
      await fill(t, 'Name', name);
      await t.page.getByLabel('Role', { exact: true }).selectOption('viewer');
      await t.look('new');
      await t.press('Make the token');
      await t.has('This is the only time that it is shown.');
      const token = (await t.page.locator('[data-secret]').textContent()).replace('Copy', '').trim();
      t.must(token.startsWith('it_'), 'the token is shown');
      await t.look('made');
      await t.page.getByRole('link', { name: 'I have it' }).click();
      await t.has(name);
      t.must(!(await t.page.content()).includes(token), 'and not again');
      await t.look('list');
      const row = t.page.getByRole('row').filter({ hasText: name });
      await row.getByRole('button', { name: /^Revoke…/ }).click();
      await t.look('revoke');
      await t.press('Revoke', row);
      await t.page.getByRole('row').filter({ hasText: name }).getByText('revoked').waitFor();
    },
  },
  enrollment: {
    async play(t) {
      await t.logIn();
      await t.go('/settings/enrollment/new');
      await t.look('new');
      await fill(t, 'Tags for them', `web, ${t.label}`);
      await t.press('Make the token');
      await t.has('sudo apt install');
      await t.look('made');
      await t.page.getByRole('link', { name: 'I have it' }).click();
      await t.has('0 of 1');
      await t.look('list');
    },
  },
  lists: {
    async play(t) {
      await t.logIn();
      for (const [address, heading] of [
        ['/settings/sessions', 'Sessions'],
        ['/settings/certificates', 'Certificates'],
        ['/settings/certificates?state=expired&q=nothing', 'Certificates'],
        ['/settings/roles', 'Roles'],
        ['/settings/health', 'System health'],
      ]) {
        await t.go(address);
        await t.page.getByRole('heading', { level: 1, name: heading }).waitFor();
        await t.look(address.split('/')[2].replace(/\W+/g, '-'));
      }
    },
  },
  audit: {
    async play(t) {
      await t.logIn();
      await t.go('/audit');
      await t.look('list');
      await t.page.locator('details summary', { hasText: /value/ }).first().click();
      await t.look('change');
      await fill(t, 'What', 'session.begin');
      await t.press('Filter');
      t.must(t.page.url().includes('action=session.begin'), 'the filter is in the address');
      await t.look('filtered');
      await t.press('Verify');
      await t.has('what was written');
      await t.look('verified');
      await t.go('/audit?actor=nobody-at-all');
      await t.has('No row matches');
      await t.look('empty');
    },
  },
  search: {
    async play(t) {
      await t.logIn();
      await t.go('/search?q=token');
      await t.page.locator('#results').getByText('Make an API token').waitFor();
      await t.look('page');
      await t.go('/search?q=nothing-is-called-so');
      await t.has('Nothing is called so');
      await t.look('empty');
      await t.page.getByRole('button', { name: 'Keys', exact: true }).click();
      await t.page.getByRole('heading', { name: 'Keys' }).waitFor();
      await t.look('keys');
    },
  },
  keys: {
    plain: false,
    async play(t) {
      await t.logIn();
      await t.go('/settings/users');
      await t.page.keyboard.press('j');
      const first = t.page.locator('main table tbody tr').first();
      t.must(await first.evaluate((row) => row === document.activeElement), 'j goes to the first row');
      await t.page.keyboard.press('?');
      await t.page.getByRole('heading', { name: 'Keys' }).waitFor();
      await t.page.keyboard.press('Escape');
      await t.page.keyboard.press('Control+k');
      await t.page.keyboard.type('roles');
      await t.page.keyboard.press('Enter');
      await t.page.waitForURL((url) => url.pathname === '/settings/roles');
      await t.page.waitForLoadState();
      await t.page.keyboard.press('Control+k');
      const field = t.page.getByRole('combobox', { name: 'Hosts, packages, pages, actions' });
      await field.fill('audit');
      await t.page.getByRole('option', { name: /Overview/ }).waitFor({ state: 'hidden' });
      await t.page.getByRole('option', { name: /Audit log/ }).first().waitFor();
      await t.look('palette');
      await field.press('ArrowDown');
      await field.press('ArrowUp');
      await field.press('Enter');
      await t.page.waitForURL((url) => url.pathname === '/audit');
      await t.page.getByLabel('Who', { exact: true }).press('g');
      await t.page.keyboard.press('h');
      t.must(new URL(t.page.url()).pathname === '/audit', 'while something is typed, keys do nothing');
      await t.page.locator('h1').click();
      await t.page.keyboard.press('g');
      await t.page.keyboard.press('s');
      await t.page.waitForURL((url) => url.pathname.startsWith('/settings'));
    },
  },
};
