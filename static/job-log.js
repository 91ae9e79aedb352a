// The log on a job's page goes on by itself while the job runs: what is new is appended, what stands stays.
(() => {
  "use strict";

  const log = document.querySelector("[data-log]");
  if (!log) return;
  const panel = log.querySelector(".log-panel");
  const lines = log.querySelector(".log-lines");
  const status = log.querySelector("[data-log-status]");
  const button = log.querySelector("[data-log-follow]");
  const range = log.querySelector("[data-log-range]");
  const EVERY = 3000, LONGEST_WAIT = 30000, MOST_ROWS = 6000, DEEPEST = 8, SAID_EVERY = 10000;

  // The line that the address names; when another stretch has it, the page goes there.
  const named = () => /^#L([1-9][0-9]{0,14})$/.exec(location.hash)?.[1];
  const show = () => {
    const number = named();
    if (!number) return false;
    const row = document.getElementById(`L${number}`);
    if (row) {
      for (let up = row.parentElement; up && up !== lines; up = up.parentElement) if (up.matches("details") && row.parentElement !== up) up.open = true;
      row.scrollIntoView({ block: "center" });
    } else {
      const search = `?line=${Math.max(1, number - 10)}`;
      if (location.search !== search) location.replace(log.dataset.page + search + location.hash);
    }
    return true;
  };
  addEventListener("hashchange", () => { following = false; offer(); show(); });
  // A number in a stretch of a long log has the stretch in its address, for others; here it only marks the line. That of
  // a section's head is no link, as the head is a button already; it marks its line all the same.
  lines.addEventListener("click", (event) => {
    const row = event.target.closest(".log-number")?.parentElement;
    if (!row?.id || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    location.hash = row.id;
  });

  let live = "live" in log.dataset;
  let following = false;
  const atEnd = () => panel.scrollHeight - panel.scrollTop - panel.clientHeight < 30;
  // Where the panel was put last. What is appended before the browser tells of that is no scrolling of the reader.
  let putAt = 0;
  const toEnd = () => { panel.scrollTop = panel.scrollHeight; putAt = panel.scrollTop; };
  const offer = () => { button.hidden = following || !live; };
  panel.addEventListener("scroll", () => {
    if (atEnd()) following = true;
    else if (panel.scrollTop < putAt || !following) following = false;
    putAt = panel.scrollTop;
    offer();
  }, { passive: true });
  button.addEventListener("click", () => {
    following = true;
    toEnd();
    offer();
    panel.focus({ preventScroll: true });
  });
  if (!show() && !new URLSearchParams(location.search).has("line")) {
    toEnd();
    following = true;
  }
  offer();
  if (!live) return;

  // Where the next line belongs: into the innermost of the sections that go on at the end of the log.
  const place = () => {
    let here = lines;
    for (let depth = 0; depth < DEEPEST; depth++) {
      const last = here.lastElementChild;
      if (!last?.matches("details[data-going-on]")) break;
      here = last.querySelector(":scope > .log-body");
    }
    return here;
  };
  const duration = (seconds) => {
    const parts = [];
    for (const [unit, name] of [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
      const count = Math.floor(seconds / unit);
      seconds -= count * unit;
      if (count) parts.push(`${count} ${name}${count === 1 ? "" : "s"}`);
    }
    return parts.join(" ") || "0 seconds";
  };
  const end = (mark) => {
    let here = place();
    while (here !== lines) {
      const section = here.parentElement;
      if (section.dataset.section === mark.dataset.end) {
        for (const inner of [section, ...section.querySelectorAll("details[data-going-on]")]) delete inner.dataset.goingOn;
        const seconds = Math.max(0, mark.dataset.ended - section.dataset.started);
        section.querySelector(":scope > summary .log-took").textContent = duration(seconds);
        return;
      }
      here = section.parentElement;
    }
  };
  const make = (name, properties, ...inside) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...inside);
    return made;
  };
  const many = (first, last) => first === last ? `Line ${first}` : `Lines ${first} to ${last}`;
  // The log grew faster than the page: it goes on at the end, and says where to read what lies between. Which sections
  // ended there nobody knows here, so none of them goes on.
  const leap = ({ skippedFrom, skippedTo }) => {
    for (const section of lines.querySelectorAll("details[data-going-on]")) delete section.dataset.goingOn;
    const way = make("a", { href: `${log.dataset.page}?line=${skippedFrom}`, textContent: many(skippedFrom, skippedTo) });
    lines.append(make("p", { className: "log-more log-skipped" }, way, " came too fast to show here."));
  };
  const append = (news) => {
    for (const row of lines.querySelectorAll("[data-unfinished]")) row.remove();
    if (news.dataset.skippedTo) leap(news.dataset);
    for (const node of [...news.children]) {
      if (node.dataset.end !== undefined) end(node);
      else place().append(document.importNode(node, true));
    }
  };
  const rowsIn = (node) => node.matches(".log-row") ? 1 : node.getElementsByClassName("log-row").length;
  const numbersIn = (node) => [node, ...node.querySelectorAll(".log-row[id]")].map((row) => Number(/^L([0-9]+)$/.exec(row.id)?.[1] ?? 0));
  // A page that is open for days stays usable: what is far above goes, and the way to it appears. Of a section that
  // holds more than has to go, the first lines go.
  let gone = 0;
  const shorten = () => {
    let rows = lines.getElementsByClassName("log-row").length - MOST_ROWS;
    if (rows <= 0 || !following) return;
    const drop = (inside) => {
      while (rows > 0 && inside.firstElementChild) {
        const first = inside.firstElementChild;
        const held = rowsIn(first);
        if (first.matches("details") && (held > rows || first.matches("[data-going-on]"))) return drop(first.querySelector(":scope > .log-body"));
        rows -= held;
        for (const number of numbersIn(first)) gone = Math.max(gone, number);
        first.remove();
      }
      return undefined;
    };
    drop(lines);
    const earlier = `${log.dataset.page}?until=${gone + 1}`;
    let more = panel.querySelector(":scope > .log-more:first-child");
    if (!more) panel.prepend(more = make("p", { className: "log-more" }));
    more.replaceChildren(make("a", { href: earlier, textContent: many(1, gone) }), " went from this page as it grew.");
    for (const way of range.querySelectorAll("a")) way.hidden = false;
    range.querySelector("[data-log-earlier]").href = earlier;
    range.dataset.first = gone + 1;
    range.hidden = false;
  };
  const tellRange = () => {
    const rows = lines.querySelectorAll(".log-row[id]");
    const shown = rows.length ? Number(rows[rows.length - 1].id.slice(1)) : 0;
    if (!range.hidden && shown) range.querySelector(".sub").textContent = many(Number(range.dataset.first), shown);
  };

  // Said to screen readers now and then, and not line by line. Who sees the lines needs no count; trouble is shown.
  const tell = (words, trouble = false) => {
    status.classList.toggle("hidden", !trouble);
    status.textContent = words;
  };
  let unsaid = 0, saidAt = 0;
  const say = (count) => {
    unsaid += count;
    if (!unsaid || Date.now() - saidAt < SAID_EVERY) return;
    tell(`${unsaid} new line${unsaid === 1 ? "" : "s"}`);
    [unsaid, saidAt] = [0, Date.now()];
  };

  let wait = EVERY, timer = 0, asking = false;
  const next = (after) => {
    clearTimeout(timer);
    if (live) timer = setTimeout(ask, after);
  };
  const take = (news) => {
    const { dataset } = news;
    if (dataset.anew !== undefined) { location.reload(); return; }
    const count = news.querySelectorAll(".log-row:not([data-unfinished])").length;
    const something = news.children.length > 0 || dataset.seen !== log.dataset.seen;
    if (something) {
      const stay = panel.scrollTop;
      append(news);
      shorten();
      tellRange();
      if (following) toEnd(); else panel.scrollTop = stay;
      if (lines.children.length) log.querySelector("[data-log-empty]")?.remove();
    }
    if (dataset.size) {
      log.querySelector(".log-size").textContent = dataset.size;
      log.querySelector("[data-log-raw]").hidden = false;
    } else {
      const empty = log.querySelector("[data-log-empty]");
      if (empty && empty.textContent !== dataset.empty) empty.textContent = dataset.empty;
    }
    Object.assign(log.dataset, { next: dataset.next, attempt: dataset.attempt, seen: dataset.seen });
    say(count);
    live = dataset.live !== undefined;
    offer();
    if (live) return;
    delete log.dataset.live;
    tell("The log is complete");
    log.dispatchEvent(new CustomEvent("log-complete", { bubbles: true }));
  };
  // Who reads further above gets all that comes, as long as the page can hold it.
  const leaps = () => following || lines.getElementsByClassName("log-row").length > MOST_ROWS;
  const ask = async () => {
    if (asking || !live || document.hidden) return;
    asking = true;
    let after = EVERY;
    try {
      const { next: from, seen, attempt } = log.dataset;
      const answer = await fetch(`${log.dataset.log}?from=${from}&seen=${seen}&attempt=${attempt}${leaps() ? "&leap=1" : ""}`, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const news = page.querySelector(".log-news");
      if (!news) throw new Error("no log");
      if (wait > EVERY) tell("Connected again");
      wait = EVERY;
      take(news);
      if (news.dataset.more !== undefined) after = 50;
    } catch {
      wait = Math.min(LONGEST_WAIT, wait * 2);
      after = wait;
      tell("The portal does not answer, or you are signed out. Trying again.", true);
    }
    asking = false;
    next(after);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) next(0); });
  addEventListener("online", () => next(0));
  next(EVERY);
})();
