"use strict";
(() => {
  const data = JSON.parse(document.getElementById("provenance").textContent);
  const sources = document.getElementById("sources");
  const fullSize = document.getElementById("full-size");
  const collator = new Intl.Collator("en", { numeric: true });

  // What a cell is sorted by: its number, else its text.
  const keyOf = (cell) => (cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v));

  // Numbers before words; empty cells last in both directions.
  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const words = [typeof a === "string", typeof b === "string"];
    if (words[0] !== words[1]) return sign * (words[0] - words[1]);
    return sign * (words[0] ? collator.compare(a, b) : a - b);
  };

  // The first click sorts upwards, the next one downwards; equal rows keep their order, as Array.sort is stable.
  const sort = (head) => {
    const table = head.closest("table");
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[head.cellIndex]), row]);
    rows.sort((a, b) => compare(a[0], b[0], sign));
    table.tBodies[0].append(...rows.map((entry) => entry[1]));
  };

  const filter = (input) => {
    const rows = [...document.getElementById(input.dataset.filters).tBodies[0].rows];
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    const all = `${rows.length} rows`;
    input.closest(".filter").querySelector("output").textContent = words.length ? `${shown} of ${all}` : all;
  };

  const add = (parent, name, text) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };

  // One line per record: its file, what it contributes to the cell, and what else is known about it.
  const addRecords = (parent, runs) => {
    const valued = runs.some((run) => run[1] !== "");
    const box = add(parent, "div");
    box.className = "wide";
    const table = add(box, "table");
    const line = (section, cells, heads) => {
      const row = add(section, "tr");
      cells.forEach((text, i) => {
        const cell = add(row, i < heads ? "th" : "td", text);
        if (i < heads) cell.scope = heads > 1 ? "col" : "row";
      });
    };
    const cells = ([first, ...others], value) => [first, ...(valued ? [value] : []), ...others];
    const titles = cells(data.fields, "gives");
    line(add(table, "thead"), titles, titles.length);
    const body = add(table, "tbody");
    for (const [run, value] of runs) line(body, cells(data.records[run], value), 1);
  };

  const showRecords = (button) => {
    sources.querySelector("h2").textContent = `${button.dataset.title}: ${button.textContent}`;
    const content = sources.querySelector("div");
    content.replaceChildren();
    for (const [role, runs] of data.cells[Number(button.dataset.p)]) {
      add(content, "h3", runs.length > 1 ? `${role} (${runs.length} records)` : role);
      if (runs.length) addRecords(content, runs);
    }
    sources.showModal();
    sources.scrollTop = 0;
  };

  const showPicture = (button) => {
    fullSize.querySelector("div").replaceChildren(button.querySelector("img").cloneNode());
    fullSize.showModal();
    fullSize.scrollTop = 0;
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) {
      if (event.target === sources || event.target === fullSize) event.target.close(); // beside the dialog
    } else if (button.closest("thead th")) sort(button.closest("th"));
    else if (button.dataset.p !== undefined) showRecords(button);
    else if (button.classList.contains("zoom")) showPicture(button);
  });
  document.addEventListener("input", (event) => {
    if (event.target.dataset.filters) filter(event.target);
  });
})();
