// Without a script, charts and the map are pictures. With it they answer a pointer, and the arrow keys where they have the focus.

// Charts: a line through the place that is pointed at, and the values there in the legend, whose own are the last ones.
for (const figure of document.querySelectorAll(".chart")) {
  const chart = figure.querySelector("svg"), values = [...figure.querySelectorAll(".legend b")], last = values.map((each) => each.textContent);
  const at = figure.querySelector(".at"), [x, y] = [chart.dataset.x, chart.dataset.y].map((each) => each.split(" ").map(Number));
  const lines = [...chart.querySelectorAll(".line")].map((each) => [...each.getAttribute("d").matchAll(/[ML]([\d.-]+) ([\d.-]+)/g)].map((found) => [+found[1], +found[2]]));
  const value = ([low, high, first, end], place) => low + (place - first) / (end - first) * (high - low);
  const rule = chart.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  rule.setAttribute("class", "rule");
  const digits = (each) => Math.abs(each) >= 1000 ? Math.round(each).toLocaleString("en") : String(+each.toPrecision(3));
  let here = x[3];
  const read = (place) => {
    here = Math.min(x[3], Math.max(x[2], place));
    const near = lines.map((line) => line.reduce((best, each) => Math.abs(each[0] - place) < Math.abs(best[0] - place) ? each : best));
    near.forEach((each, n) => { values[n].textContent = digits(value(y, each[1])); });
    at.textContent = `at step ${Math.round(value(x, near[0][0])).toLocaleString("en")}`;
    rule.setAttribute("d", `M${near[0][0]} ${y[3]}V${y[2]}`);
  };
  const point = (event) => {
    const box = chart.getBoundingClientRect();
    read((event.clientX - box.left) / box.width * chart.viewBox.baseVal.width);
  };
  const walk = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") leave();
    if (!by) return;
    event.preventDefault();
    read(here + by * (x[3] - x[2]) / 50);
  };
  const leave = () => { values.forEach((each, n) => { each.textContent = last[n]; }); at.textContent = ""; rule.removeAttribute("d"); };
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("keydown", walk);
  chart.addEventListener("blur", leave);
}

// The map of images: the one nearest to the pointer is shown, and a class can be picked out.
(() => {
  const map = document.querySelector(".map"), tip = document.getElementById("tip");
  if (!map) return;
  const dots = [...map.querySelectorAll("circle")], sheet = tip.querySelector("img"), words = tip.querySelector("span");
  const columns = +map.dataset.columns, thumb = +map.dataset.thumb, zoom = 96 / thumb, reach = 30;
  const names = JSON.parse(document.getElementById("names").textContent);
  let shown = null;

  const hide = () => { tip.hidden = true; if (shown) shown.classList.remove("on"); shown = null; };

  function nearest(event) {
    const box = map.getBoundingClientRect(), scale = box.width / map.viewBox.baseVal.width;
    let best = null, least = reach ** 2;
    for (const dot of dots) {
      if (dot.classList.contains("dim")) continue;
      const away = (box.left + dot.cx.baseVal.value * scale - event.clientX) ** 2 + (box.top + dot.cy.baseVal.value * scale - event.clientY) ** 2;
      if (away < least) { least = away; best = dot; }
    }
    return best;
  }

  function show(dot, event) {
    if (shown && shown !== dot) shown.classList.remove("on");
    shown = dot;
    dot.classList.add("on");
    const i = dots.indexOf(dot);
    sheet.style.transform = `scale(${zoom}) translate(${-(i % columns) * thumb}px, ${-Math.floor(i / columns) * thumb}px)`;
    words.textContent = names[i];
    tip.hidden = false;
    const right = Math.min(event.clientX + 16, document.documentElement.clientWidth - tip.offsetWidth - 6);
    const above = event.clientY - tip.offsetHeight - 14;
    tip.style.left = `${Math.max(6, right)}px`;
    tip.style.top = `${above > 6 ? above : event.clientY + 18}px`;
  }

  const middle = (dot) => {
    const box = dot.getBoundingClientRect();
    return { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  };
  const walk = (event) => {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (!by) return;
    event.preventDefault();
    const seen = dots.filter((dot) => !dot.classList.contains("dim")), at = seen.indexOf(shown);
    const next = seen[at < 0 ? 0 : (at + by + seen.length) % seen.length];
    show(next, middle(next));
  };
  const follow = (event) => { const dot = nearest(event); if (dot) show(dot, event); else hide(); };
  map.addEventListener("pointermove", follow);
  map.addEventListener("pointerdown", follow);
  map.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  map.addEventListener("keydown", walk);
  map.addEventListener("blur", hide);
  addEventListener("scroll", hide, { passive: true });

  for (const button of document.querySelectorAll(".key button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const each of document.querySelectorAll(".key button")) each.setAttribute("aria-pressed", each === button && on);
      for (const dot of dots) dot.classList.toggle("dim", on && dot.dataset.k !== button.dataset.k);
    });
  }
})();
