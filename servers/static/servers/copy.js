// "Copy" buttons: data-copy names the element whose text is copied. Without this file they stay hidden.
document.querySelectorAll("button[data-copy]").forEach((button) => {
  const source = document.getElementById(button.dataset.copy);
  const label = button.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const done = await copy(source);
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (button.textContent = label), 2000);
  });
});

async function copy(source) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      // refused by the browser: go on with the selection
    }
  }
  // Browsers offer the clipboard to https and localhost only; elsewhere the selection is the way.
  getSelection().selectAllChildren(source);
  return document.execCommand("copy");
}
