// Unpacks the embedded chains into columns, block by block, and searches them. What they mean is the browser's business.
"use strict";
const SEARCHED = ["problem", "question", "gold", "answer", "text"];

async function inflated(line) {
  const packed = atob(line);
  const bytes = new Uint8Array(packed.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = packed.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

// Texts in lower case, end to end: one search runs over all of them. A text may grow as it is lowered.
function shelf(values, first) {
  const lowered = values.map((value) => (value ?? "").toLowerCase());
  const starts = new Uint32Array(values.length + 1);
  lowered.forEach((text, place) => { starts[place + 1] = starts[place] + text.length + 1; });
  return { first, starts, text: lowered.join("\n") };
}

// Columns of texts hold each value once, and its number in every row that has it. `tell` hears how many rows there are.
async function unpacked(lines, tell) {
  const { rows, coded, numbers, colours } = await inflated(lines[0]);
  const columns = {};
  for (const name of coded) columns[name] = { values: [], codes: new Uint32Array(rows), shelves: [] };
  for (const name of numbers) columns[name] = new Float64Array(rows);
  let filled = 0;
  for (const line of lines.slice(1)) {
    const block = await inflated(line);
    for (const name of coded) {
      const column = columns[name];
      if (SEARCHED.includes(name)) column.shelves.push(shelf(block.values[name], column.values.length));
      for (const value of block.values[name]) column.values.push(value);
      column.codes.set(block.codes[name], filled);
    }
    for (const name of numbers) columns[name].set(block.numbers[name].map((value) => value ?? NaN), filled);
    filled += block.codes[coded[0]].length;
    tell(filled, rows);
    await new Promise((resume) => setTimeout(resume));
  }
  return { rows, columns, colours };
}

// Which values of a column hold some words, by their number.
function holding({ values, shelves }, words) {
  const holds = new Uint8Array(values.length);
  for (const { first, starts, text } of shelves) {
    let place = 0;
    for (let at = text.indexOf(words); at !== -1; at = text.indexOf(words, starts[place])) {
      while (starts[place + 1] <= at) place++;
      holds[first + place++] = 1;
    }
  }
  return holds;
}

// Rows by a number, the smallest first, or the largest; those that lack it come last.
function ordered(numbers, sign) {
  const keys = numbers.map((number) => (Number.isNaN(number) ? Infinity : sign * number));
  return Uint32Array.from(keys.keys()).sort((one, other) => keys[one] - keys[other] || one - other);
}
