/** What annotators said, side by side, with what differs marked, and their notes: for the one who decides. */
import { Refused, post } from "./api.js";
import { button, el, fill } from "./dom.js";
import { actionsInWords } from "./edit_actions.js";
import { screeningInWords } from "./edit_screening.js";

const LEAST_SHARED = 0.3;

export class SaidPanel {
  /** @param {{choose: (value: Object) => void, say: Function}} app */
  constructor(task, session, { choose, say }) {
    this.task = task;
    this.annotator = session.annotator;
    this.say = say;
    this.choose = choose;
    const parts = task.said.map((each) => partsOf(task.kind, each.value, session));
    this.cards = task.said.map((each, index) =>
      el(
        "button",
        { type: "button", class: "said", "aria-pressed": "false", onclick: () => this.#pick(index) },
        el("span", { class: "who" }, el("kbd", { "aria-hidden": "true" }, keyOf(index, task.kind)), ` ${each.annotator}`),
        ...marked(parts, index),
      ),
    );
    this.notes = el("ul", { class: "notes" });
    this.field = el("textarea", { rows: 2, "aria-label": "Note", placeholder: "Note for the others ( m )", maxLength: 2_000 });
    this.element = el(
      "section",
      { class: "said-panel", "aria-label": "What annotators said" },
      el("div", { class: "said-row" }, this.cards),
      this.notes,
      el("div", { class: "row note-row" }, this.field, button("Add note", () => this.#addNote(), { kind: "plain" })),
    );
    this.#showNotes(task.notes ?? []);
    this.bindings = [
      ...task.said.slice(0, 9).map((each, index) => ({ keys: [keyOf(index, task.kind)], says: `Take what ${each.annotator} said`, run: () => this.#pick(index) })),
      { keys: ["m"], says: "Write a note", run: () => this.field.focus() },
      {
        keys: ["Ctrl+Enter"],
        inText: () => document.activeElement === this.field,
        run: () => (document.activeElement === this.field ? void this.#addNote() : false),
      },
      {
        keys: ["Escape"],
        inText: () => document.activeElement === this.field,
        run: () => (document.activeElement === this.field ? this.field.blur() : false),
      },
    ];
  }

  #pick(index) {
    this.cards.forEach((card, each) => card.setAttribute("aria-pressed", String(each === index)));
    this.choose(this.task.said[index].value);
  }

  #showNotes(notes) {
    this.task.notes = notes;
    fill(this.notes, notes.map((note) => el("li", {}, el("strong", {}, note.annotator), ` ${note.text}`)));
  }

  async #addNote() {
    const text = this.field.value.trim();
    if (!text) return;
    try {
      await post("/api/note", { task_id: this.task.task_id, text });
      this.field.value = "";
      this.#showNotes([...(this.task.notes ?? []), { annotator: this.annotator, text }]);
      this.say("The note was added.");
    } catch (error) {
      this.say(error instanceof Refused ? error.words : "The note was not saved: the server does not answer.", { strong: true });
    }
  }
}

// Among reasons to drop a clip, digits are taken.
function keyOf(index, kind) {
  return kind === "screening" ? `Alt+${index + 1}` : String(index + 1);
}

/** Returns what was said as parts that can be compared. */
function partsOf(kind, value, session) {
  if (kind === "action") return { lists: [actionsInWords(value, session)] };
  if (kind === "screening") return { lists: [[screeningInWords(value)]] };
  if (value.verdict === "reject") return { lists: [["rejected"]], texts: [] };
  return { texts: (kind === "qa" ? [value.question, value.answer] : [value.caption]).map((text) => String(text ?? "")) };
}

function marked(all, index) {
  const own = all[index];
  const others = all.filter((_, each) => each !== index);
  const chips = (own.lists ?? []).flat().map((word) => {
    const shared = others.every((other) => (other.lists ?? []).flat().includes(word));
    return el("span", { class: `chip${shared ? "" : " differs"}` }, word);
  });
  const texts = (own.texts ?? []).map((text, part) => {
    const theirs = others.map((other) => wordsOf(other.texts?.[part] ?? ""));
    const own = [...wordsOf(text)];
    const shared = own.filter((word) => theirs.every((words) => words.has(word))).length;
    // Texts that have little in common are plainly different: marks would hide the words.
    if (shared < LEAST_SHARED * own.length) return el("span", { class: "text" }, text);
    const pieces = text.split(/(\s+)/).map((piece) => {
      const word = piece.trim().toLowerCase();
      if (!word || theirs.every((words) => words.has(word))) return piece;
      return el("mark", {}, piece);
    });
    return el("span", { class: "text" }, pieces);
  });
  return [el("span", { class: "chips" }, chips), ...texts];
}

function wordsOf(text) {
  return new Set(text.toLowerCase().split(/\s+/));
}
