// Shows, filters, sorts and searches the unpacked chains. Their text is hostile: it reaches the page by textContent alone.
"use strict";
(() => {
  const PAGE_CHAINS = 20;
  const FOLD_CHARACTERS = 1500;
  const LINK = "#chain=";
  const root = document.getElementById("browser");
  const form = root.querySelector("form");
  const list = root.querySelector(".chains");
  const found = root.querySelector(".found");
  const progress = root.querySelector("progress");
  const paging = root.querySelector(".paging");
  const [previous, next] = paging.querySelectorAll("button");
  const position = paging.querySelector(".place");
  const filters = [...form.querySelectorAll("select.filter")];
  const { search, least, most, order, clear } = form.elements;
  const number = (value) => value.toLocaleString("en-US");
  const orders = {};
  let rows, columns, colours, matching;
  let page = 0;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const value = (name, row) => columns[name].values[columns[name].codes[row]];
  const idOf = (row) => [
    ...["model", "plan", "problem", "thought"].map((name) => value(name, row)),
    String(columns.index[row]).padStart(3, "0"),
  ].join("/");

  function head(row) {
    const box = element("p", "chain-head");
    const word = value("reason", row);
    const reason = element("span", "reason", word.replaceAll("_", " "));
    if (Object.hasOwn(colours, word)) reason.style.setProperty("--reason", `var(--${colours[word]})`);
    const told = [value("wording", row), value("problem", row), `chain ${columns.index[row]}`];
    if (!value("wording", row).endsWith(value("thought", row))) told.splice(1, 0, value("thought", row));
    if (columns.tokens[row]) told.push(`${number(columns.tokens[row])} tokens`);
    if (!Number.isNaN(columns.likelihood[row])) told.push(`log-likelihood ${columns.likelihood[row].toFixed(2)} a token`);
    if (value("difficulty", row) !== "not known") told.push(`problem ${value("difficulty", row)}`);
    const link = element("a", "link", "link");
    link.href = LINK + encodeURIComponent(idOf(row));
    link.setAttribute("aria-label", `Link to ${idOf(row)}`);
    box.append(element("b", "model", value("model", row)), reason, ...told.map((text) => element("span", "", text)), link);
    return box;
  }

  function answers(row) {
    const box = element("dl", "answers");
    for (const [name, absent] of [["answer", "none"], ["gold", "not known"]]) {
      const pair = element("div");
      pair.append(element("dt", "", name), element("dd", "", value(name, row) ?? absent));
      box.append(pair);
    }
    return box;
  }

  function card(row) {
    const item = element("li", "chain");
    const written = value("text", row);
    const text = element("p", "chain-text", written);
    item.tabIndex = -1;
    item.append(head(row), element("p", "question", value("question", row)), text);
    if (written.length > FOLD_CHARACTERS) {
      text.classList.add("folded");
      const unfold = element("button", "unfold", `Show all ${number(written.length)} characters`);
      unfold.type = "button";
      unfold.addEventListener("click", () => { text.classList.remove("folded"); unfold.remove(); });
      item.append(unfold);
    }
    item.append(answers(row));
    return item;
  }

  // What was asked for, in words: on paper there is no form.
  function asked() {
    const told = filters.filter((select) => select.value).map((select) =>
      `${select.name} ${select.selectedOptions[0].textContent}`);
    if (least?.value) told.push(`at least ${least.value} tokens`);
    if (most?.value) told.push(`at most ${most.value} tokens`);
    if (search.value.trim()) told.push(`“${search.value.trim()}”`);
    return told.length ? ` (${told.join(", ")})` : "";
  }

  function show() {
    const pages = Math.max(1, Math.ceil(matching.length / PAGE_CHAINS));
    page = Math.min(Math.max(page, 0), pages - 1);
    const start = page * PAGE_CHAINS;
    const shown = [...matching.subarray(start, start + PAGE_CHAINS)];
    list.replaceChildren(...shown.map(card));
    const range = shown.length ? `, ${number(start + 1)}–${number(start + shown.length)} shown` : "";
    found.textContent = `${number(matching.length)} of ${number(rows)} chains on this page match${asked()}${range}`;
    position.textContent = `Page ${number(page + 1)} of ${number(pages)}`;
    paging.hidden = pages === 1;
    previous.disabled = page === 0;
    next.disabled = page === pages - 1;
  }

  function arranged() {
    switch (order.value) {
      case "shortest": return ordered(columns.tokens.map((tokens) => tokens || NaN), 1);
      case "longest": return ordered(columns.tokens.map((tokens) => tokens || NaN), -1);
      case "least likely": return ordered(columns.likelihood, 1);
      default: return Uint32Array.from({ length: rows }, (_, row) => row);
    }
  }

  function filter() {
    const words = search.value.trim().toLowerCase();
    const chosen = filters.filter((select) => select.value).map(({ name, value }) =>
      [columns[name].codes, columns[name].values.indexOf(value)]);
    const held = words ? SEARCHED.map((name) => [columns[name].codes, holding(columns[name], words)]) : [];
    // A chain whose tokens nobody counted is in no range.
    const low = least?.value ? Math.max(1, Number(least.value)) : most?.value ? 1 : 0;
    const high = most?.value ? Number(most.value) : Infinity;
    const isMeant = (row) => columns.tokens[row] >= low && columns.tokens[row] <= high
      && chosen.every(([codes, code]) => codes[row] === code)
      && (!words || held.some(([codes, holds]) => holds[codes[row]]));
    matching = (orders[order.value] ??= arranged()).filter(isMeant);
    page = 0;
    show();
  }

  function turn(pages) {
    page += pages;
    show();
    root.scrollIntoView();
  }

  function linked() {
    try {
      return location.hash.startsWith(LINK) ? decodeURIComponent(location.hash.slice(LINK.length)) : null;
    } catch (error) {
      if (error instanceof URIError) return null;
      throw error;
    }
  }

  // The chain that the address names: what filters hide is shown all the same.
  function open() {
    const id = linked();
    if (id === null) return;
    let row = 0;
    while (row < rows && idOf(row) !== id) row++;
    if (row === rows) {
      found.textContent = `The chain ${id} is not on this page`;
      root.scrollIntoView();
      return;
    }
    if (!matching.includes(row)) {
      form.reset();
      filter();
    }
    page = Math.floor(matching.indexOf(row) / PAGE_CHAINS);
    show();
    const item = list.children[matching.indexOf(row) % PAGE_CHAINS];
    item.classList.add("opened");
    item.scrollIntoView();
    item.focus({ preventScroll: true });
  }

  async function start() {
    const lines = document.getElementById("chains-data").textContent.trim().split("\n");
    ({ rows, columns, colours } = await unpacked(lines, (done, all) => {
      progress.value = done / all;
      found.textContent = `Unpacking chains: ${number(done)} of ${number(all)}`;
    }));
    form.addEventListener("input", filter);
    clear.addEventListener("click", () => { form.reset(); filter(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    previous.addEventListener("click", () => turn(-1));
    next.addEventListener("click", () => turn(1));
    window.addEventListener("hashchange", open);
    progress.hidden = true;
    form.hidden = false;
    filter();
    open();
  }

  if (!("DecompressionStream" in window)) {
    progress.hidden = true;
    found.textContent = "This browser cannot unpack the chains: it has no DecompressionStream, as Chrome 80, Firefox 113, "
      + "Safari 16.4 and later do. Nothing else on this page needs it.";
    return;
  }
  start().catch((error) => {
    progress.hidden = true;
    found.textContent = `The chains on this page are damaged and cannot be unpacked (${error.message})`;
    throw error;
  });
})();
