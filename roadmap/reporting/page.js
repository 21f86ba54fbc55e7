// A tooltip over the rows of the main figure. Without it the page is the same, and browsers show the rows' titles.
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
  const closed = new Set();
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) { closed.add(part); part.open = true; }
  });
  window.addEventListener("afterprint", () => {
    for (const part of closed) part.open = false;
    closed.clear();
  });
}
