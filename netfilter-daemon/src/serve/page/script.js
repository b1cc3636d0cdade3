"use strict";
// Reads the page again and takes over what has changed. What it gets is parsed as a document in
// which no script runs, and nothing is ever parsed into this one.
(() => {
  const PERIOD = 5000;
  const stale = document.getElementById("stale");

  const read = () => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.pathname);
    request.responseType = "document";
    request.timeout = 2 * PERIOD;
    request.onload = () => {
      const page = request.status === 200 ? request.response : null;
      page && page.getElementById("now") ? resolve(page) : reject(new Error("no page"));
    };
    request.onerror = request.ontimeout = () => reject(new Error("no answer"));
    request.send();
  });

  // Somebody who marks text, to copy it, keeps it.
  const isHeld = (part) => {
    const selection = getSelection();
    return !selection.isCollapsed && part.contains(selection.anchorNode);
  };

  const replace = (old, part) => {
    for (const each of old.querySelectorAll("details")) {
      const same = part.querySelector(`#${each.id}`);
      if (same) same.open = each.open;
    }
    const moved = [...old.querySelectorAll(".scroll")].map((each) => [each.id, each.scrollLeft]);
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const around = focused && (focused.id || focused.parentElement.id);
    old.replaceWith(document.adoptNode(part));
    for (const [id, left] of moved) {
      const same = document.getElementById(id);
      if (same) same.scrollLeft = left;
    }
    const again = around && document.getElementById(around);
    if (again) (again.querySelector("summary") || again).focus({ preventScroll: true });
  };

  const show = (page) => {
    for (const old of document.querySelectorAll("[data-live]")) {
      const part = page.getElementById(old.id);
      if (part && !part.isEqualNode(old) && !isHeld(old)) replace(old, part);
    }
    document.title = page.title;
  };

  const turn = async () => {
    if (!document.hidden) {
      try {
        show(await read());
        stale.hidden = true;
      } catch {
        stale.hidden = false;
      }
    }
    setTimeout(turn, PERIOD);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) read().then(show, () => {}); });
  setTimeout(turn, PERIOD);
})();
