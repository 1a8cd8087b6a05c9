// Replaces each picture by its interactive chart, once that is ready, and obeys the metric switch.
"use strict";
(() => {
  const { charts, specs, datasets } = JSON.parse(document.getElementById("charts").textContent);
  const rows = (columns) => {
    const fields = Object.entries(columns);
    return fields[0][1].map((_, row) =>
      Object.fromEntries(fields.map(([field, values]) => [field, values[row]])),
    );
  };
  const complete = ({ spec, data }) => {
    const named = Object.entries(data).map(([part, place]) => [part, rows(datasets[place])]);
    return { ...specs[spec], datasets: Object.fromEntries(named) };
  };
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
    const stage = document.createElement("div");
    const spec = complete(charts[place.dataset.chart]);
    window.vegaEmbed(stage, spec, options).then(({ view }) => {
      place.replaceChildren(stage);
      place.dataset.ready = "";
      if (spec.params) views.push(view), show(view);
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
