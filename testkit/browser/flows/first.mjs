// The first run, before a host has come: the button, and the lines with the token.

export const flows = {
  empty: {
    async play(t) {
      await t.logIn();
      await t.go('/');
      await t.has('No host yet');
      await t.look('overview');
      await t.go('/hosts');
      await t.has('No host yet');
      await t.look('hosts');
      await t.press('Make a token and show the lines');
      await t.has('Waiting for the first host.');
      await t.has('--token-stdin');
      await t.look('token');
    },
  },
};
