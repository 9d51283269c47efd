// Terms that explain themselves: where they stand, a text opens at the pointer, the focus or a touch.

import { TERMS, explained, nameOf, termOf } from "./words.mjs";
import { $, element } from "./dom.mjs";

// The name of a term, which explains it; or `mark` in its place, where the name stands beside it.
export function termButton(key, mark = null) {
  const label = mark === null ? {} : { "aria-label": `What is ${nameOfTerm(key)}?` };
  const looks = { type: "button", class: mark === null ? "term" : "term asked", "data-explains": key, ...label };
  const button = element("button", looks, mark ?? nameOfTerm(key));
  for (const event of ["focus", "click"]) button.addEventListener(event, () => showTip(button));
  button.addEventListener("mouseenter", (event) => spotOf(event) !== dismissedAt && showTip(button));
  button.addEventListener("mouseleave", hideTipSoon);
  button.addEventListener("blur", () => button === explaining && hideTip());
  return button;
}
// Where a text was sent away by key, a term that lay under it comes to lie under the pointer, which nobody put there.
let [pointer, dismissedAt] = [null, null];
const spotOf = ({ clientX, clientY }) => `${clientX} ${clientY}`;
export const questionOf = (key) => termButton(key, "?");
const nameOfTerm = (key) => (key in TERMS ? termOf(key) : nameOf(key));

let [explaining, hiding] = [null, null];
function showTip(button) {
  hideTip();
  explaining = button;
  const tip = $("tip");
  tip.textContent = explained(button.dataset.explains);
  tip.hidden = false;
  const [box, width] = [button.getBoundingClientRect(), tip.offsetWidth];
  const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - width - 8));
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${box.bottom + scrollY + 4}px`;
  button.setAttribute("aria-describedby", "tip");
}

function hideTip() {
  clearTimeout(hiding);
  $("tip").hidden = true;
  explaining?.removeAttribute("aria-describedby");
  explaining = null;
}

// Not at once: a pointer may be on its way to the text, as that of who has it magnified.
function hideTipSoon() {
  clearTimeout(hiding);
  hiding = setTimeout(() => document.activeElement !== explaining && hideTip(), 300);
}

export function buildTip() {
  $("tip").addEventListener("mouseenter", () => clearTimeout(hiding));
  $("tip").addEventListener("mouseleave", hideTipSoon);
  document.addEventListener("mousemove", (event) => (pointer = spotOf(event)));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    hideTip();
    dismissedAt = pointer;
  });
}
