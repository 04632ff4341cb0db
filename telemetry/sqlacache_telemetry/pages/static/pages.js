// Fetches the page again now and then and replaces its list, until told to pause. Without it, pages are reloaded.
"use strict";

const live = document.getElementById("live");
const button = document.getElementById("pause");
const state = document.getElementById("refreshed");

if (live && button && state) {
  let paused = false;

  const isBusy = () =>
    paused || document.hidden || live.contains(document.activeElement) || !getSelection().isCollapsed;

  const refresh = async () => {
    if (isBusy()) return;
    try {
      const answer = await fetch(location.pathname + location.search, { cache: "no-store", redirect: "error" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const anew = page.getElementById("live");
      if (!anew || isBusy()) return;
      live.replaceChildren(...document.adoptNode(anew).childNodes);
      state.textContent = `refreshed ${new Date().toISOString().slice(11, 19)} UTC`;
    } catch (error) {
      state.textContent = `not refreshed: ${error.message}`;
    }
  };

  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume refreshing" : "Pause refreshing";
    if (paused) state.textContent = "paused";
    else refresh();
  });
  button.hidden = false;
  setInterval(refresh, Number(live.dataset.every) * 1000);
}
