/* Sorting, searching, hiding, copying and looking closely. Without scripts the page says the same, standing still. */
"use strict";
(() => {
  const make = (tag, words, attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = words;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const button = (words, act, attributes = {}) => {
    const made = make("button", words, { type: "button", ...attributes });
    made.addEventListener("click", act);
    return made;
  };

  /* A cell as words: its value, and what stands small below it, in brackets. */
  const words = cell => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll("[aria-hidden=true], .arrow").forEach(hidden => hidden.remove());
    const small = [...copy.querySelectorAll("small")].map(part => {
      const text = part.textContent.trim().replace(/\s+/g, " ");
      part.remove();
      return text;
    });
    const value = copy.textContent.trim().replace(/\s+/g, " ");
    if (!value) return small.join("; ");
    return small.length ? `${value} (${small.join("; ")})` : value;
  };
  const grid = table => [...table.rows].filter(row => !row.hidden).map(row => {
    const cells = [...row.cells].filter(cell => !cell.hidden);
    return cells.flatMap(cell => [words(cell), ...Array(cell.colSpan - 1).fill("")]);
  });
  const even = rows => {
    const width = Math.max(...rows.map(row => row.length));
    return rows.map(row => [...row, ...Array(width - row.length).fill("")]);
  };

  const csvCell = text => {
    const safe = /^[=+\-@\t]/.test(text) && !/^-?[\d.]+$/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const inLatex = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "—": "---", "–": "--", "±": "$\\pm$", "ℓ": "$\\ell$", "∞": "$\\infty$", "≤": "$\\leq$" };
  const latexCell = text => text.replace(/[\\~^—–±ℓ∞≤]|[&%$#_{}]/g, sign => inLatex[sign] || `\\${sign}`);
  const forms = {
    Markdown: rows => {
      const lines = rows.map(row => `| ${row.map(text => text.replaceAll("|", "\\|")).join(" | ")} |`);
      return [lines[0], `|${"---|".repeat(rows[0].length)}`, ...lines.slice(1)].join("\n");
    },
    LaTeX: rows => {
      const lines = rows.map(row => `${row.map(latexCell).join(" & ")} \\\\`);
      return [`\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\toprule", lines[0], "\\midrule", ...lines.slice(1), "\\bottomrule", "\\end{tabular}"].join("\n");
    },
    CSV: rows => rows.map(row => row.map(csvCell).join(",")).join("\n"),
  };

  const status = make("p", "", { role: "status", class: "unseen" });
  document.body.append(status);
  const copy = async (text, said) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    status.textContent = said;
  };

  const number = cell => {
    const read = parseFloat(cell.textContent.replaceAll(",", ""));
    return Number.isNaN(read) ? null : read;
  };
  const sort = (table, place, heading) => {
    const rising = heading.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    const compare = (one, other) => {
      const [a, b] = [one, other].map(row => number(row.cells[place]));
      if (a === null && b === null) return words(one.cells[place]).localeCompare(words(other.cells[place]));
      if (a === null || b === null) return a === null ? 1 : -1;
      return rising ? a - b : b - a;
    };
    table.tBodies[0].append(...rows.sort(compare));
    status.textContent = `Sorted by ${words(heading)}, ${rising ? "smallest" : "largest"} first`;
  };
  const isPlain = table => table.tBodies.length === 1 && table.tHead && table.tHead.rows.length === 1;

  document.querySelectorAll(".scroll > table").forEach(table => {
    const bar = make("div", "", { class: "tools" });
    for (const [form, write] of Object.entries(forms)) {
      bar.append(button(`Copy as ${form}`, () => copy(write(even(grid(table))), `Table copied as ${form}`)));
    }
    if (isPlain(table) && table.className !== "matrix" && table.tBodies[0].rows.length > 1) {
      [...table.tHead.rows[0].cells].forEach((heading, place) => {
        const label = make("span", "", { class: "label" });
        label.append(...heading.childNodes);
        const sorter = button("", () => sort(table, place, heading), { class: "sorter" });
        sorter.append(label, make("span", "", { class: "arrow", "aria-hidden": "true" }));
        heading.append(sorter);
      });
    }
    if (table.tBodies.length === 1 && table.tBodies[0].rows.length > 7) {
      const field = make("input", "", { type: "search", placeholder: "Search rows", "aria-label": "Search rows" });
      field.addEventListener("input", () => {
        const wanted = field.value.toLowerCase();
        for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
      });
      bar.prepend(field);
    }
    if (table.id === "headline") {
      const attacks = [...table.tHead.rows[0].cells].filter(cell => cell.classList.contains("attack"));
      attacks.forEach(heading => {
        const place = heading.cellIndex;
        const box = make("input", "", { type: "checkbox" });
        box.checked = true;
        box.addEventListener("change", () => [...table.rows].forEach(row => { row.cells[place].hidden = !box.checked; }));
        const label = make("label", "");
        label.append(box, ` ${words(heading)}`);
        bar.append(label);
      });
    }
    table.parentElement.before(bar);
  });

  /* Filters over the images of all panels. */
  const samples = [...document.querySelectorAll(".sample")];
  const filters = document.getElementById("filters");
  if (filters && samples.length) {
    const chosen = {};
    for (const name of ["class", "outcome", "attack"]) {
      const values = [...new Set(samples.map(sample => sample.dataset[name]).filter(Boolean))].sort();
      if (values.length < 2) continue;
      const select = make("select", "");
      select.append(make("option", "all", { value: "" }), ...values.map(value => make("option", value, { value })));
      select.addEventListener("change", () => {
        chosen[name] = select.value;
        let shown = 0;
        samples.forEach(sample => {
          sample.hidden = Object.entries(chosen).some(([key, value]) => value && sample.dataset[key] !== value);
          shown += sample.hidden ? 0 : 1;
        });
        status.textContent = `${shown} images shown`;
      });
      const label = make("label", `${name} `);
      label.append(select);
      filters.append(label);
    }
  }

  /* One image, large: a slider from clean to attacked, and a layer over either. */
  const slider = (name, value, act) => {
    const range = make("input", "", { type: "range", min: 0, max: 100, value });
    range.addEventListener("input", () => act(range.value));
    const label = make("label", `${name} `);
    label.append(range);
    act(value);
    return label;
  };
  const look = sample => {
    const tile = name => sample.querySelector(`img[data-tile="${name}"]`);
    const dialog = make("dialog", "", { "aria-label": "Image, large" });
    const stage = make("div", "", { class: "stage" });
    const layer = (image, kind) => {
      const shown = make("img", "", { src: image.src, alt: image.alt, class: kind });
      stage.append(shown);
      return shown;
    };
    const controls = make("div", "", { class: "controls" });
    layer(tile("clean"), "below");
    const above = tile("attacked") ? layer(tile("attacked"), "above") : null;
    if (above) controls.append(slider("clean ⟷ attacked", 50, share => stage.style.setProperty("--cut", `${share}%`)));
    const pairs = [["map", "map attacked"], ["parts", "parts attacked"], ["true parts", ""], ["radius", ""], ["change", ""]];
    const there = pairs.filter(([name]) => tile(name));
    if (there.length) {
      const select = make("select", "");
      select.append(make("option", "nothing", { value: "" }), ...there.map(([name]) => make("option", name, { value: name })));
      const label = make("label", "over it ");
      label.append(select);
      controls.append(label);
      select.addEventListener("change", () => {
        stage.querySelectorAll(".over").forEach(image => image.remove());
        const pair = there.find(([name]) => name === select.value);
        if (!pair) return;
        const [first, second] = pair;
        const both = second && above;
        layer(tile(first), both ? "over below" : "over");
        if (both) layer(tile(second) || tile(first), "over above");
      });
      controls.append(slider("strength", 50, share => stage.style.setProperty("--strength", share / 100)));
    }
    const caption = sample.querySelector("figcaption").cloneNode(true);
    const told = make("div", "", { class: "told-of" });
    told.append(...caption.childNodes);
    dialog.append(stage, controls, told, button("Close", () => dialog.close(), { class: "close" }));
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
    document.body.append(dialog);
    dialog.showModal();
  };
  samples.forEach(sample => {
    const open = button("Look closely", () => look(sample), { class: "open" });
    sample.append(open);
    sample.querySelectorAll(".tiles img").forEach(image => image.addEventListener("click", () => look(sample)));
  });
  document.documentElement.classList.add("scripted");
})();
