"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("threshold");
  const CELL = 24;
  const LINE = 2;
  const count = (number) => Math.round(number).toLocaleString("en-US");
  const share = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "-");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Charts ------------------------------------------------------------------------------------------------
  function themed(layout) {
    const axis = (own) => ({
      ...own, gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"),
      automargin: true, fixedrange: true,
    });
    return {
      ...layout,
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { bgcolor: colour("--card"), font: { color: colour("--text") } },
      margin: { l: 48, r: 12, t: 8, b: 40 }, dragmode: false, hovermode: "closest",
      showlegend: true, legend: { orientation: "h", x: 0, y: -0.22 },
    };
  }

  function drawCharts() {
    for (const chart of data.charts) {
      const layout = themed(chart.layout);
      if (chart.id === "curve") layout.shapes = [thresholdLine()];
      Plotly.react(`chart-${chart.id}`, chart.traces, layout, { displayModeBar: false, responsive: true });
    }
  }

  function thresholdLine() {
    const x = data.steps[slider.value];
    return { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1,
      line: { color: colour("--accent"), width: 2, dash: "dot" } };
  }

  // Overlays ----------------------------------------------------------------------------------------------
  // A patch begins a group where its bin is no larger than the threshold's place among the edges.
  function groups(bins, place) {
    const found = [];
    bins.forEach((bin, patch) => {
      if (bin <= place) found.push([patch, 1]);
      else found[found.length - 1][1] += 1;
    });
    return found;
  }

  function paint(canvas, bins, cols, place, hasImage) {
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (const [patch, size] of groups(bins, place)) {
      const x = (patch % cols) * CELL;
      const y = Math.floor(patch / cols) * CELL;
      if (!hasImage || size > 1) {
        const light = 92 - Math.round((52 * (size - 1)) / Math.max(1, cols - 1));
        pen.fillStyle = `hsl(215 60% ${light}%)`;
        pen.globalAlpha = hasImage ? 0.3 : 1;
        pen.fillRect(x, y, size * CELL, CELL);
        pen.globalAlpha = 1;
      }
      pen.fillStyle = hasImage ? "#ffe066" : "#101820";
      pen.fillRect(x, y, LINE, CELL);
      pen.fillRect(x, y, size * CELL, LINE);
    }
  }

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const painters = [];
  function buildOverlays() {
    data.stores.forEach((store, number) => {
      const where = document.getElementById(`overlays-${number}`);
      for (const video of store.overlays) {
        const card = element("div", "card overlay");
        card.append(element("h4", "", video.id));
        const line = element("p", "note");
        card.append(line);
        const shots = element("div", "shots");
        for (const shot of video.shots) {
          const frame = element("div", "shot");
          frame.style.aspectRatio = String(video.aspect);
          frame.title = `frame ${shot.frame}, ${shot.seconds.toFixed(2)} s`;
          if (shot.image) {
            const image = element("img");
            image.src = shot.image;
            image.alt = frame.title;
            frame.append(image);
          }
          const canvas = element("canvas");
          canvas.width = store.cols * CELL;
          canvas.height = store.rows * CELL;
          frame.append(canvas);
          frame.addEventListener("click", () => frame.classList.toggle("large"));
          shots.append(frame);
          painters.push((step) => paint(canvas, shot.bins, store.cols, store.places[step], Boolean(shot.image)));
        }
        card.append(shots);
        where.append(card);
        painters.push((step) => {
          const tokens = video.curve[store.places[step]];
          line.textContent = `keeps ${share(tokens, video.patches)}: ${count(tokens)} tokens of ${count(video.frames)} frames`;
        });
      }
    });
  }

  // The slider --------------------------------------------------------------------------------------------
  function show() {
    const step = Number(slider.value);
    const threshold = data.steps[step];
    document.getElementById("threshold-value").textContent = threshold.toFixed(4).replace(/0{1,2}$/, "");
    const above = data.stores.some((store) => threshold > store.stored);
    document.getElementById("threshold-note").textContent = above
      ? "Above the stored threshold: tokens are counted here, but a store cannot give them."
      : "Any threshold up to the stored one can be had while loading.";
    data.stores.forEach((store, number) => {
      const tokens = store.curve[store.places[step]];
      const put = (kind, text) => { document.getElementById(`now-${kind}-${number}`).textContent = text; };
      put("tokens", count(tokens));
      put("kept", share(tokens, store.patches));
      put("frame", store.frames ? (tokens / store.frames).toFixed(1) : "-");
      put("video", store.videos ? count(tokens / store.videos) : "-");
    });
    for (const painter of painters) painter(step);
    Plotly.relayout("chart-curve", { shapes: [thresholdLine()] });
  }

  let waiting = false;
  slider.addEventListener("input", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(); });
  });

  // Light and dark ----------------------------------------------------------------------------------------
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    drawCharts();
  });
  system.addEventListener("change", drawCharts);

  slider.max = String(data.steps.length - 1);
  slider.value = String(data.steps.indexOf(data.start));
  buildOverlays();
  drawCharts();
  show();
})();
