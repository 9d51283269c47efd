// Work that a move leaves to the frames after it, so that none of them is late.

const SLICE = 8; // ms of a frame

// `parts` are functions that bring one part of the page up to date, at once where nothing about it has changed; those that
// return true have more to do, in another frame. `settled` is called when all are up to date.
export function inFrames(parts, settled) {
  let [at, left, frame] = [0, 0, null];
  // Round and round, so that the last part has its turn too where moves follow each other faster than all is done.
  const step = () => {
    const more = parts[at]();
    at = (at + 1) % parts.length;
    left = more ? parts.length : left - 1;
    return more;
  };
  const run = () => {
    frame = null;
    const end = performance.now() + SLICE;
    while (left > 0 && !step() && performance.now() < end);
    if (left > 0) frame = requestAnimationFrame(run);
    else finished();
  };
  const finished = () => {
    at = 0;
    settled();
  };
  return {
    // After a move: every part is to be looked at, in the frame that tells what the move came to, or in the one after it.
    again(later = false) {
      left = parts.length;
      frame ??= requestAnimationFrame(later ? () => (frame = requestAnimationFrame(run)) : run);
    },
    // All of it now, as paper needs it.
    finish() {
      cancelAnimationFrame(frame);
      frame = null;
      left = parts.length;
      while (left > 0) step();
      finished();
    },
  };
}
