// "Copy" buttons: data-copy is the id of the element to copy. Without JavaScript they stay hidden.
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
      // the browser refused: select the text instead
    }
  }
  // Browsers offer the clipboard only on https and localhost.
  getSelection().selectAllChildren(source);
  return document.execCommand("copy");
}
