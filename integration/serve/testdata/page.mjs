// Looks at the page of a real service; called by TestPage and TestAfternoon.
import assert from "node:assert/strict";

const [step, url, token, picture, expected] = process.argv.slice(2);
const { chromium } = await import(process.env.PLAYWRIGHT);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium-headless-shell",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1180, height: 900 }, reducedMotion: "reduce" });
  page.setDefaultTimeout(60000); // machines are busy
  const errors = [];
  page.on("pageerror", (e) => errors.push(String(e)));
  page.on("console", (m) => { if (m.type() === "error" && !/Failed to load resource/.test(m.text())) errors.push(m.text()); });
  await page.goto(url);
  await page.locator("#token").fill(token);
  await page.keyboard.press("Enter");
  await page.locator("h1", { hasText: "hippo" }).waitFor();
  const steps = {
    async backup() {
      await page.locator("#backup-repo1").click();
      await page.locator("#backup-dialog input[value=full]").check();
      await page.locator("#note").fill("asked for on the page");
      await page.locator("#backup-form [type=submit]").click();
      await page.locator("#said", { hasText: "begins" }).waitFor();
      await page.locator("tr.done th", { hasText: "full" }).first().waitFor(); // it ended, and the page was told
      await page.locator("article[aria-labelledby=repo-repo1] use.mark[href='#shape-full']").waitFor();
      await page.locator("article[aria-labelledby=repo-repo1] .facts", { hasText: "last full" }).waitFor();
      assert.equal(await page.locator("#part-failures").isVisible(), false);
    },
    async dead() {
      await page.locator(".verdict", { hasText: "Not well" }).waitFor();
      await page.locator("article.dead .trouble", { hasText: "Cannot be looked at" }).waitFor();
      assert.match(await page.locator(".problems a").first().getAttribute("href"), /runbook\.md#repository-down$/);
    },
    // expected is {"repo1": 2, …}: the full backups that each repository has.
    async afternoon() {
      for (const [repo, fulls] of Object.entries(JSON.parse(expected))) {
        const article = page.locator(`article[aria-labelledby=repo-${repo}]`);
        // Those that are near one another are drawn as one: the picture's label counts.
        await article.locator(`[aria-label^="Time line of backups: ${fulls} full"]`).waitFor();
        assert.equal(await article.locator(".gaps").count(), 0, repo);
      }
      // What is left of the afternoon is the server that died, and nothing else.
      assert.match(await page.locator(".problems a").first().getAttribute("href"), /runbook\.md#node-down$/);
      assert.equal(await page.locator(".problems a").count(), 1);
    },
    async well() {
      await page.locator(".verdict", { hasText: "All is well" }).waitFor();
    },
  };
  await steps[step]();
  await page.screenshot({ path: picture, fullPage: true });
  assert.deepEqual(errors, []);
} finally {
  await browser.close();
}
