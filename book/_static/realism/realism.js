/* The realism test: the reader judges cells one by one; cells.js holds the answers, cells.png the pictures. */
"use strict";

(function () {
  const base = document.currentScript.src.replace(/[^/]*$/, "");
  const SHOWN = 4; // times larger than the crop
  const Z = 1.959963984540054; // 95 %

  /* Wilson's interval of k out of n, as in cellbook.metrics.wilson. */
  function wilson(k, n) {
    if (n === 0) return [0, 1];
    const p = k / n;
    const centre = p + (Z * Z) / (2 * n);
    const half = Z * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n));
    const scale = 1 + (Z * Z) / n;
    return [Math.max(0, (centre - half) / scale), Math.min(1, (centre + half) / scale)];
  }

  /* Fisher-Yates; another order at every start. */
  function shuffled(n) {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i -= 1) {
      const j = Math.floor(Math.random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  function percent(value) {
    return (100 * value).toFixed(1) + " %";
  }

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "onclick") element.addEventListener("click", value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  /* Counts behind the score: answers[i] is true where cell order[i] was called real. */
  function score(made, order, answers) {
    const result = { drawn: 0, drawnCalledReal: 0, real: 0, realCalledDrawn: 0 };
    answers.forEach((calledReal, i) => {
      if (made[order[i]]) {
        result.drawn += 1;
        if (calledReal) result.drawnCalledReal += 1;
      } else {
        result.real += 1;
        if (!calledReal) result.realCalledDrawn += 1;
      }
    });
    return result;
  }

  function run(root, data) {
    const cells = base + (root.dataset.cells || ""); // folder of the pictures, where it is not that of this script
    const n = data.made.length;
    let order = shuffled(n);
    let answers = [];
    let started = null;
    let running = false;
    let focused = null; // the answer button that has the focus: true for Real, false for Drawn, null for none

    function picture(cell, scale, label) {
      const side = data.side * scale;
      const column = cell % data.across;
      const row = Math.floor(cell / data.across);
      const style =
        `width:${side}px;height:${side}px;background-image:url("${cells}cells.png");` +
        `background-size:${data.across * side}px auto;background-position:-${column * side}px -${row * side}px`;
      return make("div", { class: "realism-cell", role: "img", "aria-label": label, style });
    }

    function begin() {
      order = shuffled(n);
      answers = [];
      started = new Date();
      running = true;
      ask();
    }

    function ask() {
      const i = answers.length;
      const real = make("button", { type: "button", class: "realism-answer", onclick: () => answer(true) });
      real.append("Real", make("kbd", {}, "R"));
      const drawn = make("button", { type: "button", class: "realism-answer", onclick: () => answer(false) });
      drawn.append("Drawn", make("kbd", {}, "D"));
      const back = make("button", { type: "button", class: "realism-small", onclick: undo }, "Undo (U)");
      back.disabled = i === 0;
      root.replaceChildren(
        make("p", { class: "realism-count", "aria-live": "polite" }, `Cell ${i + 1} of ${n}`),
        make("progress", { max: n, value: i, "aria-label": "cells judged" }),
        picture(order[i], SHOWN, `cell ${i + 1} of ${n}, to be judged`),
        make("div", { class: "realism-buttons" }, real, drawn),
        back
      );
      // New buttons take the place of the old ones; who walks by the keyboard stays where they were.
      if (focused !== null) (focused ? real : drawn).focus({ preventScroll: true });
    }

    function answer(calledReal) {
      const at = document.activeElement;
      focused = at && at.classList.contains("realism-answer") && root.contains(at) ? calledReal : null;
      answers.push(calledReal);
      if (answers.length < n) ask();
      else finish();
    }

    function undo() {
      if (running && answers.length) {
        answers.pop();
        ask();
      }
    }

    function bar(label, value, low, high, kind) {
      const line = make("div", { class: "realism-bar" });
      const track = make("div", { class: "realism-track" });
      track.append(make("div", { class: `realism-fill ${kind}`, style: `width:${100 * value}%` }));
      if (low !== null) {
        const style = `left:${100 * low}%;width:${100 * (high - low)}%`;
        track.append(make("div", { class: "realism-interval", style }));
      }
      line.append(make("span", {}, label), track, make("span", { class: "realism-value" }, percent(value)));
      return line;
    }

    function saved(result) {
      const [low, high] = wilson(result.drawnCalledReal, result.drawn);
      return {
        test: "Cellbook realism test",
        run: data.run,
        screen: data.screen,
        started: started.toISOString(),
        finished: new Date().toISOString(),
        drawn_called_real: result.drawnCalledReal,
        drawn: result.drawn,
        score: result.drawnCalledReal / result.drawn,
        interval: [low, high],
        real_called_drawn: result.realCalledDrawn,
        real: result.real,
        published: data.published,
        cells: order.map((cell, i) => ({ cell, made: Boolean(data.made[cell]), called_real: answers[i] })),
      };
    }

    function save(result) {
      const text = JSON.stringify(saved(result), null, 1) + "\n";
      const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      const link = make("a", { href: address, download: "realism.json" });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    }

    function gallery(title, cells) {
      if (!cells.length) return "";
      const grid = make("div", { class: "realism-gallery" });
      for (const cell of cells) {
        const name = data.treatment[cell];
        grid.append(make("figure", {}, picture(cell, 1, `cell of ${name}`), make("figcaption", {}, name)));
      }
      return make("details", {}, make("summary", {}, `${title} (${cells.length})`), grid);
    }

    function finish() {
      running = false;
      focused = null;
      const result = score(data.made, order, answers);
      const value = result.drawnCalledReal / result.drawn;
      const [low, high] = wilson(result.drawnCalledReal, result.drawn);
      const fooled = order.filter((cell, i) => data.made[cell] && answers[i]);
      const right = result.drawn - result.drawnCalledReal + result.real - result.realCalledDrawn;
      const suspected = order.filter((cell, i) => !data.made[cell] && !answers[i]);
      const heading = make("p", { class: "realism-score", role: "status", tabindex: "-1" });
      heading.append(`You took ${result.drawnCalledReal} of ${result.drawn} drawn cells for real: ${percent(value)}`);
      const buttons = make("div", { class: "realism-buttons" });
      buttons.append(
        make("button", { type: "button", class: "realism-answer", onclick: () => save(result) }, "Save"),
        make("button", { type: "button", class: "realism-answer", onclick: begin }, "Again")
      );
      root.replaceChildren(
        heading,
        bar("drawn cells, you", value, low, high, "realism-you"),
        bar(`drawn cells, ${data.judges}`, data.published, null, null, "realism-paper"),
        bar("real cells that you took for drawn", result.realCalledDrawn / result.real, null, null, "realism-other"),
        bar("all cells that you judged right", right / n, null, null, "realism-other"),
        make(
          "p",
          {},
          `The thin line is a 95 % interval (${percent(low)} to ${percent(high)}). The more drawn cells are taken for real, ` +
            "the better the model draws; guessing takes half of both kinds for real. " +
            data.size
        ),
        gallery("Drawn cells that you took for real", fooled),
        gallery("Real cells that you took for drawn", suspected),
        buttons
      );
      heading.focus();
    }

    document.addEventListener("keydown", (event) => {
      if (!running || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
      const key = event.key.toLowerCase();
      if (key === "r") answer(true);
      else if (key === "d") answer(false);
      else if (key === "u" || key === "backspace") undo();
      else return;
      event.preventDefault();
    });

    const drawn = data.made.filter(Boolean).length;
    root.replaceChildren(
      make(
        "p",
        {},
        `${n} cells, ${n - drawn} as they are and ${drawn} ${data.how}, in an order that is new every time. ` +
          "Call each of them real or drawn; keys R and D, or the buttons."
      ),
      make("button", { type: "button", class: "realism-answer", onclick: begin }, "Start")
    );
  }

  window.realism = { wilson, score };
  function load() {
    const root = document.getElementById("realism");
    if (!root) return;
    if (window.REALISM) run(root, window.REALISM);
    else root.textContent = "The cells are missing: cells.js was not loaded.";
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", load);
  else load();
})();
