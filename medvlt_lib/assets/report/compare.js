// The slider shows its value while it moves, and asks for the picture drawn with it when it is let go.
const form = document.querySelector("form");
const slider = form.querySelector("input[type=range]");
if (slider) {
  const values = slider.dataset.values.split("|");
  const output = form.querySelector("output");
  slider.addEventListener("input", () => { output.textContent = values[slider.value]; });
  slider.addEventListener("change", () => { form.elements.picture.value = "drawn"; form.requestSubmit(); });
}
for (const name of ["question", "picture"]) {
  form.elements[name].addEventListener("change", () => {
    if (name === "question") { form.elements.picture.value = "on"; if (slider) slider.disabled = true; }
    form.requestSubmit();
  });
}
