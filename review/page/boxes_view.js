/** The view of boxes: people of a clip are deleted, merged, split or drawn; each edit is saved as it is made. */
import { Refused, post } from "./api.js";
import { button, count, el, fill } from "./dom.js";
import { DrawTool } from "./draw_tool.js";
import { whyNow } from "./item_view.js";
import { leaseBanner } from "./lease_banner.js";
import { Player, colourOf } from "./player.js";
import { TaskQueue } from "./queue.js";
import { Steps } from "./steps.js";
import { edited, framesInWords, freshPerson, tracksOf } from "./tracks.js";

const AHEAD = 2;

export class BoxesView {
  #task = null;
  #base = new Map();
  #fresh = []; // edits since the task came; the task's people are as after the others
  #edits = [];
  #tracks = new Map();
  #selected = null;
  #merging = false;
  #drawing = null;
  #removeKeys = () => {};
  #removeDrawKeys = () => {};
  #stopped = false;
  #retry = 0;

  constructor(app, mode) {
    this.app = app;
    this.mode = mode;
    this.queue = new TaskQueue(mode, { ahead: AHEAD, held: () => [...(this.#task ? [this.#task.task_id] : []), ...app.outbox.taskIds] });
    this.steps = new Steps(app.vault, mode);
    this.clock = app.clock;
    this.player = new Player();
    this.heading = el("div", { class: "item-heading" });
    this.banner = el("div");
    this.people = el("div", { class: "people", role: "listbox", "aria-label": "People" });
    this.tools = el("div", { class: "tools" });
    this.edits = el("div", { class: "edits" });
    this.doneButton = button("Done, go on", () => this.finish(), { key: "Enter", kind: "primary" });
    this.bar = el("div", { class: "bar" }, this.doneButton, button("Skip", () => this.skip(), { key: "n", kind: "plain" }), button("Undo", () => this.undo(), { key: "u", kind: "plain" }));
    this.element = el(
      "div",
      { class: "work boxes" },
      el("div", { class: "left" }, this.player.element),
      el("div", { class: "right" }, this.heading, this.banner, this.people, this.tools, this.edits, this.bar),
    );
    this.player.canvas.addEventListener("pointerdown", (event) => this.#pick(event));
    this.player.addEventListener("frame", () => this.#drawing?.follow());
  }

  get task() {
    return this.#task;
  }

  get held() {
    return [...(this.#task ? [this.#task] : []), ...this.queue.ready];
  }

  get dirty() {
    return Boolean(this.#drawing?.keys.size);
  }

  /** The tracks that are shown, as [person, [frame, box][]][]. */
  tracksInView() {
    return [...this.#tracks].map(([person, track]) => [person, [...track]]);
  }

  async start(task = null) {
    this.#removeKeys = this.app.keys.add("Boxes", this.#bindings());
    if (task) this.#show(task);
    else await this.#next();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#removeKeys();
    this.#removeDrawKeys();
    this.player.close();
  }

  #bindings() {
    const digits = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    return [
      { keys: ["ArrowDown"], says: "Choose the next person", run: () => this.#move(1) },
      { keys: ["ArrowUp"], says: "Choose the person before", run: () => this.#move(-1) },
      { keys: digits, says: "Choose a person by place in the list", run: (event) => this.#chooseAt(Number(event.key) - 1) },
      { keys: ["d", "Delete", "Backspace"], says: "Delete the person", run: () => this.remove() },
      { keys: ["m"], says: "Merge the person into another: then choose the one who stays", run: () => this.#startMerge() },
      { keys: ["s"], says: "Split: from this frame on it is somebody else", run: () => this.split() },
      { keys: ["w"], says: "Draw a missing person", run: () => this.draw() },
      { keys: ["r"], says: "Redraw the person's boxes", run: () => this.#redraw() },
      { keys: ["Escape"], says: "Leave merging or drawing", run: () => this.#leave() },
      { keys: ["Enter"], says: "The clip is done: go on; while drawing, save what is drawn", run: () => (this.#drawing ? this.#saveDrawn() : this.finish()) },
      { keys: ["u", "Ctrl+z"], says: "Undo the last edit, or go back to the clip before", run: () => this.undo() },
      { keys: ["n"], says: "Skip: leave this clip to others", run: () => this.skip() },
      ...this.player.bindings(),
    ];
  }

  async #next() {
    this.#task = null;
    this.#endDrawing();
    clearTimeout(this.#retry);
    try {
      const [task] = await this.queue.take();
      if (this.#stopped) return;
      if (task) this.#show(task);
      else this.#showEnd("All done", "Nothing is left for you here now. Items that others hold come back when they leave them.");
    } catch (error) {
      if (this.#stopped) return;
      if (error instanceof Refused && error.status === 401) return this.app.login();
      this.#showEnd("No clip yet", error instanceof Refused ? error.words : "The server does not answer; this page tries again by itself.");
      if (!(error instanceof Refused)) this.#retry = setTimeout(() => this.#next(), 3000);
    }
  }

  #showEnd(title, words) {
    this.element.classList.add("ended");
    this.element.dataset.task = "";
    this.doneButton.disabled = true;
    fill(this.heading, el("h1", {}, title), el("p", {}, words), button("Look again", () => this.#next(), { kind: "primary" }));
    for (const part of [this.people, this.tools, this.edits, this.banner]) fill(part);
    this.app.showProgress();
  }

  #show(task) {
    this.#endDrawing();
    this.#task = task;
    this.element.dataset.task = task.task_id;
    this.#base = tracksOf(task.people ?? []);
    this.#edits = [...(task.edits ?? [])];
    this.#fresh = [];
    this.#merging = false;
    this.element.classList.remove("ended");
    this.doneButton.disabled = false;
    fill(this.banner);
    fill(this.heading, el("h1", {}, "Boxes", el("span", { class: "quiet" }, `  ${task.clip.clip_id}`)), whyNow(task, this.app.session));
    this.player.load(task.clip);
    this.clock.start();
    this.#apply();
    this.#selected = [...this.#tracks.keys()].sort((a, b) => a - b)[0] ?? null;
    this.#render();
    const draft = this.app.drafts.get(task);
    if (draft) {
      this.clock.start(draft.seconds);
      this.#startDrawing(draft.value.person_id, draft.value);
      this.app.say(draft.words ? `Your drawing was kept: ${draft.words}` : "What you had drawn here was put back.");
    }
    if (task.expired) this.leaseLost(task);
    this.app.showProgress();
    this.queue.fill().then(() => this.app.showProgress()).catch(() => {}); // `take` tries again, and tells
  }

  #apply() {
    this.#tracks = edited(this.#base, this.#fresh);
    if (!this.#tracks.has(this.#selected)) this.#selected = [...this.#tracks.keys()].sort((a, b) => a - b)[0] ?? null;
  }

  #render() {
    const ids = this.#ids();
    fill(
      this.people,
      ids.map((id, index) =>
        el(
          "button",
          {
            type: "button",
            class: "person",
            role: "option",
            "aria-selected": String(id === this.#selected),
            onclick: () => (this.#merging ? this.#mergeInto(id) : this.#select(id)),
          },
          colourDot(id),
          el("span", {}, `Person ${id}`),
          el("span", { class: "quiet" }, framesInWords(this.#tracks.get(id))),
          index < 9 && el("kbd", { "aria-hidden": "true" }, String(index + 1)),
        ),
      ),
      !ids.length && el("p", { class: "quiet" }, "Nobody has boxes in this clip."),
    );
    if (this.#drawing) fill(this.tools, this.#drawing.element);
    else if (this.#merging) fill(this.tools, el("p", {}, `Who stays? Person ${this.#selected} becomes the one you choose.`), button("Cancel", () => this.#leave(), { key: "Esc", kind: "plain" }));
    else
      fill(
        this.tools,
        el(
          "div",
          { class: "row" },
          button("Delete", () => this.remove(), { key: "d", kind: "danger", disabled: this.#selected === null }),
          button("Merge into…", () => this.#startMerge(), { key: "m", disabled: ids.length < 2 }),
          button("Split here", () => this.split(), { key: "s", disabled: this.#selected === null }),
          button("Draw a person", () => this.draw(), { key: "w" }),
          button("Redraw", () => this.#redraw(), { key: "r", disabled: this.#selected === null }),
        ),
      );
    fill(
      this.edits,
      el("h2", {}, this.#edits.length ? count(this.#edits.length, "edit") : "No edits yet"),
      el(
        "ol",
        {},
        this.#edits.map((edit) => el("li", {}, el("span", {}, editInWords(edit)), button("Undo", () => this.#undoEdit(edit), { kind: "plain small", title: `Undo: ${editInWords(edit)}` }))),
      ),
    );
    this.bar.hidden = Boolean(this.#drawing); // Enter saves the drawing then
    this.#showOnPlayer();
  }

  #ids() {
    return [...this.#tracks.keys()].sort((a, b) => a - b);
  }

  #showOnPlayer() {
    const drawn = this.#drawing?.personId;
    const people = [...this.#tracks].filter(([id]) => id !== drawn).map(([person_id, track]) => ({ person_id, track }));
    this.player.showPeople(people, this.#drawing ? -1 : null, this.#selected);
  }

  #select(id) {
    this.#selected = id;
    this.#render();
  }

  #move(by) {
    if (this.#drawing) return false;
    const ids = this.#ids();
    if (ids.length) this.#select(ids[(ids.indexOf(this.#selected) + by + ids.length) % ids.length]);
  }

  #chooseAt(index) {
    if (this.#drawing) return false;
    const id = this.#ids()[index];
    if (id === undefined) return;
    if (this.#merging) this.#mergeInto(id);
    else this.#select(id);
  }

  #pick(event) {
    if (this.#drawing) return;
    const [x, y] = this.player.locate(event);
    const hit = this.#ids().find((id) => {
      const box = this.#tracks.get(id).get(this.player.frame);
      return box && x >= box[0] && x <= box[2] && y >= box[1] && y <= box[3];
    });
    if (hit === undefined) return;
    if (this.#merging) this.#mergeInto(hit);
    else this.#select(hit);
  }

  #edit(person_id, value) {
    const annotation_id = this.app.outbox.save(this.#task, value, this.clock.seconds, { person_id });
    const edit = { annotation_id, person_id, value };
    this.#edits.push(edit);
    this.#fresh.push(edit);
    this.clock.start();
    this.#apply();
    this.#render();
    this.app.say(editInWords({ person_id, value }));
  }

  #busy() {
    return !this.#task || this.#drawing || this.#selected === null;
  }

  /** Deletes the chosen person. */
  remove() {
    if (!this.#busy()) this.#edit(this.#selected, { op: "delete" });
  }

  #freshPerson() {
    return Math.max(freshPerson(this.#base, this.#edits), freshPerson(this.#tracks, []));
  }

  #startMerge() {
    if (this.#busy() || this.#ids().length < 2) return;
    this.#merging = true;
    this.#render();
    this.app.say("Choose the person who stays: by digit, in the list, or in the picture.");
  }

  #mergeInto(id) {
    if (id === this.#selected) return this.app.say("Choose another person than the one to merge.", { strong: true });
    const gone = this.#selected;
    this.#merging = false;
    this.#selected = id;
    this.#edit(gone, { op: "merge", into: id });
  }

  /** Lets the chosen person be somebody else from the frame that is shown. */
  split() {
    if (this.#busy()) return;
    this.player.video.pause();
    const frames = [...this.#tracks.get(this.#selected).keys()];
    const frame = this.player.frame;
    if (!frames.some((each) => each < frame) || !frames.some((each) => each >= frame)) {
      return this.app.say(`Person ${this.#selected} is not there both before frame ${frame} and from it on: go to the frame where it becomes somebody else.`, { strong: true });
    }
    this.#edit(this.#selected, { op: "split", frame, new: this.#freshPerson() });
  }

  /** Starts to draw somebody who is missing. */
  draw() {
    if (!this.#task || this.#drawing) return;
    this.#startDrawing(this.#freshPerson());
  }

  #redraw() {
    if (this.#busy()) return;
    this.#startDrawing(this.#selected, { track: this.#tracks.get(this.#selected) });
  }

  #startDrawing(personId, from = {}) {
    this.#merging = false;
    this.#drawing = new DrawTool(this.player, this.#task.clip, personId, {
      changed: () => this.#keep(),
      save: () => this.#saveDrawn(),
      leave: () => this.#leave(),
      say: (...words) => this.app.say(...words),
    }, from);
    this.#removeDrawKeys();
    this.#removeDrawKeys = this.app.keys.add("Drawing", this.#drawing.bindings);
    this.#render();
  }

  #keep() {
    this.app.drafts.keep(this.#task, this.#drawing.draft(), this.clock.seconds);
  }

  #saveDrawn() {
    const { personId } = this.#drawing;
    const stretches = this.#drawing.stretches();
    if (!stretches.length) return this.app.say("Nothing is drawn yet: draw a box on a frame, or press k.", { strong: true });
    this.#endDrawing();
    this.#selected = personId;
    this.#edit(personId, { op: "draw", stretches });
  }

  #endDrawing() {
    if (!this.#drawing) return;
    this.#drawing.close();
    this.#removeDrawKeys();
    this.#drawing = null;
    if (this.#task) this.app.drafts.forget(this.#task);
  }

  #leave() {
    if (!this.#drawing && !this.#merging) return false;
    this.#endDrawing();
    this.#merging = false;
    this.#render();
  }

  async #undoEdit(edit) {
    if (this.#fresh.includes(edit)) {
      this.app.outbox.undo(this.#task, edit.annotation_id);
      this.#edits = this.#edits.filter((each) => each !== edit);
      this.#fresh = this.#fresh.filter((each) => each !== edit);
      this.#apply();
      this.#render();
    } else {
      // Of an earlier visit: only the server knows the boxes without it.
      const task = await this.#ask(async () => {
        await this.app.outbox.drained();
        return post("/api/undo", { annotation_id: edit.annotation_id });
      });
      if (!task) return;
      this.#show(task);
    }
    this.app.say(`Undone: ${editInWords(edit)}`);
  }

  /** Asks the server for a task; says what is wrong, and returns null, where it gives none. */
  async #ask(request) {
    try {
      return (await request()).task;
    } catch (error) {
      this.app.say(error instanceof Refused ? error.words : "The server does not answer: try again.", { strong: true });
      return null;
    }
  }

  /** Undoes what was done last: a key box, an edit, or that the clip before was done. */
  async undo() {
    if (this.#drawing) return this.#drawing.undo();
    if (this.#edits.length) return this.#undoEdit(this.#edits.at(-1));
    const step = this.steps.pop();
    if (!step) return this.app.say("There is nothing to undo.");
    const task = await this.#ask(async () => {
      await this.app.outbox.drained();
      return post("/api/open", { task_id: step.task_id });
    });
    if (!task) return this.steps.push(step);
    if (this.#task) this.queue.putBack(this.#task); // it has no edits: those would have been undone first
    this.queue.drop(task.task_id);
    this.#show(task);
    this.app.say("Back at the clip before; its edits stand, undo them one by one.");
  }

  /** Says that the clip is done, and goes on. */
  finish() {
    if (!this.#task || this.#drawing) return;
    const seconds = this.clock.seconds;
    this.app.outbox.done(this.#task, seconds);
    this.steps.push({ type: "done", task_id: this.#task.task_id, seconds });
    this.app.say("");
    return this.#next();
  }

  skip() {
    if (!this.#task) return;
    this.queue.release([this.#task]);
    this.app.say(this.#edits.length ? "Skipped; your edits of it stand." : "Skipped: others will see it.");
    return this.#next();
  }

  /** Is told that the server refused an edit: it is not shown any more. */
  saveRefused(annotation_id) {
    const others = (edit) => edit.annotation_id !== annotation_id;
    this.#edits = this.#edits.filter(others);
    this.#fresh = this.#fresh.filter(others);
    if (!this.#task) return;
    this.#apply();
    this.#render();
  }

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

function colourDot(id) {
  const dot = el("span", { class: "dot", "aria-hidden": "true" });
  dot.style.background = colourOf(id);
  return dot;
}

/** Says an edit in words. */
export function editInWords({ person_id, value }) {
  if (value.op === "delete") return `Person ${person_id} deleted`;
  if (value.op === "merge") return `Person ${person_id} merged into person ${value.into}`;
  if (value.op === "split") return `Person ${person_id} is person ${value.new} from frame ${value.frame}`;
  return `Person ${person_id} drawn with ${count(value.stretches.flat().length, "key frame")}`;
}
