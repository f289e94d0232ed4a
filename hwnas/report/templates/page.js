"use strict";
(() => {
  const root = document.documentElement, tip = document.getElementById("tip");
  root.classList.add("js");

  // Theme: the system's, until the reader switches. Storage may be refused to a page from disk.
  const button = document.getElementById("theme");
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("hwnas-theme", value);
      return localStorage.getItem("hwnas-theme");
    } catch { return null; }
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const stored = remembered();
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  const press = () => button.setAttribute("aria-pressed", String(dark()));
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered(root.dataset.theme);
    press();
  });
  system.addEventListener("change", press);
  press();

  // The tooltip of a mark, next to the pointer or the focus; with the cell of the mark, where the page has one.
  const cellOf = (mark) => {
    const link = mark.closest("a[href]");
    return link && document.querySelector(`[id="${CSS.escape(link.getAttribute("href").slice(1))}"].peek .cell-graph svg`);
  };
  const show = (mark, x, y) => {
    tip.textContent = mark.getAttribute("aria-label").split("; ").join("\n");
    const cell = cellOf(mark);
    if (cell) tip.append(cell.cloneNode(true));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 12) : y + 18) + "px";
  };
  const hide = () => { tip.hidden = true; };
  const markOf = (node) => node instanceof Element ? node.closest(".tip") || node.querySelector(":scope > .tip") : null;
  document.addEventListener("pointermove", (event) => {
    const mark = event.target instanceof Element ? event.target.closest(".tip") : null;
    if (mark) show(mark, event.clientX, event.clientY); else hide();
  });
  document.addEventListener("focusin", (event) => {
    const mark = event.target.closest("svg.figure") ? markOf(event.target) : null;
    if (!mark || !event.target.matches(":focus-visible")) return;
    const box = mark.getBoundingClientRect();
    show(mark, box.right, box.bottom);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // One network at a time: links to it, in the plot and above the networks, show it.
  const targets = [...document.querySelectorAll(".target")];
  const choose = (id) => {
    for (const target of targets) target.classList.toggle("shown", target.id === id);
    for (const link of document.querySelectorAll(".tabs a, svg.figure a")) {
      const its = link.getAttribute("href") === "#" + id;
      link.classList.toggle("chosen", its);
      if (its) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
  };
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest(".tabs a, svg.figure a, a.pick") : null;
    const target = link && targets.find((known) => "#" + known.id === link.getAttribute("href"));
    if (!target) return;
    event.preventDefault();
    hide();
    choose(target.id);
    history.replaceState(null, "", "#" + target.id);
    if (!link.closest(".tabs")) {
      target.focus({ preventScroll: true });
      target.scrollIntoView({ block: "start" });
    }
  });
  const asked = () => targets.find((target) => "#" + target.id === location.hash);
  addEventListener("hashchange", () => { if (asked()) choose(asked().id); });
  if (targets.length) {
    choose((asked() || targets[0]).id);
    if (asked()) asked().scrollIntoView();
  }

  // Paper shows everything.
  addEventListener("beforeprint", () => { for (const closed of document.querySelectorAll("details")) closed.open = true; });
})();
