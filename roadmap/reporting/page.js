// Tooltips over the rows of the main figure, links that open what they lead to, arrow keys from step to step, and a button
// that opens all, for print. Without it the page is the same: browsers show the rows' titles, and summaries open by hand.
"use strict";
{
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true");
  tip.hidden = true;
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  for (const link of document.querySelectorAll("a.row")) {
    const title = link.querySelector("title");
    const lines = title.textContent;
    title.remove();
    const show = (x, y) => {
      tip.textContent = lines;
      tip.hidden = false;
      const size = tip.getBoundingClientRect(), width = document.documentElement.clientWidth;
      const top = y + 18 + size.height > window.innerHeight ? y - size.height - 12 : y + 18;
      tip.style.left = `${window.scrollX + Math.max(8, Math.min(x + 14, width - size.width - 8))}px`;
      tip.style.top = `${window.scrollY + top}px`;
    };
    link.addEventListener("pointermove", event => show(event.clientX, event.clientY));
    link.addEventListener("pointerleave", hide);
    link.addEventListener("blur", hide);
    link.addEventListener("click", hide);
    link.addEventListener("focus", () => {
      if (!link.matches(":focus-visible")) return;
      const box = link.getBoundingClientRect();
      show(box.left + box.width / 3, box.bottom - 14);
    });
  }
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });

  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    if (target) target.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) reveal();
  });
  const steps = [...document.querySelectorAll(".step > summary")];
  const ways = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  document.addEventListener("keydown", event => {
    const here = steps.indexOf(event.target), next = here < 0 ? null : steps[here + ways[event.key]];
    if (!next) return;
    event.preventDefault();
    next.parentElement.open = steps[here].parentElement.open;
    steps[here].parentElement.open = false;
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  });
  const button = document.getElementById("appendix");
  const unfold = open => {
    for (const part of document.querySelectorAll("details")) part.open = open;
    button.setAttribute("aria-pressed", open);
  };
  button.hidden = false;
  button.addEventListener("click", () => unfold(button.getAttribute("aria-pressed") !== "true"));
  if (new URLSearchParams(location.search).has("appendix")) unfold(true);
  if (location.hash) reveal();
}
