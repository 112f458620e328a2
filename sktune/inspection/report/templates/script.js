"use strict";
(function () {
  const table = document.getElementById("candidates");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const rows = Array.from(body.rows);
  const filters = document.getElementById("filters");
  const text = document.getElementById("filter-text");
  const column = document.getElementById("filter-column");
  const low = document.getElementById("filter-low");
  const high = document.getElementById("filter-high");
  const count = document.getElementById("filter-count");

  function textOf(row, place) {
    return row.cells[place].textContent;
  }

  function numberOf(row, place) {
    const words = textOf(row, place).trim();
    return words === "" ? NaN : Number(words.replace("inf", "Infinity"));
  }

  // what is no number is last, whichever the direction
  function compare(place, isNumber, sign) {
    return function (a, b) {
      if (!isNumber) {
        const [x, y] = [textOf(a, place), textOf(b, place)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * x.localeCompare(y, "en", { numeric: true });
      }
      const [x, y] = [numberOf(a, place), numberOf(b, place)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return x === y ? 0 : sign * (x < y ? -1 : 1);
    };
  }

  function sortBy(head) {
    const isUp = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
    const isNumber = head.dataset.type === "number";
    rows.sort(compare(heads.indexOf(head), isNumber, isUp ? 1 : -1));
    body.append(...rows);
  }

  function isWithin(row) {
    const place = Number(column.value);
    if (low.value === "" && high.value === "") return true;
    const number = numberOf(row, place);
    if (Number.isNaN(number)) return false;
    return !(low.value !== "" && number < Number(low.value))
      && !(high.value !== "" && number > Number(high.value));
  }

  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const content = Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !(words.every((word) => content.includes(word)) && isWithin(row));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown + " of " + rows.length + " candidates shown";
  }

  for (const head of heads) {
    // a button is reached and pressed by keyboard as by mouse
    const button = document.createElement("button");
    button.type = "button";
    button.append(head.firstChild);
    head.prepend(button);
    button.addEventListener("click", () => sortBy(head));
  }
  for (const input of [text, column, low, high]) input.addEventListener("input", filter);
  document.getElementById("filter-reset").addEventListener("click", function () {
    for (const input of [text, low, high]) input.value = "";
    filter();
    text.focus();
  });
  filters.hidden = false;
  filter();
})();
