/** The view of screening: a grid of clips, each kept or dropped with a reason, and a player for a closer look. */
import { Refused, newId } from "./api.js";
import { button, count, el, fill, openDialog } from "./dom.js";
import { screeningInWords } from "./edit_screening.js";
import { whyNow } from "./item_view.js";
import { Player } from "./player.js";
import { TaskQueue } from "./queue.js";
import { Steps } from "./steps.js";

const PAGE = 24;
const HOVER = 150; // milliseconds before a clip plays

export class ScreenView {
  #cards = []; // {task, value, annotation_id, seconds, element, ...}
  #at = 0;
  #dropping = false;
  #removeKeys = () => {};
  #stopped = false;
  #hover = 0;
  #retry = 0;
  #look = null; // the open player: {player, dialog}

  constructor(app, mode) {
    this.app = app;
    this.mode = mode;
    this.queue = new TaskQueue(mode, { ahead: PAGE, held: () => [...this.#cards.map((card) => card.task.task_id), ...app.outbox.taskIds] });
    this.steps = new Steps(app.vault, mode);
    this.clock = app.clock;
    this.video = el("video", { muted: true, loop: true, playsInline: true, class: "hover", "aria-hidden": "true" });
    this.video.muted = true;
    this.heading = el("h1", {}, "Screening");
    this.grid = el("div", { class: "grid", role: "group", "aria-label": "Clips" });
    this.reasons = el("div", { class: "reasons", role: "group", hidden: true });
    this.undoButton = button("Undo", () => this.undo(), { key: "u", kind: "plain" });
    this.allButton = button("Keep the rest", () => this.keepRest(), { key: "Shift+K", kind: "plain" });
    this.nextButton = button("Next page", () => this.nextPage(), { key: "n", kind: "primary" });
    this.element = el(
      "div",
      { class: "screen" },
      this.heading,
      this.grid,
      el("div", { class: "bar" }, this.reasons, this.nextButton, this.allButton, this.undoButton),
    );
  }

  get task() {
    return null;
  }

  get held() {
    return [...this.#cards.filter((card) => !card.value).map((card) => card.task), ...this.queue.ready];
  }

  get dirty() {
    return false; // each decision is saved as it is made
  }

  async start(task = null) {
    this.#removeKeys = this.app.keys.add("Screening", this.#bindings());
    await this.#load(task);
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#hover);
    clearTimeout(this.#retry);
    this.#removeKeys();
    this.#look?.dialog.close();
    this.video.removeAttribute("src");
  }

  #bindings() {
    const move = (by) => () => this.#move(by);
    return [
      { keys: ["ArrowLeft"], says: "The clip before", run: move(() => -1) },
      { keys: ["ArrowRight"], says: "The next clip", run: move(() => 1) },
      { keys: ["ArrowUp"], says: "The clip above", run: move((columns) => -columns) },
      { keys: ["ArrowDown"], says: "The clip below", run: move((columns) => columns) },
      { keys: ["k"], says: "Keep", run: () => this.decide({ keep: true }) },
      { keys: ["d"], says: "Drop, then a digit for the reason", run: () => this.#askReason() },
      ...this.app.session.reasons.map((reason, index) => ({
        keys: [String(index + 1)],
        run: () => (this.#dropping ? this.decide({ keep: false, reason }) : false),
      })),
      { keys: ["Escape"], run: () => (this.#dropping ? this.#endReason() : false) },
      { keys: ["Enter"], says: "Open the player", run: () => this.open() },
      { keys: ["Shift+k"], says: "Keep all clips of this page that are untouched, after a question", run: () => this.keepRest() },
      { keys: ["n"], says: "Next page; untouched clips are left to others", run: () => this.nextPage() },
      { keys: ["u", "Ctrl+z"], says: "Undo the last decision, several times if need be", run: () => this.undo() },
    ];
  }

  async #load(first = null) {
    clearTimeout(this.#retry);
    if (!this.queue.ready.length) fill(this.grid, el("p", { class: "quiet" }, "Fetching clips…"));
    try {
      const tasks = await this.queue.take(PAGE);
      if (this.#stopped) return;
      this.#cards = [];
      fill(this.grid);
      if (first) tasks.unshift(first);
      for (const task of tasks) this.#addCard(task);
      if (!tasks.length) this.#showEnd();
      else this.#select(0, { focus: true });
      this.clock.start();
      this.#showState();
      scrollTo({ top: 0 });
    } catch (error) {
      if (this.#stopped) return;
      if (error instanceof Refused && error.status === 401) return this.app.login();
      fill(this.grid, el("p", {}, error instanceof Refused ? error.words : "The server does not answer; this page tries again by itself."), button("Try now", () => this.#load(first), { kind: "primary" }));
      if (!(error instanceof Refused)) this.#retry = setTimeout(() => this.#load(first), 3000);
    }
  }

  #showEnd() {
    fill(
      this.grid,
      el("div", { class: "center" }, el("p", {}, "Nothing is left to screen for you here now."), button("Look again", () => this.#load(), { kind: "primary" })),
    );
  }

  #addCard(task, place = this.#cards.length) {
    const card = { task, value: null, annotation_id: null };
    const index = () => this.#cards.indexOf(card);
    card.picture = el(
      "button",
      {
        type: "button",
        class: "picture",
        "aria-label": `Open the player for ${task.clip.clip_id}`,
        onclick: () => {
          this.#select(index());
          this.open();
        },
        onfocus: () => {
          this.#select(index());
          this.#play(card);
        },
        onpointerenter: () => this.#play(card),
      },
      el("img", { src: task.clip.thumb, alt: "", loading: "lazy", width: 320, height: 180 }),
    );
    card.state = el("span", { class: "state" });
    card.keep = button("Keep", () => this.decide({ keep: true }, index()), { kind: "keep" });
    card.drop = button("Drop", () => this.#askReason(index()), { kind: "danger" });
    const proposal = task.proposal?.value;
    card.element = el(
      "div",
      { class: "card", role: "group", "aria-label": task.clip.clip_id, data: { clip: task.clip.clip_id } },
      card.picture,
      el("div", { class: "card-line" }, el("span", { class: "clip-id", title: task.clip.clip_id }, task.clip.clip_id), card.state),
      proposal && el("p", { class: "quiet hint" }, `${task.proposal.by}: ${screeningInWords(proposal)}`),
      whyNow(task, this.app.session),
      el("div", { class: "card-buttons" }, card.keep, card.drop),
    );
    this.#cards.splice(place, 0, card);
    this.grid.insertBefore(card.element, this.grid.children[place] ?? null);
    return card;
  }

  #play(card) {
    clearTimeout(this.#hover);
    this.#hover = setTimeout(() => {
      if (this.video.parentElement === card.picture) return;
      this.video.src = card.task.clip.video;
      card.picture.append(this.video);
      this.video.play().catch(() => {}); // the thumbnail stays
    }, HOVER);
  }

  #columns() {
    const first = this.#cards[0]?.element.offsetTop;
    const columns = this.#cards.findIndex((card) => card.element.offsetTop !== first);
    return columns > 0 ? columns : Math.max(1, this.#cards.length);
  }

  #move(by) {
    if (this.#dropping) this.#endReason();
    const next = this.#at + by(this.#columns());
    if (next >= 0 && next < this.#cards.length) this.#select(next, { focus: true });
  }

  #select(index, { focus = false } = {}) {
    if (!this.#cards[index]) return;
    if (this.#dropping && index !== this.#at) this.#endReason();
    this.#at = index;
    this.#cards.forEach((card, each) => {
      card.element.classList.toggle("current", each === index);
      card.picture.tabIndex = each === index ? 0 : -1;
    });
    if (focus && !this.#look) this.#cards[index].picture.focus();
    if (this.#look) this.#showInPlayer();
  }

  #askReason(index = this.#at) {
    if (!this.#cards[index]) return;
    this.#select(index);
    this.#dropping = true;
    const reasons = this.app.session.reasons.map((reason, number) => button(reason, () => this.decide({ keep: false, reason }), { key: String(number + 1), kind: "danger" }));
    const buttons = [el("span", {}, `Drop ${this.#cards[index].task.clip.clip_id}, because of:`), ...reasons, button("Cancel", () => this.#endReason(), { key: "Esc", kind: "plain" })];
    const place = this.#look?.reasons ?? this.reasons;
    fill(place, buttons);
    place.hidden = false;
    this.reasons.parentElement.classList.toggle("asking", place === this.reasons);
    this.app.say(`Drop, because of: ${this.app.session.reasons.map((reason, number) => `${number + 1} ${reason}`).join(", ")}`, { onlySpoken: true });
  }

  #endReason() {
    this.#dropping = false;
    this.reasons.hidden = true;
    this.reasons.parentElement.classList.remove("asking");
    if (this.#look) this.#look.reasons.hidden = true;
  }

  /** Saves a decision about a clip, and goes to the next one that is untouched. */
  decide(value, index = this.#at) {
    const card = this.#cards[index];
    if (!card) return;
    this.#endReason();
    this.#save(card, value, this.clock.seconds);
    this.clock.start();
    this.#showState();
    const order = [...this.#cards.keys()];
    const next = [...order.slice(index + 1), ...order.slice(0, index)].find((each) => !this.#cards[each].value);
    if (next !== undefined) return this.#select(next, { focus: true });
    this.#look?.dialog.close();
    this.app.say("This page is done.");
    this.nextButton.focus();
  }

  #save(card, value, seconds, group) {
    // Who thinks again takes back first, so that of two decisions only the last stands.
    if (card.annotation_id) {
      this.app.outbox.undo(card.task, card.annotation_id);
      this.steps.forget(card.annotation_id);
    }
    card.value = value;
    card.annotation_id = this.app.outbox.save(card.task, value, seconds);
    this.steps.push({ type: "save", task: card.task, annotation_id: card.annotation_id, value, seconds, group });
    this.#showCard(card);
  }

  #showCard(card) {
    card.element.dataset.state = card.value ? (card.value.keep ? "keep" : "drop") : "";
    card.state.textContent = card.value ? `${card.value.keep ? "✓" : "✕"} ${screeningInWords(card.value)}` : "";
    card.keep.setAttribute("aria-pressed", String(card.value?.keep === true));
    card.drop.setAttribute("aria-pressed", String(card.value?.keep === false));
  }

  #showState() {
    const open = this.#cards.filter((card) => !card.value).length;
    this.heading.textContent = this.#cards.length ? (open ? `${count(open, "clip")} of this page open` : "This page is done") : "Screening";
    this.allButton.disabled = !open;
    this.nextButton.disabled = !this.#cards.length;
    this.app.showProgress();
    if (open <= this.#cards.length / 2) this.queue.fill().catch(() => {}); // the next page tells
  }

  /** Keeps every clip of the page that is untouched, once that was confirmed. */
  keepRest() {
    const open = this.#cards.filter((card) => !card.value);
    if (!open.length || document.querySelector("dialog[open]")) return;
    const keep = button(`Keep ${count(open.length, "clip")}`, () => {
      const group = newId();
      const seconds = this.clock.seconds / open.length;
      for (const card of open) this.#save(card, { keep: true }, seconds, group);
      this.clock.start();
      this.#showState();
      dialog.close();
      this.nextButton.focus();
    }, { key: "Enter", kind: "primary" });
    const remove = this.app.keys.add("", [], { modal: true });
    const dialog = openDialog(`Keep ${count(open.length, "untouched clip")}?`, [el("div", { class: "row" }, keep)], { onclose: remove });
    keep.focus();
  }

  nextPage() {
    const open = this.#cards.filter((card) => !card.value);
    if (open.length) {
      this.queue.release(open.map((card) => card.task));
      this.app.say(`${count(open.length, "untouched clip")} left to others.`);
    }
    this.#endReason();
    this.#cards = this.#cards.filter((card) => card.value);
    return this.#load();
  }

  /** Takes the last decision back; a page that was kept by one key comes back whole. */
  undo() {
    let step = this.steps.pop();
    if (!step) return this.app.say("There is nothing to undo.");
    const { group } = step;
    let last = null;
    while (step) {
      const { task, annotation_id } = step;
      this.app.outbox.undo(task, annotation_id);
      this.queue.drop(task.task_id);
      if (!this.#cards.length) fill(this.grid);
      const card = this.#cards.find((each) => each.task.task_id === task.task_id) ?? this.#addCard(task, 0);
      card.value = card.annotation_id = null;
      this.#showCard(card);
      last = card;
      step = group && this.steps.all.at(-1)?.group === group ? this.steps.pop() : null;
    }
    this.#showState();
    this.#select(this.#cards.indexOf(last), { focus: true });
    this.app.say("Taken back.");
  }

  /** Opens the player on the current clip. */
  open() {
    if (!this.#cards[this.#at] || this.#look) return;
    this.video.pause();
    const player = new Player();
    const state = el("p", { class: "quiet" });
    const reasons = el("div", { class: "reasons", hidden: true });
    const remove = this.app.keys.add(
      "Player",
      [
        ...player.bindings(),
        ...this.#bindings().filter(({ keys }) => !["Enter", "Shift+k", "n", "ArrowUp", "ArrowDown"].includes(keys[0])),
      ],
      { modal: true },
    );
    const dialog = openDialog("Player", [
      player.element,
      reasons,
      el(
        "div",
        { class: "row" },
        button("Keep", () => this.decide({ keep: true }), { key: "k", kind: "keep" }),
        button("Drop", () => this.#askReason(), { key: "d", kind: "danger" }),
        button("Before", () => this.#move(() => -1), { key: "←", kind: "plain" }),
        button("Next", () => this.#move(() => 1), { key: "→", kind: "plain" }),
      ),
      state,
    ], {
      wide: true,
      onclose: () => {
        remove();
        player.close();
        this.#look = null;
        this.#endReason();
        this.#cards[this.#at]?.picture.focus();
      },
    });
    dialog.addEventListener("cancel", (event) => {
      // Escape ends the question for a reason first.
      if (!this.#dropping) return;
      event.preventDefault();
      this.#endReason();
    });
    this.#look = { player, dialog, title: dialog.querySelector("h2"), state, reasons };
    dialog.focus();
    this.#showInPlayer();
  }

  #showInPlayer() {
    const { task, value } = this.#cards[this.#at];
    this.#look.player.load(task.clip);
    this.#look.title.textContent = task.clip.clip_id;
    this.#look.state.textContent = value ? screeningInWords(value) : "not decided yet";
  }

  /** Is told that the server refused a decision: its clip is open again. */
  saveRefused(annotation_id) {
    const card = this.#cards.find((each) => each.annotation_id === annotation_id);
    if (!card) return;
    card.value = card.annotation_id = null;
    this.#showCard(card);
    this.#showState();
  }

  /** Is told that a task's lease ran out. */
  leaseLost(task) {
    this.queue.drop(task.task_id);
    const card = this.#cards.find((each) => each.task === task);
    if (!card) return;
    card.element.classList.add("expired");
    this.app.say("The time for clips of this page ran out, so others may take them. Decide and they are taken again, where they are still free.", { strong: true });
  }

  leaseBack(task) {
    this.#cards.find((each) => each.task === task)?.element.classList.remove("expired");
  }
}
