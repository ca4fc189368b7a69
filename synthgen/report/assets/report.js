"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ufff9-\ufffb\ufffe\uffff\u{e0000}-\u{e007f}]/gu;

  // Text from models: nodes of text and, for each sign that cannot be seen, its number. Never markup.
  function shown(text) {
    const parts = document.createDocumentFragment();
    let start = 0;
    for (const found of text.matchAll(UNSEEN)) {
      parts.append(text.slice(start, found.index));
      const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      parts.append(make("span", "unseen", `U+${code}`));
      start = found.index + found[0].length;
    }
    parts.append(text.slice(start));
    return parts;
  }

  function make(tag, name, ...children) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children);
    return made;
  }

  // Sections: the link of the one in sight is marked.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) if (at(id)) seen.observe(at(id));

  // Rows.
  const list = at("list");
  const PAGE = 20;
  let matching = [];
  let drawn = 0;

  const fateOf = (row) => row.dropped_by || row.state;
  const haystack = (row) => JSON.stringify([row.id, row.parts.map((part) => part.text), row.sources, row.error]).toLowerCase();

  function rowOf(row) {
    const last = row.parts.findLast((part) => part.name === "assistant") || row.parts[0];
    const kind = row.state === "kept" ? "kept" : row.state;
    const what = row.dropped_by ? `dropped: ${row.dropped_by}` : row.state;
    const excerpt = make("span", "excerpt", shown((row.error || last?.text || "").slice(0, 200).replace(/\s+/g, " ")));
    excerpt.dir = "auto";
    const made = make("details", "row", make("summary", "", make("span", "fate", make("i", `dot ${kind}`), what), excerpt));
    made.dataset.id = row.id;
    made.addEventListener("toggle", () => {
      if (made.open && made.children.length === 1) made.append(insideOf(row));
    });
    return made;
  }

  function insideOf(row) {
    const texts = make("div", "texts");
    for (const part of row.parts) {
      const quote = make("blockquote", "", shown(part.text));
      quote.dir = "auto";
      quote.tabIndex = 0;
      if (part.length > part.text.length) {
        quote.append(make("span", "cut", ` … ${(part.length - part.text.length).toLocaleString("en")} more characters`));
      }
      texts.append(make("div", "part", make("h5", "", shown(part.name)), quote));
    }
    if (row.error) texts.append(make("p", "", shown(row.error)));
    const why = make("div", "why", make("h5", "", "measured"));
    const body = make("tbody", "");
    for (const [name, said] of Object.entries(row.measurements)) {
      const value = said.value === null ? "abstains" : Number(said.value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
      const detail = said.detail ? Object.entries(said.detail).map(([key, item]) => `${key} ${typeof item === "string" ? item : JSON.stringify(item)}`).join(", ").slice(0, 300) : "";
      const head = make("th", "", name);
      head.scope = "row";
      body.append(make("tr", said.verdict === "pass" ? "" : "failed-it", head, make("td", "n", value), make("td", "", said.verdict), make("td", "", shown(detail))));
    }
    why.append(make("table", "", body), make("h5", "", "from"));
    for (const source of row.sources) {
      why.append(make("p", "", shown(Object.entries(source).map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(" · "))));
    }
    if (!row.sources.length) why.append(make("p", "none", "no source is recorded"));
    if (row.requests.length) {
      why.append(make("h5", "", "requests"));
      for (const key of row.requests) why.append(make("p", "", make("code", "", key)));
    }
    why.append(make("h5", "", "record"), make("p", "", make("code", "", row.id), ` task ${row.task.toLocaleString("en")}`));
    return make("div", "inside", texts, why);
  }

  function more() {
    list.append(...matching.slice(drawn, drawn + PAGE).map(rowOf));
    drawn = Math.min(drawn + PAGE, matching.length);
    at("more").hidden = drawn >= matching.length;
  }

  if (list) {
    const stacks = new Map(data.rows.map((row) => [row, haystack(row)]));
    for (const fate of [...new Set(data.rows.map(fateOf))].sort()) {
      const kind = data.rows.find((row) => fateOf(row) === fate);
      const option = make("option", "", kind.dropped_by ? `dropped: ${fate}` : fate);
      option.value = fate;
      at("fate").append(option);
    }
    const find = () => {
      const words = at("query").value.toLowerCase().split(/\s+/).filter(Boolean);
      const fate = at("fate").value;
      matching = data.rows.filter((row) => (!fate || fateOf(row) === fate) && words.every((word) => stacks.get(row).includes(word)));
      list.replaceChildren();
      drawn = 0;
      at("found").textContent = `${matching.length.toLocaleString("en")} of the ${data.rows.length.toLocaleString("en")} rows in the sample`;
      more();
    };
    at("query").addEventListener("input", find);
    at("fate").addEventListener("change", find);
    at("search").addEventListener("submit", (event) => event.preventDefault());
    at("more").addEventListener("click", () => {
      const first = list.children.length;
      more();
      list.children[first]?.querySelector("summary").focus();
    });
    find();
  }

  // The map.
  const map = at("map");
  if (map) {
    const points = data.points;
    const circles = [...map.querySelectorAll("circle")];
    let chosen = -1;
    let lit = null;

    const valueOf = (point) => (at("colour").value ? point.fields[at("colour").value] ?? "(none)" : point.fate);

    const paint = () => {
      const counts = new Map();
      for (const point of points) counts.set(valueOf(point), (counts.get(valueOf(point)) || 0) + 1);
      const names = [...counts.keys()].sort((a, b) => (b === "kept") - (a === "kept") || counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
      const place = (name) => Math.min(names.indexOf(name), 7);
      circles.forEach((circle, n) => {
        const name = valueOf(points[n]);
        circle.setAttribute("class", `k${place(name)}${n === chosen ? " chosen" : ""}${lit === name ? " lit" : ""}`);
      });
      map.classList.toggle("dim", lit !== null);
      at("legend").replaceChildren(...names.map((name) => {
        const button = make("button", "", make("i", "dot"), shown(name.slice(0, 40)), make("small", "", counts.get(name).toLocaleString("en")));
        button.type = "button";
        button.setAttribute("aria-pressed", String(lit === name));
        button.addEventListener("click", () => {
          lit = lit === name ? null : name;
          paint();
          [...at("legend").querySelectorAll("button")][names.indexOf(name)].focus();
        });
        return make("li", `k${place(name)}`, button);
      }));
    };

    const choose = (n) => {
      if (n === chosen) return;
      circles[chosen]?.classList.remove("chosen");
      chosen = n;
      circles[n].classList.add("chosen");
      const point = points[n];
      const quote = make("blockquote", "", shown(point.text));
      quote.dir = "auto";
      const fields = Object.entries(point.fields).filter(([, value]) => value !== null).map(([name, value]) => ` · ${name} ${value}`).join("");
      at("point").replaceChildren(make("figcaption", "", make("b", "", point.fate), shown(fields), " ", make("code", "", point.id.slice(0, 12))), quote);
    };

    // The nearest dot that lies in a direction: within 45 degrees of it, near ones and straight ones first.
    const beyond = (dx, dy) => {
      if (chosen < 0) return 0;
      const here = points[chosen];
      let best = chosen;
      let least = Infinity;
      points.forEach((point, n) => {
        const along = (point.x - here.x) * dx + (point.y - here.y) * dy;
        const across = Math.abs((point.x - here.x) * dy) + Math.abs((point.y - here.y) * dx);
        if (n !== chosen && along > 0 && across <= along && along + 2 * across < least) {
          least = along + 2 * across;
          best = n;
        }
      });
      return best;
    };

    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    map.addEventListener("keydown", (event) => {
      if (keys[event.key]) {
        event.preventDefault();
        choose(beyond(...keys[event.key]));
      } else if (event.key === "Enter" && chosen >= 0) {
        find(points[chosen].id);
      }
    });
    map.addEventListener("pointermove", (event) => {
      if (event.target.dataset?.n) choose(Number(event.target.dataset.n));
    });
    map.addEventListener("click", (event) => {
      if (event.target.dataset?.n) choose(Number(event.target.dataset.n));
    });
    at("colour").addEventListener("change", () => { lit = null; paint(); });
    paint();

    function find(id) {
      at("fate").value = "";
      at("query").value = id;
      at("query").dispatchEvent(new Event("input"));
      at("rows").scrollIntoView();
      at("query").focus();
    }
  }
})();
