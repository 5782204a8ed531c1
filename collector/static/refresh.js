// Parts of a page that go on by themselves: each element with data-refresh is fetched anew every so many seconds, while the page
// is seen, and put in place of the old one where it differs. Without this script the page says how it was.
'use strict';

const idleAfter = 30;

document.querySelectorAll('[data-refresh]').forEach((first) => {
  if ('idle' in first.dataset) return;
  const seconds = Number(first.dataset.refresh) || 5;
  let element = first;
  let idle = 0;
  const again = async () => {
    if (document.hidden || element.contains(document.activeElement)) return schedule();
    try {
      const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
      if (!answer.ok) return schedule();
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const fresh = page.getElementById(element.id);
      if (!fresh) return;
      const was = element.childElementCount;
      if (fresh.innerHTML !== element.innerHTML) {
        const own = document.importNode(fresh, true);
        element.replaceWith(own);
        element = own;
      }
      // What it told of is over: the rest of the page has news.
      if (was && !element.childElementCount) return location.reload();
      idle = element.childElementCount ? 0 : idle + 1;
      if (idle * seconds < idleAfter) schedule();
    } catch {
      schedule();
    }
  };
  const schedule = () => setTimeout(again, seconds * 1000);
  schedule();
});
