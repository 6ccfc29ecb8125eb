/** The view of modes with one item at a time: actions, captions, questions, and what an adjudicator decides. */
import { Refused } from "./api.js";
import { actionsEditor } from "./edit_actions.js";
import { screeningEditor } from "./edit_screening.js";
import { textEditor } from "./edit_texts.js";
import { button, el, fill } from "./dom.js";
import { leaseBanner } from "./lease_banner.js";
import { Player } from "./player.js";
import { previousOf } from "./previous.js";
import { TaskQueue } from "./queue.js";
import { SaidPanel } from "./said.js";
import { Steps } from "./steps.js";
import { framesInWords, tracksOf } from "./tracks.js";

const EDITORS = { action: actionsEditor, caption: textEditor, qa: textEditor, screening: screeningEditor };
const AHEAD = 3;

/** Says why an item comes now: set off where something is doubted, and not at all where nothing chose it. */
export function whyNow(task, { order }) {
  if (!task.why || (order === "dataset" && task.mode !== "adjudicate")) return null;
  return el("p", { class: order === "random" ? "quiet" : "why" }, task.why);
}

export class ItemView {
  #task = null;
  #editor = null;
  #changed = false;
  #removeKeys = () => {};
  #removeEditorKeys = () => {};
  #stopped = false;
  #retry = 0;

  constructor(app, mode) {
    this.app = app;
    this.mode = mode;
    this.queue = new TaskQueue(mode, { ahead: AHEAD, held: () => [...(this.#task ? [this.#task.task_id] : []), ...app.outbox.taskIds] });
    this.steps = new Steps(app.vault, mode);
    this.clock = app.clock;
    this.player = new Player();
    this.ahead = el("video", { muted: true, preload: "auto" });
    this.heading = el("div", { class: "item-heading" });
    this.banner = el("div", { class: "banner-place" });
    this.said = el("div");
    this.place = el("div", { class: "editor-place" });
    this.strip = el("div", { class: "strip", role: "group", "aria-label": "Frames" });
    this.saveButton = button("Save and go on", () => this.save(), { key: "Enter", kind: "primary" });
    this.undoButton = button("Undo", () => this.undo(), { key: "u", kind: "plain" });
    this.bar = el("div", { class: "bar" }, this.saveButton, button("Skip", () => this.skip(), { key: "n", kind: "plain" }), this.undoButton);
    this.element = el(
      "div",
      { class: `work ${mode}` },
      el("div", { class: "left" }, this.player.element, this.strip),
      el("div", { class: "right" }, this.heading, this.banner, this.said, this.place, this.bar),
    );
  }

  /** The task in work. */
  get task() {
    return this.#task;
  }

  /** Tasks that this view holds leases of. */
  get held() {
    return [...(this.#task ? [this.#task] : []), ...this.queue.ready];
  }

  /** Whether something was entered and not saved. */
  get dirty() {
    return this.#changed;
  }

  /** Starts, with a given task or the next one. */
  async start(task = null) {
    this.#removeKeys = this.app.keys.add("This item", this.#bindings());
    if (task) this.#show(task);
    else await this.#next();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#removeKeys();
    this.#removeEditorKeys();
    this.player.close();
    this.ahead.removeAttribute("src");
    // What it held stays leased for a while: who comes back to the mode goes on where they were.
  }

  #bindings() {
    return [
      // The editor's bindings lie above: with its search field in use, Enter takes an action.
      { keys: ["Enter"], says: "Save and go on", run: () => this.save(), inText: () => this.#inEmptySearch() },
      { keys: ["u", "Ctrl+z"], says: "Undo the last save, several times if need be", run: () => this.undo() },
      { keys: ["n"], says: "Skip: leave this item to others", run: () => this.skip() },
      ...this.player.bindings(() => this.#inEmptySearch()),
    ];
  }

  #inEmptySearch() {
    const { inText } = this.#editor ?? {};
    return typeof inText === "function" && inText();
  }

  async #next() {
    this.#task = null;
    this.#changed = false;
    clearTimeout(this.#retry);
    if (!this.queue.ready.length) fill(this.heading, el("p", { class: "quiet" }, "Fetching the next item…"));
    try {
      const [task] = await this.queue.take();
      if (this.#stopped) return;
      if (task) this.#show(task);
      else this.#showEnd();
    } catch (error) {
      if (this.#stopped) return;
      this.#showTrouble(error);
    }
  }

  #fillAhead() {
    this.queue
      .fill()
      .then(() => {
        const next = this.queue.ready.find((task) => task.clip.clip_id !== this.#task?.clip.clip_id);
        if (next && !this.#stopped) this.ahead.src = next.clip.video;
        this.app.showProgress();
      })
      .catch(() => {}); // `take` tries again, and tells
  }

  #show(task, given = null) {
    const hadFocus = this.#editor?.focused() ?? false;
    this.#task = task;
    this.element.dataset.task = task.task_id;
    const draft = this.app.drafts.get(task);
    const session = this.app.session;
    if (task.kind === "action") task.previous = previousOf(task, this.steps.all);
    const editor = EDITORS[task.kind](task, session, {
      changed: () => this.#keep(),
      say: (...words) => this.app.say(...words),
      save: () => this.save(),
    });
    this.#editor = editor;
    const value = draft?.value ?? given?.value ?? task.mine?.value;
    if (value) editor.set(value);
    this.#changed = Boolean(draft);
    this.clock.start(draft?.seconds ?? given?.seconds ?? 0);
    const panel = task.said?.length ? new SaidPanel(task, session, { choose: (chosen) => this.#choose(chosen), say: (...words) => this.app.say(...words) }) : null;
    this.said.replaceChildren(...(panel ? [panel.element] : []));
    // The focus does not pass from one item's text to the next one's: letters are commands there.
    if (this.element.contains(document.activeElement)) this.app.main.focus({ preventScroll: true });
    this.place.replaceChildren(editor.element);
    this.#showPicture(task);
    this.#showHeading(task);
    fill(this.banner);
    this.element.classList.remove("ended");
    this.saveButton.disabled = false;
    this.#removeEditorKeys();
    const removers = [
      this.app.keys.add("Editor", editor.bindings),
      panel ? this.app.keys.add("What annotators said", panel.bindings) : () => {},
    ];
    this.#removeEditorKeys = () => removers.forEach((remove) => remove());
    if (hadFocus) editor.focus(); // who searches goes on searching
    if (draft) this.app.say(draft.words ? `Your entry was kept: ${draft.words}` : "What you had entered here was put back.");
    if (task.expired) this.leaseLost(task);
    scrollTo({ top: 0 });
    this.app.showProgress();
    this.#fillAhead();
  }

  #showPicture(task) {
    this.player.load(task.clip);
    const tracks = tracksOf(task.people ?? []);
    const people = [...tracks].map(([person_id, track]) => ({ person_id, track }));
    this.player.showPeople(people, task.person_id);
    const frames = task.frames ?? [];
    fill(
      this.strip,
      frames.map((frame) =>
        el(
          "button",
          { type: "button", class: "frame", onclick: () => this.player.seek(frame), "aria-label": `Show frame ${frame}` },
          el("img", { src: `/frame/${encodeURIComponent(task.clip.clip_id)}/${frame}.jpg?width=240`, alt: "", loading: "lazy" }),
          el("span", {}, String(frame)),
        ),
      ),
    );
  }

  #showHeading(task) {
    const person = (task.people ?? []).find((each) => each.person_id === task.person_id);
    const track = person && tracksOf([person]).get(person.person_id);
    fill(
      this.heading,
      el(
        "h1",
        {},
        task.person_id !== null && task.person_id !== undefined ? `Person ${task.person_id}` : task.kind === "qa" ? `Question ${task.item}` : task.kind === "screening" ? "Screening" : "Caption",
        el("span", { class: "quiet" }, `  ${task.clip.clip_id}`),
      ),
      track?.size ? el("p", { class: "quiet" }, framesInWords(track)) : null,
      whyNow(task, this.app.session),
    );
  }

  #showNoItem() {
    this.#editor = null;
    this.#removeEditorKeys();
    this.#removeEditorKeys = () => {};
    this.element.classList.add("ended");
    this.element.dataset.task = "";
    this.saveButton.disabled = true;
    fill(this.said);
    fill(this.banner);
  }

  #showEnd() {
    this.#showNoItem();
    fill(
      this.place,
      el("p", {}, "Nothing is left for you here now."),
      el("p", { class: "quiet" }, "Items that others hold come back when they leave them. Thank you."),
      button("Look again", () => this.#next(), { kind: "primary" }),
    );
    fill(this.heading, el("h1", {}, "All done"));
    this.app.showProgress();
  }

  #showTrouble(error) {
    this.#showNoItem();
    const words = error instanceof Refused ? error.words : "The server does not answer; this page tries again by itself.";
    fill(this.heading, el("h1", {}, "No item yet"));
    fill(this.place, el("p", {}, words), button("Try now", () => this.#next(), { kind: "primary" }));
    if (!(error instanceof Refused)) this.#retry = setTimeout(() => this.#next(), 3000);
    else if (error.status === 401) this.app.login();
  }

  #keep() {
    if (!this.#task) return;
    this.#changed = true;
    this.app.drafts.keep(this.#task, this.#editor.draft(), this.clock.seconds);
  }

  #choose(value) {
    this.#editor.set(value);
    this.#keep();
  }

  /** Saves what was judged, and goes on. */
  save() {
    if (!this.#task) return;
    const problem = this.#editor.problem();
    if (problem) return this.app.say(problem, { strong: true });
    const task = this.#task;
    const value = this.#editor.value();
    const seconds = this.clock.seconds;
    const annotation_id = this.app.outbox.save(task, value, seconds);
    this.steps.push({ type: "save", task, annotation_id, value, seconds });
    this.app.drafts.forget(task);
    this.app.say("");
    return this.#next();
  }

  skip() {
    if (!this.#task) return;
    this.queue.release([this.#task]);
    this.app.drafts.forget(this.#task);
    this.app.say("Skipped: others will see it.");
    return this.#next();
  }

  /** Takes the last save back and shows its item again, as it was judged. */
  undo() {
    const step = this.steps.pop();
    if (!step) return this.app.say("There is nothing to undo.");
    if (this.#task) this.queue.putBack(this.#task);
    this.app.outbox.undo(step.task, step.annotation_id);
    this.queue.drop(step.task.task_id);
    this.#show(step.task, step);
    this.#keep();
    this.app.say("Taken back: change it, then save it again.");
  }

  /** Is told that the server refused a save: its entry is kept as a draft, and this view shows another item by now. */
  saveRefused() {}

  /** Is told that a task's lease ran out. */
  leaseLost(task) {
    if (task !== this.#task) return this.queue.drop(task.task_id);
    const actions = { again: () => this.leaseBack(task), goOn: () => this.#next(), say: (...words) => this.app.say(...words) };
    fill(this.banner, leaseBanner(task, actions));
  }

  leaseBack(task) {
    if (task === this.#task) fill(this.banner);
  }
}
