/**
 * People's boxes by frame, and edits of them: the same rules as `microg/annotations/boxes.py`, so that the preview shows
 * what the dataset will hold. Frames count from 1; boxes are [x1, y1, x2, y2] in pixels of the clip.
 */

/** @returns {Map<number, Map<number, number[]>>} tracks by person, boxes by frame. */
export function tracksOf(people) {
  return new Map(people.map((person) => [person.person_id, new Map(person.boxes.map(([frame, ...box]) => [frame, box.slice(0, 4)]))]));
}

/** Yields [frame, box] from the first key frame to the last, linear between neighbours. */
export function* interpolate(keys) {
  for (let number = 0; number < keys.length; number += 1) {
    const [frame, ...box] = keys[number];
    yield [frame, box.slice(0, 4)];
    if (number + 1 === keys.length) return;
    const [following, ...other] = keys[number + 1];
    for (let step = 1; step < following - frame; step += 1) {
      const part = step / (following - frame);
      yield [frame + step, box.slice(0, 4).map((from, axis) => from + (other[axis] - from) * part)];
    }
  }
}

/** Returns the track of drawn stretches. */
export function trackOf(stretches) {
  return new Map(stretches.flatMap((stretch) => [...interpolate(stretch)]));
}

/** Returns tracks after edits ({person_id, value}), in their order; the given ones stay as they are. */
export function edited(tracks, edits) {
  const result = new Map([...tracks].map(([person, track]) => [person, new Map(track)]));
  for (const { person_id: person, value } of edits) {
    const track = result.get(person);
    if (value.op === "delete") {
      result.delete(person);
    } else if (value.op === "merge") {
      if (person !== value.into && track) {
        result.delete(person);
        result.set(value.into, new Map([...track, ...(result.get(value.into) ?? [])]));
      }
    } else if (value.op === "split") {
      const moved = [...(track ?? [])].filter(([frame]) => frame >= value.frame);
      if (!moved.length) continue;
      const kept = [...track].filter(([frame]) => frame < value.frame);
      if (kept.length) result.set(person, new Map(kept));
      else result.delete(person);
      result.set(value.new, new Map([...(result.get(value.new) ?? []), ...moved]));
    } else {
      result.delete(person);
      const drawn = trackOf(value.stretches);
      if (drawn.size) result.set(person, drawn);
    }
  }
  return result;
}

/** Returns a person id that nobody has, nor had in an edit. */
export function freshPerson(tracks, edits) {
  const used = [...tracks.keys(), ...edits.flatMap((edit) => [edit.person_id, edit.value.into ?? 0, edit.value.new ?? 0])];
  return Math.max(0, ...used) + 1;
}

/** Returns [first, last] for each run of frames that a track has without a gap. */
export function runsOf(track) {
  const runs = [];
  for (const frame of [...track.keys()].sort((a, b) => a - b)) {
    if (runs.length && runs.at(-1)[1] === frame - 1) runs.at(-1)[1] = frame;
    else runs.push([frame, frame]);
  }
  return runs;
}

/** Says when a person is in the picture: `frames 3–40, 52–90`. */
export function framesInWords(track) {
  const runs = runsOf(track);
  const shown = runs.slice(0, 3).map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
  return `frames ${shown.join(", ")}${runs.length > 3 ? ", …" : ""}`;
}
