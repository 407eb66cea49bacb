"use strict";
(() => {
  // More rows make a page that nobody scrolls through.
  const FIRST_ROWS = 50;

  const table = document.querySelector("table.files");
  const controls = document.querySelector(".controls");
  if (!table || !controls) return;
  const [search, kind] = controls.querySelectorAll("input, select");
  const status = document.querySelector(".shown");
  const more = document.querySelector(".more");
  const heads = Array.from(table.tHead.rows[0].cells);
  const rows = Array.from(table.tBodies[0].rows);
  const kindColumns = heads.flatMap((head, column) => (head.classList.contains("kind") ? [column] : []));
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const kinds = new Map(
    rows.map((row) => [row, kindColumns.flatMap((column) => row.cells[column].textContent.split(", "))]),
  );
  const collator = new Intl.Collator(undefined, { numeric: true });
  let sorted = rows;
  let limit = FIRST_ROWS;

  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/);
    const found = sorted.filter(
      (row) =>
        words.every((word) => texts.get(row).includes(word)) && (!kind.value || kinds.get(row).includes(kind.value)),
    );
    table.tBodies[0].replaceChildren(...found.slice(0, limit));
    const shown = Math.min(limit, found.length);
    const [first, second, all] = [shown, found.length, rows.length].map((count) => count.toLocaleString("en"));
    status.textContent =
      second === all
        ? `${first} of ${all} files are shown.`
        : `${first} of ${second} found files are shown, of ${all} in all.`;
    more.hidden = first === second;
    more.textContent = `Show all ${second}`;
    return found;
  };

  const key = (row, column, isNumber) => {
    const cell = row.cells[column];
    // The reason of a failure takes the place of several cells.
    if (!cell || cell.colSpan > 1 || !cell.textContent) return null;
    return isNumber ? Number(cell.textContent.replaceAll(",", "")) : cell.textContent;
  };

  const sort = (column) => {
    const head = heads[column];
    const isNumber = head.classList.contains("number");
    const order = head.getAttribute("aria-sort");
    const isDescending = order ? order === "ascending" : isNumber;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
    const keyed = rows.map((row) => [key(row, column, isNumber), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const difference = isNumber ? a - b : collator.compare(a, b);
      return isDescending ? -difference : difference;
    });
    sorted = keyed.map(([, row]) => row);
    show();
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  search.addEventListener("input", show);
  kind.addEventListener("change", show);
  more.addEventListener("click", () => {
    const first = limit;
    limit = Infinity;
    show()[first].querySelector("a")?.focus();
  });
  table.classList.add("sortable");
  controls.hidden = false;
  show();
})();
