"use strict";

const files = JSON.parse(document.getElementById("files").textContent);
const viewer = document.getElementById("viewer");

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", () => {
    document.getElementById("viewer-title").textContent = button.dataset.id;
    viewer.querySelectorAll("img").forEach((image, channel) => {
      image.src = `data:image/webp;base64,${files[button.dataset.sample][channel]}`;
    });
    viewer.showModal();
  });
}

viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close();
});

const keyOf = (row, column) => {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
};

const compare = (one, other) => (typeof one === "string" ? one.localeCompare(other) : one - other);

for (const head of document.querySelectorAll("th")) {
  head.firstElementChild.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows];
    const numeric = rows.some((row) => "value" in row.cells[head.cellIndex].dataset);
    // The first click sorts numbers in descending and text in ascending order.
    const before = head.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : !numeric;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    // Missing values come last in either order.
    const missing = rows.filter((row) => Number.isNaN(keyOf(row, head.cellIndex)));
    const sorted = rows.filter((row) => !missing.includes(row));
    sorted.sort((one, other) => compare(keyOf(one, head.cellIndex), keyOf(other, head.cellIndex)));
    if (!ascending) sorted.reverse();
    body.append(...sorted, ...missing);
  });
}

const miniatures = JSON.parse(document.getElementById("miniatures").textContent);

for (const plane of document.querySelectorAll(".plane")) {
  const dots = [...plane.querySelectorAll("circle")];
  const picture = new Image();
  plane.querySelector("select").addEventListener("change", (event) => {
    for (const dot of dots) dot.classList.toggle("chosen", dot.dataset.labels.split(" ").includes(event.target.value));
  });
  dots.forEach((dot, number) => {
    dot.addEventListener("pointerover", () => {
      picture.src = `data:image/webp;base64,${miniatures[number]}`;
      plane.querySelector(".seen").prepend(picture);
      plane.querySelector("p").textContent = dot.querySelector("title").textContent;
    });
  });
}
