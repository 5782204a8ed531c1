// Every page that there is, as it is found: job.paths names them. What a host says of itself never runs, and never becomes
// a part of the page.

export const flows = {
  page: {
    async play(t) {
      await t.logIn();
      for (const { name, path } of t.job.paths) {
        await t.go(path);
        const struck = await t.page.evaluate(() => [globalThis.struck, document.querySelectorAll('[data-struck]').length]);
        // Controls, and what turns text around (UAX #9): a reader has to see that they are there.
        const hidden = await t.page.evaluate(() => /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/u.test(document.body.textContent));
        t.must(!hidden, `${path}: shows a character that nobody sees`);
        t.must(struck[0] === undefined && struck[1] === 0, `${path}: what a host said became a part of the page`);
        await t.look(`${t.job.fleet}-${name}`);
      }
    },
  },
};
