// Plots are drawn when they come near; walls of samples switch between classes and sources.
const read = (id) => { const found = document.getElementById(id); return found && JSON.parse(found.textContent); };
const node = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const draw = (place) => vegaEmbed(place, read(place.dataset.spec), {
  actions: false, renderer: "svg", config: { background: "transparent", font: "system-ui, sans-serif", view: { stroke: null } },
});
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    near.unobserve(entry.target);
    draw(entry.target);
  }
}, { rootMargin: "600px" });
const plots = [...document.querySelectorAll(".vega")];
plots.forEach((place) => near.observe(place));
addEventListener("beforeprint", () => plots.filter((place) => !place.querySelector("svg")).forEach(draw));

const side = (sheet) => Math.max(56, Math.min(128, sheet.width * 2));
const tile = (sheet, index, label, caption) => {
  const size = side(sheet), rows = Math.ceil(sheet.count / sheet.columns);
  const picture = node("span", { class: "tile", role: "img", "aria-label": label });
  picture.style.cssText = `background-image:url(${sheet.picture});background-size:${sheet.columns * size}px ${rows * size}px;`
    + `background-position:-${(index % sheet.columns) * size}px -${Math.floor(index / sheet.columns) * size}px`;
  return node("li", {}, picture, ...(caption ? [caption] : []));
};
const tiles = (sheet, items) => {
  const list = node("ul", { class: "tiles" }, ...items);
  list.style.setProperty("--side", `${side(sheet)}px`);
  return list;
};
const options = (select, names) => select.append(...names.map((name, i) => node("option", { value: i }, name)));

const group = (title, kind, wall, first, values) => {
  const said = (p) => (p === null ? "" : `p ${p.toFixed(2)}`);
  const items = values.map((p, i) => tile(wall, first + i, `${title} image ${i + 1}${p === null ? "" : `, ${said(p)}`}`, said(p)));
  const list = items.length ? tiles(wall, items) : node("p", {}, "None.");
  return node("div", { class: kind }, node("h3", {}, `${title} (${values.length} shown)`), list);
};
const walls = read("walls-data");
if (walls) {
  const chosen = document.getElementById("class"), radios = document.getElementById("sources");
  options(chosen, walls.classes);
  radios.append(...walls.sources.map((source, i) => {
    const input = node("input", { type: "radio", name: "source", value: i, ...(source.name === walls.first ? { checked: "" } : {}) });
    return node("label", {}, input, source.name);
  }));
  const show = () => {
    const source = walls.sources[radios.querySelector(":checked").value], wall = source.walls[chosen.value];
    document.getElementById("about").textContent = `${source.name}: ${source.about}.`;
    const parts = !wall ? [node("p", {}, "No images of this class yet.")] : [
      group(wall.kept[0] === null ? "Real" : "Kept", "kept", wall, 0, wall.kept),
      ...(source.filtered && source.name !== "real" ? [group("Refused", "refused", wall, wall.kept.length, wall.refused)] : []),
    ];
    document.getElementById("wall").replaceChildren(...parts);
  };
  document.getElementById("choice").addEventListener("change", show);
  show();
}

const found = read("near-data");
if (found) {
  const chosen = document.getElementById("near-class");
  options(chosen, found.map((each) => each.name));
  const show = () => {
    const each = found[chosen.value], columns = each.columns;
    document.getElementById("near").replaceChildren(...each.distances.map((row, r) => tiles(each, [
      tile(each, r * columns, `Generated image ${r + 1}`, "made"),
      ...row.map((d, i) => tile(each, r * columns + i + 1, `Labelled image, distance ${d}`, d.toFixed(3))),
      tile(each, (r + 1) * columns - 1, `Unseen image, distance ${each.unseen[r]}`, `unseen ${each.unseen[r].toFixed(3)}`),
    ])));
  };
  chosen.addEventListener("change", show);
  show();
}
