// Each group of frames shows the one that belongs to the places of its controls.
const at = {};

function show() {
  for (const group of document.querySelectorAll("[data-frames]")) {
    const key = group.dataset.frames.split(" ").map((name) => at[name]).join("-");
    for (const frame of group.children) frame.hidden = frame.dataset.key !== key;
  }
}

for (const control of document.querySelectorAll("[data-control]")) {
  const output = control.parentElement.querySelector("output");
  const texts = output ? JSON.parse(output.dataset.shown) : [];
  const moved = () => {
    at[control.dataset.control] = control.value;
    if (!output) return;
    output.textContent = texts[control.value];
    control.setAttribute("aria-valuetext", texts[control.value]);
  };
  control.addEventListener("input", () => { moved(); show(); });
  moved();
}
show();
