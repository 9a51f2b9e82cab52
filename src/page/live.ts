/**
 * The page's only script: while the page is seen it fetches itself every few seconds and puts in what has changed, so that the reader's place,
 * focus and open tables stay, and a screen reader tells only a new verdict. Without scripts the page reloads as a whole.
 */
export const LIVE_SECONDS = 10;

export const SCRIPT = `
const stale = document.getElementById('stale');
async function renew() {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(8000) });
    if (!response.ok) throw new Error(response.status);
    const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
    stale.hidden = true;
    document.title = fresh.title;
    for (const part of document.querySelectorAll('[data-live]')) {
      const next = fresh.getElementById(part.id);
      if (next === null) continue;
      part.className = next.className;
      for (const open of part.querySelectorAll('details[open]')) fresh.getElementById(open.id)?.setAttribute('open', '');
      if (next.innerHTML === part.innerHTML) continue;
      const focused = part.contains(document.activeElement) ? document.activeElement.id : '';
      part.innerHTML = next.innerHTML;
      if (focused !== '') document.getElementById(focused)?.focus({ preventScroll: true });
    }
  } catch {
    stale.hidden = false;
  }
}
setInterval(renew, ${LIVE_SECONDS * 1000});
document.addEventListener('visibilitychange', renew);
`;
