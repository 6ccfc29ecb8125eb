"use strict";
// Sorting, searching and switching of boards. Rows are only hidden and moved: what they say is in the page already.
for (const board of document.querySelectorAll(".board")) {
  const form = board.querySelector(".controls");
  const body = board.querySelector("tbody");
  const heads = [...board.querySelectorAll("thead th")];
  const rows = [...body.rows];
  const search = form.querySelector("input[type=search]");
  const radios = [...form.querySelectorAll("input[type=radio]")];
  const data = form.querySelector("select");
  const ticks = [...form.querySelectorAll("input[type=checkbox]")];
  const main = heads.findIndex(head => head.dataset.key === board.dataset.main);
  const column = key => heads.findIndex(head => head.dataset.key === key);
  let sorted = main;
  let falling = true;

  const value = (row, place) => {
    const cell = row.cells[place];
    const text = (cell.firstChild ? cell.firstChild.textContent : "").trim();
    if (!heads[place].classList.contains("number")) return cell.textContent.trim().toLowerCase();
    const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
    return Number.isNaN(number) ? null : number;
  };

  const compare = (first, second) => {
    const [a, b] = [value(first, sorted), value(second, sorted)];
    if (a === null || b === null) return (a === null) - (b === null);  // empty cells come last either way
    const order = typeof a === "number" ? a - b : a.localeCompare(b);
    return falling ? -order : order;
  };

  const show = () => {
    const chosen = radios.find(radio => radio.checked);
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(ticks.filter(tick => tick.checked).map(tick => tick.value));
    let count = 0;
    rows.sort(compare);
    for (const row of rows) {
      const text = row.cells[1].textContent.toLowerCase();
      row.hidden = (chosen && row.dataset.protocol !== chosen.value) || row.dataset.data !== data.value
        || (row.dataset.origin !== "ours" && !wanted.has(row.dataset.origin))
        || !words.every(word => text.includes(word));
      if (!row.hidden) row.cells[0].textContent = ++count;
      body.append(row);
    }
    heads.forEach((head, place) => {
      if (place === sorted) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    form.querySelector("output").textContent = count === 1 ? "1 row" : `${count} rows`;
  };

  // A protocol without any row on these data would show nothing: choose one that has some.
  const choose = () => {
    const there = radio => rows.some(row => row.dataset.data === data.value && row.dataset.protocol === radio.value);
    radios.forEach(radio => { radio.disabled = !there(radio); });
    const chosen = radios.find(radio => radio.checked);
    if (!chosen || chosen.disabled) {
      const first = radios.find(radio => !radio.disabled);
      if (first) first.checked = true;
    }
    show();
  };

  heads.forEach((head, place) => {
    if (!head.dataset.key || head.dataset.key === "rank") return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      falling = sorted === place ? !falling : head.classList.contains("number");
      sorted = place;
      show();
    });
  });
  for (const key of ["protocol", "data"]) {
    const place = column(key);
    [heads[place], ...rows.map(row => row.cells[place])].forEach(cell => { cell.hidden = true; });
  }
  form.addEventListener("submit", event => event.preventDefault());
  search.addEventListener("input", show);
  [...radios, ...ticks].forEach(input => input.addEventListener("change", show));
  data.addEventListener("change", choose);
  form.hidden = false;
  choose();
}
