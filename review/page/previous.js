/**
 * What this annotator said of the same person in the clip before, by the rule of `review/previous.py`. Tasks are fetched
 * ahead, so that what was judged just now is not in them yet.
 */
import { tracksOf } from "./tracks.js";

const LEAST_OVERLAP = 0.3;

/** Returns the judgement to copy, or null. `steps`: what was saved last, oldest first. */
export function previousOf(task, steps) {
  for (const step of [...steps].reverse()) {
    if (step.type !== "save" || step.task.kind !== "action" || !follows(step.task.clip, task.clip)) continue;
    if (samePerson(tracksOf(step.task.people), tracksOf(task.people), task.person_id) === step.task.person_id) return step.value;
  }
  return task.previous ?? null;
}

function follows(before, after) {
  const [one, other] = [before, after].map((clip) => Number(/_(\d+)$/.exec(clip.clip_id)?.[1]));
  return before.source_id === after.source_id && one + 1 === other;
}

/** Returns the person of a clip who is a person of the next one, by where they were last; null where nobody fits. */
function samePerson(before, after, personId) {
  const track = after.get(personId);
  if (!track?.size) return null;
  if (before.size === 1 && after.size === 1) return [...before.keys()][0];
  const first = track.get(Math.min(...track.keys()));
  const overlaps = [...before].filter(([, boxes]) => boxes.size).map(([person, boxes]) => [person, overlap(boxes.get(Math.max(...boxes.keys())), first)]);
  const [person, most] = overlaps.reduce((best, each) => (each[1] > best[1] ? each : best), [null, 0]);
  return most >= LEAST_OVERLAP ? person : null;
}

/** Intersection over union of two boxes. */
function overlap([a1, b1, a2, b2], [c1, d1, c2, d2]) {
  const [width, height] = [Math.min(a2, c2) - Math.max(a1, c1), Math.min(b2, d2) - Math.max(b1, d1)];
  if (width <= 0 || height <= 0) return 0;
  const common = width * height;
  return common / ((a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - common);
}
