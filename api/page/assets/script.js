// Keeps the page live, and starts and cancels runs for operators. The page can
// be read without it.
(() => {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const live = byId("live");
  let tag = document.body.dataset.tag;

  // ---- the token: as long as the tab, or the page where storage is forbidden

  const tokenKey = "walkeep-token";
  let memory = "";
  const token = () => {
    try { return sessionStorage.getItem(tokenKey) || memory; } catch { return memory; }
  };
  const setToken = (value) => {
    memory = value;
    try { sessionStorage.setItem(tokenKey, value); } catch { /* kept in memory */ }
    label();
  };
  const headers = (more) => (token() ? { ...more, Authorization: "Bearer " + token() } : { ...more });
  const label = () => {
    const b = byId("operator");
    if (b) b.textContent = token() ? "Forget token" : "Operator…";
  };

  // ---- what is live

  const partsOf = (root) => [...root.querySelectorAll(":scope > [id^=part-]")];
  const shown = new Map(partsOf(live).map((p) => [p.id, p.outerHTML])); // as it came from the service

  // show puts new content into the page, part by part, and leaves alone what
  // has not changed: what is selected, open, scrolled and in focus stays so.
  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    const open = [...live.querySelectorAll("details[open]")].map((d) => d.id);
    const scrolled = [...live.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
    const focus = live.contains(document.activeElement) ? document.activeElement.id : "";
    for (const part of partsOf(fresh)) {
      const text = part.outerHTML;
      const old = byId(part.id);
      if (!old) live.append(part);
      else if (shown.get(part.id) !== text) old.replaceWith(part);
      shown.set(part.id, text);
    }
    for (const id of open) { const d = id && byId(id); if (d) d.open = true; }
    live.querySelectorAll(".scroll").forEach((s, i) => { if (scrolled[i]) s.scrollLeft = scrolled[i]; });
    if (focus && byId(focus) && document.activeElement.id !== focus) byId(focus).focus({ preventScroll: true });
    label();
  }

  // ages moves the texts such as "3 min ago" on; the words are those of the
  // service (format.go).
  function spell(s) {
    if (s < 120) return Math.floor(s) + " s";
    if (s < 7200) return Math.floor(s / 60) + " min";
    if (s < 172800) return Math.floor(s / 3600) + " h";
    if (s < 730 * 86400) return Math.floor(s / 86400) + " days";
    return Math.floor(s / (365 * 86400)) + " years";
  }
  function ages() {
    for (const t of document.querySelectorAll("time[data-ago]")) {
      const s = (Date.now() + skew - Date.parse(t.dateTime)) / 1000;
      const text = s < 0 ? "in " + spell(-s) : s < 1 ? "just now" : spell(s) + " ago";
      if (t.textContent !== text) t.textContent = text;
    }
  }
  let skew = 0; // of the service's clock against this one, in milliseconds

  // ---- is the service there? A page that cannot know says so: nobody must take
  // an old "all is well" for a new one.

  let lost = null;
  function connected(yes) {
    if (yes === !lost) return;
    lost = yes ? null : new Date();
    document.body.classList.toggle("cut", !yes);
    byId("stale").hidden = yes;
    if (!yes) {
      byId("stale-since").textContent = lost.toLocaleTimeString();
      document.title = "? " + document.title.replace(/^\S /, "");
    }
  }
  const symbols = { ok: "✓", warning: "▲", critical: "✕" };
  function retitle(cluster) {
    const state = byId("part-state");
    const symbol = state ? symbols[state.classList[1]] || "?" : "?";
    if (cluster) document.title = symbol + " " + cluster + " · walkeep";
  }

  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

  async function follow() {
    let failures = 0;
    for (;;) {
      try {
        const answer = await fetch("/page" + location.search, {
          headers: headers(tag ? { "If-None-Match": '"' + tag + '"' } : {}),
          cache: "no-store",
          signal: AbortSignal.timeout(60000),
        });
        if (answer.status === 401 || answer.status === 403) {
          connected(true);
          tag = "";
          await signIn(token() ? "This token is not accepted." : "");
          continue;
        }
        if (answer.status === 200) {
          const date = Date.parse(answer.headers.get("Date"));
          if (date && Math.abs(date - Date.now()) > 5000) skew = date - Date.now();
          show(await answer.text());
          tag = (answer.headers.get("ETag") || "").replaceAll('"', "");
          retitle(answer.headers.get("Walkeep-Cluster"));
          connected(true);
          ages();
          failures = 0;
          await sleep(500); // at most two renderings a second
          continue;
        }
        if (answer.status !== 304) throw new Error("status " + answer.status);
        connected(true);
        failures = 0;
      } catch {
        failures++;
        if (failures > 1) connected(false);
        await sleep(Math.min(1000 * failures, 10000));
      }
    }
  }

  // ---- dialogs

  const dialogs = ["token", "backup", "sure"];
  for (const name of dialogs) {
    byId(name + "-dialog").querySelector("[data-close]").addEventListener("click", () => byId(name + "-dialog").close("no"));
  }

  // ask shows a dialog until send succeeds or the user gives up. send returns
  // "" or what is wrong.
  function ask(name, send) {
    const dialog = byId(name + "-dialog"), form = byId(name + "-form"), error = byId(name + "-error");
    const submit = form.querySelector("[type=submit]");
    error.hidden = true;
    return new Promise((done) => {
      form.onsubmit = async (event) => {
        event.preventDefault();
        submit.disabled = true;
        const wrong = await send(new FormData(form));
        submit.disabled = false;
        if (!wrong) { dialog.close("yes"); return; }
        error.textContent = wrong;
        error.hidden = false;
      };
      dialog.onclose = () => done(dialog.returnValue === "yes");
      dialog.returnValue = "no";
      dialog.showModal();
    });
  }

  let asking = null; // one question for the token at a time
  function askToken(wrong) {
    asking ??= (async () => {
      byId("token").value = "";
      const answer = ask("token", async () => {
        const value = byId("token").value.trim();
        // A header takes printable ASCII only; a phrase is fine.
        if (!/^[\x20-\x7e]+$/.test(value)) return "This is not a token.";
        setToken(value);
        byId("token").value = "";
        return "";
      });
      if (wrong) { byId("token-error").textContent = wrong; byId("token-error").hidden = false; }
      const given = await answer;
      asking = null;
      return given;
    })();
    return asking;
  }

  async function signIn(wrong) {
    while (!(await askToken(wrong))) await sleep(300);
  }

  // ---- what operators do

  let wait;
  function say(text) {
    const said = byId("said");
    said.textContent = text;
    said.hidden = false;
    clearTimeout(wait);
    wait = setTimeout(() => { said.hidden = true; }, 8000);
  }

  // send asks the REST API; it returns "" or what is wrong. A missing or wrong
  // token is asked for, once.
  async function send(method, path, body, more, again) {
    let answer;
    try {
      answer = await fetch(path, {
        method,
        headers: headers({ ...(body ? { "Content-Type": "application/json" } : {}), ...more }),
        body: body ? JSON.stringify(body) : undefined,
        signal: AbortSignal.timeout(30000),
      });
    } catch {
      return "The service does not answer.";
    }
    if (answer.ok) return "";
    if ((answer.status === 401 || answer.status === 403) && !again) {
      if (await askToken(token() ? "This token may not do that." : "")) return send(method, path, body, more, true);
    }
    try {
      const problem = await answer.json();
      return problem.detail || problem.title || "Refused: " + answer.status;
    } catch {
      return "Refused: " + answer.status;
    }
  }

  const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

  function sure(title, text, yes, action) {
    byId("sure-title").textContent = title;
    byId("sure-text").textContent = text;
    byId("sure-yes").textContent = yes;
    return ask("sure", action);
  }

  const actions = {
    async operator() {
      if (token()) { setToken(""); say("The token is forgotten."); return; }
      if (await askToken("")) say("The token is kept for this tab.");
    },
    async backup({ repo }) {
      byId("backup-title").textContent = "Back up now to " + repo;
      byId("note").value = "";
      const key = random(); // a second click starts nothing else
      const done = await ask("backup", (form) => {
        const body = { repo, type: form.get("type") };
        if (byId("note").value.trim()) body.annotations = { note: byId("note").value.trim() };
        return send("POST", "/v1/backups", body, { "Idempotency-Key": key });
      });
      if (done) say("The backup to " + repo + " begins.");
    },
    async cancel({ run, what }) {
      const done = await sure("Cancel this run?", "The " + what + " ends. What it has stored is not lost: the next backup uses it.", "Cancel the run",
        () => send("POST", "/v1/runs/" + encodeURIComponent(run) + "/cancel"));
      if (done) say("The run is told to end.");
    },
    async pause({ repo }) {
      const done = await sure("Pause " + repo + "?", "Scheduled backups of " + repo + " do not start until somebody resumes them. WAL is archived all the same.", "Pause",
        () => send("POST", "/v1/repos/" + encodeURIComponent(repo) + "/pause"));
      if (done) say("The schedules of " + repo + " are paused.");
    },
    async resume({ repo }) {
      const wrong = await send("POST", "/v1/repos/" + encodeURIComponent(repo) + "/resume");
      say(wrong || "The schedules of " + repo + " go on.");
    },
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button) actions[button.dataset.do](button.dataset);
  });

  label();
  if (tag) retitle(document.title.split(" · ")[0]);
  setInterval(ages, 1000);
  follow();
})();
