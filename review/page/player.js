/** The player: a looping clip, boxes drawn over it in step with its frames, stepping and speed. */
import { button, el } from "./dom.js";
import { runsOf } from "./tracks.js";

const SPEEDS = [0.1, 0.25, 0.5, 1, 1.5, 2];
const STRONG = "#ffb000";
const FAINT = "rgba(255, 255, 255, 0.55)";
// Colours that can be told apart by most people, on dark and light pictures.
export const PALETTE = ["#ffb000", "#4cc9f0", "#ff5d8f", "#90e05a", "#c69cff", "#ff8c42", "#2ee6c5", "#f4f06a"];

/** Returns the frame, from 1, that is shown at a time in seconds. */
export function frameAt(seconds, fps) {
  return Math.floor(seconds * fps + 1e-3) + 1;
}

/** Returns the frame, from 1, that starts at a time: containers round times, up to a millisecond. */
export function frameFrom(seconds, fps) {
  return Math.round(seconds * fps) + 1;
}

/** Shows one clip. Events: `frame` (another frame is shown), `clip`. */
export class Player extends EventTarget {
  #clip = null;
  #target = null; // the frame that a seek is on its way to
  #callback = 0;
  #stills = false;
  #people = [];
  #strong = null;
  #chosen = null;
  frame = 1;

  constructor() {
    super();
    this.video = el("video", { muted: true, loop: true, playsInline: true, preload: "auto", "aria-label": "the clip" });
    this.video.muted = true; // the attribute alone does not mute a video that a script makes
    this.still = el("img", { class: "still", alt: "", hidden: true });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.stage = el("div", { class: "stage" }, this.video, this.still, this.canvas);
    this.presence = el("canvas", { class: "presence", "aria-hidden": "true" });
    this.scrubber = el("input", { type: "range", min: 1, max: 1, step: 1, value: 1, "aria-label": "Frame" });
    this.counter = el("span", { class: "counter" }, "");
    this.speed = el(
      "select",
      { "aria-label": "Speed", title: "Speed (- and +)" },
      SPEEDS.map((speed) => el("option", { value: speed, selected: speed === 1 }, `${speed}×`)),
    );
    this.playButton = button("Pause", () => this.toggle(), { kind: "plain play", title: "Play or pause (Space)" });
    this.words = el("p", { class: "quiet player-words", hidden: true });
    this.element = el(
      "section",
      { class: "player", "aria-label": "Player" },
      this.stage,
      el("div", { class: "track" }, this.presence, this.scrubber),
      el(
        "div",
        { class: "controls" },
        this.playButton,
        button("‹", () => this.step(-1), { kind: "plain square", title: "One frame back (,)" }),
        button("›", () => this.step(1), { kind: "plain square", title: "One frame on (.)" }),
        this.counter,
        this.speed,
      ),
      this.words,
    );
    this.#listen();
  }

  #listen() {
    this.scrubber.addEventListener("input", () => this.seek(Number(this.scrubber.value)));
    // By pointer; who moves it by keys keeps it.
    this.scrubber.addEventListener("pointerup", () => this.scrubber.blur());
    this.speed.addEventListener("change", () => {
      this.video.playbackRate = Number(this.speed.value);
      this.speed.blur();
    });
    for (const kind of ["play", "pause"]) this.video.addEventListener(kind, () => this.#told());
    this.video.addEventListener("seeked", () => {
      this.#target = null;
      if (this.video.paused) this.#show(frameAt(this.video.currentTime, this.#clip?.fps ?? 1));
    });
    this.video.addEventListener("error", () => this.#useStills());
    this.video.addEventListener("loadeddata", () => {
      this.video.playbackRate = Number(this.speed.value);
      this.stage.classList.remove("loading");
      this.draw();
    });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.stage);
  }

  /** Shows a clip, from its start, playing; the one that is shown already plays on. */
  load(clip, { play = true } = {}) {
    if (this.#clip?.clip_id === clip.clip_id) {
      this.draw();
      return;
    }
    this.#clip = clip;
    this.#stills = false;
    this.#target = null;
    this.frame = 1;
    this.still.hidden = true;
    this.words.hidden = true;
    this.stage.style.setProperty("--ratio", String((clip.width || 16) / (clip.height || 9)));
    this.stage.classList.add("loading");
    this.scrubber.max = String(clip.num_frames || 1);
    this.video.poster = clip.thumb;
    this.video.src = clip.video;
    this.video.playbackRate = Number(this.speed.value);
    if (play) this.play();
    this.#follow();
    this.#show(1);
    this.dispatchEvent(new Event("clip"));
  }

  /** Ends it: no video is loaded or played any more. */
  close() {
    this.observer.disconnect();
    this.video.cancelVideoFrameCallback?.(this.#callback);
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }

  /**
   * Draws people over the video.
   * @param {{person_id: number, track: Map<number, number[]>, label?: string}[]} people
   * @param {number|null} strong The person in question; null shows everybody in a colour of their own.
   * @param {number|null} chosen Whose frames are marked under the picture.
   */
  showPeople(people, strong = null, chosen = strong) {
    this.#people = people;
    this.#strong = strong;
    this.#chosen = chosen;
    this.draw();
  }

  /** Is called after the people are drawn, to draw more: (context, frame, scale). */
  paint = null;

  // The frame of the picture that is shown: told by the browser with each frame, so that boxes keep in step.
  #follow() {
    this.video.cancelVideoFrameCallback?.(this.#callback);
    const next = (_now, picture) => {
      if (!this.#stills) this.#show(frameFrom(picture.mediaTime, this.#clip.fps));
      this.#callback = this.video.requestVideoFrameCallback(next);
    };
    this.#callback = this.video.requestVideoFrameCallback(next);
  }

  #show(frame) {
    this.frame = Math.min(Math.max(1, frame), this.#clip?.num_frames || frame);
    if (this.#target === null) this.scrubber.value = String(this.frame);
    this.counter.textContent = `frame ${this.frame} / ${this.#clip?.num_frames ?? "?"}`;
    this.draw();
    this.dispatchEvent(new Event("frame"));
  }

  #useStills() {
    if (!this.#clip || !this.video.getAttribute("src")) return;
    this.#stills = true;
    this.stage.classList.remove("loading");
    this.still.hidden = false;
    this.words.hidden = false;
    this.words.textContent = "This browser cannot play this video: single frames are shown, step with , and .";
    this.seek(this.frame);
  }

  /** Pauses at a frame. */
  seek(frame) {
    if (!this.#clip) return;
    const wanted = Math.min(Math.max(1, frame), this.#clip.num_frames || 1);
    if (this.#stills) {
      this.still.src = `/frame/${encodeURIComponent(this.#clip.clip_id)}/${wanted}.jpg?width=960`;
      this.#show(wanted);
      return;
    }
    this.video.pause();
    this.#target = wanted;
    this.scrubber.value = String(wanted);
    this.video.currentTime = (wanted - 0.5) / this.#clip.fps;
  }

  /** Pauses, some frames further. */
  step(frames) {
    this.seek((this.#target ?? this.frame) + frames);
  }

  toggle() {
    if (this.video.paused) this.play();
    else this.video.pause();
  }

  play() {
    // A browser may refuse to play; the button says so by staying at "Play".
    this.video.play().catch(() => this.#told());
  }

  get paused() {
    return this.video.paused || this.#stills;
  }

  /** Plays faster (1) or slower (-1). */
  changeSpeed(by) {
    const now = SPEEDS.indexOf(Number(this.speed.value));
    this.speed.value = String(SPEEDS[Math.min(Math.max(0, now + by), SPEEDS.length - 1)]);
    this.video.playbackRate = Number(this.speed.value);
  }

  #told() {
    this.playButton.firstChild.textContent = this.video.paused ? "Play" : "Pause";
  }

  /** Pixels on the page for one pixel of the clip. */
  get scale() {
    return this.stage.clientWidth / (this.#clip?.width || 1);
  }

  /** Returns where in the clip, in its pixels, a pointer is. */
  locate(event) {
    const place = this.canvas.getBoundingClientRect();
    return [(event.clientX - place.left) / this.scale, (event.clientY - place.top) / this.scale];
  }

  /** Draws what lies over the video. */
  draw() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !this.#clip) return;
    const density = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * density) || this.canvas.height !== Math.round(height * density)) {
      this.canvas.width = Math.round(width * density);
      this.canvas.height = Math.round(height * density);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    const ordered = [...this.#people].sort((a, b) => (a.person_id === this.#strong) - (b.person_id === this.#strong));
    for (const person of ordered) {
      const box = person.track.get(this.frame);
      if (box) this.drawBox(context, box, this.#looksOf(person));
    }
    this.paint?.(context, this.frame, this.scale);
    this.#drawPresence();
  }

  #looksOf(person) {
    const label = person.label ?? `person ${person.person_id}`;
    if (this.#strong === null) return { colour: colourOf(person.person_id), width: person.person_id === this.#chosen ? 4 : 2, label };
    if (person.person_id === this.#strong) return { colour: STRONG, width: 3, label };
    return { colour: FAINT, width: 1, label: "" };
  }

  /** Draws a box, [x1, y1, x2, y2] in the clip's pixels. */
  drawBox(context, box, { colour, width, label, dashed = false }) {
    const [x1, y1, x2, y2] = box.map((each) => each * this.scale);
    context.setLineDash(dashed ? [6, 4] : []);
    if (width > 1) {
      context.lineWidth = width + 2;
      context.strokeStyle = "rgba(0, 0, 0, 0.6)";
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.setLineDash([]);
    if (!label) return;
    context.font = "600 12px system-ui, sans-serif";
    const wide = context.measureText(label).width + 8;
    const left = Math.max(0, Math.min(x1 - 1, this.stage.clientWidth - wide));
    const top = y1 >= 19 ? y1 - 19 : Math.max(0, Math.min(y1 + 1, this.stage.clientHeight - 18));
    context.fillStyle = colour;
    context.fillRect(left, top, wide, 18);
    context.fillStyle = "#111";
    context.fillText(label, left + 4, top + 13);
  }

  // Under the picture: when the chosen person is in it.
  #drawPresence() {
    const { clientWidth: width, clientHeight: height } = this.presence;
    const person = this.#people.find((each) => each.person_id === this.#chosen);
    this.presence.width = width;
    this.presence.height = height;
    if (!person || !width) return;
    const context = this.presence.getContext("2d");
    context.fillStyle = this.#strong === null ? colourOf(this.#chosen) : STRONG;
    const each = width / (this.#clip.num_frames || 1);
    for (const [first, last] of runsOf(person.track)) context.fillRect((first - 1) * each, 0, (last - first + 1) * each, height);
  }

  /** The player's keys. @returns {import("./keys.js").Binding[]} */
  bindings(inText = false) {
    return [
      { keys: [" "], says: "Play or pause", run: () => this.toggle(), inText },
      { keys: [","], says: "One frame back", run: () => this.step(-1), inText },
      { keys: ["."], says: "One frame on", run: () => this.step(1), inText },
      { keys: ["-"], says: "Slower", run: () => this.changeSpeed(-1), inText },
      { keys: ["+", "="], says: "Faster", run: () => this.changeSpeed(1), inText },
    ];
  }
}

/** Returns the colour of a person where everybody has one. */
export function colourOf(personId) {
  return PALETTE[Math.abs(personId) % PALETTE.length];
}
