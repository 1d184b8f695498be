"use strict";
// The theme that the reader chose last, on every page of the service.

const THEMES = ["auto", "light", "dark"];
{
  const kept = localStorage.getItem("ckpt-tune-theme");
  if (THEMES.includes(kept)) document.documentElement.dataset.theme = kept;
}

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme"), root = document.documentElement;
  button.textContent = `Theme: ${root.dataset.theme}`;
  button.addEventListener("click", () => {
    // The report's own script turns its page; here only the choice is kept.
    if (document.body.dataset.page) {
      root.dataset.theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % 3];
      button.textContent = `Theme: ${root.dataset.theme}`;
    }
    setTimeout(() => localStorage.setItem("ckpt-tune-theme", root.dataset.theme), 0);
  });
});
