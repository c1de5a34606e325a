// Drives Chromium through the page; called by TestBrowser. Ends with an error
// at the first thing that is not as it should be.
import assert from "node:assert/strict";
import { join } from "node:path";

const [open, closed, pictures, token, every] = process.argv.slice(2);
const { chromium } = await import(process.env.PLAYWRIGHT);

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium-headless-shell",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const desktop = { width: 1180, height: 900 };
const phone = { width: 390, height: 844 };
const noon = new Date("2026-11-23T03:12:40Z");

// visit opens a page on which every error of the console is a failure. Its
// clock stands still, as the one of the service does.
async function visit(url, options = {}) {
  const context = await browser.newContext({ viewport: desktop, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (e) => page.errors.push(String(e)));
  page.on("console", (m) => {
    // That a request failed is the subject of some tests; policy is not.
    if (m.type() === "error" && !/Failed to load resource/.test(m.text())) page.errors.push(m.text());
  });
  await page.clock.setFixedTime(noon);
  await page.goto(url);
  return page;
}

async function leave(page) {
  assert.deepEqual(page.errors, []);
  await page.context().close();
}

const tell = async (url, path) => assert.equal((await fetch(url + path)).status, 200);
const scene = (name) => tell(open, "/stage/scene?name=" + name);
const verdict = (page, text) => page.locator(".verdict", { hasText: text }).waitFor();
const expected = { well: "All is well", gaps: "Not well", dead: "Not well", running: "All is well", large: "All is well" };

async function looks() {
  for (const name of Object.keys(expected)) {
    await scene(name);
    for (const [width, viewport] of Object.entries({ desktop, phone })) {
      for (const colorScheme of ["light", "dark"]) {
        // All of them only for people who want to look at them.
        if (!every && !["well desktop light", "gaps phone dark", "dead phone light", "large phone light"].includes(`${name} ${width} ${colorScheme}`)) continue;
        const page = await visit(open + "/?span=recent", { viewport, colorScheme });
        await verdict(page, expected[name]);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(wide <= 0, `${name} on a ${width} scrolls sideways by ${wide} pixels`);
        await page.screenshot({ path: join(pictures, `${name}-${width}-${colorScheme}.png`), fullPage: true });
        if (every && width === "phone") {
          const height = await page.evaluate(() => document.documentElement.scrollHeight);
          for (let y = 0; y < height && y < 3600; y += 1200) {
            await page.screenshot({ path: join(pictures, `${name}-${width}-${colorScheme}-${y / 1200}.png`), fullPage: true, clip: { x: 0, y, width: 390, height: Math.min(1200, height - y) } });
          }
        }
        await leave(page);
      }
    }
  }
}

// live: news are shown without loading the page again, and what the reader has
// open stays open.
async function live() {
  await scene("well");
  const page = await visit(open);
  await verdict(page, "All is well");
  await page.evaluate(() => { window.same = true; });
  await page.locator("#backups-repo1 summary").click();
  await page.locator("#backup-repo1").focus();
  await scene("gaps");
  await verdict(page, "Not well");
  assert.equal(await page.locator(".gaps li").count(), 2);
  assert.equal(await page.locator("#backups-repo1").getAttribute("open"), "");
  assert.equal(await page.evaluate(() => document.activeElement.id), "backup-repo1");
  assert.equal(await page.evaluate(() => window.same), true);
  assert.match(await page.title(), /^✕ hippo/);
  await scene("running");
  await page.locator("progress[value='44']").waitFor();
  assert.match(await page.title(), /^✓ hippo/);

  // The service goes away: nothing says "all is well" any more without a doubt.
  await tell(open, "/stage/down?is=true");
  await scene("well"); // ends the waiting request
  await page.locator("#stale", { hasText: "No connection to the service" }).waitFor();
  assert.match(await page.title(), /^\? hippo/);
  await page.screenshot({ path: join(pictures, "cut-desktop-light.png") });
  await tell(open, "/stage/down?is=false");
  await page.locator("#stale").waitFor({ state: "hidden" });
  await verdict(page, "All is well");
  await leave(page);
}

// operators: a token is asked for when it is needed and sent with each request.
async function operators() {
  await scene("running");
  const page = await visit(open);
  await page.locator("#backup-repo1").click();
  await page.locator("#backup-dialog input[value=full]").check();
  await page.locator("#note").fill("before the upgrade");
  await page.screenshot({ path: join(pictures, "dialog-desktop-light.png") });
  await page.locator("#backup-form [type=submit]").click();
  await page.locator("#token").fill("wrong-token");
  await page.locator("#token-form [type=submit]").click();
  await page.locator("#backup-error", { hasText: "operators only" }).waitFor();
  await page.locator("#backup-form [type=submit]").click();
  await page.locator("#token-error", { hasText: "may not" }).waitFor();
  await page.locator("#token").fill(token);
  await page.locator("#token-form [type=submit]").click();
  await page.locator("#said", { hasText: "begins" }).waitFor();

  await page.locator("#backup-repo1").click();
  await page.locator("#backup-dialog input[value=differential]").check();
  await page.locator("#backup-form [type=submit]").click();
  await page.locator("#backup-error", { hasText: "another run" }).waitFor();
  await page.keyboard.press("Escape");

  await page.locator("#cancel-run-401").click();
  await page.locator("#sure-yes").click();
  await page.locator("#said", { hasText: "told to end" }).waitFor();
  await page.locator("#pause-repo1").click();
  await page.locator("#sure-yes").click();
  await page.locator("#said", { hasText: "are paused" }).waitFor();
  await page.locator("#pause-repo2").click();
  await page.locator("#said", { hasText: "go on" }).waitFor();

  const calls = await (await fetch(open + "/stage/calls")).json();
  assert.deepEqual(calls.map((c) => c.Method + " " + c.Path), [
    "POST /v1/backups", "POST /v1/backups", "POST /v1/runs/run-401/cancel", "POST /v1/repos/repo1/pause", "POST /v1/repos/repo2/resume",
  ]);
  assert.deepEqual(calls[0].Body, { repo: "repo1", type: "full", annotations: { note: "before the upgrade" } });
  assert.match(calls[0].Key, /^[0-9a-f]{32}$/);
  assert.notEqual(calls[0].Key, calls[1].Key);
  assert.equal(await page.evaluate(() => sessionStorage.length), 1);
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  assert.equal(await page.evaluate(() => document.cookie), "");
  await page.locator("#operator", { hasText: "Forget token" }).click();
  assert.equal(await page.evaluate(() => sessionStorage.getItem("walkeep-token")), "");
  await leave(page);
}

// closedPage: where viewers need a token, the page asks for it first.
async function closedPage() {
  const page = await visit(closed);
  await page.locator("#token-dialog").waitFor();
  assert.ok(!(await page.content()).includes("hippo"));
  await page.locator("#token").fill("wrong-token");
  await page.locator("#token-form [type=submit]").click();
  await page.locator("#token-error", { hasText: "not accepted" }).waitFor();
  await page.screenshot({ path: join(pictures, "sign-in-desktop-light.png") });
  await page.locator("#token").fill(token);
  await page.keyboard.press("Enter");
  await verdict(page, "All is well");
  await page.reload(); // the tab keeps the token
  await verdict(page, "All is well");
  await leave(page);
}

// accessible: everything that can be operated has a name, every picture says
// what it shows, keys suffice, and large text does not break the page.
async function accessible() {
  await scene("gaps");
  const page = await visit(open);
  await verdict(page, "Not well");
  const nameless = await page.evaluate(() => {
    const bad = [];
    for (const e of document.querySelectorAll("button, a, input, summary, [role=img], progress, [role=region]")) {
      if (e.closest("[hidden], dialog:not([open])")) continue;
      const name = e.getAttribute("aria-label") || e.textContent.trim() || e.getAttribute("aria-labelledby") || (e.id && document.querySelector(`label[for="${e.id}"]`)) || e.closest("label");
      if (!name) bad.push(e.outerHTML.slice(0, 80));
    }
    return bad;
  });
  assert.deepEqual(nameless, []);
  const twice = await page.evaluate(() => {
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    return ids.filter((id, i) => ids.indexOf(id) !== i);
  });
  assert.deepEqual(twice, []);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.locator("#backup-repo1").focus();
  await page.keyboard.press("Enter");
  await page.locator("#backup-dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#backup-dialog").waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement.id), "backup-repo1");
  await leave(page);

  const bare = await visit(open, { javaScriptEnabled: false });
  await verdict(bare, "Not well");
  await leave(bare);
}

// contrast: text against its ground, in both schemes, after WCAG 2 (AA, 4.5).
async function contrast() {
  for (const colorScheme of ["light", "dark"]) {
    await scene("dead");
    const page = await visit(open, { colorScheme });
    await verdict(page, "Not well");
    const weak = await page.evaluate(() => {
      const rgb = (s) => (s.match(/[\d.]+/g) || []).map(Number);
      const light = (c) => {
        const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (e) => {
        for (; e; e = e.parentElement) {
          const c = rgb(getComputedStyle(e).backgroundColor);
          if (c.length === 3 || c[3] === 1) return c;
        }
        return [255, 255, 255];
      };
      const bad = new Set();
      for (const e of document.querySelectorAll("main *")) {
        if (e.closest("svg, [hidden]") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
        const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) bad.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}: ${e.textContent.trim().slice(0, 30)}`);
      }
      return [...bad];
    });
    assert.deepEqual(weak, [], colorScheme);
    await leave(page);
  }
}

try {
  for (const step of [looks, live, operators, closedPage, accessible, contrast]) {
    const began = Date.now();
    await step();
    console.log(`${step.name}: ${Date.now() - began} ms`);
  }
} finally {
  await browser.close();
}
