// Replaces each picture by its interactive chart, once that is ready, and obeys the metric switch.
"use strict";
(() => {
  const { charts, datasets } = JSON.parse(document.getElementById("charts").textContent);
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted: the page's policy forbids making code from text
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  const switches = [...document.querySelectorAll('input[name="metric"]')];
  const views = [];
  const show = (view) => {
    const chosen = switches.find((button) => button.checked);
    if (chosen) view.signal("metric", chosen.value).runAsync();
  };
  for (const place of document.querySelectorAll("[data-chart]")) {
    const { spec, shared } = charts[place.dataset.chart];
    const stage = document.createElement("div");
    window
      .vegaEmbed(stage, shared ? { ...spec, datasets } : spec, options)
      .then(({ view }) => {
        place.replaceChildren(stage);
        place.dataset.ready = "";
        if (shared) views.push(view), show(view);
      });
  }
  for (const button of switches) {
    button.addEventListener("change", () => {
      views.forEach(show);
      for (const text of document.querySelectorAll("[data-metric]")) {
        text.hidden = text.dataset.metric !== button.value;
      }
    });
  }
  document.documentElement.classList.add("scripts");
})();
