"use strict";

// Original and ours: the range input lies invisibly over the picture, so that pointer, touch and keys are the browser's.
for (const stage of document.querySelectorAll(".stage")) {
  const slider = stage.querySelector("input");
  slider.addEventListener("input", () => {
    stage.style.setProperty("--split", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % original, the rest ours`);
  });
}
document.querySelectorAll(".choices input").forEach((choice, index) => {
  choice.addEventListener("change", () => {
    for (const side of ["original", "ours"]) {
      const shown = document.querySelector(`.stage .${side}`);
      shown.src = choice.parentElement.querySelector(`.${side}`).src;
      shown.alt = shown.alt.replace(/\d+/, index + 1);
    }
    document.querySelector(".stage").style.aspectRatio = choice.dataset.ratio;
    document.querySelector(".psnr").textContent = choice.dataset.psnr;
  });
});

// Heat maps: a grid with one stop of the tab key; arrow keys go from cell to cell.
for (const map of document.querySelectorAll(".heatmap")) {
  const remark = map.querySelector(".remark");
  const rows = [...map.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);
  const tell = (event) => {
    const cell = event.target.closest("td[data-remark]");
    if (cell) remark.textContent = cell.dataset.remark;
  };
  map.addEventListener("pointerover", tell);
  map.addEventListener("focusin", tell);
  map.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [];
    const row = rows.findIndex((cells) => cells.includes(event.target));
    if (down === undefined || row < 0) return;
    event.preventDefault();
    const next = rows[row + down]?.[rows[row].indexOf(event.target) + right];
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// Charts: the points of the step nearest to the pointer, or of the step that the arrow keys have reached.
for (const chart of document.querySelectorAll(".chart")) {
  const plot = chart.querySelector(".plot");
  const cursor = chart.querySelector(".cursor");
  const remark = chart.querySelector(".remark");
  const legend = remark.innerHTML;
  const points = [...chart.querySelectorAll(".point")];
  const steps = [...new Set(points.map((point) => Number(point.dataset.step)))].sort((a, b) => a - b);
  let at = steps.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const shown = points.filter((point) => Number(point.dataset.step) === steps[at]);
    points.forEach((point) => point.classList.toggle("at", shown.includes(point)));
    cursor.hidden = false;
    cursor.style.left = shown[0].style.left;
    remark.textContent = `step ${steps[at]}: ${shown.map((point) => point.dataset.remark).join(", ")}`;
  };
  const hide = () => {
    points.forEach((point) => point.classList.remove("at"));
    cursor.hidden = true;
    remark.innerHTML = legend;
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const step = ((event.clientX - box.left) / box.width) * steps.at(-1);
    const distances = steps.map((other) => Math.abs(other - step));
    show(distances.indexOf(Math.min(...distances)));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => show(at));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    show(at + by);
  });
}
