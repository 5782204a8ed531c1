// The list of changes, and one with a plan, its apply and a play of the same commit: those of the sample fleet.

export const flows = {
  change: {
    async play(t) {
      await t.logIn();
      await t.go('/changes');
      await t.has('Replaced the switch of rack 12 in fra1');
      await t.look('list');
      await t.go('/changes?repository=https://git.example.org/shop/infrastructure&tool=terraform&outcome=succeeded');
      await t.page.locator('main a[href^="/changes/"]', { hasText: 'shop-production' }).first().click();
      await t.page.waitForURL(/\/changes\/[0-9a-f-]{36}$/);
      await t.has('c6i.xlarge');
      await t.look('applied');
    },
  },
};
