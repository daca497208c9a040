// Sorts and filters the table of runs; without it the table is whole and as written.
"use strict";
(() => {
  const table = document.querySelector("table.runs");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const words = rows.map((row) => row.textContent.toLowerCase());

  const bar = document.createElement("div");
  bar.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "filter: thanos 2:4";
  input.setAttribute("aria-label", "filter the runs: all of these words");
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = "show all";
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  bar.append(input, all, count);
  table.parentElement.before(bar);

  let asked = null; // ids of the runs behind the number that was followed
  const show = () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      const ours = asked === null || asked.has(row.id);
      row.hidden = !(ours && wanted.every((word) => words[index].includes(word)));
      row.classList.toggle("asked", asked !== null && ours);
      shown += !row.hidden;
    });
    count.textContent = `${shown} of ${rows.length} runs`;
    all.hidden = shown === rows.length;
  };
  input.addEventListener("input", () => { asked = null; show(); });
  all.addEventListener("click", () => { asked = null; input.value = ""; show(); });
  document.addEventListener("click", (event) => {
    const number = event.target.closest("a[data-runs]");
    if (number === null) return;
    asked = new Set(number.dataset.runs.split(" "));
    input.value = "";
    show();
  });

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim() : Number(cell.dataset.key);
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
    return typeof a === "number" ? -1 : 1; // what has no number stays below
  };
  heads.forEach((head, column) => {
    if ("unsorted" in head.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const sorted = rows.map((row) => [key(row, column), row]);
      sorted.sort(([a], [b]) => {
        const place = compare(a, b);
        return up || typeof a !== typeof b ? place : -place;
      });
      body.append(...sorted.map(([, row]) => row));
    });
  });
  show();
})();
