"use strict";
const table = document.getElementById("variants");
const body = table.tBodies[0];
for (const [index, head] of [...table.tHead.rows[0].cells].entries()) {
  head.querySelector("button").addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = (row) => row.cells[index].dataset.sort ?? row.cells[index].textContent;
    const numeric = head.classList.contains("number");
    const rows = [...body.rows].sort((a, b) => numeric ? (Number(key(a)) || 0) - (Number(key(b)) || 0) : key(a).localeCompare(key(b)));
    body.append(...(ascending ? rows : rows.reverse()));
  });
}
const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of body.rows) row.hidden = !words.every((w) => row.textContent.toLowerCase().includes(w));
});
