/** The page: who works here, in which mode, what is saved and what is left. */
import { Refused, Unreachable, get, post, renew } from "./api.js";
import { BoxesView } from "./boxes_view.js";
import { Clock } from "./clock.js";
import { button, el, fill, openDialog } from "./dom.js";
import { Drafts } from "./drafts.js";
import { ItemView } from "./item_view.js";
import { Keys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Leases } from "./queue.js";
import { ScreenView } from "./screen_view.js";
import { Steps } from "./steps.js";
import { Vault } from "./vault.js";

const MODES = {
  screen: ["Screen", ScreenView],
  actions: ["Actions", ItemView],
  boxes: ["Boxes", BoxesView],
  captions: ["Captions", ItemView],
  questions: ["Questions", ItemView],
  adjudicate: ["Adjudicate", ItemView],
};
const SHORT = 6000; // milliseconds that a message stays

class App {
  view = null;
  session = null;
  #silence = 0;
  #loggingIn = false;

  constructor() {
    this.top = document.getElementById("top");
    this.main = document.getElementById("main");
    this.messages = document.getElementById("messages");
    this.keys = new Keys();
    this.clock = new Clock();
    this.keys.add("Everywhere", [
      { keys: ["?", "F1"], says: "This help", run: () => this.keys.help(["Keys work while no text field has the focus; Esc leaves a text field. With Tab everything can be reached, too."]) },
      { keys: ["Alt+ArrowRight"], says: "Next mode", run: () => this.#turn(1) },
      { keys: ["Alt+ArrowLeft"], says: "Mode before", run: () => this.#turn(-1) },
    ]);
  }

  /** Starts the page: logs in by the link's token, asks for the session, opens the mode of the address. */
  async start() {
    try {
      const token = /^#token=(.+)$/.exec(location.hash);
      if (token) {
        history.replaceState(null, "", location.pathname); // a token is not left in the address
        await post("/api/login", { token: decodeURIComponent(token[1]) });
      }
      this.session = await get("/api/session");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return this.login();
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      const words = error instanceof Refused ? error.words : "The server does not answer. Is 'microg review' still running?";
      fill(this.main, el("div", { class: "center" }, el("p", { role: "alert" }, words), button("Try again", () => this.start(), { kind: "primary" })));
      return;
    }
    const { annotator, dataset } = this.session;
    document.title = `${dataset.name} – review`;
    this.vault = await Vault.open(`${dataset.name}:${annotator}`, (words) => this.say(words, { strong: true }));
    this.drafts = new Drafts(this.vault);
    this.outbox = new Outbox(this.vault);
    this.#listen();
    this.#buildTop();
    this.leases = new Leases(
      () => this.view?.held ?? [],
      (task) => this.view?.leaseLost(task),
      (task) => this.view?.leaseBack(task),
    );
    const modes = this.#modes();
    const named = location.hash.slice(1);
    await this.go(modes.includes(named) ? named : (modes.find((mode) => this.#numbers(mode).open > 0) ?? modes[0]));
  }

  #listen() {
    this.outbox.addEventListener("change", () => this.#showSaving());
    this.outbox.addEventListener("login", () => this.login());
    this.outbox.addEventListener("answer", ({ detail }) => {
      if (detail.answer.progress) this.session.modes = detail.answer.progress.modes;
      this.showProgress();
    });
    this.outbox.addEventListener("refused", ({ detail }) => this.#keepRefused(detail));
    addEventListener("beforeunload", (event) => {
      if (!this.outbox.waiting.length && !this.view?.dirty) return;
      event.preventDefault();
      event.returnValue = ""; // older browsers ask only with it
    });
    addEventListener("hashchange", () => {
      const mode = location.hash.slice(1);
      if (this.#modes().includes(mode) && mode !== this.view?.mode) this.go(mode);
    });
  }

  #keepRefused({ entry, refusal }) {
    const { task, body } = entry;
    if (entry.type === "save") {
      const value = task.mode === "boxes" ? drawingOf(body) : body.value;
      if (value) this.drafts.keep(task, value, body.seconds, refusal.words);
      new Steps(this.vault, task.mode).forget(body.annotation_id);
      if (this.view?.mode === task.mode) this.view.saveRefused(body.annotation_id);
    }
    const kept = entry.type === "save" ? " Your entry is kept under 'Kept entries'." : "";
    this.say(`${task.clip.clip_id} was not ${entry.type === "undo" ? "undone" : "saved"}: ${refusal.words}.${kept}`, { strong: true });
    this.#showSaving();
  }

  #modes() {
    const numbers = new Map(this.session.modes.map((each) => [each.mode, each]));
    return Object.keys(MODES).filter((mode) => numbers.get(mode)?.total > 0 && (mode !== "adjudicate" || this.session.adjudicator));
  }

  #numbers(mode) {
    return this.session.modes.find((each) => each.mode === mode) ?? { total: 0, done: 0, mine: 0, open: 0 };
  }

  #turn(by) {
    const modes = this.#modes();
    this.go(modes[(modes.indexOf(this.view?.mode) + by + modes.length) % modes.length]);
  }

  /** Opens a mode, on a given task or the next one. */
  async go(mode, task = null) {
    this.view?.stop();
    this.say("");
    if (!mode) {
      this.view = null;
      fill(this.main, el("p", { class: "center" }, "This dataset has nothing to review: no clips, people, captions or questions."));
      return;
    }
    history.replaceState(null, "", `#${mode}`);
    const View = MODES[mode][1];
    this.view = new View(this, mode);
    this.main.replaceChildren(this.view.element);
    this.main.focus({ preventScroll: true }); // no field of the new view takes over the focus of the old one's
    this.showProgress();
    await this.view.start(task);
  }

  #buildTop() {
    this.tabs = el("nav", { class: "tabs", "aria-label": "Modes" });
    this.bar = el("div", { class: "progress", role: "progressbar", "aria-label": "Items done", "aria-valuemin": 0 }, el("div", { class: "filled" }));
    this.numbers = el("span", { class: "numbers" });
    this.saving = el("span", { class: "saving", role: "status" });
    this.kept = button("", () => this.#showKept(), { kind: "plain small" });
    fill(
      this.top,
      el(
        "div",
        { class: "top-line" },
        el("span", { class: "name", title: this.session.dataset.name }, this.session.dataset.name),
        this.tabs,
        el("span", { class: "who", title: "You" }, this.session.annotator),
        button("Help", () => this.keys.help(), { key: "?", kind: "plain small help-button" }),
      ),
      this.bar,
      el("div", { class: "top-line low" }, this.numbers, this.kept, this.saving),
    );
    this.#showSaving();
  }

  /** Shows how far the mode is, and what is left. */
  showProgress() {
    const mode = this.view?.mode;
    fill(this.tabs, this.#modes().map((each) => this.#tab(each, each === mode)));
    if (!mode) return;
    const { total, done, mine, open } = this.#numbers(mode);
    this.bar.setAttribute("aria-valuemax", String(total));
    this.bar.setAttribute("aria-valuenow", String(done));
    this.bar.firstChild.style.width = `${total ? (100 * done) / total : 0}%`;
    const { pace } = this.view.steps;
    const more = [`${mine} by you`, pace ? `${pace < 10 ? pace.toFixed(1) : Math.round(pace)} s an item` : null].filter(Boolean);
    fill(this.numbers, `${done} of ${total} done · ${open} left for you`, el("span", { class: "more" }, ` · ${more.join(" · ")}`));
    this.#showKeptCount();
  }

  #tab(mode, current) {
    const { total, done } = this.#numbers(mode);
    const tab = el(
      "button",
      { type: "button", class: "tab", "aria-current": current ? "page" : null, onclick: () => mode !== this.view?.mode && this.go(mode) },
      MODES[mode][0],
      el("span", { class: "quiet" }, ` ${done}/${total}`),
    );
    // On a phone not all tabs fit: the current one is brought into view.
    if (current) requestAnimationFrame(() => this.tabs.scrollTo({ left: tab.offsetLeft - this.tabs.offsetLeft - 40 }));
    return tab;
  }

  #showSaving() {
    const waiting = this.outbox.waiting.length;
    this.saving.dataset.state = waiting ? (this.outbox.failing ? "failing" : "waiting") : "saved";
    this.saving.textContent = waiting ? `${waiting} not yet saved${this.outbox.failing ? ", trying again" : ""}` : "All saved";
    this.#showKeptCount();
  }

  #showKeptCount() {
    const others = this.drafts.others(this.view?.task);
    this.kept.hidden = !others.length;
    this.kept.firstChild.textContent = `Kept entries: ${others.length}`;
  }

  /** Lists what was entered and is not saved, to be opened again or thrown away. */
  #showKept() {
    const rows = this.drafts.others(this.view?.task).map((draft) => {
      const row = el(
        "li",
        {},
        el("p", {}, `${MODES[draft.task.mode][0]}: ${draft.task.clip.clip_id}`, el("span", { class: "quiet" }, `  ${new Date(draft.time).toLocaleString()}`)),
        draft.words && el("p", { class: "quiet" }, draft.words),
        el(
          "div",
          { class: "row" },
          button("Open", () => this.#openKept(draft, dialog), { kind: "primary small" }),
          button("Throw away", () => {
            this.drafts.forget(draft.task);
            row.remove();
            this.#showKeptCount();
          }, { kind: "plain small" }),
        ),
      );
      return row;
    });
    const remove = this.keys.add("", [], { modal: true });
    const dialog = openDialog("Kept entries", [el("ul", { class: "kept" }, rows)], { onclose: remove });
  }

  async #openKept(draft, dialog) {
    try {
      await renew(draft.task);
      dialog.close();
      await this.go(draft.task.mode, draft.task);
    } catch (error) {
      this.say(error instanceof Unreachable ? "The server does not answer: try again." : error.words, { strong: true });
    }
  }

  /** Tells people something: in view for a while, and to those who listen. */
  say(words, { strong = false, onlySpoken = false } = {}) {
    clearTimeout(this.#silence);
    const place = document.querySelector("dialog[open]") ?? document.body;
    if (this.messages.parentElement !== place) place.append(this.messages);
    fill(this.messages, words && el("p", { class: `message${strong ? " strong" : ""}${onlySpoken ? " spoken" : ""}` }, words));
    if (words) this.#silence = setTimeout(() => fill(this.messages), strong ? 2 * SHORT : SHORT);
  }

  /** Asks for the annotator's token, and goes on where the page was. */
  login() {
    if (this.#loggingIn) return;
    this.#loggingIn = true;
    const field = el("input", { type: "password", name: "token", id: "token", autocomplete: "off" });
    const words = el("p", { role: "alert" });
    const form = el(
      "form",
      {
        class: "login",
        onsubmit: async (event) => {
          event.preventDefault();
          try {
            await post("/api/login", { token: field.value.trim() });
            this.#loggingIn = false;
            dialog.close();
            if (this.session) this.outbox.flush();
            else await this.start();
          } catch (error) {
            words.textContent = error instanceof Refused ? error.words : "The server does not answer: try again.";
          }
        },
      },
      el("p", {}, "Open the link that you were given, or enter the token in it."),
      el("label", { for: "token" }, "Token"),
      field,
      words,
      el("button", { type: "submit", class: "button primary" }, "Go on"),
    );
    const remove = this.keys.add("", [], { modal: true });
    const dialog = openDialog("Who are you?", [form], {
      onclose: () => {
        remove();
        this.#loggingIn = false;
        if (!this.session) fill(this.main, el("div", { class: "center" }, button("Enter a token", () => this.login(), { kind: "primary" })));
      },
    });
    field.focus();
  }
}

/** Returns an edit that draws a person as the drawing that it was; null for other edits. */
function drawingOf({ person_id, value }) {
  if (value.op !== "draw") return null;
  const keys = value.stretches.flat().map(([frame, ...box]) => [frame, box]);
  return { person_id, keys, gaps: value.stretches.slice(1).map(([[frame]]) => frame) };
}

const app = new App();
app.start();
export { app };
