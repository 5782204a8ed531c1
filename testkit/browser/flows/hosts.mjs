// The Overview and the list of hosts: what needs a human, filters, columns, views, and one action on many.

const total = (t) => t.page.locator('h1 .count').innerText();

export const flows = {
  overview: {
    async play(t) {
      await t.logIn();
      await t.go('/');
      await t.has('Needs you');
      await t.look('needs');
      const tiles = await t.page.locator('[data-need]').evaluateAll((all) => all.map((one) => [one.getAttribute('href'), one.querySelector('b').textContent]));
      t.must(tiles.length >= 3, `a sample fleet has more to do than ${JSON.stringify(tiles)}`);
      // Those that time alone does not change.
      const lasting = tiles.filter(([address]) => /^\/hosts\?(reason=(disk|failed|reboot|clock)|certificate)/.test(address));
      t.must(lasting.length > 0, 'a sample fleet has full disks, failed units or clocks that are off');
      for (const [address, count] of lasting) {
        await t.go(address);
        t.must((await total(t)) === count, `${address} lists ${await total(t)}, not ${count}`);
      }
    },
  },
  list: {
    async play(t) {
      await t.logIn();
      await t.go('/hosts?view=all');
      if (t.script) await t.page.locator('#live-word', { hasText: /^live$/ }).waitFor();
      await t.look('all');
      const all = Number(await total(t));
      await t.page.getByRole('navigation', { name: 'Status' }).getByRole('link', { name: /^degraded/ }).click();
      await t.page.waitForURL(/status=degraded/);
      t.must(Number(await total(t)) < all, 'a filter leaves fewer');
      await t.look('degraded');
      await t.page.locator('.chips a.remove').first().click();
      await t.page.waitForURL((url) => !url.search.includes('status='));
      await t.go('/hosts?q=nonesuch');
      await t.has('No host matches');
      await t.look('none');
      await t.go('/hosts?sort=color', 400);
      await t.has("This list can't be shown");
      await t.look('refused');
    },
  },
  filters: {
    async play(t) {
      await t.logIn();
      await t.go('/hosts?view=all');
      await t.page.getByRole('button', { name: 'Filters', exact: true }).click();
      const dialog = t.page.getByRole('dialog', { name: 'Filters' });
      await dialog.waitFor();
      await t.look('dialog');
      await dialog.getByRole('checkbox', { name: 'degraded' }).check();
      await dialog.getByRole('checkbox', { name: 'unhealthy' }).check();
      await dialog.getByLabel('Environment', { exact: true }).fill('production');
      await t.press('Show', dialog);
      t.must(/status=unhealthy%2Cdegraded&environment=production/.test(t.page.url()), `the filters are in ${t.page.url()}`);
      await t.look('filtered');
      await t.page.getByRole('button', { name: 'Columns', exact: true }).click();
      const columns = t.page.getByRole('dialog', { name: 'Columns' });
      await columns.getByRole('checkbox', { name: 'System' }).check();
      await columns.getByRole('checkbox', { name: 'CPU' }).uncheck();
      await t.look('columns');
      await t.press('Show', columns);
      t.must(t.page.url().includes('status=unhealthy'), 'columns leave filters as they are');
      t.must((await t.page.locator('td[data-col="os"]').count()) > 0, 'the column is there');
      t.must((await t.page.locator('td[data-col="cpu"]').count()) === 0, 'the other one is not');
    },
  },
  views: {
    async play(t) {
      await t.logIn();
      await t.go('/hosts?liveness=offline');
      const name = `Offline ${t.label}`;
      await t.page.getByRole('button', { name: 'Views', exact: true }).click();
      const dialog = t.page.getByRole('dialog', { name: 'Views' });
      await dialog.getByLabel('Name', { exact: true }).fill(name);
      await t.look('dialog');
      await t.press('Keep', dialog);
      t.must(t.page.url().endsWith('/hosts?liveness=offline'), 'it goes to the view');
      await t.has(name);
      await t.look('kept');
      await t.go('/settings/views');
      await t.has('Liveness: offline');
      await t.look('settings');
      await t.press(`Delete the view ${name}`);
      t.must((await t.page.getByText(name).count()) === 0, 'it is gone');
    },
  },
  bulk: {
    async play(t) {
      await t.logIn();
      const tag = `flow:${t.label}`;
      await t.go('/hosts?view=all');
      const boxes = t.page.locator('#hosts tbody input[type="checkbox"]');
      await boxes.nth(0).check();
      await boxes.nth(2).check();
      if (t.script) await t.page.getByText('(2)').waitFor();
      await t.page.getByLabel('Tag, owner or environment').fill(tag);
      await t.look('ticked');
      await t.press('Look what it would do');
      await t.page.getByRole('heading', { name: `Tag 2 hosts with ${tag}?` }).waitFor();
      await t.look('asked');
      await t.press(`Tag 2 hosts with ${tag}`);
      await t.has('2 changed');
      await t.look('done');
      await t.go(`/hosts?tag=${encodeURIComponent(tag)}`);
      t.must((await total(t)) === '2', 'both are tagged');
      await t.page.getByRole('radio', { name: /^all/ }).check();
      await t.page.getByLabel('What to do').selectOption('remove_tags');
      await t.page.getByLabel('Tag, owner or environment').fill(tag);
      await t.press('Look what it would do');
      await t.press(`Take the tag ${tag} from 2 hosts`);
      await t.has('2 changed');
    },
  },
};
