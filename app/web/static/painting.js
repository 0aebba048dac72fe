// Draws at most once a frame, whatever happened how often in between.

const waiting = new Set();
let isAsked = false;

function paint() {
  isAsked = false;
  const due = [...waiting];
  waiting.clear();
  for (const draw of due) draw();
}

/** A function that has `draw` called in the next frame, once. */
export function painter(draw) {
  return () => {
    waiting.add(draw);
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(paint);
  };
}
