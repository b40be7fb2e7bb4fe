// Without a script, charts and the map are pictures.

// Charts: a line through the place that is pointed at, and the values there in the legend, whose own are the last ones.
for (const figure of document.querySelectorAll(".chart")) {
  const chart = figure.querySelector("svg"), values = [...figure.querySelectorAll(".legend b")], last = values.map((each) => each.textContent);
  const at = figure.querySelector(".at"), [x, y] = [chart.dataset.x, chart.dataset.y].map((each) => each.split(" ").map(Number));
  const lines = [...chart.querySelectorAll(".line")].map((each) => [...each.getAttribute("d").matchAll(/[ML]([\d.-]+) ([\d.-]+)/g)].map((found) => [+found[1], +found[2]]));
  const value = ([low, high, first, end], place) => low + (place - first) / (end - first) * (high - low);
  const rule = chart.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  rule.setAttribute("class", "rule");
  const point = (event) => {
    const box = chart.getBoundingClientRect(), place = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    const near = lines.map((line) => line.reduce((best, each) => Math.abs(each[0] - place) < Math.abs(best[0] - place) ? each : best));
    near.forEach((each, n) => { values[n].textContent = +value(y, each[1]).toPrecision(3); });
    at.textContent = `at step ${Math.round(value(x, near[0][0])).toLocaleString("en")}`;
    rule.setAttribute("d", `M${near[0][0]} ${y[3]}V${y[2]}`);
  };
  const leave = () => { values.forEach((each, n) => { each.textContent = last[n]; }); at.textContent = ""; rule.removeAttribute("d"); };
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", leave);
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

  const follow = (event) => { const dot = nearest(event); if (dot) show(dot, event); else hide(); };
  map.addEventListener("pointermove", follow);
  map.addEventListener("pointerdown", follow);
  map.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  addEventListener("scroll", hide, { passive: true });

  for (const button of document.querySelectorAll(".key button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const each of document.querySelectorAll(".key button")) each.setAttribute("aria-pressed", each === button && on);
      for (const dot of dots) dot.classList.toggle("dim", on && dot.dataset.k !== button.dataset.k);
    });
  }
})();
