// One host: its state, its timeline, charts, facts, and what an operator does about it. The job has `host` (online, with a
// past), `offline`, `never` and `spare` (ids by window).

const RANGES = ['1h', '6h', '24h', '7d', '30d', '1y'];

async function follow(t, name, within = t.page) {
  const was = t.page.url();
  await within.getByRole('link', { name, exact: true }).first().click();
  await t.page.waitForURL((url) => url.href !== was);
}

export const flows = {
  timeline: {
    async play(t) {
      await t.logIn();
      await t.go(`/hosts/${t.job.host}`);
      if (t.script) await t.page.locator('[data-drawn]').waitFor();
      await t.look('online');
      const section = t.page.locator('#timeline');
      await follow(t, 'Facts', section);
      t.must(new URL(t.page.url()).searchParams.get('kinds') === 'fact', 'the chip is in the address');
      await follow(t, 'Tasks', section);
      t.must(new URL(t.page.url()).searchParams.get('kinds') === 'fact,task', 'chips combine');
      await follow(t, 'All kinds', section);
      await follow(t, '24 h before', section);
      await t.has('The 24 h before');
      await t.look('day-before');
      await t.page.getByLabel('Hours').fill('48');
      await t.press('Show');
      await t.has('The 48 h before');
      await t.go(`/hosts/${t.job.host}/what-changed`);
      await t.has('unattributed');
      await t.page.getByText('2 changed during it').click();
      await t.look('what-changed');
      await follow(t, 'In order, on the timeline');
      await t.look('changes');
      await follow(t, 'Back to the newest', section);
      await section.getByLabel('Jump to a time (UTC)').fill('2020-01-31T12:00');
      await t.press('Jump, UTC', section);
      await t.has('Around 2020-01-31T12:00:00Z');
      await t.look('jumped');
    },
  },
  charts: {
    async play(t) {
      await t.logIn();
      for (const range of RANGES) {
        await t.go(`/hosts/${t.job.host}?range=${range}#charts`);
        await t.page.locator('#charts').getByRole('link', { name: range, exact: true }).and(t.page.locator('[aria-current]')).waitFor();
        if (!t.script) {
          await t.page.getByText('busy').first().waitFor();
          continue;
        }
        await t.page.locator('[data-drawn]').waitFor();
        const drawn = await t.page.locator('#charts canvas').count();
        t.must(drawn >= 4, `${drawn} charts are drawn for ${range}`);
        await t.look(`charts-${range}`);
      }
      if (!t.script) {
        await t.look('charts');
        return;
      }
      await t.go(`/hosts/${t.job.host}?range=24h`);
      await t.page.locator('[data-drawn]').waitFor();
      const plot = t.page.locator('#charts .u-over').first();
      await plot.scrollIntoViewIfNeeded();
      const box = await plot.boundingBox();
      const [left, right, middle] = [box.x + box.width * 0.3, box.x + box.width * 0.7, box.y + box.height / 2];
      await t.page.mouse.move(left, middle);
      await t.page.mouse.down();
      await t.page.mouse.move(right, middle, { steps: 5 });
      const zoomed = t.page.waitForURL((url) => url.searchParams.has('from'));
      await t.page.mouse.up();
      await zoomed;
      const { searchParams } = new URL(t.page.url());
      const hours = (Date.parse(searchParams.get('to')) - Date.parse(searchParams.get('from'))) / 3_600_000;
      t.must(hours > 8 && hours < 11, `the dragged range is ${hours} h`);
      await t.page.locator('[data-drawn]').waitFor();
      await t.look('zoomed');
    },
  },
  facts: {
    async play(t) {
      await t.logIn();
      await t.go(`/hosts/${t.job.host}`);
      const section = t.page.locator('#facts');
      await section.getByLabel('Search facts').fill('facts.kernel');
      await t.press('Search', section);
      await t.page.locator('details.fact[open]').first().waitFor();
      t.must((await t.page.locator('details.fact').count()) >= 1, 'the fact is found');
      await t.look('facts');
      await section.getByRole('link', { name: /history$/ }).first().click();
      await t.page.getByRole('heading', { name: 'facts.kernel' }).waitFor();
      await t.look('fact');
      await t.go(`/hosts/${t.job.host}?q=nothing-has-this#facts`);
      await t.has('No fact has');
    },
  },
  states: {
    async play(t) {
      await t.logIn();
      await t.go(`/hosts/${t.job.offline}`);
      await t.has('offline');
      await t.look('offline');
      await t.go(`/hosts/${t.job.never}`);
      await t.has('It has never reported');
      await t.look('never');
      await t.go(`/hosts/${t.job.host}?range=2d`, 400);
      await t.look('refused');
    },
  },
  danger: {
    async play(t) {
      await t.logIn();
      const id = t.job.spare[t.label];
      await t.go(`/hosts/${id}`);
      await t.page.getByRole('button', { name: 'Edit…' }).click();
      const edit = t.page.locator('#edit');
      await edit.getByLabel('Owner').fill('platform team');
      await t.look('edit');
      await t.press('Save', edit);
      await t.has('platform team');
      await t.page.getByRole('button', { name: 'Write down a task…' }).first().click();
      const task = t.page.locator('#new-task');
      await task.getByLabel('What').fill('Rack it anew');
      await t.look('task');
      await t.press('Write it down', task);
      await t.has('Rack it anew');
      await t.page.getByRole('button', { name: 'Delete…' }).click();
      const remove = t.page.locator('#delete');
      await remove.getByLabel('Type its name').fill('not its name');
      t.expected.push('400');
      await t.press('Delete it', remove);
      await t.has('That was not done: what was typed is not its name');
      await t.look('not-deleted');
      await t.page.getByRole('button', { name: 'Retire…' }).click();
      await t.look('retire');
      await t.press('Retire it', t.page.locator('#retire'));
      await t.has('It was retired');
      await t.look('retired');
      await t.press('Bring back');
      t.must((await t.page.getByText('It was retired').count()) === 0, 'it is back');
    },
  },
};
