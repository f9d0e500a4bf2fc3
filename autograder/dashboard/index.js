"use strict";
// Sorts, filters and unfolds the table of students. What is shown is kept behind the # of the address, so that a view
// can be reloaded, shared, and linked to from the rest of the page.
{
  const table = document.getElementById("students");
  const students = [...table.tBodies]; // one for each: the row, and what it unfolds to
  const heads = [...table.tHead.querySelectorAll("[data-sort]")];
  const selects = [...document.querySelectorAll(".tools select")];
  const search = document.getElementById("search");
  const order = new Intl.Collator("en", { numeric: true });
  const texts = new Map();
  let sort = ""; // the column, with - before it if the largest come first

  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

  const textOf = (student) => {
    if (!texts.has(student)) texts.set(student, fold(student.textContent));
    return texts.get(student);
  };

  const chosen = (student) =>
    selects.every(
      ({ name, selectedIndex }) =>
        selectedIndex === 0 || (student.dataset[name] ?? "").split(" ").includes(String(selectedIndex)),
    ) && fold(search.value).split(/\s+/).every((word) => !word || textOf(student).includes(word));

  const valueOf = (student, column) => {
    const cell = student.rows[0].cells[column];
    return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value && Number(cell.dataset.value);
  };

  const compare = (one, two, sign) => {
    if (one === "" || two === "") return (one === "") - (two === ""); // what is not known comes last either way
    return sign * (typeof one === "number" ? one - two : order.compare(one, two));
  };

  const sorted = () => {
    const head = heads.find((head) => head.dataset.sort === sort.replace("-", ""));
    if (!head) return students;
    const sign = sort.startsWith("-") ? -1 : 1;
    const keyed = students.map((student) => [valueOf(student, head.cellIndex), student]);
    return keyed.sort(([one], [two]) => compare(one, two, sign)).map(([, student]) => student);
  };

  const show = () => {
    for (const head of heads) {
      head.removeAttribute("aria-sort");
      if (head.dataset.sort === sort) head.setAttribute("aria-sort", "ascending");
      if ("-" + head.dataset.sort === sort) head.setAttribute("aria-sort", "descending");
    }
    let shown = 0;
    for (const student of students) {
      student.hidden = !chosen(student);
      shown += !student.hidden;
    }
    table.append(...sorted());
    document.getElementById("count").textContent = `${shown} of ${students.length} shown`;
    document.getElementById("nothing").hidden = shown > 0;
  };

  const keep = () => {
    const view = new URLSearchParams();
    for (const { name, value } of selects) if (value) view.set(name, value);
    if (search.value) view.set("q", search.value);
    if (sort) view.set("sort", sort);
    history.replaceState(null, "", "#" + view);
    show();
  };

  const restore = () => {
    const view = new URLSearchParams(location.hash.slice(1));
    for (const select of selects) {
      select.value = view.get(select.name) ?? "";
      if (select.selectedIndex < 0) select.selectedIndex = 0; // nobody is left who has that
    }
    search.value = view.get("q") ?? "";
    sort = view.get("sort") ?? "";
    show();
  };

  table.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const more = document.getElementById(button.getAttribute("aria-controls"));
    if (more) {
      more.hidden = !more.hidden;
      button.setAttribute("aria-expanded", String(!more.hidden));
      return;
    }
    const head = button.parentElement;
    const first = head.classList.contains("number") ? "-" : ""; // of numbers, the largest are looked for
    const other = first ? "" : "-";
    sort = (sort === first + head.dataset.sort ? other : first) + head.dataset.sort;
    keep();
  });
  for (const select of selects) select.addEventListener("change", keep);
  search.addEventListener("input", keep);
  document.getElementById("reset").addEventListener("click", () => {
    for (const select of selects) select.selectedIndex = 0;
    search.value = "";
    sort = "";
    keep();
  });
  document.addEventListener("click", ({ target }) => {
    if (target.closest("a[href^='#']")) document.getElementById("class").focus(); // which scrolls to the table
  });
  addEventListener("hashchange", restore);
  restore();
}
