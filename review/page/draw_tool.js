/** Drawing a person: boxes on key frames, by pointer, touch or keys; between them they move in straight lines. */
import { button, el, fill } from "./dom.js";
import { colourOf } from "./player.js";
import { interpolate, runsOf, trackOf } from "./tracks.js";

const GRIP = 14; // pixels of the page around a corner that resize
const SMALLEST = 4; // pixels of the clip
const STEP = 0.02; // of the clip's width, by arrow key
const TOLERANCE = 0.01; // of the clip's width, when a track is reduced to key frames

export class DrawTool {
  #drag = null;
  #past = []; // states before each change, to be undone

  /**
   * @param {{changed: Function, save: Function, leave: Function, say: Function}} actions
   * @param {{keys?: Array, gaps?: number[], track?: Map}} from A draft, or the track of a person to redraw.
   */
  constructor(player, clip, personId, actions, from = {}) {
    this.player = player;
    this.clip = clip;
    this.personId = personId;
    this.actions = actions;
    this.keys = new Map(from.keys ?? []);
    this.gaps = new Set(from.gaps ?? []);
    if (from.track) this.#reduce(from.track);
    this.list = el("div", { class: "key-frames" });
    this.element = el(
      "div",
      { class: "draw-tool" },
      el("p", {}, `Drawing person ${personId}: drag a box over them here, then again some frames on; between, it follows.`),
      this.list,
      el(
        "div",
        { class: "row" },
        button("Save boxes", () => actions.save(), { key: "Enter", kind: "primary" }),
        button("Box here", () => this.addHere(), { key: "k" }),
        button("Gap before here", () => this.toggleGap(), { key: "g" }),
        button("Remove here", () => this.removeHere(), { key: "Del", kind: "danger" }),
        button("Cancel", () => actions.leave(), { key: "Esc", kind: "plain" }),
      ),
    );
    player.video.pause();
    player.stage.classList.add("drawing");
    this.stopListening = this.#listen();
    player.paint = (context, frame) => this.#paint(context, frame);
    this.follow();
  }

  close() {
    this.stopListening();
    this.player.stage.classList.remove("drawing");
    this.player.paint = null;
    this.player.draw();
  }

  draft() {
    return { person_id: this.personId, keys: [...this.keys], gaps: [...this.gaps] };
  }

  /** Returns what is drawn as an edit holds it: stretches of [frame, x1, y1, x2, y2]. */
  stretches() {
    const result = [];
    for (const [frame, box] of [...this.keys].sort(([a], [b]) => a - b)) {
      if (!result.length || this.gaps.has(frame)) result.push([]);
      result.at(-1).push([frame, ...box.map((each) => Math.round(each * 100) / 100)]);
    }
    return result;
  }

  /** The box on a frame: a key, or what lies between keys. */
  boxAt(frame) {
    return this.keys.get(frame) ?? trackOf(this.stretches()).get(frame);
  }

  #reduce(track) {
    const most = TOLERANCE * this.clip.width;
    for (const [first, last] of runsOf(track)) {
      if (this.keys.size) this.gaps.add(first);
      let start = first;
      this.keys.set(first, track.get(first));
      while (start < last) {
        let end = start + 1;
        while (end < last && this.#fits(track, start, end + 1, most)) end += 1;
        this.keys.set(end, track.get(end));
        start = end;
      }
    }
  }

  #fits(track, start, end, most) {
    for (const [frame, box] of interpolate([[start, ...track.get(start)], [end, ...track.get(end)]])) {
      if (box.some((each, axis) => Math.abs(each - track.get(frame)[axis]) > most)) return false;
    }
    return true;
  }

  /** Shows the key frames, with that of the frame in view. */
  follow() {
    const here = this.player.frame;
    fill(
      this.list,
      [...this.keys.keys()].sort((a, b) => a - b).map((frame) =>
        el(
          "button",
          { type: "button", class: `key-frame${frame === here ? " on" : ""}`, onclick: () => this.player.seek(frame), "aria-label": `Key frame ${frame}${this.gaps.has(frame) ? ", after a gap" : ""}` },
          `${this.gaps.has(frame) ? "⋯ " : ""}${frame}`,
        ),
      ),
      !this.keys.size && el("span", { class: "quiet" }, "No key frame yet"),
    );
    this.player.draw();
  }

  #change(change) {
    this.#past.push([new Map(this.keys), new Set(this.gaps)]);
    change();
    this.#told();
  }

  #told() {
    this.follow();
    this.actions.changed();
  }

  undo() {
    const before = this.#past.pop();
    if (!before) return this.actions.say("Nothing of this drawing is left to undo; Esc leaves it.");
    [this.keys, this.gaps] = before;
    this.#told();
  }

  #fit([x1, y1, x2, y2]) {
    const { width, height } = this.clip;
    const clamp = (value, most) => Math.min(Math.max(0, value), most);
    const [left, right] = [clamp(Math.min(x1, x2), width - SMALLEST), clamp(Math.max(x1, x2), width)];
    const [top, bottom] = [clamp(Math.min(y1, y2), height - SMALLEST), clamp(Math.max(y1, y2), height)];
    return [left, top, Math.max(right, left + SMALLEST), Math.max(bottom, top + SMALLEST)];
  }

  /** Makes a key frame of the frame in view: the box that is there, or one in the middle. */
  addHere() {
    const { frame } = this.player;
    const box = this.boxAt(frame) ?? this.#startingBox();
    this.#change(() => this.keys.set(frame, [...box]));
  }

  // Where nothing is drawn: the key box before, or one in the middle.
  #startingBox() {
    const { width, height } = this.clip;
    const before = [...this.keys.keys()].filter((frame) => frame < this.player.frame).sort((a, b) => a - b).at(-1);
    return this.keys.get(before) ?? [width * 0.35, height * 0.2, width * 0.65, height * 0.8];
  }

  removeHere() {
    const { frame } = this.player;
    if (!this.keys.has(frame)) return this.actions.say("This frame is no key frame.");
    this.#change(() => {
      this.keys.delete(frame);
      this.gaps.delete(frame);
    });
  }

  /** Says that the person is out of the picture before this key frame, or not. */
  toggleGap() {
    const { frame } = this.player;
    if (!this.keys.has(frame)) return this.actions.say("Draw a box here first: the gap lies between the key frame before and this one.");
    this.#change(() => (this.gaps.has(frame) ? this.gaps.delete(frame) : this.gaps.add(frame)));
  }

  #nudge(dx, dy, resize) {
    const { frame } = this.player;
    const box = this.boxAt(frame) ?? this.#startingBox();
    const [x, y] = [dx * STEP * this.clip.width, dy * STEP * this.clip.width];
    const moved = resize ? [box[0], box[1], box[2] + x, box[3] + y] : [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
    this.#change(() => this.keys.set(frame, this.#fit(moved)));
  }

  get bindings() {
    const arrows = [["ArrowLeft", -1, 0], ["ArrowRight", 1, 0], ["ArrowUp", 0, -1], ["ArrowDown", 0, 1]];
    return [
      { keys: ["k"], says: "Make this frame a key frame", run: () => this.addHere() },
      { keys: arrows.map(([key]) => key), says: "Move the box", run: (event) => this.#nudge(...arrows.find(([key]) => key === event.key).slice(1), false) },
      { keys: arrows.map(([key]) => `Shift+${key}`), says: "Change its size", run: (event) => this.#nudge(...arrows.find(([key]) => key === event.key).slice(1), true) },
      { keys: ["g"], says: "The person was out of the picture before this key frame, or not", run: () => this.toggleGap() },
      { keys: ["Delete", "Backspace"], says: "Take this key frame away", run: () => this.removeHere() },
      { keys: ["<"], says: "Ten frames back", run: () => this.player.step(-10) },
      { keys: [">"], says: "Ten frames on", run: () => this.player.step(10) },
    ];
  }

  #listen() {
    const { canvas } = this.player;
    const handlers = { pointerdown: (event) => this.#down(event), pointermove: (event) => this.#moveTo(event), pointerup: () => this.#up(), pointercancel: () => this.#up() };
    for (const [kind, handler] of Object.entries(handlers)) canvas.addEventListener(kind, handler);
    return () => {
      for (const [kind, handler] of Object.entries(handlers)) canvas.removeEventListener(kind, handler);
    };
  }

  #down(event) {
    event.preventDefault();
    this.player.video.pause();
    this.player.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.player.locate(event);
    const { frame } = this.player;
    const box = this.boxAt(frame);
    const grip = GRIP / this.player.scale;
    const before = [new Map(this.keys), new Set(this.gaps)];
    if (box) {
      const near = (a, b) => Math.abs(a - b) <= grip;
      const horizontal = near(x, box[0]) ? 0 : near(x, box[2]) ? 2 : null;
      const vertical = near(y, box[1]) ? 1 : near(y, box[3]) ? 3 : null;
      if (horizontal !== null && vertical !== null) {
        this.#drag = { kind: "corner", horizontal, vertical, box: [...box], frame, before };
        return;
      }
      if (x > box[0] && x < box[2] && y > box[1] && y < box[3]) {
        this.#drag = { kind: "move", from: [x, y], box: [...box], frame, before };
        return;
      }
    }
    this.#drag = { kind: "new", from: [x, y], frame, before };
  }

  #moveTo(event) {
    if (!this.#drag) return;
    const [x, y] = this.player.locate(event);
    const { kind, from, box, frame } = this.#drag;
    let next;
    if (kind === "new") {
      if (Math.abs(x - from[0]) < SMALLEST || Math.abs(y - from[1]) < SMALLEST) return;
      next = [...from, x, y];
    } else if (kind === "move") {
      const [dx, dy] = [x - from[0], y - from[1]];
      next = [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
    } else {
      next = [...box];
      next[this.#drag.horizontal] = x;
      next[this.#drag.vertical] = y;
    }
    this.#drag.moved = true;
    this.keys.set(frame, this.#fit(next));
    this.player.draw();
  }

  #up() {
    if (!this.#drag) return;
    const { moved, before } = this.#drag;
    this.#drag = null;
    if (!moved) return;
    this.#past.push(before);
    this.#told();
  }

  #paint(context, frame) {
    const box = this.boxAt(frame);
    if (!box) return;
    const colour = colourOf(this.personId);
    const isKey = this.keys.has(frame);
    this.player.drawBox(context, box, { colour, width: 3, label: `person ${this.personId}`, dashed: !isKey });
    context.fillStyle = colour;
    const scale = this.player.scale;
    for (const x of [box[0], box[2]]) for (const y of [box[1], box[3]]) context.fillRect(x * scale - 4, y * scale - 4, 8, 8);
  }
}
