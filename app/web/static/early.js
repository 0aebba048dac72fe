// Before the first paint, so that nothing flashes: the theme that was chosen. A plain script.
{
  let theme = null;
  try {
    theme = localStorage.getItem("crossbook.theme");
  } catch {
    // As the system has it.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
