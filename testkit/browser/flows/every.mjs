// Every page that there is, as it is found: job.paths names them. What a host says of itself never runs, and never becomes
// a part of the page.

export const flows = {
  page: {
    async play(t) {
      await t.logIn();
      for (const { name, path } of t.job.paths) {
        await t.go(path);
        const struck = await t.page.evaluate(() => [globalThis.struck, document.querySelectorAll('[data-struck]').length]);
        t.must(struck[0] === undefined && struck[1] === 0, `${path}: what a host said became a part of the page`);
        await t.look(`${t.job.fleet}-${name}`);
      }
    },
  },
};
