// Shows, filters and searches the embedded chains. Their text is hostile: it reaches the page by textContent alone.
"use strict";
(() => {
  const PAGE_CHAINS = 20;
  const FOLD_CHARACTERS = 1500;
  const { fields, rows, colours } = JSON.parse(document.getElementById("chains-data").textContent);
  const chains = rows.map((row) => Object.fromEntries(fields.map((field, place) => [field, row[place]])));
  const root = document.getElementById("browser");
  const form = root.querySelector("form");
  const list = root.querySelector(".chains");
  const found = root.querySelector(".found");
  const paging = root.querySelector(".paging");
  const [previous, next] = paging.querySelectorAll("button");
  const place = paging.querySelector(".place");
  const filters = [...form.querySelectorAll("select")];
  const search = form.elements.namedItem("search");
  let haystacks = null;
  let matching = chains;
  let page = 0;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const number = (value) => value.toLocaleString("en-US");

  function answers(chain) {
    const box = element("dl", "answers");
    for (const [word, value, absent] of [["answer", chain.answer, "none"], ["gold", chain.gold, "not known"]]) {
      const pair = element("div");
      pair.append(element("dt", "", word), element("dd", "", value === null ? absent : value));
      box.append(pair);
    }
    return box;
  }

  function head(chain) {
    const box = element("p", "chain-head");
    const reason = element("span", "reason", chain.reason.replaceAll("_", " "));
    if (Object.hasOwn(colours, chain.reason)) {
      reason.style.setProperty("--reason", `var(--${colours[chain.reason]})`);
    }
    const told = [chain.plan, chain.problem, `chain ${chain.index}`];
    if (!chain.plan.endsWith(chain.thought)) told.splice(1, 0, chain.thought);
    if (chain.tokens) told.push(`${number(chain.tokens)} tokens`);
    box.append(element("b", "model", chain.model), reason, ...told.map((text) => element("span", "", text)));
    return box;
  }

  function card(chain) {
    const item = element("li", "chain");
    const text = element("p", "chain-text", chain.text);
    item.append(head(chain), element("p", "question", chain.question), text);
    if (chain.text.length > FOLD_CHARACTERS) {
      text.classList.add("folded");
      const unfold = element("button", "unfold", `Show all ${number(chain.text.length)} characters`);
      unfold.type = "button";
      unfold.addEventListener("click", () => { text.classList.remove("folded"); unfold.remove(); });
      item.append(unfold);
    }
    item.append(answers(chain));
    return item;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(matching.length / PAGE_CHAINS));
    page = Math.min(Math.max(page, 0), pages - 1);
    const start = page * PAGE_CHAINS;
    const shown = matching.slice(start, start + PAGE_CHAINS);
    list.replaceChildren(...shown.map(card));
    const range = shown.length ? `, ${number(start + 1)}–${number(start + shown.length)} shown` : "";
    found.textContent = `${number(matching.length)} of ${number(chains.length)} chains on this page match${range}`;
    place.textContent = `Page ${number(page + 1)} of ${number(pages)}`;
    paging.hidden = pages === 1;
    previous.disabled = page === 0;
    next.disabled = page === pages - 1;
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    haystacks ??= chains.map((chain) =>
      [chain.question, chain.text, chain.answer ?? "", chain.gold ?? "", chain.problem].join("\n").toLowerCase());
    const chosen = filters.filter((select) => select.value !== "");
    matching = chains.filter((chain, row) =>
      chosen.every((select) => chain[select.name] === select.value) && haystacks[row].includes(wanted));
    page = 0;
    show();
  }

  function turn(pages) {
    page += pages;
    show();
    root.scrollIntoView();
  }

  for (const select of filters) {
    for (const value of [...new Set(chains.map((chain) => chain[select.name]))].sort()) {
      const option = element("option", "", value.replaceAll("_", " "));
      option.value = value;
      select.append(option);
    }
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  form.hidden = false;
  show();
})();
