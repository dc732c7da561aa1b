"use strict";
// The page works without this script too: it then loads anew with each result.

const form = document.getElementById("upload");
const files = document.getElementById("files");
const drop = document.getElementById("drop");
const result = document.getElementById("result");
const status_ = document.getElementById("status");
let latest = 0;

async function show(address, options) {
  const mine = ++latest;
  status_.textContent = "Predicting ...";
  result.setAttribute("aria-busy", "true");
  let text;
  try {
    const answer = await fetch(address, { ...options, headers: { "X-Part": "result" } });
    text = await answer.text();
    if (!(answer.headers.get("Content-Type") || "").startsWith("text/html")) {
      text = problem(`The server answered: ${text.slice(0, 200)}`);
    }
  } catch {
    text = problem("The server does not answer. Is the program still running, and are the files still there?");
  }
  if (mine === latest) place(text);
}

function place(text) {
  status_.textContent = "";
  result.removeAttribute("aria-busy");
  result.innerHTML = text;
  result.focus({ preventScroll: true });
  result.scrollIntoView({ block: "start" });
}

function problem(message) {
  const section = document.createElement("section");
  section.className = "problem";
  section.setAttribute("role", "alert");
  section.appendChild(document.createElement("h2")).textContent = "No result";
  section.appendChild(document.createElement("p")).textContent = message;
  return section.outerHTML;
}

function send() {
  const data = new FormData(form);
  const limit = Number(form.dataset.limit);
  const total = [...data.values()].reduce((sum, value) => sum + (value.size || 0), 0);
  if (total > limit) {
    latest++;
    place(problem(`The files have ${(total / 1048576).toFixed(1)} MB, more than the limit of ${limit / 1048576} MB.`));
    return;
  }
  show(form.action, { method: "POST", body: data });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

files.addEventListener("change", () => {
  document.querySelectorAll(".stains input").forEach((input) => { input.value = ""; });
  result.replaceChildren();
  if (files.files.length) send();
});

document.querySelectorAll(".stains input").forEach((input) => input.addEventListener("change", () => { files.value = ""; }));

result.addEventListener("change", (event) => {
  if (event.target.id === "sample") send();
});

result.addEventListener("click", (event) => {
  const button = event.target.closest(".zoom");
  if (button) button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
});

document.querySelectorAll("[data-example]").forEach((link) => link.addEventListener("click", (event) => {
  event.preventDefault();
  form.reset();
  show(link.href, {});
}));

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) {
    files.files = event.dataTransfer.files;
    files.dispatchEvent(new Event("change"));
  }
});
