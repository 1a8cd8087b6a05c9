// Replaces each picture by its interactive chart, once that is ready, and obeys the switches.
"use strict";
(() => {
  const { charts, specs, datasets } = JSON.parse(document.getElementById("charts").textContent);
  const rows = (columns) => {
    const fields = Object.entries(columns);
    if (!fields.length) return [];
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
  const switches = [...document.querySelectorAll(".switch input")];
  const chosen = () =>
    Object.fromEntries(switches.filter((one) => one.checked).map((one) => [one.name, one.value]));
  const views = [];
  const show = ({ view, names }) => {
    const values = chosen();
    for (const name of names.filter((one) => one in values)) {
      view.signal(name, name === "metric" ? values[name] : Number(values[name]));
    }
    view.runAsync();
  };
  for (const place of document.querySelectorAll("[data-chart]")) {
    const stage = document.createElement("div");
    const spec = complete(charts[place.dataset.chart]);
    const names = (spec.params || []).map((one) => one.name);
    window.vegaEmbed(stage, spec, options).then(({ view }) => {
      place.replaceChildren(stage);
      place.dataset.ready = "";
      if (names.length) views.push({ view, names }), show({ view, names });
    });
  }
  for (const button of switches) {
    button.addEventListener("change", () => {
      views.filter(({ names }) => names.includes(button.name)).forEach(show);
      for (const text of document.querySelectorAll(`[data-when^="${button.name}="]`)) {
        text.hidden = text.dataset.when !== `${button.name}=${button.value}`;
      }
      for (const one of document.querySelectorAll(`[data-${button.name}]`)) {
        one.classList.toggle("followed", one.getAttribute(`data-${button.name}`) === button.value);
      }
    });
  }
  document.documentElement.classList.add("scripts");
})();
