// Better with it, complete without it: what a page shows is brought up to date, and boxes can be ticked all at once.
"use strict";
(() => {
  const lost = document.getElementById("lost");
  const live = () => [...document.querySelectorAll("[data-live]")];
  let seen = new Date();
  let asking = false;
  let timer = 0;

  const say = (text) => {
    lost.hidden = !text;
    if (lost.textContent !== text) lost.textContent = text;
  };

  // Whoever is about to press a button in a part must not lose it.
  const isInUse = (part) => part.contains(document.activeElement) || part.contains(getSelection().focusNode) && !getSelection().isCollapsed;

  const renew = (fresh) => {
    for (const part of live()) {
      const now = fresh.getElementById(part.id);
      if (!now || isInUse(part)) continue;
      if (part.innerHTML !== now.innerHTML) part.replaceChildren(...now.childNodes);
      if (!("live" in now.dataset)) delete part.dataset.live;
    }
  };

  const ask = async () => {
    const answer = await fetch(location.href, { cache: "no-store", headers: { "x-update": "1" }, signal: AbortSignal.timeout(15000) });
    if (answer.redirected) return location.reload();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.status === 503) {
      const why = fresh.querySelector(".trouble .error");
      if (document.querySelector("[data-whole]")) return renew(fresh);
      return say(`The store does not answer${why ? `: ${why.textContent}` : ""}. What is shown is as it was at ${seen.toLocaleTimeString()}.`);
    }
    if (document.querySelector("[data-whole]")) return location.reload();
    say("");
    seen = new Date();
    renew(fresh);
  };

  const tick = async () => {
    clearTimeout(timer);
    const periods = live().map((part) => Number(part.dataset.live));
    if (document.hidden || asking || !periods.length) return;
    asking = true;
    try {
      await ask();
    } catch {
      say(`The console does not answer. What is shown is as it was at ${seen.toLocaleTimeString()}; it is asked again.`);
    } finally {
      asking = false;
      timer = setTimeout(tick, 1000 * Math.min(...periods));
    }
  };
  document.addEventListener("visibilitychange", tick);
  setTimeout(tick, 1000);

  const boxes = () => [...document.querySelectorAll("input[name=at][type=checkbox]")];
  document.addEventListener("change", (event) => {
    if ("all" in event.target.dataset) for (const box of boxes()) box.checked = event.target.checked;
    const selected = document.getElementById("selected");
    if (selected) selected.textContent = `With the ${boxes().filter((box) => box.checked).length} selected:`;
  });
})();
