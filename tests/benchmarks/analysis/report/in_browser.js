// What a reader does with the page; runs at its end. Findings go into the page, or to the one that it is framed in.
(() => {
  const all = (selector, from) => [...(from || document).querySelectorAll(selector)];
  const cells = (table, column) => all("tbody tr", table).map((row) => row.cells[column]);
  const order = (table, column) => cells(table, column).map((cell) => cell.dataset.v ?? cell.textContent);
  const names = (table) => order(table, 0);
  const root = document.documentElement;
  const found = { width: root.clientWidth, scroll: root.scrollWidth, errors: window.errors };

  const clickHeads = () => {
    found.sorted = {};
    for (const table of all("main table")) {
      all("thead button", table).forEach((button, column) => {
        const head = button.closest("th");
        const entry = { before: [names(table), order(table, column)] };
        button.focus();
        entry.focused = document.activeElement === button;
        for (const way of ["ascending", "descending"]) {
          button.click();
          entry[way] = [names(table), order(table, column)];
          entry[`${way} said`] = [head.getAttribute("aria-sort"), all("th[aria-sort]", table).length];
        }
        found.sorted[`${table.id} ${column}`] = entry;
      });
    }
  };

  const typeWords = () => {
    const input = document.querySelector("input[data-filters='table-pretrain']");
    found.filtered = ["(NCA) mlo", "no such row", ""].map((words) => {
      input.value = words;
      input.dispatchEvent(new Event("input", { bubbles: true }));
      const rows = all("#table-pretrain tbody tr").filter((row) => row.offsetHeight > 0);
      const said = input.closest(".filter").querySelector("output").textContent;
      return [rows.map((row) => row.cells[0].textContent), said];
    });
  };

  const askForRecords = () => {
    const dialog = document.getElementById("sources");
    found.dialogs = all("main button[data-p]").map((button) => {
      button.click();
      const box = dialog.getBoundingClientRect();
      const texts = (row) => [...row.cells].map((cell) => cell.textContent);
      const rows = all("table", dialog).map((table) => all("tr", table).map(texts));
      const shown = {
        entry: Number(button.dataset.p), open: dialog.open, title: dialog.querySelector("h2").textContent, rows,
        roles: all("h3", dialog).map((h) => h.textContent), inside: box.left >= 0 && box.right <= root.clientWidth,
      };
      dialog.querySelector("form button").click();
      shown.closed = !dialog.open;
      return shown;
    });
  };

  const lookAtPictures = () => {
    const dialog = document.getElementById("full-size");
    found.pictures = all(".zoom").map((button) => {
      const image = button.querySelector("img");
      button.click();
      const large = dialog.querySelector("img");
      const seen = [image.complete && image.naturalWidth > 0, image.getBoundingClientRect().right <= root.clientWidth,
        dialog.open, large.src === image.src, large.getBoundingClientRect().width >= 1000];
      dialog.querySelector("form button").click();
      return seen;
    });
  };

  // The box of a table scrolls, its head and its first column stay.
  const scrollTables = () => {
    found.boxes = all("main .wide").map((box) => {
      const [head, first, last] = ["th", "tbody th", "td:last-child"].map((which) => box.querySelector(which));
      const place = box.getBoundingClientRect();
      [box.scrollTop, box.scrollLeft] = [1e6, 1e6];
      const [corner, side, end] = [head, first, last].map((cell) => cell.getBoundingClientRect());
      return { wider: box.scrollWidth > box.clientWidth, taller: box.scrollHeight > box.clientHeight,
        head: Math.abs(corner.top - place.top), side: Math.abs(side.left - place.left),
        end: end.right - place.right, inside: place.left >= 0 && place.right <= root.clientWidth };
    });
  };

  const run = async () => {
    await Promise.all(all("img").map((image) => image.decode().catch(() => undefined)));
    if (window.framed) [scrollTables, lookAtPictures].forEach((part) => part());
    else [scrollTables, lookAtPictures, clickHeads, typeWords, askForRecords].forEach((part) => part());
    found.scrollAfter = root.scrollWidth;
    const text = JSON.stringify(found);
    if (window.framed) parent.postMessage([window.framed, text], "*");
    else {
      const element = document.createElement("pre");
      element.id = "findings";
      element.textContent = text;
      document.body.append(element);
    }
  };
  run().catch((error) => { window.errors.push(String(error)); document.title = String(error); });
})();
