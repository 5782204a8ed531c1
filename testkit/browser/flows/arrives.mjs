// The first host comes while its page waits, and a second one while the list is read: both without a reload, and what is
// ticked stays ticked. It happens once: in one window.

const make = (page, name) => page.evaluate(async (name) => {
  const csrf = document.querySelector('input[name="csrf"]').value;
  const answer = await fetch('/api/v1/hosts', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-csrf-token': csrf },
    body: JSON.stringify({ name }),
  });
  if (!answer.ok) throw new Error(`${answer.status}`);
}, name);

export const flows = {
  row: {
    plain: false,
    async play(t) {
      if (t.variant.theme !== 'light' || t.variant.width !== 1440) return;
      await t.logIn();
      await t.go('/hosts');
      await t.press('Make a token and show the lines');
      await t.has('Waiting for the first host.');
      await t.page.evaluate(() => { globalThis.stays = true; });
      await make(t.page, 'first.example');
      const row = t.page.getByRole('row', { name: /first\.example/ });
      await row.waitFor();
      await t.has('What is next?');
      await t.look('first');
      await row.getByRole('checkbox').check();
      await t.page.locator('#live-word', { hasText: /^live$/ }).waitFor();
      await make(t.page, 'second.example');
      await t.page.getByRole('row', { name: /second\.example/ }).waitFor();
      t.must(await row.getByRole('checkbox').isChecked(), 'what is ticked stays so');
      t.must(await t.page.evaluate(() => globalThis.stays), 'the page was not loaded anew');
      await t.look('second');
    },
  },
};
